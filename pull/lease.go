package pull

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

// The parts of a manifest are kept for leaseFor after the manifest was served, or after one of its blobs was requested
// since: a client fetches layers for as long as the largest of them takes. Leases are renewed at most every leaseEvery.
const (
	leaseFor   = 15 * time.Minute
	leaseEvery = time.Minute
	// leaseMost ends a lease whose manifest was not served since, however often its blobs are requested: a base layer that
	// all images share must not keep every image that was ever pulled.
	leaseMost = time.Hour
	// maxLeased bounds the memory of leases, in digests: some 20 MB. Above it leases are still given to manifests of at
	// most maxLate parts, but blobs don't renew them.
	maxLeased = 100_000
	maxLate   = 500
)

// leases knows which manifests were served lately, and so which images a blob is fetched for.
type leases struct {
	cache Cache

	mu      sync.Mutex // guards what follows; a leaf: the cache is called without it
	held    map[oci.Digest]*lease
	holders map[oci.Digest][]*lease // by part
	parts   int                     // of all leases
}

type lease struct {
	holder oci.Digest
	parts  []oci.Digest
	served time.Time
	until  time.Time
}

func newLeases(c Cache) *leases {
	return &leases{cache: c, held: make(map[oci.Digest]*lease), holders: make(map[oci.Digest][]*lease)}
}

// grant leases a manifest's parts.
func (l *leases) grant(holder oci.Digest, parts []oci.Digest, now time.Time) {
	if !guard.Lease {
		return
	}
	l.mu.Lock()
	g := l.held[holder]
	if g == nil && l.parts+len(parts) <= maxLeased {
		g = &lease{holder: holder, parts: parts}
		l.held[holder] = g
		l.parts += len(parts)
		for _, d := range parts {
			l.holders[d] = append(l.holders[d], g)
		}
	}
	if g != nil {
		g.served, g.until = now, now.Add(leaseFor)
	}
	l.mu.Unlock()
	if g == nil && len(parts) > maxLate {
		return
	}
	l.cache.Keep(holder.String(), now.Add(leaseFor), parts...)
}

// renew prolongs the leases that a blob is part of.
func (l *leases) renew(part oci.Digest, now time.Time) {
	var due []*lease
	l.mu.Lock()
	for _, g := range l.holders[part] {
		if left := g.until.Sub(now); left > 0 && left <= leaseFor-leaseEvery && now.Sub(g.served) < leaseMost {
			g.until = now.Add(leaseFor)
			due = append(due, g)
		}
	}
	l.mu.Unlock()
	for _, g := range due {
		l.cache.Keep(g.holder.String(), now.Add(leaseFor), g.parts...)
	}
}

// sweep forgets the leases that have ended.
func (l *leases) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for d, g := range l.held {
		if now.Before(g.until) {
			continue
		}
		delete(l.held, d)
		l.parts -= len(g.parts)
		for _, part := range g.parts {
			l.holders[part] = without(l.holders[part], g)
			if len(l.holders[part]) == 0 {
				delete(l.holders, part)
			}
		}
	}
}

func without(list []*lease, g *lease) []*lease {
	kept := list[:0]
	for _, other := range list {
		if other != g {
			kept = append(kept, other)
		}
	}
	return kept
}

// noteUse tells the cache that a manifest in memory is used, at most once a minute however often it is served: its children
// are leased for a client that got it, and it counts as used itself. The cache can't know either otherwise.
func (p *Puller) noteUse(m *manifest, head bool, now time.Time) {
	if !head && due(&m.renew, now) {
		p.leases.grant(m.digest, m.parts, now)
	}
	if !due(&m.touch, now) {
		return
	}
	if _, here := p.cache.Stat(m.digest); here {
		p.cache.Touch(m.digest)
		return
	}
	if m.bytes == nil {
		return // it is fetched again
	}
	// The cache has lost it, or had no room when it came: it is stored again. No client waits for the disk.
	p.inBackground(func(ctx context.Context) {
		if err := p.cache.Put(ctx, m.digest, m.bytes); err != nil {
			p.log.DebugContext(ctx, "cannot cache a manifest; it is served from memory", "digest", m.digest, "error", err)
		}
	})
}

// inBackground does work that no client waits for. Run waits for its end.
func (p *Puller) inBackground(f func(ctx context.Context)) {
	go func() {
		_ = p.work.do(context.Background(), p.limit, func(ctx context.Context) error {
			f(ctx)
			return nil
		})
	}()
}

// due reports whether a minute has passed since it last was true.
func due(at *atomic.Int64, now time.Time) bool {
	then, is := at.Load(), now.Sub(epoch)
	return (then == 0 || int64(is) >= then) && at.CompareAndSwap(then, int64(is+leaseEvery))
}

// epoch is a moment from which due counts, on the clock that never jumps: one that was set back would keep leases from being
// renewed for as long.
var epoch = time.Now()
