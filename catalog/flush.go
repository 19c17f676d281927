package catalog

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/internal/state"
)

const (
	// flushEvery is how often the times of checks, and the clients of tags, are written.
	flushEvery = 30 * time.Second
	// flushWidth is how many are written side by side, so that they share transactions.
	flushWidth = 128
)

// Run writes the times of checks, and the clients of tags, in batches until the context ends, and once more then.
func (c *Catalog) Run(ctx context.Context) error {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			c.flush(context.WithoutCancel(ctx)) // the last chance
			return nil
		case <-t.C:
			c.flush(ctx)
		case <-c.full:
			c.clients.flush(ctx)
		}
	}
}

// flush writes what was noted since the last time.
func (c *Catalog) flush(ctx context.Context) {
	c.ledger.flush(ctx)
	c.clients.flush(ctx)
}

// flush writes the tags that were confirmed or described. A tag that can't be written is tried again with the next flush.
func (l *ledger) flush(ctx context.Context) {
	l.mu.Lock()
	keys := slices.Collect(maps.Keys(l.dirty))
	l.mu.Unlock()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex // guards both below
		failed int
		cause  error
	)
	limit := make(chan struct{}, flushWidth)
	for _, key := range keys {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			if err := l.flushOne(key); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, cause = failed+1, err
			}
		})
	}
	wg.Wait()
	if failed > 0 {
		l.log.WarnContext(ctx, "cannot persist tag check times; after a restart each tag is checked again",
			"items", failed, "error", cause)
	}
}

func (l *ledger) flushOne(key string) error {
	defer l.turns.wait(key)()
	l.mu.Lock()
	t, ok := l.dirty[key]
	l.mu.Unlock()
	if !ok {
		return nil
	}
	v, err := l.swap(key, t, t.Version)
	if errors.Is(err, state.ErrConflict) {
		l.forget(key) // another writer has changed it since
		return nil
	}
	if err != nil {
		return err
	}
	point.Hit("catalog/flushed")
	t.Version = v
	l.known.refresh(key, t)
	l.clean(key)
	return nil
}
