package flight

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// Bytes that are fetched without a reader are for a client that may return. They cost the upstream's rate limit and the
// cache's room. Each client has an allowance of them that is full again after unreadEvery, and all clients together have
// unreadAll times as much, so that invented names of clients get no more than that.
const (
	unreadEvery   = 10 * time.Minute
	unreadAll     = 16
	unreadClients = 10_000 // that have an account; others share one
)

// unread is the account of such bytes.
type unread struct {
	most int64 // bytes of one client; negative: no limit

	mu      sync.Mutex // guards the fields below; no other lock is taken while it is held
	clients map[string]*spent
	all     spent
}

// spent is how much of an allowance is used up.
type spent struct {
	bytes float64
	at    time.Time // when bytes was right
}

// settle gives back what time has made free. most is the allowance.
func (s *spent) settle(now time.Time, most float64) {
	s.bytes = max(0, s.bytes-most*now.Sub(s.at).Seconds()/unreadEvery.Seconds())
	s.at = now
}

// spend charges n bytes to a client, and reports whether more may follow. n may be 0. The empty client has no limit.
func (u *unread) spend(client string, n int64) bool {
	if client == "" || u.most < 0 || !guard.Unread {
		return true
	}
	now := time.Now()
	u.mu.Lock()
	defer u.mu.Unlock()
	s := u.of(client, now)
	u.all.settle(now, unreadAll*float64(u.most))
	s.bytes += float64(n)
	u.all.bytes += float64(n)
	return s.bytes < float64(u.most) && u.all.bytes < unreadAll*float64(u.most)
}

// of is a client's account, as of now. The lock is held.
func (u *unread) of(client string, now time.Time) *spent {
	s := u.clients[client]
	if s == nil {
		if len(u.clients) >= unreadClients {
			u.sweep(now)
		}
		if len(u.clients) >= unreadClients {
			client = "" // the shared account
			s = u.clients[client]
		}
	}
	if s == nil {
		s = &spent{at: now}
		u.clients[client] = s
	}
	s.settle(now, float64(u.most))
	return s
}

// sweep removes the accounts that are fully available again. The lock is held.
func (u *unread) sweep(now time.Time) {
	for c, s := range u.clients {
		if s.settle(now, float64(u.most)); s.bytes == 0 {
			delete(u.clients, c)
		}
	}
}
