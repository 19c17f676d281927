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

// keep remembers a finished pull.
func (j *Journal) keep(h holder, p Pull) {
	if _, victim := j.history.add(h, p); victim != nil {
		j.history.remove(victim)
	}
}

// Pulls returns the running pulls, the one active last first, or the finished ones, the last first: at most 1,000 of
// either. A running pull has the outcome that it would have if it ended now. Run must be running.
func (j *Journal) Pulls(ctx context.Context, active bool) (list []Pull, err error) {
	err = j.call(ctx, func() {
		if !active {
			all := slices.SortedFunc(j.history.all(), func(a, b *share[Pull]) int { return cmp.Compare(b.used, a.used) })
			for _, e := range all {
				list = append(list, e.value)
			}
			return
		}
		for e := j.open.recent.Front(); e != nil && len(list) < maxHistory; e = e.Next() {
			if p := e.Value.(*pull); p.sending > 0 || time.Since(p.lastActive) < pausing {
				list = append(list, p.sum())
			}
		}
	})
	return list, err
}
