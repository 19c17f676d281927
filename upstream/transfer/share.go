package transfer

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// Turns are shared among clients first, then among the repositories of each. A free turn goes to the client that has the
// fewest, in rotation among clients with as many. Where none is free, one is revoked:
//
//  0. of background work
//  1. of a transfer without a waiting reader: all have more to read than they have read, or there is none
//  2. of a client that has at least two more than the one that waits; a transfer that several clients wait for counts for each
//     of them, and is only revoked where that is true of each
//  3. of a repository that has at least two more than the one that waits, of the same client
//  4. after a while, of a client that has one more, or of the same client for a transfer that was paused in the middle: they
//     alternate
//
// So one client has all turns only while no other one wants any, and where there are more clients than turns each has its part
// of the time. A client is an address, or the address that a trusted proxy names; where a whole cluster has one address, its
// repositories share.
const (
	graceTime = time.Second           // of running, after which a transfer that no reader waits for may lose its turn
	sliceTime = 5 * time.Second       // after which transfers alternate
	chargeFor = 50 * time.Millisecond // how long turns stay charged to the same clients
)

// clientQueue is the waiting transfers of a client.
type clientQueue struct {
	client  string
	started []*turn            // in the middle of a blob: before the others
	repos   map[string][]*turn // the others, by repository
	order   []string           // repositories: the next one first
}

// enqueue puts a transfer into its client's queue. The lock is held.
func (q *queue) enqueue(t *turn) {
	c := q.clients[t.client]
	if c == nil {
		c = &clientQueue{client: t.client, repos: make(map[string][]*turn)}
		q.clients[t.client] = c
		q.order = append(q.order, c)
	}
	t.queued, t.queuedAt = true, time.Now()
	q.waiting++
	if t.started {
		c.started = append(c.started, t)
		return
	}
	if len(c.repos[t.repo]) == 0 {
		c.order = append(c.order, t.repo)
	}
	c.repos[t.repo] = append(c.repos[t.repo], t)
}

// dequeue takes a transfer out of its client's queue. The lock is held.
func (q *queue) dequeue(t *turn) {
	c := q.clients[t.client]
	c.started = without(c.started, t)
	if c.repos[t.repo] = without(c.repos[t.repo], t); len(c.repos[t.repo]) == 0 {
		delete(c.repos, t.repo)
		c.order = without(c.order, t.repo)
	}
	t.queued = false
	q.waiting--
	if len(c.started) == 0 && len(c.order) == 0 {
		delete(q.clients, c.client)
		q.order = without(q.order, c)
	}
}

// without is a list from which an element is taken.
func without[T comparable](list []T, x T) []T {
	return slices.DeleteFunc(list, func(y T) bool { return y == x })
}

// toEnd is a list with an element, if it is in it, behind the others.
func toEnd[T comparable](list []T, x T) []T {
	rest := without(list, x)
	if len(rest) == len(list) {
		return list
	}
	return append(rest, x)
}

// first is the next transfer of a client. Turns are those that its repositories have.
func (c *clientQueue) first(turns map[string]int) *turn {
	if len(c.started) > 0 {
		return c.started[0]
	}
	least := slices.MinFunc(c.order, func(a, b string) int { return turns[a] - turns[b] })
	return c.repos[least][0]
}

// next is the transfer that is granted the next turn. The lock is held, and at least one transfer waits.
func (q *queue) next() *turn {
	least := slices.MinFunc(q.order, func(a, b *clientQueue) int { return q.charged[a.client] - q.charged[b.client] })
	return least.first(q.turnsOf(least.client))
}

// turnsOf are the turns charged to one client alone, by repository. The lock is held.
func (q *queue) turnsOf(client string) map[string]int {
	turns := make(map[string]int)
	for t := range q.running {
		if len(t.charged) == 1 && t.charged[0] == client {
			turns[t.repo]++
		}
	}
	return turns
}

// dispatch grants free turns to waiting transfers, and revokes turns for them. The lock is held.
func (q *queue) dispatch() {
	q.dispatchedAt = time.Now()
	q.promote()
	if q.waiting > 0 && len(q.running) >= q.limit {
		q.removeIdle()
		q.chargeWaiters()
	}
	for q.waiting > 0 {
		t := q.next()
		if t.isBackground() { // its clients have left
			q.dequeue(t)
			if !t.started {
				q.background = append(q.background, t)
			}
			continue
		}
		if len(q.running) >= q.limit && !q.revokeFor(t) {
			return
		}
		c := q.clients[t.client]
		q.dequeue(t)
		q.order = toEnd(q.order, c)
		if !t.started {
			c.order = toEnd(c.order, t.repo)
		}
		q.grant(t)
	}
	for len(q.paused) > 0 && len(q.running) < q.limit { // those whose readers do not wait
		i := slices.IndexFunc(q.paused, func(t *turn) bool { return t.reserved == nil && (!t.isBackground() || q.isQuiet()) })
		if i < 0 {
			break
		}
		q.grant(q.paused[i])
	}
	for len(q.background) > 0 && len(q.running) < q.limit && q.isQuiet() {
		t := q.background[0]
		q.background = q.background[1:]
		q.grant(t)
	}
}

