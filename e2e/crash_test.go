package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/point"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// crashing is the binary that dies where it is told to. It is without the race detector, which would find here what
// it finds in TestKillAtRandom, in thrice the time.
var crashing = sync.OnceValues(func() (string, error) {
	return build(filepath.Dir(mirrord.Binary), "mirror-crashpoints", false, "-tags=crashpoints")
})

// TestKillAtPoints lets the real binary die by SIGKILL at each point of internal/point, CRASH_ROUNDS times each, and
// holds what comes after to what is promised: it is ready within 10 s with nothing to repair, serves right bytes only,
// what was whole before still pulls with the upstream down, and nothing is left in the spool.
//
// CRASH_SEED repeats a run: the choices of each round follow from it, the point and the round.
func TestKillAtPoints(t *testing.T) {
	t.Parallel()
	seed, rounds := crashSeed(t), number(t, "CRASH_ROUNDS", 1)
	program, err := crashing()
	if err != nil {
		t.Fatal(err)
	}
	sum := tally{prompt: rounds > 1}
	t.Cleanup(func() { t.Logf("%s; CRASH_SEED=%d CRASH_ROUNDS=%d", &sum, seed, rounds) })
	run := func(ctx context.Context, s scene, round int) error {
		h := fnv.New64a()
		_, _ = fmt.Fprintf(h, "%s %d", s.name(), round) // never fails
		rng := rand.New(rand.NewPCG(uint64(seed), h.Sum64()))
		if err := s.run(ctx, program, rng, &sum); err != nil {
			return fmt.Errorf("%s, round %d of CRASH_SEED=%d: %w", s.name(), round, seed, err)
		}
		return nil
	}
	// What takes long is waiting: for disks, for a slow upstream, and for the minute of the daily copy.
	again := make(map[string]bool)
	few, many := make(chan struct{}, 3), make(chan struct{}, 30)
	for _, s := range scenes {
		if rounds == 1 && again[s.point+s.harm()] {
			continue // the slice of each day comes to each point once, and waits a minute for nothing
		}
		again[s.point+s.harm()] = true
		t.Run(s.name(), func(t *testing.T) {
			room := few
			if s.drive == byTime {
				room = many
			}
			var group sync.WaitGroup
			errs := make([]error, rounds)
			for round := range rounds {
				group.Go(func() {
					room <- struct{}{}
					defer func() { <-room }()
					errs[round] = run(t.Context(), s, round)
				})
			}
			t.Parallel() // from here on it has a slot of the test's alone; the rounds need none
			group.Wait()
			if err := errors.Join(errs...); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPoints holds the scenes against the points that there are, and the released binary to having none of them.
func TestPoints(t *testing.T) {
	t.Parallel()
	for _, name := range point.Names {
		if !slices.ContainsFunc(scenes, func(s scene) bool { return s.point == name }) && !diesOnANode(name) {
			t.Errorf("no process dies at %s", name)
		}
	}
	for _, s := range scenes {
		if !slices.Contains(point.Names, s.point) {
			t.Errorf("there is no point %s", s.point)
		}
	}
	program, err := crashing()
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]bool{mirrord.Binary: false, program: true} {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, "MIRROR_CRASH in "+filepath.Base(file), bytes.Contains(b, []byte("MIRROR_CRASH")), want)
	}
}

// run plays a scene once: a life before, one that ends at the point, one after.
func (s scene) run(ctx context.Context, program string, rng *rand.Rand, sum *tally) error {
	g, err := newStage(program, s.cache, rng, sum)
	if err != nil {
		return err
	}
	defer g.close()
	if err := g.history(ctx, s.clean); err != nil {
		return fmt.Errorf("before: %w", err)
	}
	if s.prepare != nil {
		if err := s.prepare(ctx, g); err != nil {
			return fmt.Errorf("prepare: %w", err)
		}
	}
	at := s.at
	if at == 0 {
		at = 1 + rng.IntN(max(1, s.most))
	}
	if err := g.dies(ctx, s, at); err != nil {
		return fmt.Errorf("at time %d: %w", at, err)
	}
	if s.later != nil {
		if err := s.later(g); err != nil {
			return fmt.Errorf("later: %w", err)
		}
	}
	if err := g.after(ctx, s); err != nil {
		return fmt.Errorf("after it died at time %d: %w", at, err)
	}
	return nil
}

// dies starts the mirror that is to die, and has it come to the point.
func (g *stage) dies(ctx context.Context, s scene, at int) error {
	env := fmt.Sprintf("MIRROR_CRASH=%s:%d", s.point, at)
	m, err := g.launch(ctx, true, env)
	if err != nil {
		return err
	}
	defer m.End()
	drive := s.drive
	if drive != atStart {
		if err := m.Ready(ctx); err != nil && m.Exited() == nil {
			return err
		} else if err != nil {
			drive = atStart // what a mirror does by itself came to the point first
		}
	}
	var failed error
	limit := 2 * time.Minute
	switch drive {
	case atStart:
	case byPulls:
		failed = g.crowd(ctx, m, 1+g.rng.IntN(6))
	case byStop:
		if failed = g.crowd(ctx, m, 1+g.rng.IntN(4)); failed == nil {
			failed = kill(m, syscall.SIGTERM)
		}
	case byReload:
		group, ctx := errgroup.WithContext(ctx)
		group.Go(func() error { return g.crowd(ctx, m, 1+g.rng.IntN(4)) })
		if err := kill(m, syscall.SIGHUP); err != nil {
			return err
		}
		failed = group.Wait()
	case byTime:
		limit = 4 * time.Minute
	case byLeaving:
		if err := g.leave(ctx, m); err != nil {
			return err
		}
		failed = kill(m, syscall.SIGTERM)
	}
	if errors.Is(failed, errWrongBytes) {
		return failed
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-m.Done():
	case <-timer.C:
		return errors.Join(fmt.Errorf("it never came there within %s", limit), failed, errors.New(m.Tail()))
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !strings.Contains(m.Output(), "died at "+s.point+"\n") {
		return errors.Join(fmt.Errorf("it ended otherwise: %w", m.Exited()), failed)
	}
	g.sum.deaths.Add(1)
	return nil
}

// kill sends a signal to the mirror, which may have ended by itself.
func kill(m *mirrord.Mirror, sig syscall.Signal) error {
	if err := syscall.Kill(m.Pid(), sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("send %v: %w", sig, err)
	}
	return nil
}

// number reads a setting of the test.
func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%s: write a number from 1 up", variable, text)
	}
	return n
}

// crashSeed is CRASH_SEED, or another one each time.
func crashSeed(t *testing.T) int {
	t.Helper()
	return number(t, "CRASH_SEED", 1+rand.IntN(1<<31))
}

// tally counts what was done, for the report.
type tally struct {
	prompt                            bool // mirrors have to be ready within 10 s
	deaths, restarts, online, offline atomic.Int64
	slowest                           atomic.Int64 // start until ready, in nanoseconds
}

func (s *tally) ready(took time.Duration) {
	s.restarts.Add(1)
	for {
		old := s.slowest.Load()
		if int64(took) <= old || s.slowest.CompareAndSwap(old, int64(took)) {
			return
		}
	}
}

func (s *tally) String() string {
	return fmt.Sprintf("died %d times; started %d times, ready after at most %s; pulled %d images with the upstream up, %d "+
		"with it down", s.deaths.Load(), s.restarts.Load(), time.Duration(s.slowest.Load()).Round(time.Millisecond),
		s.online.Load(), s.offline.Load())
}
