package auth

import "time"

// urgentBefore is how long before its end a credential that can't be renewed is urgent, or a quarter of its life where that is
// less.
const urgentBefore = 15 * time.Minute

// severity is how bad it is that a credential can't be renewed.
type severity int

const (
	healthy severity = iota
	failing          // the old one works
	urgent           // it ends soon
	lost             // there is none
)

// urgentAt is when a credential that can't be renewed becomes urgent. The lock is held.
func (r *Refreshed) urgentAt() time.Time {
	if r.received.IsZero() || r.current.Expires.IsZero() {
		return time.Time{}
	}
	return r.current.Expires.Add(-min(urgentBefore, r.current.Expires.Sub(r.received)/4))
}

// warn logs a renewal that fails: with the first failure, when it becomes urgent, and when the credential is lost. The lock
// is held.
func (r *Refreshed) warn(now time.Time) {
	level := failing
	expires := r.current.Expires
	switch {
	case r.received.IsZero(), r.current.expired(now):
		level = lost
	case !expires.IsZero() && !now.Before(r.urgentAt()):
		level = urgent
	}
	if level <= r.logged {
		return
	}
	r.logged = level
	log := r.o.Log.With("credential", r.o.Name, "source", r.o.Kind, "host", r.o.For, "error", r.err)
	switch {
	case level == lost && r.received.IsZero():
		log.Error("credential can't be fetched: only public images are pulled until it can")
	case level == lost:
		log.Error("credential has expired and can't be renewed: only public images are pulled until it can",
			"expires_at", expires)
	case level == urgent:
		log.Error("credential expires soon and can't be renewed: repair its source before private images can't be pulled",
			"expires_at", expires, "remaining", expires.Sub(now).Round(time.Second))
	case expires.IsZero():
		log.Warn("credential was not renewed: the old one stays in use")
	default:
		log.Warn("credential was not renewed: the old one stays in use until it expires", "expires_at", expires)
	}
}
