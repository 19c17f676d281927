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
	// flushEvery is how often the times of checks are written.
	flushEvery = 30 * time.Second
	// flushWidth is how many are written side by side, so that they share transactions.
	flushWidth = 128
)

// Run writes the times of checks in batches until the context ends, and once more then.
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
		}
	}
}

// flush writes the tags that were confirmed. A tag that can't be written is tried again with the next flush.
func (c *Catalog) flush(ctx context.Context) {
	c.mu.Lock()
	keys := slices.Collect(maps.Keys(c.dirty))
	c.mu.Unlock()
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
			if err := c.flushOne(key); err != nil {
				mu.Lock()
				defer mu.Unlock()
				failed, cause = failed+1, err
			}
		})
	}
	wg.Wait()
	if failed > 0 {
		c.log.WarnContext(ctx, "cannot persist tag check times; after a restart each tag is checked again",
			"items", failed, "error", cause)
	}
}

func (c *Catalog) flushOne(key string) error {
	defer c.turn(key)()
	c.mu.Lock()
	t, ok := c.dirty[key]
	c.mu.Unlock()
	if !ok {
		return nil
	}
	v, err := c.swap(key, t, t.Version)
	if errors.Is(err, state.ErrConflict) {
		c.forget(key) // another writer has changed it since
		return nil
	}
	if err != nil {
		return err
	}
	point.Hit("catalog/flushed")
	t.Version = v
	c.known.refresh(key, t)
	c.mu.Lock()
	delete(c.dirty, key)
	c.mu.Unlock()
	return nil
}
