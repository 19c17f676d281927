package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
)

// ledger is a catalog on tables in memory, with the tables of clients and pins.
type ledger struct {
	*catalog.Catalog
	tags, clients, pins *statetest.Table
	log                 *testlog.Log
}

func newLedger() *ledger {
	l := &ledger{tags: statetest.NewTable(), clients: statetest.NewTable(), pins: statetest.NewTable(), log: new(testlog.Log)}
	l.restart()
	return l
}

// restart makes the catalog anew, with nothing but the tables.
func (l *ledger) restart() {
	l.Catalog = catalog.New(l.tags, statetest.NewTable(), catalog.Options{
		Clients: l.clients, Pins: l.pins, Log: slog.New(slog.NewTextHandler(l.log, nil)),
	})
}

// flush writes what waits.
func (l *ledger) flush(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

func (l *ledger) wants(t *testing.T, ref oci.Ref, want ...catalog.Client) {
	t.Helper()
	got, err := l.Clients(ref)
	if err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(append([]catalog.Client{}, want...), got); d != "" {
		t.Errorf("clients of %s (-want +got):\n%s", ref, d)
	}
}

// The client's last digest is known at once, and after a restart; a client that pulls the same again causes one write an hour.
func TestClients(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ref, near := oci.Ref{Repo: nginx, Tag: "1"}, oci.Ref{Repo: nginx, Tag: "1.27"}
		served := func(ref oci.Ref, d oci.Digest, client string) time.Time {
			l.Served(ref, d, client, "", time.Now())
			return time.Now()
		}
		start := served(ref, aa, "node-a")
		served(near, cc, "fe80::1@x")
		time.Sleep(time.Second)
		b := served(ref, bb, "node-b")
		l.wants(t, ref, catalog.Client{Client: "node-b", Digest: bb, LastPull: b}, catalog.Client{Client: "node-a", Digest: aa, LastPull: start})
		l.wants(t, near, catalog.Client{Client: "fe80::1@x", Digest: cc, LastPull: start})
		if n := l.clients.Writes(); n != 0 {
			t.Errorf("%d writes before the batch", n)
		}
		l.flush(t)
		writes := l.clients.Writes()
		var last time.Time
		for range 1000 { // 50 minutes
			time.Sleep(3 * time.Second)
			last = served(ref, aa, "node-a")
		}
		l.flush(t)
		if n := l.clients.Writes() - writes; n != 0 {
			t.Errorf("%d writes within an hour", n)
		}
		l.wants(t, ref, catalog.Client{Client: "node-a", Digest: aa, LastPull: last}, catalog.Client{Client: "node-b", Digest: bb, LastPull: b})
		l.restart()
		l.wants(t, ref, catalog.Client{Client: "node-b", Digest: bb, LastPull: b}, catalog.Client{Client: "node-a", Digest: aa, LastPull: start})
		served(ref, aa, "node-a")
		l.flush(t)
		if n := l.clients.Writes() - writes; n != 0 {
			t.Errorf("%d writes within an hour, after a restart", n)
		}
		time.Sleep(time.Hour)
		last = served(ref, aa, "node-a")
		moved := served(ref, aa, "node-b")
		l.flush(t)
		l.restart()
		l.wants(t, ref, catalog.Client{Client: "node-a", Digest: aa, LastPull: last}, catalog.Client{Client: "node-b", Digest: aa, LastPull: moved})
		// Calls that come late, and without a name or a tag, change nothing.
		l.Served(ref, bb, "node-b", "", moved.Add(-time.Minute))
		l.Served(ref, bb, "", "", time.Now())
		l.Served(oci.Ref{Repo: nginx, Digest: bb}, bb, "node-c", "", time.Now())
		l.wants(t, ref, catalog.Client{Client: "node-a", Digest: aa, LastPull: last}, catalog.Client{Client: "node-b", Digest: aa, LastPull: moved})
		served(ref, bb, "waits")
		if err := l.Forget(ref); err != nil {
			t.Fatal(err)
		}
		l.flush(t)
		l.wants(t, ref)
		l.restart()
		l.wants(t, ref)
		l.wants(t, near, catalog.Client{Client: "fe80::1@x", Digest: cc, LastPull: start})
	})
}

// Of a tag the 1,024 clients that pulled last are kept, and a flood of names within one batch does not grow the memory.
func TestClientsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		for batch := range 3 {
			for i := range 700 {
				time.Sleep(time.Millisecond)
				l.Served(ref, aa, fmt.Sprintf("node-%d-%d", batch, i), "", time.Now())
			}
			l.flush(t)
		}
		l.restart()
		got, err := l.Clients(ref)
		if err != nil || len(got) != 1024 || got[0].Client != "node-2-699" || got[1023].Client != "node-1-376" {
			t.Errorf("%d clients, from %s to %s, %v", len(got), got[0].Client, got[len(got)-1].Client, err)
		}
		n := 0
		for _, err := range l.clients.Scan("") {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		if n != 1024 {
			t.Errorf("%d records", n)
		}
		for i := range 200_000 {
			l.Served(oci.Ref{Repo: nginx, Tag: fmt.Sprint(i % 500)}, aa, fmt.Sprint(strings.Repeat("x", 1000), i), "", time.Now())
		}
		l.clients.SetFail(func() error { return errors.New("no space left on device") })
		l.flush(t)
		if log := l.log.String(); !strings.Contains(log, "cannot record which client has which digest") || strings.Count(log, "\n") != 1 ||
			!strings.Contains(log, "items=500") { // a name is cut, so they are all one
			t.Errorf("log: %s", log)
		}
		l.clients.SetFail(nil)
		l.flush(t)
		if got, err := l.Clients(oci.Ref{Repo: nginx, Tag: "499"}); err != nil || len(got) != 1 {
			t.Errorf("what could not be written is lost: %d, %v", len(got), err)
		}
	})
}

