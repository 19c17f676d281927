package upstream

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// Turns are shared among clients first, then among the repositories of each. A free turn goes to the client that has
// fewest, in turn among those that have as many. Where none is free, one is taken:
//
//  1. of a transfer whose readers all have more to read than they have read, or that has none: it does without
//  2. of a client that has at least two more than the one that waits; a transfer that several clients wait for is
//     theirs, and only taken where that is so for each of them
//  3. of a repository that has at least two more than the one that waits, of the same client
//  4. after a while, of a client that has one more, or of the same one for a transfer that had to stop in the middle: they
//     alternate
//
// So one client has all turns only while no other one wants any, and where there are more clients than turns each has its
// part of the time. A client is an address, or what the proxies in front of
// us say it is; where a whole cluster has one address, its repositories share.
const (
	lagging = time.Second     // of having run, after which a transfer that no reader waits for does without its turn
	slice   = 5 * time.Second // after which transfers alternate
)

// line is what of a client waits.
type line struct {
	client string
	begun  []*turn            // in the middle of a blob: before the others
	repos  map[string][]*turn // the others, by repository
	order  []string           // repositories: the next one first
}

// line puts a transfer into its client's line. The lock is held.
func (q *queue) line(t *turn) {
	l := q.clients[t.client]
	if l == nil {
		l = &line{client: t.client, repos: make(map[string][]*turn)}
		q.clients[t.client] = l
		q.order = append(q.order, l)
	}
	t.lined, t.since = true, time.Now()
	q.waiting++
	if t.begun {
		l.begun = append(l.begun, t)
		return
	}
	if len(l.repos[t.repo]) == 0 {
		l.order = append(l.order, t.repo)
	}
	l.repos[t.repo] = append(l.repos[t.repo], t)
}

// unline takes it out. The lock is held.
func (q *queue) unline(t *turn) {
	same := func(x *turn) bool { return x == t }
	l := q.clients[t.client]
	l.begun = slices.DeleteFunc(l.begun, same)
	if rest := slices.DeleteFunc(l.repos[t.repo], same); len(rest) > 0 {
		l.repos[t.repo] = rest
	} else {
		delete(l.repos, t.repo)
		l.order = slices.DeleteFunc(l.order, func(r string) bool { return r == t.repo })
	}
	t.lined = false
	q.waiting--
	if len(l.begun) == 0 && len(l.order) == 0 {
		delete(q.clients, l.client)
		q.order = slices.DeleteFunc(q.order, func(x *line) bool { return x == l })
	}
}

// first is the transfer of a line that is next. turns are those of the client's repositories.
func (l *line) first(turns map[string]int) *turn {
	if len(l.begun) > 0 {
		return l.begun[0]
	}
	least := l.order[0]
	for _, repo := range l.order[1:] {
		if turns[repo] < turns[least] {
			least = repo
		}
	}
	return l.repos[least][0]
}

// pick is the transfer that is next of all. The lock is held, and one waits.
func (q *queue) pick() *turn {
	least := q.order[0]
	for _, l := range q.order[1:] {
		if q.held[l.client] < q.held[least.client] {
			least = l
		}
	}
	return least.first(q.turns(least.client))
}

// turns are those of a client alone, by repository. The lock is held.
func (q *queue) turns(client string) map[string]int {
	turns := make(map[string]int)
	for t := range q.running {
		if len(t.charged) == 1 && t.charged[0] == client {
			turns[t.repo]++
		}
	}
	return turns
}

// serve gives free turns to the lines, and takes turns for them. The lock is held.
func (q *queue) serve() {
	q.served = time.Now()
	if q.waiting > 0 && len(q.running) >= q.most {
		q.idle()
		q.count()
	}
	for q.waiting > 0 {
		t := q.pick()
		if len(q.running) >= q.most && !q.take(t) {
			return
		}
		l := q.clients[t.client]
		q.unline(t)
		if i := slices.Index(q.order, l); i >= 0 { // behind the others
			q.order = append(slices.Delete(q.order, i, i+1), l)
		}
		if i := slices.Index(l.order, t.repo); i >= 0 && !t.begun {
			l.order = append(slices.Delete(l.order, i, i+1), t.repo)
		}
		q.grant(t)
	}
	for len(q.paused) > 0 && len(q.running) < q.most { // without hurry
		i := slices.IndexFunc(q.paused, func(t *turn) bool { return t.kept == nil })
		if i < 0 {
			return
		}
		q.grant(q.paused[i])
	}
}

