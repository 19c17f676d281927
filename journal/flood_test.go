package journal_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

// victims are 40 failures of as many clients.
func victims(j *journal.Journal) {
	for i := range 40 {
		id := fmt.Sprintf("eeee%04x", i)
		r := asked(oci.KindManifest, "1", of("acme/victim", "node-"+strconv.Itoa(i), failing(diagnose.UpstreamError, id)))
		r.Source = "10.0.1." + strconv.Itoa(i)
		r.Ref.Name += strconv.Itoa(i)
		j.Observe(r)
	}
}

// kept counts the failures of victims in a record.
func kept(t *testing.T, record *journal.Record) (n int) {
	t.Helper()
	for _, line := range shown(t, record, journal.Filter{}) {
		if strings.Contains(line, "acme/victim") {
			n++
		}
	}
	return n
}

// One client, under one name or under ten thousand made-up names, opens pulls and fails without end. The other clients keep
// everything: their open pulls, their failures from before and during the flood, over a restart, their finished pulls, and
// their lines in the log.
func TestOneClientsFloodLeavesTheOthers(t *testing.T) {
	t.Parallel()
	for name, flooder := range map[string]func(i int) string{
		"one name":   func(int) string { return "10.6.6.6" },
		"made up":    func(i int) string { return "node-" + strconv.Itoa(i) },
		"made up 10": func(i int) string { return "node-x" + strconv.Itoa(i%10) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			table := statetest.NewTable()
			record := journal.NewRecord(table, nil)
			bubble(t, journal.Options{Record: record}, func(j *journal.Journal, log *lines) {
				flood := func(tag string, i int, change func(*journal.Request)) {
					r := asked(oci.KindManifest, tag+strconv.Itoa(i), of("evil/app", flooder(i), change))
					r.Source = "10.6.6.6"
					j.Observe(r)
					if i%1000 == 999 {
						synctest.Wait()
					}
				}
				victims(j)
				served := asked(oci.KindManifest, "1.27", nil)
				served.Source = "10.0.0.1"
				j.Observe(served)
				for i := range 12_000 {
					flood("open", i, size(0))
				}
				for i := range 5000 {
					flood("bad", i, failing(diagnose.TagNotFound, fmt.Sprintf("bbbb%04x", i)))
				}
				for i := range 20_000 { // one remembered 404 again and again
					flood("again", i%3, failing(diagnose.TagNotFound, "cccccccc"))
				}
				synctest.Wait()
				if n := kept(t, record); n != 40 {
					t.Errorf("%d of 40 failures before the flood are recorded", n)
				}
				log.take()
				pass(time.Second)
				again := asked(oci.KindBlob, layer, size(10))
				again.Source = "10.0.0.1"
				j.Observe(again) // a part of the pull that was open
				fresh := asked(oci.KindManifest, "2", failing(diagnose.UpstreamError, "ffffffff"))
				fresh.Client, fresh.Source, fresh.Ref.Name = "node-99", "10.0.9.9", "acme/fresh"
				j.Observe(fresh)
				synctest.Wait()
				if got := strings.Join(log.take(), "\n"); !strings.Contains(got, "acme/fresh") {
					t.Errorf("a victim's failure is not logged: %q", got)
				}
				pass(3 * time.Minute)
				for i := range 3000 {
					flood("later", i, size(0))
				}
				pass(3 * time.Minute)
				if n := kept(t, record); n != 40 || len(shown(t, record, journal.Filter{Image: "docker.io/acme/fresh"})) != 1 {
					t.Errorf("%d of 40 failures are recorded after the flood", n)
				}
				if n := len(shown(t, record, journal.Filter{})); n != 1000 {
					t.Errorf("%d failures are recorded, the record holds 1000", n)
				}
				over, err := j.Pulls(context.WithoutCancel(t.Context()), false)
				if err != nil {
					t.Fatal(err)
				}
				found := 0
				for _, p := range over {
					if p.Client == "node-1" && p.Ref.Name == "library/nginx" {
						found++
						if p.Outcome != journal.Served || p.Bytes != 10 {
							t.Errorf("the victim's pull is %+v", p)
						}
					}
				}
				if found != 1 {
					t.Errorf("the victim's pull is there %d times among those that are over", found)
				}
			})
			synctest.Test(t, func(t *testing.T) {
				restarted := journal.NewRecord(table, nil)
				if n := kept(t, restarted); n != 40 {
					t.Errorf("%d of 40 failures are recorded after a restart", n)
				}
				j := journal.New(journal.Options{Record: restarted})
				ctx, cancel := context.WithCancel(t.Context())
				go func() { _ = j.Run(ctx) }()
				for i := range 3000 {
					r := asked(oci.KindManifest, "1", of("evil/other", flooder(i), failing(diagnose.TagNotFound, fmt.Sprintf("aaaa%04x", i))))
					r.Source, r.Ref.Tag = "10.6.6.6", strconv.Itoa(i)
					j.Observe(r)
					if i%1000 == 0 {
						synctest.Wait()
					}
				}
				synctest.Wait()
				if n := kept(t, restarted); n != 40 {
					t.Errorf("%d of 40 failures are recorded after a restart and a flood", n)
				}
				cancel()
			})
		})
	}
}

