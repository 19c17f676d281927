package disk_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"syscall"
	"testing"
)

var errnos = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EIO, syscall.EROFS, syscall.EMFILE}

// all is whether to try every kind of fault at every call, which takes minutes. Else each call meets one kind.
var all = os.Getenv("FAULTS") == "all"

// Every call to the file system fails in turn, alone or with all that follow. Whatever is served is right, meanwhile,
// after it and after a restart, and when the faults are over everything works without help.
func TestFaultAtEveryCall(t *testing.T) {
	t.Parallel()
	for _, strict := range []bool{false, true} {
		for _, lasting := range []bool{false, true} {
			for i := range errnos {
				if i > 0 && !all {
					break
				}
				t.Run(fmt.Sprintf("strict %t, lasting %t, from %v", strict, lasting, errnos[i]), func(t *testing.T) {
					t.Parallel()
					k := 1
					for faultAt(t, strict, lasting, errnos[(i+k)%len(errnos)], k) {
						k += step
					}
					if k < 100 {
						t.Errorf("only %d calls: the test proves little", k-1)
					}
					t.Logf("k = 1..%d, step %d", k-1, step)
				})
			}
		}
	}
}

// faultAt has call k fail. It reports whether there was one.
func faultAt(t *testing.T, strict, lasting bool, errno syscall.Errno, k int) bool {
	t.Helper()
	w := newWorld(t, fmt.Sprintf("%v at call %d", errno, k), strict, 7)
	defer w.end()
	w.past(k)
	w.c.fail = func(_, _ string, call int) error {
		if call == k || lasting && call > k {
			return errno
		}
		return nil
	}
	w.open()
	w.play(20)
	w.discard()
	w.c.dropCaches()
	w.c.endFaults()
	hit := len(w.c.faults()) > 0
	w.works()
	w.stop(k%2 == 0)
	w.open()
	w.spoolEmpty()
	w.c.dropCaches()
	w.works()
	w.stop(true)
	return hit
}

// The power goes at every call in turn. What strict durability has acknowledged is there afterwards, and what a sync
// has covered without it; all that is there is right.
func TestPowerLossAtEveryCall(t *testing.T) {
	t.Parallel()
	losses := []loss{loseSome, loseAll, loseData, loseNames}
	for _, strict := range []bool{false, true} {
		for i := range losses {
			if i > 0 && !all {
				break
			}
			t.Run(fmt.Sprintf("strict %t, from %s", strict, losses[i]), func(t *testing.T) {
				t.Parallel()
				k := 1
				for powerLossAt(t, strict, losses[(i+k)%len(losses)], k) {
					k += step
				}
				if k < 100 {
					t.Errorf("only %d calls: the test proves little", k-1)
				}
				t.Logf("k = 1..%d, step %d", k-1, step)
			})
		}
	}
}

// powerLossAt has the power go at call k. It reports whether there was one.
func powerLossAt(t *testing.T, strict bool, l loss, k int) bool {
	t.Helper()
	w := newWorld(t, fmt.Sprint("cut at call ", k), strict, 7)
	defer w.end()
	w.past(k)
	w.c.cut = k
	w.open()
	if w.s != nil {
		w.play(20)
	}
	cut := w.c.off
	w.powerLoss(l)
	w.open()
	w.spoolEmpty()
	w.survived()
	w.works()
	w.stop(true)
	w.open()
	w.survived()
	w.stop(true)
	return cut
}

// Faults, stops, kills and power losses in any order, with and without extended attributes.
func TestFaultsAndPowerLosses(t *testing.T) {
	t.Parallel()
	seeds := uint64(100 / step)
	if all {
		seeds = 2000
	}
	ends := make(map[string]int)
	for seed := range seeds {
		history(t, seed, ends)
	}
	t.Logf("%d seeds: %v", seeds, ends)
	if ends["closed"] == 0 || ends["killed"] == 0 || ends["power"] == 0 || ends["resumed"] == 0 {
		t.Errorf("not all was tried: %v", ends)
	}
}

func history(t *testing.T, seed uint64, ends map[string]int) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 3))
	w := newWorld(t, fmt.Sprint("seed ", seed), seed%2 == 0, seed)
	defer w.end()
	w.c.noMarks = seed%5 == 4
	for range 4 {
		w.chance(r)
		w.open()
		w.play(20)
		if r.IntN(2) == 0 {
			w.c.dropCaches()
			w.play(5)
		}
		if r.IntN(2) == 0 {
			w.c.endFaults()
			w.works()
		}
		switch r.IntN(4) {
		case 0:
			w.c.endFaults()
			w.stop(true)
			ends["closed"]++
		case 1:
			w.stop(false)
			ends["killed"]++
		default:
			w.c.endFaults()
			w.powerLoss([]loss{loseAll, loseData, loseNames, loseSome, loseSome}[r.IntN(5)])
			ends["power"]++
			if r.IntN(2) == 0 { // else the faults of the next round meet what is left
				w.open()
				w.spoolEmpty()
				w.survived()
				w.stop(r.IntN(2) == 0)
			}
		}
		if seed%7 == 6 {
			w.strict = !w.strict
		}
	}
	w.open()
	w.works()
	w.stop(true)
	ends["resumed"] += w.resumed
}

// chance decides what fails from now on: nothing, one call, all from one on, some, or those of one kind.
func (w *world) chance(r *rand.Rand) {
	from, most := 1+r.IntN(150), 1+r.IntN(30)
	errno := errnos[r.IntN(len(errnos))]
	only := []string{"", "sync", "syncfs", "remove", "rename", "mark", "write"}[r.IntN(7)]
	if r.IntN(3) == 0 {
		return
	}
	if w.c.noMarks {
		// A failed sync, after which nothing can be removed nor noted, is not known to the process that starts after a kill.
		most = 1
	}
	failed := 0
	w.c.mu.Lock()
	defer w.c.mu.Unlock()
	from += w.c.calls
	w.c.fail = func(op, name string, call int) error {
		if call < from || failed >= most || only != "" && op != only && op != "syncfs" {
			return nil
		}
		failed++
		return errno
	}
}
