package pull

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// What was learnt of content that has left the cache is forgotten each day, and first an hour after the start, when what is
// pulled every day is likely to be back.
const (
	pruneFirst = time.Hour
	pruneEvery = 24 * time.Hour
)

func (p *Puller) pruneDaily(ctx context.Context) {
	timer := time.NewTimer(pruneFirst)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		p.prune(ctx)
		timer.Reset(pruneEvery)
	}
}

// prune forgets what was learnt of content that is gone. Where it isn't known what is there, nothing is forgotten.
func (p *Puller) prune(ctx context.Context) {
	began := time.Now()
	n, err := p.catalog.Prune(ctx, func(d oci.Digest) bool {
		_, here := p.cache.Stat(d)
		return here || !p.cache.Settled()
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.log.WarnContext(ctx, "what was learnt of content that is gone can't be forgotten; the state grows until it can",
			"forgotten", n, "err", err)
	case n > 0:
		p.log.DebugContext(ctx, "forgot what was learnt of content that is gone", "references", n,
			"took", time.Since(began).Round(time.Millisecond))
	}
}