// A failure that a client shares with one that floods is not displaced with the other's failures.
func TestSharedFailureStays(t *testing.T) {
	t.Parallel()
	record := journal.NewRecord(nil, nil)
	bubble(t, journal.Options{Record: record}, func(j *journal.Journal, _ *lines) {
		meet := func(source, name, id string) {
			r := asked(oci.KindManifest, "1", of(name, source, failing(diagnose.UpstreamError, id)))
			r.Source = source
			j.Observe(r)
			synctest.Wait()
		}
		meet("10.6.6.6", "acme/shared", "eeeeeeee")
		meet("10.6.6.6", "acme/other", "eeeeeeef")
		meet("10.0.0.1", "acme/shared", "eeeeeeee")
		for i := range 2000 {
			meet("10.6.6.6", "evil/"+strconv.Itoa(i), fmt.Sprintf("bbbb%04x", i))
		}
		if got := shown(t, record, journal.Filter{Image: "docker.io/acme/*"}); len(got) != 1 || !strings.Contains(got[0], "acme/shared") {
			t.Errorf("recorded: %s", got)
		}
	})
}

// While nothing is recorded for a moment, the requests of one client don't use up the room of the others.
func TestBufferIsShared(t *testing.T) {
	t.Parallel()
	record := journal.NewRecord(nil, nil)
	j := journal.New(journal.Options{Record: record, Buffer: 200})
	flood := func() {
		for i := range 1000 {
			r := asked(oci.KindManifest, strconv.Itoa(i), of("evil/app", "node-"+strconv.Itoa(i), size(0)))
			r.Source = "10.6.6.6"
			j.Observe(r)
		}
	}
	flood()
	victims(j)
	flood()
	if n := j.Dropped(); n != 1800 {
		t.Errorf("%d events are lost, want the 1800 of the client that floods", n)
	}
	for i := range 1000 { // as many sources as it takes: there is an end
		r := asked(oci.KindManifest, "1", nil)
		r.Source = strconv.Itoa(i)
		j.Observe(r)
	}
	if n := j.Dropped() - 1800; n < 1000-200 {
		t.Errorf("%d events of 1000 sources are lost, of a buffer for 200 and as many again", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if n := kept(t, record); n != 40 {
		t.Errorf("%d of 40 failures are recorded", n)
	}
}

// BenchmarkFind measures an event of one client that has many pulls open in one repository.
func BenchmarkFind(b *testing.B) {
	for _, open := range []int{10, 10_000} {
		b.Run(strconv.Itoa(open), func(b *testing.B) {
			j := journal.New(journal.Options{Buffer: 1 << 20, Idle: time.Hour})
			ctx, cancel := context.WithCancel(b.Context())
			done := make(chan error, 1)
			go func() { done <- j.Run(ctx) }()
			events := make([]journal.Request, open)
			for i := range events {
				events[i] = asked(oci.KindManifest, strconv.Itoa(i), nil)
				j.Observe(events[i])
			}
			sync := func() {
				if err := j.Sync(ctx); err != nil {
					b.Error(err)
				}
			}
			sync()
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				j.Observe(events[i%open])
				if i%1000 == 999 {
					sync()
				}
			}
			sync()
			b.StopTimer()
			cancel()
			if err := <-done; err != nil {
				b.Error(err)
			}
			if n := j.Dropped(); n > 0 {
				b.Errorf("%d events are lost", n)
			}
		})
	}
}
