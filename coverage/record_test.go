package coverage_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

// running runs a record until the function that it returns is called.
func running(t *testing.T, r *coverage.Record) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// clients counts the entries of each client.
func clients(t *testing.T, r *coverage.Record) map[string]int {
	t.Helper()
	n := make(map[string]int)
	for c, err := range r.Clients(nil) {
		if err != nil {
			t.Fatal(err)
		}
		n[c.Name] += len(c.Entries)
	}
	return n
}

// now is a pull that has just ended.
func now(client, source, image string) journal.Pull {
	p := pull(client, source, image, 0)
	p.Began = time.Now().Add(-p.Took)
	return p
}

// The record survives a restart, its beginning stays, and a crash is a gap. What it writes does not grow with the pulls.
func TestRecordOverRestarts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := statetest.NewTable()
		start := time.Now()
		r := coverage.Open(table, nil)
		stop := running(t, r)
		synctest.Wait()
		first := table.Writes()
		for range 1000 {
			r.Note(now("node-1", "10.0.0.1", app))
			r.Note(now("10.0.0.2", "10.0.0.2", web))
		}
		r.Note(journal.Pull{Ref: ref(app), Client: "node-1"}) // of none of the upstreams
		if n := table.Writes(); n != first {
			t.Errorf("%d writes of pulls", n-first)
		}
		if got := clients(t, r); got["node-1"] != 4 || got["10.0.0.2"] != 4 {
			t.Errorf("at once: %v", got)
		}
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if n := table.Writes(); n != first+3 { // two clients, and the time
			t.Errorf("%d writes, want 3", n-first)
		}
		time.Sleep(29 * time.Minute)
		synctest.Wait()
		if n := table.Writes() - first; n > 9 {
			t.Errorf("%d writes while nothing was pulled", n)
		}
		stop()
		r.Close()

		time.Sleep(time.Hour)
		r = coverage.Open(table, nil)
		since, gaps := r.Span()
		if !since.Equal(start.Truncate(time.Second)) || len(gaps) != 1 || gaps[0].To.Sub(gaps[0].From) != time.Hour {
			t.Errorf("after a clean stop: since %s, %v", since, gaps)
		}
		if got := clients(t, r); got["node-1"] != 4 || got["10.0.0.2"] != 4 {
			t.Errorf("after a restart: %v", got)
		}
		stop = running(t, r)
		time.Sleep(time.Minute)
		stop() // and no Close: it was killed
		r = coverage.Open(table, nil)
		if _, gaps = r.Span(); len(gaps) != 1 || !gaps[0].To.Equal(time.Now().UTC()) { // the times since the last sign of life join
			t.Errorf("after a crash: %v", gaps)
		}
		r.Lost(5)
		if _, gaps = r.Span(); len(gaps) != 1 {
			t.Errorf("after a loss: %v", gaps)
		}
	})
}

// An Event is kept where the mirror was recording during the pull, and proves it when the API server has forgotten the Event.
func TestPullsOfKubelets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := statetest.NewTable()
		r := coverage.Open(table, nil)
		time.Sleep(time.Hour)
		at := time.Now()
		r.Pulled("node-1", d("index "+app), at.Add(-time.Minute), at)
		r.Pulled("node-1", d("index "+web), at.Add(-2*time.Hour), at) // it began before the record
		r.Pulled("node-1", "", at, at)
		time.Sleep(time.Hour)
		r.Close()
		r = coverage.Open(table, nil)
		since, gaps := r.Span()
		c := func(image string) coverage.Container {
			return coverage.Container{Node: "node-1", Pod: "prod/x", Image: ref(image), Digest: d("index " + image), Started: at}
		}
		report, err := coverage.Judge(coverage.Input{
			Since: since, Gaps: gaps, Nodes: []coverage.Node{{Name: "node-1"}}, Clients: r.Clients(nil), Containers: []coverage.Container{c(app), c(web)},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := "node-1 ghcr.io/acme/app:v1 missed past|node-1 docker.io/library/web:1 unknown not-proven"
		if got := strings.Join(lines(report), "|"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// What can't be written is tried again; the log says it once.
func TestRecordOnAFailingDisk(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table, log := statetest.NewTable(), new(testlog.Log)
		r := coverage.Open(table, slog.New(slog.NewTextHandler(log, nil)))
		stop := running(t, r)
		synctest.Wait()
		table.SetFail(func() error { return errors.New("no space left on device") })
		r.Note(now("node-1", "10.0.0.1", app))
		time.Sleep(5 * time.Minute)
		if n := strings.Count(log.String(), "cannot write which client got which image"); n != 1 {
			t.Errorf("the log has it %d times: %s", n, log)
		}
		table.SetFail(nil)
		stop()
		r.Close()
		if got := clients(t, coverage.Open(table, nil)); got["node-1"] != 4 {
			t.Errorf("after the disk works again: %v", got)
		}
	})
}

// The record of 10,000 nodes with 100 images each fits; a flood of names from one address takes the room of that address alone,
// and then nothing is said of pulls before it.
func TestRecordIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table, log := statetest.NewTable(), new(testlog.Log)
		r := coverage.Open(table, slog.New(slog.NewTextHandler(log, nil)))
		stop := running(t, r)
		images := make([]journal.Pull, 2048)
		for i := range images {
			images[i] = now("", "", fmt.Sprintf("ghcr.io/acme/app:%d", i))
		}
		note := func(client, source string, n int) {
			for i := range n {
				p := images[i]
				p.Client, p.Source = client, source
				r.Note(p)
			}
			synctest.Wait() // it is written while it comes
		}
		const nodes = 10_000
		for i := range nodes {
			note(fmt.Sprint("node-", i), fmt.Sprint("10.0.", i/256, ".", i%256), 97)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if _, gaps := r.Span(); len(gaps) != 0 || log.String() != "" {
			t.Fatalf("gaps %v\n%s", gaps, log)
		}
		for i := range 400 {
			note(fmt.Sprint("made-up-", i), "10.6.6.6", 2048)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		got, all, honest := clients(t, r), 0, 0
		for name, n := range got {
			if all += n; strings.HasPrefix(name, "node-") {
				honest++
			}
			if n > 2048 {
				t.Fatalf("%s has %d entries", name, n)
			}
		}
		if all > 4_000_000 || honest != nodes {
			t.Errorf("%d entries, %d of %d nodes", all, honest, nodes)
		}
		if _, gaps := r.Span(); len(gaps) == 0 || !strings.Contains(log.String(), "is full") {
			t.Errorf("gaps %v\n%s", gaps, log)
		}
		stop()
		r.Close()
	})
}

// More pulls than can wait are lost, and that time is a gap.
func TestPullsThatDoNotFitAreAGap(t *testing.T) {
	t.Parallel()
	r := coverage.Open(statetest.NewTable(), nil)
	for i := range 70_000 {
		r.Note(journal.Pull{
			Ref: oci.Ref{Repo: ref(app).Repo, Tag: fmt.Sprint(i)}, Upstream: "ghcr.io", Client: "node-1", Began: time.Now(),
			Documents: []oci.Digest{d(fmt.Sprint(i)), d(fmt.Sprint("a", i)), d(fmt.Sprint("b", i))},
		})
	}
	if _, gaps := r.Span(); len(gaps) != 1 {
		t.Errorf("gaps: %v", gaps)
	}
}

func BenchmarkNote(b *testing.B) {
	r := coverage.Open(nil, nil)
	p := pull("node-1", "10.0.0.1", app, 60)
	b.ReportAllocs()
	for b.Loop() {
		r.Note(p)
	}
}