// grant lets a transfer run. The lock is held.
func (q *queue) grant(t *turn) {
	q.unpause(t)
	t.grantedAt = time.Now()
	t.lastRead.Store(0)
	t.revoked.Store(false)
	q.running[t] = struct{}{}
	q.charge(t, []string{t.client})
	if t.ready != nil {
		close(t.ready)
		t.ready = nil
	}
	if !t.isBackground() {
		q.yield()
	}
}

// Ranks of revocable turns that are above all others.
const (
	rankExtra      = 1 << 20 // added for a further connection for a blob, whose first connection goes on
	rankUnread     = 1 << 30 // a transfer that no client waits for
	rankBackground = 1 << 31 // one of background work
)

// revokeFor revokes a turn for a transfer that waits. False: there is none that may be revoked. The lock is held.
func (q *queue) revokeFor(w *turn) bool {
	if !guard.Turns {
		return false
	}
	turns := q.turnsOf(w.client)
	var best *turn
	highest := 0
	for t := range q.running {
		n := q.revocable(t, w, turns)
		if n > 0 && t.extra {
			n += rankExtra
		}
		if n > highest || n == highest && n > 0 && t.grantedAt.Before(best.grantedAt) {
			best, highest = t, n
		}
	}
	if best == nil {
		return false
	}
	q.pause(best)
	return true
}

// revocable is how well the turn of t serves w: the higher the better. 0: it may not be revoked. Turns are those of the
// repositories of w's client. The lock is held.
func (q *queue) revocable(t, w *turn, turns map[string]int) int {
	if t.reserved != nil {
		return 0
	}
	if t.isBackground() {
		return rankBackground
	}
	if len(t.charged) == 0 {
		return rankUnread
	}
	now := time.Now()
	alternate := now.Sub(w.queuedAt) >= sliceTime && now.Sub(t.grantedAt) >= sliceTime
	if len(t.charged) == 1 && t.charged[0] == w.client {
		switch {
		case turns[t.repo] > turns[w.repo]+1:
			return turns[t.repo]
		case w.started && alternate:
			return 1
		}
		return 0
	}
	least := rankUnread
	for _, c := range t.charged {
		least = min(least, q.charged[c]-q.charged[w.client])
	}
	if least > 1 || least == 1 && alternate {
		return least
	}
	return 0
}

// pause revokes the turn of a transfer, which goes on later. The lock is held.
func (q *queue) pause(t *turn) {
	delete(q.running, t)
	q.charge(t, nil)
	t.started, t.hungUp = true, false
	t.ready, t.hangUp = make(chan struct{}), make(chan struct{})
	t.revoked.Store(true)
	q.paused = append(q.paused, t)
	open := 0
	for _, p := range slices.Backward(q.paused) {
		if p.hungUp {
			continue
		}
		if open++; open > pausedOpen*q.limit {
			p.hungUp = true
			close(p.hangUp)
		}
	}
}

// unpause ends a pause. The lock is held.
func (q *queue) unpause(t *turn) { q.paused = without(q.paused, t) }

// charge counts a turn for clients, and no longer for those that it was charged to before. The lock is held.
func (q *queue) charge(t *turn, clients []string) {
	for _, c := range t.charged {
		if q.charged[c]--; q.charged[c] <= 0 {
			delete(q.charged, c)
		}
	}
	t.charged = clients
	for _, c := range clients {
		q.charged[c]++
	}
}

// chargeWaiters charges each turn to the clients that wait for its bytes, at most once in chargeFor. The lock is held.
func (q *queue) chargeWaiters() {
	now := time.Now()
	if now.Sub(q.chargedAt) < chargeFor {
		return
	}
	q.chargedAt = now
	for t := range q.running {
		clients := t.waitingClients()
		if len(clients) == 0 && now.Sub(t.grantedAt) < graceTime {
			clients = []string{t.client}
		}
		q.charge(t, clients)
	}
}

// waitingClients are the clients that wait for the next bytes.
func (a *applicant) waitingClients() []string {
	if a.waiters == nil {
		return []string{a.client}
	}
	return a.waiters()
}

// removeIdle takes the turns of transfers that are not read at all. They go on without one. The lock is held.
func (q *queue) removeIdle() {
	before := time.Now().Add(-idleAfter).UnixNano()
	for t := range q.running {
		if at := t.lastRead.Load(); at != 0 && at < before {
			q.remove(t)
		}
	}
}
