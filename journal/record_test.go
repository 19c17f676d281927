package journal_test

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

// of makes a request an image's of a client.
func of(name, client string, change func(*journal.Request)) func(*journal.Request) {
	return func(r *journal.Request) {
		r.Ref.Name, r.Client = name, client
		change(r)
	}
}

func shown(t *testing.T, r *journal.Record, f journal.Filter) []string {
	t.Helper()
	var lines []string
	for _, x := range r.Failures(f) {
		lines = append(lines, fmt.Sprint(x.ID, " ", x.Reason, " ", x.Image, " ", x.Outcome, " ", x.Count, " ", x.Clients))
	}
	return lines
}

func TestFailuresAreRecorded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		table := statetest.NewTable()
		run := func(test func(*journal.Journal, *journal.Record)) {
			record := journal.NewRecord(table, nil)
			bubbled(t, journal.Options{Record: record}, func(j *journal.Journal) { test(j, record) })
		}
		broken := failing(diagnose.UpstreamError, "aaaaaaaa")
		run(func(j *journal.Journal, r *journal.Record) {
			// HEAD, GET and a retry of one pull count once; another client's and another pull's count again.
			j.Observe(asked(oci.KindManifest, "1.27", func(r *journal.Request) { head(r); broken(r) }))
			j.Observe(asked(oci.KindManifest, "1.27", broken))
			pass(20 * time.Second)
			j.Observe(asked(oci.KindManifest, "1.27", broken))
			j.Observe(asked(oci.KindManifest, "1.27", of("library/nginx", "node-2", broken)))
			pass(2 * time.Minute)
			j.Observe(asked(oci.KindManifest, "1.27", broken))
			j.Observe(asked(oci.KindManifest, "1", of("acme/secret", "node-3", declined)))
			// A success in the end is not a failure.
			j.Observe(asked(oci.KindManifest, "2", failing(diagnose.ConnectRefused, "bbbbbbbb")))
			j.Observe(asked(oci.KindManifest, "2", nil))
			// Nor are probes and lists.
			j.Observe(asked(oci.KindManifest, "sha256-"+strings.Repeat("a", 64)+".sig", failing(diagnose.TagNotFound, "cccccccc")))
			j.Observe(asked(oci.KindTags, "x", failing(diagnose.UpstreamError, "eeeeeeee")))
			if err := j.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			got := shown(t, r, journal.Filter{})
			want := []string{"aaaaaaaa upstream-error docker.io/library/nginx:1.27 failed 3 map[node-1:2 node-2:1]"}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
		run(func(_ *journal.Journal, r *journal.Record) { // after a restart
			want := []string{
				"aaaaaaaa upstream-error docker.io/library/nginx:1.27 failed 3 map[node-1:2 node-2:1]",
				"dddddddd not-found-or-no-access docker.io/acme/secret:1 declined 1 map[node-3:1]",
			}
			got := shown(t, r, journal.Filter{Declined: true})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
			for name, tt := range map[string]struct {
				filter journal.Filter
				want   int
			}{
				"reason":         {journal.Filter{Reason: diagnose.UpstreamError}, 1},
				"other reason":   {journal.Filter{Reason: diagnose.TagNotFound, Declined: true}, 0},
				"class":          {journal.Filter{Class: diagnose.ClassUpstream}, 1},
				"other class":    {journal.Filter{Class: diagnose.ClassAuth}, 0},
				"client":         {journal.Filter{Client: "node-2"}, 1},
				"other client":   {journal.Filter{Client: "node-9"}, 0},
				"image":          {journal.Filter{Image: "docker.io/library/nginx:1.27"}, 1},
				"repository":     {journal.Filter{Image: "docker.io/library/nginx"}, 1},
				"glob":           {journal.Filter{Image: "docker.io/*"}, 1},
				"glob with tag":  {journal.Filter{Image: "*/nginx:1.2*"}, 1},
				"other image":    {journal.Filter{Image: "docker.io/library/nginx:1"}, 0},
				"since":          {journal.Filter{Since: time.Now().Add(-time.Hour)}, 1},
				"since too late": {journal.Filter{Since: time.Now().Add(time.Hour)}, 0},
				"id":             {journal.Filter{ID: "dddddddd", Declined: true}, 1},
			} {
				if got := len(shown(t, r, tt.filter)); got != tt.want {
					t.Errorf("%s: %d, want %d", name, got, tt.want)
				}
			}
			sum := r.Summary(journal.Filter{Declined: true})
			if diff := cmp.Diff(journal.Summary{
				Classes: map[string]int64{"upstream": 3, "undecided": 1},
				Reasons: map[string]int64{"upstream-error": 3, "not-found-or-no-access": 1},
				Images:  map[string]int64{"docker.io/library/nginx:1.27": 3, "docker.io/acme/secret:1": 1},
				Clients: map[string]int64{"node-1": 2, "node-2": 1, "node-3": 1},
			}, sum); diff != "" {
				t.Error(diff)
			}
			pass(8 * 24 * time.Hour)
		})
		run(func(_ *journal.Journal, r *journal.Record) { // a week is over
			if got := shown(t, r, journal.Filter{Declined: true}); len(got) > 0 {
				t.Errorf("still there: %s", got)
			}
		})
		if n := items(t, table); n != 0 {
			t.Errorf("%d items are left in the table", n)
		}
	})
}