// grant gives a turn. The lock is held.
func (q *queue) grant(t *turn) {
	q.unpause(t)
	t.given = time.Now()
	t.read.Store(0)
	t.taken.Store(false)
	q.running[t] = struct{}{}
	q.charge(t, []string{t.client})
	if t.ready != nil {
		close(t.ready)
		t.ready = nil
	}
}

// take takes a turn for a transfer that waits. False: there is none that could be. The lock is held.
func (q *queue) take(w *turn) bool {
	if !guard.Turns {
		return false
	}
	turns := q.turns(w.client)
	var best *turn
	most := 0
	for t := range q.running {
		n := q.claim(t, w, turns)
		if n > 0 && t.part {
			n += 1 << 20 // costs least
		}
		if n > most || n == most && n > 0 && t.given.Before(best.given) {
			best, most = t, n
		}
	}
	if best == nil {
		return false
	}
	q.pause(best)
	return true
}

// claim is how good it is to take a turn for w; 0: it may not be. The lock is held.
func (q *queue) claim(t, w *turn, turns map[string]int) int {
	if t.kept != nil {
		return 0
	}
	if len(t.charged) == 0 {
		return 1 << 30 // as of all that are
	}
	now := time.Now()
	alternate := now.Sub(w.since) >= slice && now.Sub(t.given) >= slice
	if len(t.charged) == 1 && t.charged[0] == w.client {
		switch {
		case turns[t.repo] > turns[w.repo]+1:
			return turns[t.repo]
		case w.begun && alternate:
			return 1
		}
		return 0
	}
	least := 1 << 30
	for _, c := range t.charged {
		least = min(least, q.held[c]-q.held[w.client])
	}
	if least > 1 || least == 1 && alternate {
		return least
	}
	return 0
}

// pause takes a turn from a transfer that goes on later. The lock is held.
func (q *queue) pause(t *turn) {
	delete(q.running, t)
	q.charge(t, nil)
	t.begun, t.closing = true, false
	t.ready, t.shut = make(chan struct{}), make(chan struct{})
	t.taken.Store(true)
	q.paused = append(q.paused, t)
	open := 0
	for _, p := range slices.Backward(q.paused) {
		if p.closing {
			continue
		}
		if open++; open > pausedOpen*q.most {
			p.closing = true
			close(p.shut)
		}
	}
}

// unpause ends a pause. The lock is held.
func (q *queue) unpause(t *turn) {
	if i := slices.Index(q.paused, t); i >= 0 {
		q.paused = slices.Delete(q.paused, i, i+1)
	}
}

// charge counts a turn for clients, and not for those that it was counted for before. The lock is held.
func (q *queue) charge(t *turn, clients []string) {
	for _, c := range t.charged {
		if q.held[c]--; q.held[c] <= 0 {
			delete(q.held, c)
		}
	}
	t.charged = clients
	for _, c := range clients {
		q.held[c]++
	}
}

// countEvery is for how long turns stay with those that they were charged to.
const countEvery = 50 * time.Millisecond

// count charges each turn to the clients that wait for its bytes. The lock is held.
func (q *queue) count() {
	now := time.Now()
	if now.Sub(q.counted) < countEvery {
		return
	}
	q.counted = now
	for t := range q.running {
		clients := t.needed()
		if len(clients) == 0 && now.Sub(t.given) < lagging {
			clients = []string{t.client}
		}
		q.charge(t, clients)
	}
}

// needed are the clients that wait for the next bytes.
func (t *turn) needed() []string {
	if t.needs == nil {
		return []string{t.client}
	}
	return t.needs()
}

// idle takes the turns of those that are not read at all. They go on, uncounted. The lock is held.
func (q *queue) idle() {
	before := time.Now().Add(-idleTurn).UnixNano()
	for t := range q.running {
		if at := t.read.Load(); at != 0 && at < before {
			q.end(t)
		}
	}
}
