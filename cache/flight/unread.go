package flight

import (
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// Bytes that are fetched with no reader left are fetched for a client that may come back, and cost the upstream's limit and
// the cache's room. Each client has an allowance of them that fills up again in unreadEvery, and all together have
// unreadAll times as much, so that made-up names of clients get no more than that.
const (
	unreadEvery   = 10 * time.Minute
	unreadAll     = 16
	unreadClients = 10_000 // that are remembered; others share one allowance
)

// unread is the account of such bytes.
type unread struct {
	most int64 // bytes of one client; negative: any number

	mu      sync.Mutex // guards what follows; a leaf
	clients map[string]*spent
	all     spent
}

// spent is what is left to make up for of an allowance.
type spent struct {
	bytes float64
	at    time.Time
}

// settle has what was spent fade. most is the allowance.
func (s *spent) settle(now time.Time, most float64) {
	s.bytes = max(0, s.bytes-most*now.Sub(s.at).Seconds()/unreadEvery.Seconds())
	s.at = now
}

// spend notes n bytes for a client, and reports whether it may go on. n may be 0. The empty client has no bound.
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
			client = "" // the account that all others share
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

// sweep forgets the clients that have nothing charged any more. The lock is held.
func (u *unread) sweep(now time.Time) {
	for c, s := range u.clients {
		if s.settle(now, float64(u.most)); s.bytes == 0 {
			delete(u.clients, c)
		}
	}
}
