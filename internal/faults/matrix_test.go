package faults_test

import (
	"cmp"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"go.uber.org/goleak"
)

var (
	trials = flag.Int("trials", 0, "how many trials; 0: a slice that takes less than a minute")
	large  = flag.Int("large", 0, "how many more with a blob of 300 MiB")
	seed   = flag.Uint64("seed", 1, "of the first trial of each row; the next has the next one")
	only   = flag.String("only", "", "rows to run: F8,F12; empty: all")
	show   = flag.Bool("show", false, "print each trial before it runs, and the mirror's log")
)

// slice is how many trials run by default.
const slice = 700

func TestMain(m *testing.M) {
	flag.Parse()
	pool()
	goleak.VerifyTestMain(m)
}

// tally is the sum of a row's trials.
type tally struct {
	mu                sync.Mutex // guards the fields below
	trials            int
	clients, seamless int // of resumable trials
	others, served    int // of trials that allow a visible break
	fetched, size     int64
	failed            int
}

func (c *tally) add(tr *trial, v verdict) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.trials++
	if tr.resumable {
		c.clients += v.clients
		c.seamless += v.seamless
	} else {
		c.others += v.clients
		c.served += v.seamless
	}
	c.fetched += v.fetched
	c.size += v.size
	if len(v.wrong) > 0 {
		c.failed++
	}
}

// TestMatrix plays the fault matrix.
func TestMatrix(t *testing.T) {
	t.Parallel()
	list := toPlay(t)
	n := *trials
	if n == 0 {
		n = min(slice, slice*len(list))
	}
	shares := 0
	for _, r := range list {
		shares += cmp.Or(r.share, 100)
	}
	type task struct {
		row   *row
		seed  uint64
		large bool
	}
	var tasks []task
	counts := make(map[string]*tally)
	for _, r := range list {
		counts[r.id] = new(tally)
		for i := range max(1, n*cmp.Or(r.share, 100)/shares) {
			tasks = append(tasks, task{r, *seed + uint64(i), *trials == 1 && *large == 1})
		}
	}
	if *trials != 1 {
		body := slices.DeleteFunc(slices.Clone(list), func(r *row) bool { return !r.huge })
		for i := range *large {
			if len(body) > 0 {
				tasks = append(tasks, task{body[i%len(body)], *seed + uint64(i/len(body)), true})
			}
		}
	}
	// In random order, so that slow trials are not all at the end.
	rand.New(rand.NewPCG(*seed, 2)).Shuffle(len(tasks), func(i, j int) { tasks[i], tasks[j] = tasks[j], tasks[i] })
	var next, failures atomic.Int64
	start := time.Now()
	t.Run("trials", func(t *testing.T) {
		for i := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprint("worker ", i), func(t *testing.T) {
				t.Parallel()
				for {
					k := next.Add(1) - 1
					if k >= int64(len(tasks)) || failures.Load() > 50 {
						return
					}
					if k > 0 && k%10_000 == 0 {
						fmt.Fprintf(os.Stderr, "%d trials in %s\n", k, time.Since(start).Round(time.Second))
					}
					tr := newTrial(tasks[k].row, tasks[k].seed, tasks[k].large)
					if *show {
						fmt.Fprintf(os.Stderr, "== %s\n   %s\n", tr, tr.command())
					}
					v := tr.play(t)
					counts[tr.row.id].add(tr, v)
					if *show {
						fmt.Fprintf(os.Stderr, "   %d of %d seamless; %s\n", v.seamless, v.clients, strings.Join(v.noticed, "\n   "))
					}
					if len(v.wrong) > 0 {
						failures.Add(1)
						t.Errorf("%s\n   %s\n   %s", tr, strings.Join(v.wrong[:min(10, len(v.wrong))], "\n   "), tr.command())
					} else if tr.resumable && v.seamless < v.clients {
						t.Logf("seen by clients: %s\n   %s\n   %s", tr, strings.Join(v.noticed[:min(3, len(v.noticed))], "\n   "), tr.command())
					}
				}
			})
		}
	})
	report(t, list, counts, time.Since(start))
}

// toPlay are the rows that are played here.
func toPlay(t *testing.T) (list []*row) {
	for i := range rows {
		r := &rows[i]
		if r.plan != nil && (*only == "" || slices.Contains(strings.Split(*only, ","), r.id)) {
			list = append(list, r)
		}
	}
	if len(list) == 0 {
		t.Fatalf("-only %s: none of these rows is played here", *only)
	}
	return list
}

// report prints the table and checks the figures.
func report(t *testing.T, list []*row, counts map[string]*tally, took time.Duration) {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "row\tfault\ttrials\twrong\tto be healed: clients, noticed nothing\tothers: clients, noticed nothing\tfetched")
	var all tally
	for _, r := range list {
		c := counts[r.id]
		fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%s\t%s\t%s\n", r.id, r.what, c.trials, c.failed, share(c.seamless, c.clients),
			share(c.served, c.others), ratio(c.fetched, c.size))
		all.trials += c.trials
		all.failed += c.failed
		all.clients += c.clients
		all.seamless += c.seamless
		all.others += c.others
		all.served += c.served
		all.fetched += c.fetched
		all.size += c.size
		if c.seamless*1000 < c.clients*999 {
			t.Errorf("%s (%s): %d of %d clients noticed what was to be healed: more than one in a thousand",
				r.id, r.what, c.clients-c.seamless, c.clients)
		}
	}
	fmt.Fprintf(w, "all\t\t%d\t%d\t%s\t%s\t%s\n", all.trials, all.failed, share(all.seamless, all.clients),
		share(all.served, all.others), ratio(all.fetched, all.size))
	_ = w.Flush()
	fmt.Fprintf(&b, "seed %d, %d trials in %s\n", *seed, all.trials, took.Round(time.Second))
	if *trials > 0 || testing.Verbose() {
		fmt.Print(b.String())
	}
}

func share(n, of int) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%d, %.2f %%", of, 100*float64(n)/float64(of))
}

func ratio(n, of int64) string {
	if of == 0 {
		return "-"
	}
	return fmt.Sprintf("%.3fx", float64(n)/float64(of))
}
