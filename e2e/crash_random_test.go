package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/e2e/internal/crash"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestKillAtRandom kills the mirror, as it is released, at random moments under 20 clients that pull without a pause,
// CRASH_KILLS times or, with CRASH_FOR=20m, until that time is over: while it starts, while it serves, while it stops.
// After each death it is held to the same promises as in TestKillAtPoints, and no pull fails while nothing is killed.
func TestKillAtRandom(t *testing.T) {
	t.Parallel()
	seed, kills := crashSeed(t), number(t, "CRASH_KILLS", 5)
	limit := time.Duration(math.MaxInt64)
	if text := os.Getenv("CRASH_FOR"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil || limit <= 0 {
			t.Fatalf("CRASH_FOR=%s: write a duration, as in 20m", text)
		}
	}
	start := time.Now()
	sum := tally{prompt: kills > 5}
	t.Cleanup(func() { t.Logf("%s; CRASH_SEED=%d CRASH_KILLS=%d", &sum, seed, kills) })
	for folder := uint64(0); folder == 0 || int(sum.deaths.Load()) < kills && time.Since(start) < limit; folder++ {
		rng := rand.New(rand.NewPCG(uint64(seed), folder))
		if err := killed(t.Context(), rng, &sum, kills-int(sum.deaths.Load())); err != nil {
			t.Fatalf("folder %d of CRASH_SEED=%d: %v", folder, seed, err)
		}
	}
}

// killed kills a few mirrors, most at the most, one after the other on one folder, then looks at what one has that may
// live.
func killed(ctx context.Context, rng *rand.Rand, sum *tally, most int) error {
	kind := []string{"", "", strict, "size: 9MiB"}[rng.IntN(4)]
	g, err := newStage(mirrord.Binary, kind, rng, sum)
	if err != nil {
		return err
	}
	defer g.close()
	for i := range min(most, 1+rng.IntN(6)) {
		if err := g.kill(ctx); err != nil {
			return fmt.Errorf("kill %d, cache {%s}: %w", i+1, kind, err)
		}
		if rng.IntN(4) == 0 {
			g.move()
		}
	}
	g.move()
	have, err := crash.Blobs(g.data)
	if err != nil {
		return err
	}
	told := g.told()
	g.upstream.ClearRequests()
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	if err := g.lives(ctx, m); err != nil {
		return errors.Join(fmt.Errorf("at the end, cache {%s}: %w", kind, err), errors.New(m.Tail()))
	}
	if !g.small() {
		if err := g.fetchedAgain(have, told); err != nil {
			return errors.Join(err, errors.New(m.Tail()))
		}
	}
	if !m.End() {
		return errors.New("it did not stop when it was asked to")
	}
	return crash.Check(g.data)
}

// kill starts a mirror and kills it. Now and then one lives for a moment behind it, with the upstream down.
func (g *stage) kill(ctx context.Context) error {
	before, err := crash.Blobs(g.data)
	if err != nil {
		return err
	}
	if g.rng.IntN(5) == 0 {
		err = g.killStarting(ctx)
	} else {
		err = g.killServing(ctx)
	}
	if err != nil {
		return err
	}
	g.sum.deaths.Add(1)
	if err := crash.Check(g.data); err != nil {
		return fmt.Errorf("what it left: %w", err)
	}
	if g.small() {
		return nil
	}
	var list []digest.Digest
	for d := range before {
		list = append(list, d)
	}
	if err := g.stored(list); err != nil {
		return fmt.Errorf("it lost what was stored before: %w", err)
	}
	if g.rng.IntN(3) > 0 {
		return nil
	}
	g.upstream.Down()
	defer g.upstream.Up()
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	if err := g.offline(ctx, m, false); err != nil {
		return errors.Join(fmt.Errorf("with the upstream down: %w", err), errors.New(m.Tail()))
	}
	return died(m)
}

func (g *stage) killStarting(ctx context.Context) error {
	m, err := g.launch(ctx, true)
	if err != nil {
		return err
	}
	defer m.End()
	if err := lives(ctx, m, g.within(100*time.Millisecond)); err != nil {
		return err
	}
	return died(m)
}

// killServing kills it while clients pull, or a moment after it was told to stop.
func (g *stage) killServing(ctx context.Context) error {
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	serve, stop := g.within(500*time.Millisecond), time.Duration(0)
	if g.rng.IntN(5) == 0 {
		stop = g.within(100 * time.Millisecond)
	}
	var killing atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	for range 20 {
		rng := rand.New(rand.NewPCG(g.rng.Uint64(), 0))
		group.Go(func() error { return g.hammer(ctx, m, rng, &killing) })
	}
	group.Go(func() error {
		// Whatever fails here, the clients need an end.
		defer func() { _ = died(m) }()
		defer killing.Store(true)
		if err := lives(ctx, m, serve); err != nil || stop == 0 {
			return err
		}
		killing.Store(true)
		if err := kill(m, syscall.SIGTERM); err != nil {
			return err
		}
		select { // it may be the first to come to its end
		case <-m.Done():
		case <-time.After(stop):
		}
		return nil
	})
	if err := group.Wait(); err != nil {
		return errors.Join(err, errors.New(m.Tail()))
	}
	return nil
}

// hammer pulls one thing after the other until the mirror is killed.
func (g *stage) hammer(ctx context.Context, m *mirrord.Mirror, rng *rand.Rand, killing *atomic.Bool) error {
	subjects := g.all()
	for !killing.Load() && ctx.Err() == nil {
		s := subjects[rng.IntN(len(subjects))]
		var err error
		if rng.IntN(3) == 0 {
			err = byDigest(ctx, m, s, rng.IntN(len(s.versions)))
		} else {
			err = g.byTag(ctx, m, s, rng.IntN(2) == 0)
		}
		switch {
		case err == nil:
			g.sum.online.Add(1)
		case errors.Is(err, errWrongBytes):
			return err
		case killing.Load():
			return nil
		default:
			return fmt.Errorf("a pull failed though nothing was killed: %w", err)
		}
	}
	return nil
}

// within is a time up to limit.
func (g *stage) within(limit time.Duration) time.Duration {
	return time.Duration(g.rng.Int64N(int64(limit)))
}

// lives waits for a time in which the mirror must not end by itself.
func lives(ctx context.Context, m *mirrord.Mirror, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-m.Done():
		return fmt.Errorf("it ended without being killed: %w", m.Exited())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// lives holds the last mirror on a folder to the promises.
func (g *stage) lives(ctx context.Context, m *mirrord.Mirror) error {
	group, all := errgroup.WithContext(ctx)
	for _, s := range g.all() {
		head := g.rng.IntN(2) == 0
		group.Go(func() error { return g.byTag(all, m, s, head) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	g.sum.online.Add(int64(len(g.all())))
	if err := wait.Until(ctx, 2*time.Minute, g.tidy); err != nil {
		return fmt.Errorf("two minutes later: %w", err)
	}
	g.upstream.Down()
	if err := g.offline(ctx, m, true); err != nil {
		return fmt.Errorf("with the upstream down: %w", err)
	}
	return nil
}
