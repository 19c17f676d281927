package transfer

import (
	"slices"
	"time"
)

// Background work fetches blobs that no client waits for. It is never in a client's way:
//
//   - It gets a turn only while no client's transfer waits for one, and loses it to a client at once.
//   - While clients' transfers run, and for a moment after, one transfer of background work goes on beside them, if a turn is free:
//     it does not starve, and takes little of the bandwidth.
//   - It waits for as long as its context lasts.
//   - When a client joins the download, it is the client's transfer from then on.
const (
	besideClients = 1           // transfers of background work that run beside those of clients
	quietAfter    = time.Second // without a transfer for a client: the pull of an image asks for one blob after another
)

// isBackground reports whether the blob is fetched for background work alone. It reads what never changes, so it needs no lock.
func (a *applicant) isBackground() bool { return a.live != nil && !a.live() }

// claimed reports whether clients wait for a transfer. That of background work is the first one's from then on. The lock is held.
func (q *queue) claimed(t *turn) bool {
	if t.isBackground() {
		return false
	}
	clients := t.waitingClients()
	if len(clients) > 0 && t.unclaimed {
		t.client, t.unclaimed = clients[0], false
	}
	return len(clients) > 0
}

// promote puts transfers of background work that clients have joined into the queues of these. The lock is held.
func (q *queue) promote() {
	for _, t := range slices.Clone(q.background) {
		if q.claimed(t) {
			q.background = without(q.background, t)
			q.enqueue(t)
		}
	}
}

// isFree reports whether a new transfer may have a turn at once, with fewer than limit of them in use: one of background work in its
// order, and one for a client also that of background work, which it revokes. The lock is held.
func (q *queue) isFree(t *turn, limit int) bool {
	switch {
	case q.waiting > 0:
		return false
	case t.isBackground():
		return len(q.running) < limit && len(q.background) == 0 && q.isQuiet()
	case len(q.running) < limit:
		return true
	}
	background := q.runningInBackground()
	if len(q.running)-len(background) >= limit {
		return false
	}
	if len(q.running) >= q.limit {
		q.pause(background[0])
	}
	return true
}

// isQuiet reports whether the transfers that run leave room for another one of background work. The lock is held.
func (q *queue) isQuiet() bool {
	now, background := time.Now(), 0
	for t := range q.running {
		switch {
		case t.isBackground():
			background++
		case len(t.waitingClients()) > 0:
			q.clientsAt = now
		}
	}
	return background < besideClients || now.Sub(q.clientsAt) >= quietAfter
}

// runningInBackground are the transfers of background work that run: further connections of blobs first, then the latest one first.
// The lock is held.
func (q *queue) runningInBackground() (list []*turn) {
	for t := range q.running {
		if t.isBackground() {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b *turn) int {
		if a.extra != b.extra {
			if a.extra {
				return -1
			}
			return 1
		}
		return b.grantedAt.Compare(a.grantedAt)
	})
	return list
}

// yield pauses transfers of background work, since one for a client begins. The lock is held.
func (q *queue) yield() {
	q.clientsAt = time.Now()
	background := q.runningInBackground()
	for _, t := range background[:max(0, len(background)-besideClients)] {
		q.pause(t)
	}
}
