package pull

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Records of content that has left the cache are removed once a day, and first an hour after the start, when content that is
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

// prune removes the records of content that is no longer cached. While the cache is still being listed, nothing is removed.
func (p *Puller) prune(ctx context.Context) {
	began := time.Now()
	n, err := p.catalog.Prune(ctx, func(d oci.Digest) bool {
		_, here := p.cache.Stat(d)
		return here || !p.cache.Settled()
	})
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.log.WarnContext(ctx, "pruning records of evicted content failed; state.db keeps growing", "items", n, "error", err)
	case n > 0:
		p.log.DebugContext(ctx, "pruned records of evicted content", "items", n, "took",
			time.Since(began).Round(time.Millisecond))
	}
}
