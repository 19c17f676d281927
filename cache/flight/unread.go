package flight

import (
	"maps"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/registrymirror/mirror/internal/guard"
)

// Bytes that are fetched without a reader are for a client that may return. They cost the upstream's rate limit and the
// cache's room. Each client has an allowance of them that is full again after unreadEvery, and all clients together have
// unreadAll times as much, so that invented names of clients get no more than that.
const (
	unreadEvery   = 10 * time.Minute
	unreadAll     = 16
	unreadClients = 10_000 // that have one; others share another
)

// unread is the account of such bytes.
type unread struct {
	most int64 // bytes of one client; negative: no limit

	mu      sync.Mutex // guards clients and full; no other lock is taken while it is held
	clients map[string]*rate.Limiter
	full    time.Time     // before it none of them has its whole allowance; zero: that is not known
	all     *rate.Limiter // of all clients together
}

// allowance is one of so many bytes.
func allowance(bytes int64) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(float64(bytes)/unreadEvery.Seconds()), int(bytes))
}

// spend charges n bytes to a client, and reports whether more may follow. n may be 0. The empty client has no limit.
func (u *unread) spend(client string, n int64) bool {
	if client == "" || u.most < 0 || !guard.Unread {
		return true
	}
	now := time.Now()
	own := u.of(client, now)
	for _, l := range []*rate.Limiter{own, u.all} {
		l.ReserveN(now, int(min(n, u.most))) // they have arrived, so there may be fewer than none left
	}
	return own.TokensAt(now) > 0 && u.all.TokensAt(now) > 0
}

// of is a client's allowance.
func (u *unread) of(client string, now time.Time) *rate.Limiter {
	u.mu.Lock()
	defer u.mu.Unlock()
	l := u.clients[client]
	if l == nil && len(u.clients) >= unreadClients && !now.Before(u.full) {
		u.forget(now)
	}
	if l == nil && len(u.clients) >= unreadClients {
		client = "" // the shared one
		l = u.clients[client]
	}
	if l == nil {
		l = allowance(u.most)
		u.clients[client], u.full = l, time.Time{}
	}
	return l
}

// forget drops the clients that have their whole allowance, and notes when the next one may have it. The lock is held.
func (u *unread) forget(now time.Time) {
	most := float64(u.most)
	least := most // that a client lacks
	maps.DeleteFunc(u.clients, func(_ string, l *rate.Limiter) bool {
		lacks := most - l.TokensAt(now)
		if lacks > 0 {
			least = min(least, lacks)
		}
		return lacks <= 0
	})
	u.full = now.Add(time.Duration(least / max(most, 1) * float64(unreadEvery)))
}
