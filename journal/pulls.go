package journal

import (
	"context"
	"time"
)

// keepPulls is how many pulls that are over are remembered. Of more, the client of which there are most loses one.
const keepPulls = 1000

// Pulls returns the pulls that go on, the one active last first, or those that are over, the last first: at most 1,000
// of either. A pull that goes on has the outcome that it would have if it ended now. Run must run.
func (j *Journal) Pulls(ctx context.Context, active bool) (list []Pull, err error) {
	err = j.within(ctx, func() {
		if !active {
			for e := j.over.Back(); e != nil; e = e.Prev() {
				list = append(list, e.Value.(Pull))
			}
			return
		}
		for e := j.recent.Front(); e != nil && len(list) < keepPulls; e = e.Next() {
			if p := e.Value.(*opened); p.sending > 0 || time.Since(p.last) < pausing {
				list = append(list, p.sum())
			}
		}
	})
	return list, err
}

// pausing is how long after its last request a pull still goes on, for those that ask: a client waits as long for an answer.
// It is open for longer, since what follows may be a part of it.
const pausing = 30 * time.Second

// sum is what is known of a pull by now.
func (p *opened) sum() Pull {
	outcome, why := p.outcome()
	return Pull{
		Ref: p.ref, Upstream: p.at, Client: p.key.client, Outcome: outcome, Began: p.first,
		Took: max(0, p.end.Sub(p.first)), Bytes: p.bytes, FromCache: p.fromCache, Finding: why.finding, ID: why.id,
	}
}

// remember keeps a pull that is over.
func (j *Journal) remember(h holder, p Pull) {
	_, victim := j.kept.add(h, j.over.PushBack(p))
	if victim != nil {
		j.kept.remove(victim)
		j.over.Remove(victim.value)
	}
}
