package journal

import (
	"cmp"
	"context"
	"slices"
	"time"
)

const (
	maxHistory = 1000 // finished pulls; beyond that, the client with the most of them loses one
	// pausing is how long after its last request a pull is still shown as running: a client waits as long for an answer. It
	// stays open for longer, since later requests may belong to it.
	pausing = 30 * time.Second
)

// history is the last finished pulls.
type history struct {
	shares *shares[Pull]
}

func newHistory() *history { return &history{newShares[Pull](maxHistory)} }

func (h *history) add(of holder, p Pull) {
	if _, victim := h.shares.add(of, p); victim != nil {
		h.shares.remove(victim)
	}
}

// list is the finished pulls, the last one first.
func (h *history) list() []Pull {
	all := slices.SortedFunc(h.shares.all(), func(a, b *share[Pull]) int { return cmp.Compare(b.used, a.used) })
	list := make([]Pull, len(all))
	for i, e := range all {
		list[i] = e.value
	}
	return list
}

// Pulls returns the running pulls, the one active last first, or the finished ones, the last first: at most 1,000 of
// either. A running pull has the outcome that it would have if it ended now. Run must be running.
func (j *Journal) Pulls(ctx context.Context, active bool) (list []Pull, err error) {
	err = j.call(ctx, func() {
		if !active {
			list = j.history.list()
			return
		}
		for p := range j.open.fromLatest() {
			if len(list) == maxHistory {
				break
			}
			if p.sending > 0 || time.Since(p.lastActive) < pausing {
				list = append(list, p.sum())
			}
		}
	})
	return list, err
}
