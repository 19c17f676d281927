package warm

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// gateKey names what may be closed for a time: the manifests or the blobs of a registry, or the cache's disk.
type gateKey struct {
	host  string // empty: the disk
	blobs bool
}

var theDisk = gateKey{blobs: true}

// gate is closed while its registry, or the disk, fails. After each pause one unit of work finds out whether it works again.
type gate struct {
	since    time.Time // the first of the failures in a row; zero: it works
	failures int       // in a row
	until    time.Time // the end of the pause
	probe    *unit     // that finds out; nil: none does
	worked   time.Time // when it last did
	waiting  Waiting   // for those that it holds up
	reason   diagnose.Reason
}

var pauses = backoff.Backoff{First: 5 * time.Second, Most: 2 * time.Minute}

// maxTries is how often one image may fail though its registry works, before it has failed.
const maxTries = 8

// failed records a failure, and begins a pause.
func (g *gate) failed(w Waiting, r diagnose.Reason, now time.Time) {
	if g.since.IsZero() {
		g.since = now
	}
	if !now.Before(g.until) { // those that were under way together count as one
		g.failures++
		g.until = now.Add(pauses.After(g.failures))
	}
	g.waiting, g.reason, g.probe = w, r, nil
	g.waiting.Until = g.until
}

// finding is the failure of an image that was not tried itself, since the gate was closed for it all the time.
func (g *gate) finding(key gateKey, ref oci.Ref, waited time.Duration) diagnose.Finding {
	if key == theDisk {
		return diagnose.New(g.reason, fmt.Sprintf("the disk of the cache has had no room for %s, so this image was not fetched", waited),
			"free space on the disk of cache.dir, then start the job again").Finding
	}
	return diagnose.New(g.reason, fmt.Sprintf("%s has failed for other images for %s, so it was not asked for this one", key.host, waited),
		"see why: mirror doctor image "+ref.String()+"; then start the job again").Finding
}

// gates are those of all registries that were asked, and of the disk.
type gates map[gateKey]*gate

// at is a gate, made where there was none.
func (s gates) at(key gateKey) *gate {
	if s[key] == nil {
		s[key] = new(gate)
	}
	return s[key]
}

// pass reports whether work may go through now.
func (s gates) pass(key gateKey, now time.Time) bool {
	g := s[key]
	return g == nil || g.since.IsZero() || g.probe == nil && !now.Before(g.until)
}

// before is the closed gate that an image waits at; nil: there is none.
func (s gates) before(m *image) (gateKey, *gate) {
	for _, key := range m.gates() {
		if g := s[key]; g != nil && !g.since.IsZero() {
			return key, g
		}
	}
	return gateKey{}, nil
}

// gates are those that the next work for an image goes through.
func (m *image) gates() []gateKey {
	if m.parts != nil {
		return []gateKey{{m.ref.Host, true}, theDisk}
	}
	return []gateKey{{host: m.ref.Host}}
}

// worked records that work went through.
func (s gates) worked(key gateKey, now time.Time) { *s.at(key) = gate{worked: now} }

// begin makes a unit the one that finds out whether the closed gates of its image may be opened.
func (s gates) begin(u *unit) {
	for _, key := range u.image.gates() {
		if g := s[key]; g != nil && !g.since.IsZero() {
			g.probe = u
		}
	}
}

// ended lets another unit find out, if this one has ended without a result.
func (s gates) ended(u *unit) {
	for _, g := range s {
		if g.probe == u {
			g.probe = nil
		}
	}
}

// temporary are the reasons that may pass by themselves, as a registry that is restarted.
var temporary = []diagnose.Reason{
	diagnose.DNSFailed, diagnose.ConnectRefused, diagnose.ConnectTimeout, diagnose.Unreachable, diagnose.ConnectionReset,
	diagnose.UpstreamTimeout, diagnose.Stalled, diagnose.UpstreamError, diagnose.CredentialSourceFailed, diagnose.Overloaded,
	diagnose.QueueTimeout, diagnose.Stopping,
}

// wait is why work that met an error is tried again later; nil: it is not. Without Until the gate has the time.
func wait(err error, f diagnose.Finding, now time.Time) *Waiting {
	_, broken := errors.AsType[*cache.DiskError](err)
	full, _ := errors.AsType[*cache.NoRoomError](err)
	reserve, _ := errors.AsType[*fault.ReserveError](err)
	switch {
	case reserve != nil:
		return &Waiting{Code: WaitRateWindow, Text: f.Summary, Until: reserve.Until}
	case broken || full != nil && full.Why != cache.TooLarge:
		return &Waiting{Code: WaitDisk, Text: f.Summary}
	case f.Reason == diagnose.RateLimited || f.Reason == diagnose.AbuseLimited:
		w := &Waiting{Code: WaitRateWindow, Text: f.Summary, Until: now.Add(cmp.Or(f.RetryAfter, time.Minute))}
		if e, ok := errors.AsType[*fault.Error](err); ok && e.Budget != nil && f.RetryAfter == 0 {
			w.Until = e.Budget.MoreAt()
		}
		return w
	case slices.Contains(temporary, f.Reason):
		return &Waiting{Code: WaitUpstreamDown, Text: f.Summary}
	}
	return nil
}
