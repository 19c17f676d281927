package pull

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
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
	n, err := p.catalog.Prune(ctx, catalog.Cached{
		Has: func(d oci.Digest) bool {
			_, here := p.cache.Stat(d)
			return here || !p.cache.Settled()
		},
		Parts: func(mediaType string, d oci.Digest) ([]oci.Digest, error) {
			ctx, hold := p.memory.Enter(memory.By(ctx, "prune"), memory.Work)
			defer hold.Release()
			if n, ok := p.cache.Stat(d); ok {
				if err := hold.Need(ctx, readCost(min(n, oci.MaxManifestSize))); err != nil {
					return nil, err
				}
			}
			b, err := p.cache.Peek(d)
			if err != nil {
				return nil, err
			}
			m, err := oci.ParseManifest(mediaType, b)
			if err != nil {
				return nil, err
			}
			parts := make([]oci.Digest, 0, len(m.Children))
			for _, c := range m.Children {
				parts = append(parts, c.Digest)
			}
			return parts, nil
		},
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
