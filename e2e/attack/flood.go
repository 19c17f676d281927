package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// each runs do for 0 to n-1, so many at once, until the context ends.
func each(ctx context.Context, n, at int, do func(i int)) {
	var next atomic.Int64
	var group sync.WaitGroup
	for range min(at, n) {
		group.Go(func() {
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				do(i)
			}
		})
	}
	group.Wait()
}

// tally counts answers by what they are.
type tally struct {
	mu   sync.Mutex
	seen map[string]int
	slow time.Duration // the slowest
}

func (t *tally) add(a answer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.seen == nil {
		t.seen = make(map[string]int)
	}
	what := "no answer"
	if a.code > 0 {
		reason, _, _ := strings.Cut(a.header.Get("Mirror-Reason"), ";")
		what = strings.TrimSpace(strconv.Itoa(a.code) + " " + reason)
	}
	t.seen[what]++
	t.slow = max(t.slow, a.took)
}

func (t *tally) of(code int) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for what, count := range t.seen {
		if strings.HasPrefix(what, strconv.Itoa(code)) {
			n += count
		}
	}
	return n
}

func (t *tally) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return fmt.Sprint(t.seen)
}

// quantile of durations; 0.99: all but the slowest hundredth are at most this.
func quantile(list []time.Duration, q float64) time.Duration {
	if len(list) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// watch asks for something cold again and again until stop is called, which returns the answers.
func watch(ctx context.Context, every time.Duration, ask func(i int) answer) (stop func() []answer) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan []answer)
	go func() {
		var list []answer
		for i := 0; ctx.Err() == nil; i++ {
			list = append(list, ask(i))
			pause(ctx, every)
		}
		done <- list
	}()
	return func() []answer {
		cancel()
		return <-done
	}
}

// verdict is how victims fared.
func (s *stage) verdict(what string, list []answer, bound time.Duration) {
	bad, slowest := 0, time.Duration(0)
	var t tally
	for _, a := range list {
		t.add(a)
		if a.code != 200 || a.err != nil {
			bad++
		}
		slowest = max(slowest, a.took)
	}
	s.add(figure{What: what + ": failed of " + fmt.Sprint(len(list)), Got: fmt.Sprint(bad, " ", t.String()), Bound: "0", OK: bad == 0 && len(list) > 0})
	s.within(what+": slowest", slowest, bound)
}
