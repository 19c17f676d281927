package flight

import (
	"math/rand/v2"
	"testing"
)

// The set is compared with a slice of booleans.
func TestExtentsAgainstModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		const n = 64
		var e extents
		var model [n + 1]bool
		for range 40 {
			from := r.Int64N(n)
			to := from + r.Int64N(n-from+1)
			e.add(from, to)
			for i := from; i < to; i++ {
				model[i] = true
			}
			var count int64
			for i := range int64(n) {
				if model[i] {
					count++
				}
				run := i
				for model[run] {
					run++
				}
				if got := e.run(i); got != run {
					t.Fatalf("seed %d: run(%d) = %d, want %d in %v", seed, i, got, run, e)
				}
				if run == i {
					next := i + 1
					for next < n && !model[next] {
						next++
					}
					if got := e.next(i, n); got != next {
						t.Fatalf("seed %d: next(%d) = %d, want %d in %v", seed, i, got, next, e)
					}
					prev := i
					for prev > 0 && !model[prev-1] {
						prev--
					}
					if got := e.prev(i); got != prev {
						t.Fatalf("seed %d: prev(%d) = %d, want %d in %v", seed, i, got, prev, e)
					}
				}
			}
			if e.bytes() != count {
				t.Fatalf("seed %d: %d bytes, want %d", seed, e.bytes(), count)
			}
			for i := 1; i < len(e); i++ {
				if e[i-1].to >= e[i].from {
					t.Fatalf("seed %d: %v is not disjoint and sorted", seed, e)
				}
			}
		}
	}
}