// A look-up that finds nothing is not a failing pull: crane digest and watchers of tags send HEAD alone. A runtime that gets
// the same answer pulls no further, so its HEAD is a failing pull.
func TestLookUps(t *testing.T) {
	t.Parallel()
	gone := failing(diagnose.TagNotFound, "aaaaaaaa")
	agent := func(name string) func(*journal.Request) {
		return func(r *journal.Request) { head(r); gone(r); r.UserAgent = name }
	}
	for name, tt := range map[string]struct {
		requests []func(*journal.Request)
		failed   int
		outcome  journal.Outcome
	}{
		"crane digest":         {[]func(*journal.Request){agent("crane/0.22.1 go-containerregistry/0.22.1")}, 0, journal.Looked},
		"without a user agent": {[]func(*journal.Request){agent("")}, 0, journal.Looked},
		"containerd":           {[]func(*journal.Request){agent("containerd/1.6.20~ds1")}, 1, journal.Failed},
		"BuildKit":             {[]func(*journal.Request){agent("buildkit/v0.25")}, 1, journal.Failed},
		"GET":                  {[]func(*journal.Request){gone}, 1, journal.Failed},
		"HEAD, then GET":       {[]func(*journal.Request){agent(""), gone}, 1, journal.Failed},
		"HEAD of a registry that is down": {[]func(*journal.Request){func(r *journal.Request) {
			head(r)
			failing(diagnose.ConnectRefused, "bbbbbbbb")(r)
		}}, 1, journal.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				record := journal.NewRecord(nil, nil)
				var over []journal.Outcome
				o := journal.Options{Record: record, OnPull: func(p journal.Pull) { over = append(over, p.Outcome) }}
				bubbled(t, o, func(j *journal.Journal) {
					for _, change := range tt.requests {
						j.Observe(asked(oci.KindManifest, "1.27", change))
					}
					if err := j.Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
				})
				if got := shown(t, record, journal.Filter{}); len(got) != tt.failed {
					t.Errorf("recorded: %q, want %d", got, tt.failed)
				}
				if diff := cmp.Diff([]journal.Outcome{tt.outcome}, over); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func items(t *testing.T, table state.Table) (n int) {
	t.Helper()
	for _, err := range table.Scan("") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// A broken deployment: 10,000 failing pulls a second, of images and clients that never come again. Not in parallel: it measures
// the heap.
func TestFloodOfFailures(t *testing.T) { //nolint:paralleltest // see above
	table := statetest.NewTable()
	record := journal.NewRecord(table, nil)
	bubble(t, journal.Options{Record: record, Idle: time.Second}, func(j *journal.Journal, log *lines) {
		second := func(s int) {
			for i := range 10_000 {
				n := s*10_000 + i
				id := fmt.Sprintf("%08x", n)
				r := asked(oci.KindManifest, "1", of("acme/app"+id, "node-"+strconv.Itoa(n), failing(diagnose.UpstreamError, id)))
				j.Observe(r)
				if i%1000 == 0 {
					pass(100 * time.Millisecond)
				}
			}
		}
		heap := func() uint64 {
			runtime.GC()
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			return m.HeapAlloc
		}
		for s := range 3 {
			second(s)
		}
		before := heap()
		for s := range 8 {
			second(3 + s)
		}
		if after := heap(); after > before+8<<20 {
			t.Errorf("the heap grew from %d to %d bytes", before, after)
		}
		pass(10 * time.Second)
		if n := len(shown(t, record, journal.Filter{})); n != 1000 {
			t.Errorf("%d failures are kept", n)
		}
		if n := items(t, table); n != 1000 {
			t.Errorf("%d failures are stored", n)
		}
		if n := table.Writes(); n > 20 {
			t.Errorf("%d writes in 25 s", n)
		}
		got := log.take()
		if len(got) > 3000 || !strings.Contains(strings.Join(got, "\n"), "suppressed=") {
			t.Errorf("%d lines of 110,000 failures, or none that counts the others", len(got))
		}
	})
}

// A failing disk loses nothing from memory, and is logged once.
func TestRecordOnAFailingDisk(t *testing.T) {
	t.Parallel()
	log := &lines{}
	table := statetest.NewTable()
	table.SetFail(func() error { return errors.New("no space left") })
	record := journal.NewRecord(table, log.logger())
	bubble(t, journal.Options{Record: record}, func(j *journal.Journal, _ *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", failing(diagnose.UpstreamError, "aaaaaaaa")))
		pass(time.Minute)
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "cannot write") {
			t.Errorf("logged: %s", got)
		}
		table.SetFail(nil)
		pass(10 * time.Second)
		if n := items(t, table); n != 1 {
			t.Errorf("%d items are stored once the disk works again", n)
		}
	})
}