// One address with many names pushes out its own, and no client of another address; what others do not need is its to use.
func TestClientsOfOneAddress(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		pull := func(n int, name, peer string) {
			for i := range n {
				client := name
				if n > 1 {
					client = fmt.Sprint(name, i)
				}
				time.Sleep(time.Millisecond)
				l.Served(ref, aa, client, peer, time.Now())
			}
		}
		for i := range 300 {
			pull(1, fmt.Sprint("node-", i), fmt.Sprint("10.0.0.", i))
		}
		pull(200, "behind-a-gateway-", "10.1.0.1")
		pull(5000, "made-up-", "10.6.6.6")
		count := func() map[string]int {
			got, err := l.Clients(ref)
			if err != nil {
				t.Fatal(err)
			}
			all, err := l.AllClients()
			if diff := cmp.Diff(map[oci.Ref][]catalog.Client{ref: got}, all); err != nil || diff != "" {
				t.Errorf("all clients: %v\n%s", err, diff)
			}
			n := make(map[string]int)
			for _, c := range got {
				name, _, _ := strings.Cut(c.Client, "-")
				n[name]++
			}
			return n
		}
		want := map[string]int{"node": 300, "behind": 200, "made": 524}
		for _, when := range []string{"in memory", "written", "after a restart"} {
			if diff := cmp.Diff(want, count()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
			l.flush(t)
			if when == "written" {
				l.restart()
			}
		}
		pull(3000, "other-", "10.7.7.7")
		l.flush(t)
		if got := count(); got["node"] != 300 || got["behind"] != 200 || got["made"]+got["other"] != 524 || got["other"] != 262 {
			t.Errorf("two floods: %v", got)
		}
	})
}

// Clients whose pulls fill the memory are written before the half minute is over; those that come when it is full are noted with
// their next pull.
func TestClientsComeInAFlood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = l.Run(ctx) }()
		pull := func(i int) {
			l.Served(oci.Ref{Repo: nginx, Tag: fmt.Sprint(i % 20)}, aa, fmt.Sprint("node-", i), "", time.Now())
		}
		for i := range 40_000 {
			pull(i)
		}
		synctest.Wait()
		if l.clients.Writes() == 0 {
			t.Error("nothing was written before its time")
		}
		for i := range 100_000 { // without a moment for Run
			pull(i)
		}
		time.Sleep(time.Minute)
		for i := range 100_000 {
			pull(i)
		}
		cancel()
		<-done
		l.restart()
		for i := range 20 {
			if got, err := l.Clients(oci.Ref{Repo: nginx, Tag: fmt.Sprint(i)}); err != nil || len(got) != 1024 {
				t.Fatalf("tag %d has %d clients, %v", i, len(got), err)
			}
		}
	})
}

// A flood of names at one repository takes the room of that repository's clients; tags and pins have rooms of their own.
func TestFloodOfClients(t *testing.T) {
	t.Parallel()
	db, err := state.Open(filepath.Join(t.TempDir(), "state.db"), state.Options{
		Expendable: map[string]int64{"clients": 256 << 10, "tags": 256 << 10}, Owner: catalog.Owner, Age: catalog.Age,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	c := catalog.New(db.Table("tags"), db.Table("refs"), catalog.Options{Clients: db.Table("clients"), Pins: db.Table("pins")})
	run := func() {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_ = c.Run(ctx)
	}
	start := time.Now().Add(-time.Hour)
	honest := oci.Ref{Repo: oci.Repo{Host: "good.example:5000", Name: "team/app"}, Tag: "v1"}
	if _, err := c.Moved(honest, catalog.Tag{}, aa, start, catalog.ByPull); err != nil {
		t.Fatal(err)
	}
	if err := c.SetPin(catalog.Pin{Ref: honest, Digest: aa}); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		c.Served(honest, aa, fmt.Sprint("node-", i), "", start)
	}
	run()
	for i := range 10 {
		for j := range 1000 {
			c.Served(oci.Ref{Repo: oci.Repo{Host: honest.Host, Name: "public/many"}, Tag: fmt.Sprint(i)}, aa, fmt.Sprint("made-up-", j), "", time.Now())
		}
		run()
	}
	if used := db.Used(); used > 1<<20 {
		t.Errorf("%d bytes are in use", used)
	}
	if list, err := c.Clients(honest); err != nil || len(list) != 100 {
		t.Errorf("%d clients are left, %v", len(list), err)
	}
	if _, err := c.Tag(honest); err != nil {
		t.Error(err)
	}
	if list, err := c.Clients(oci.Ref{Repo: oci.Repo{Host: honest.Host, Name: "public/many"}, Tag: "9"}); err != nil || len(list) == 0 {
		t.Errorf("%d of the last ones, %v", len(list), err)
	}
}

func BenchmarkServed(b *testing.B) {
	l := newLedger()
	ref := oci.Ref{Repo: nginx, Tag: "latest"}
	b.ReportAllocs()
	for b.Loop() {
		l.Served(ref, aa, "node-a", "", time.Now())
	}
}
