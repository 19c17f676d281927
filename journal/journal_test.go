package journal_test

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	index  = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
	child  = "sha256:2222222222222222222222222222222222222222222222222222222222222222"
	config = "sha256:3333333333333333333333333333333333333333333333333333333333333333"
	layer  = "sha256:4444444444444444444444444444444444444444444444444444444444444444"
)

// lines keeps what is logged, without the time.
type lines struct{ testlog.Log }

func (l *lines) take() []string {
	s := strings.TrimSuffix(l.Take(), "\n")
	if s == "" {
		return nil
	}
	return strings.Split(s, "\n")
}

func (l *lines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	}))
}

// bubble runs a journal on a clock of its own.
func bubble(t *testing.T, o journal.Options, test func(j *journal.Journal, log *lines)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		log := &lines{}
		o.Log = log.logger()
		bubbled(t, o, func(j *journal.Journal) { test(j, log) })
	})
}

// bubbled runs a journal in a bubble that is there.
func bubbled(t *testing.T, o journal.Options, test func(*journal.Journal)) {
	t.Helper()
	j := journal.New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	test(j)
	cancel()
	if err := <-done; err != nil {
		t.Errorf("run: %v", err)
	}
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// asked is a request of node-1 for library/nginx.
func asked(kind oci.Kind, reference string, change func(*journal.Request)) journal.Request {
	r := journal.Request{
		At: time.Now(), Client: "node-1", Kind: kind, Status: 200, Outcome: cache.Hit,
		Ref: oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/nginx"}},
	}
	if strings.HasPrefix(reference, "sha256:") {
		r.Ref.Digest = oci.Digest(reference)
	} else {
		r.Ref.Tag = reference
		r.Ref.Digest = index
	}
	if change != nil {
		change(&r)
	}
	return r
}

func head(r *journal.Request) { r.Head = true }

func size(n int64) func(*journal.Request) { return func(r *journal.Request) { r.Bytes = n } }

func failing(reason diagnose.Reason, id string) func(*journal.Request) {
	return func(r *journal.Request) {
		r.Status, r.ID, r.Outcome, r.Bytes = 502, id, "", 302
		if r.Ref.Tag != "" {
			r.Ref.Digest = ""
		}
		r.Finding = &diagnose.Finding{
			Reason: reason, Class: reason.Class(), Summary: "it broke", Remedy: "mend it", Upstream: "docker.io",
			Host: "docker.io", Status: 503,
		}
	}
}

func declined(r *journal.Request) {
	failing(diagnose.NotFoundOrNoAccess, "dddddddd")(r)
	r.Finding.Declined = true
}

func want(t *testing.T, log *lines, lines ...string) {
	t.Helper()
	if diff := cmp.Diff(lines, log.take()); diff != "" {
		t.Errorf("logged (-want +got):\n%s", diff)
	}
}

const (
	pullStart = "level=INFO msg=pull ref=docker.io/library/nginx:1.27 digest=" + index +
		" upstream=docker.io client=node-1 outcome="
	warnStart     = `level=WARN msg="pull failed" ref=docker.io/library/nginx:1.27 `
	declinedStart = `level=INFO msg="pull left to the node" ref=docker.io/library/nginx:1.27 `
	warnEnd       = ` summary="it broke" remedy="mend it" upstream=docker.io status=502 client=node-1 upstream_status=503`
)

func TestPull(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", head))
		pass(time.Second)
		j.Observe(asked(oci.KindManifest, index, size(1000)))
		j.Observe(asked(oci.KindManifest, child, size(500)))
		j.Observe(asked(oci.KindBlob, config, size(200)))
		r := asked(oci.KindBlob, layer, size(1_000_000))
		r.Outcome, r.Took = cache.Miss, 3*time.Second
		pass(3 * time.Second)
		j.Observe(r)
		pass(59 * time.Second)
		want(t, log)
		pass(time.Second)
		want(t, log, pullStart+"served bytes=1001700 from_cache=1700 took=4s")
	})
}

func TestOutcomes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name     string
		requests func() []journal.Request
		want     []string
	}{
		{"looked", func() []journal.Request {
			return []journal.Request{asked(oci.KindManifest, "1.27", head)}
		}, []string{pullStart + "looked bytes=0 from_cache=0 took=0s"}},
		{"stale", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindManifest, "1.27", func(r *journal.Request) { r.Stale = true }),
				asked(oci.KindBlob, layer, size(10)),
			}
		}, []string{pullStart + "stale bytes=10 from_cache=10 took=0s"}},
		{"failed", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindManifest, "1.27", head),
				asked(oci.KindBlob, layer, failing(diagnose.UpstreamError, "aaaaaaaa")),
			}
		}, []string{
			warnStart + "reason=upstream-error class=upstream id=aaaaaaaa" + warnEnd,
			pullStart + "failed bytes=0 from_cache=0 took=0s reason=upstream-error class=upstream id=aaaaaaaa",
		}},
		{"HEAD and GET of one failure are one", func() []journal.Request {
			f := failing(diagnose.UpstreamError, "aaaaaaaa")
			h := asked(oci.KindManifest, "1.27", f)
			h.Head = true
			return []journal.Request{h, asked(oci.KindManifest, "1.27", f)}
		}, []string{
			warnStart + "reason=upstream-error class=upstream id=aaaaaaaa" + warnEnd,
			strings.Replace(pullStart, index, `""`, 1) +
				"failed bytes=0 from_cache=0 took=0s reason=upstream-error class=upstream id=aaaaaaaa",
		}},
		{"a success in the end is not a failure", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindManifest, "1.27", failing(diagnose.ConnectionReset, "aaaaaaaa")),
				asked(oci.KindManifest, "1.27", nil),
				asked(oci.KindBlob, layer, failing(diagnose.ConnectionReset, "bbbbbbbb")),
				asked(oci.KindBlob, layer, size(10)),
			}
		}, []string{
			// One line for one reason of one pull.
			warnStart + "reason=connection-reset class=network id=aaaaaaaa" + warnEnd,
			pullStart + "served bytes=10 from_cache=10 took=0s",
		}},
		{"declined", func() []journal.Request {
			return []journal.Request{asked(oci.KindManifest, "1.27", declined)}
		}, []string{
			declinedStart + "reason=not-found-or-no-access class=undecided id=dddddddd" + warnEnd,
			strings.Replace(pullStart, index, `""`, 1) +
				"declined bytes=0 from_cache=0 took=0s reason=not-found-or-no-access class=undecided id=dddddddd",
		}},
		{"a failure counts more than a refusal", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindManifest, "1.27", declined),
				asked(oci.KindBlob, layer, failing(diagnose.Stalled, "aaaaaaaa")),
			}
		}, []string{
			declinedStart + "reason=not-found-or-no-access class=undecided id=dddddddd" + warnEnd,
			warnStart + "reason=stalled class=network id=aaaaaaaa" + warnEnd,
			strings.Replace(pullStart, index, `""`, 1) +
				"failed bytes=0 from_cache=0 took=0s reason=stalled class=network id=aaaaaaaa",
		}},
		{"a client that leaves", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindManifest, "1.27", nil),
				asked(oci.KindBlob, layer, func(r *journal.Request) { r.Bytes, r.Aborted = 5, true }),
				asked(oci.KindManifest, child, func(r *journal.Request) { r.Status, r.Aborted = 0, true }),
			}
		}, []string{pullStart + "served bytes=5 from_cache=5 took=0s"}},
		{"probes for signatures", func() []journal.Request {
			tag := strings.Replace(index, ":", "-", 1)
			f := failing(diagnose.TagNotFound, "aaaaaaaa")
			return []journal.Request{
				asked(oci.KindManifest, tag+".sig", f), asked(oci.KindManifest, tag, f), asked(oci.KindManifest, tag+".att", nil),
			}
		}, nil},
		{"a tag that only looks like one", func() []journal.Request {
			return []journal.Request{asked(oci.KindManifest, "sha256-1.27", failing(diagnose.TagNotFound, "aaaaaaaa"))}
		}, []string{
			strings.Replace(warnStart, "1.27", "sha256-1.27", 1) + "reason=tag-not-found class=missing id=aaaaaaaa" + warnEnd,
			strings.Replace(strings.Replace(pullStart, index, `""`, 1), "1.27", "sha256-1.27", 1) +
				"failed bytes=0 from_cache=0 took=0s reason=tag-not-found class=missing id=aaaaaaaa",
		}},
		{"a list is not a pull", func() []journal.Request {
			return []journal.Request{
				asked(oci.KindTags, "", func(r *journal.Request) { r.Ref.Digest = "" }),
				asked(oci.KindTags, "", func(r *journal.Request) { r.Ref.Digest = ""; failing(diagnose.Stalled, "aaaaaaaa")(r) }),
			}
		}, []string{`level=WARN msg="list failed" ref=docker.io/library/nginx reason=stalled class=network id=aaaaaaaa` +
			warnEnd}},
		{"neither is a malformed request", func() []journal.Request {
			return []journal.Request{{Client: "node-1", Status: 400, ID: "aaaaaaaa", Finding: &diagnose.Finding{
				Reason: diagnose.BadRequest, Class: diagnose.ClassMirror, Summary: "bad", Remedy: "mend it",
			}}}
		}, []string{`level=WARN msg="request refused" ref="" reason=bad-request class=mirror id=aaaaaaaa summary=bad ` +
			`remedy="mend it" upstream="" status=400 client=node-1`}},
		{"a blob without a manifest", func() []journal.Request {
			return []journal.Request{asked(oci.KindBlob, layer, size(10))}
		}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
				for _, r := range c.requests() {
					j.Observe(r)
				}
				pass(61 * time.Second)
				want(t, log, c.want...)
			})
		})
	}
}

// OnPull gets each pull once, at its end, with its totals.
func TestOnPull(t *testing.T) {
	t.Parallel()
	finished := make(chan journal.Pull, 10)
	var began time.Time
	failure := failing(diagnose.Stalled, "aaaaaaaa")
	bubble(t, journal.Options{OnPull: func(p journal.Pull) { finished <- p }},
		func(j *journal.Journal, log *lines) {
			began = time.Now()
			of := func(client, upstream string, r journal.Request) journal.Request {
				r.Client, r.Upstream, r.Took = client, upstream, 2*time.Second
				return r
			}
			j.Observe(of("served", "docker.io", asked(oci.KindManifest, "1.27", size(500))))
			j.Observe(of("served", "docker.io", asked(oci.KindBlob, layer, failure))) // and then well
			j.Observe(of("served", "docker.io", asked(oci.KindBlob, layer, size(10))))
			j.Observe(of("failed", "docker.io", asked(oci.KindManifest, "1.27", failure)))
			j.Observe(of("failed", "docker.io", asked(oci.KindManifest, "1.27", failure)))
			j.Observe(of("stranger", "", asked(oci.KindManifest, "1.27", declined)))
			j.Observe(of("list", "docker.io", asked(oci.KindTags, "", failure)))
			pass(59 * time.Second)
			if len(finished) > 0 {
				t.Errorf("called before the end: %+v", <-finished)
			}
			pass(10 * time.Second)
			if n := len(log.take()); n < 3 {
				t.Errorf("%d lines", n)
			}
		})
	ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "library/nginx"}, Tag: "1.27"}
	whole := ref
	whole.Digest = index
	stalled, refused := asked(oci.KindManifest, "1.27", failure), asked(oci.KindManifest, "1.27", declined)
	want := []journal.Pull{
		{
			Ref: whole, Upstream: "docker.io", Client: "served", Outcome: journal.Served, Began: began, Took: 2 * time.Second,
			Bytes: 510, FromCache: 510, Source: "served", Documents: []oci.Digest{index}, Layers: true,
		},
		{
			Ref: ref, Upstream: "docker.io", Client: "failed", Source: "failed", Outcome: journal.Failed, Began: began, Took: 2 * time.Second,
			Finding: stalled.Finding, ID: "aaaaaaaa",
		},
		{
			Ref: ref, Client: "stranger", Source: "stranger", Outcome: journal.Declined, Began: began, Took: 2 * time.Second,
			Finding: refused.Finding, ID: "dddddddd",
		},
	}
	close(finished)
	var got []journal.Pull
	for p := range finished {
		got = append(got, p)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("called with (-want +got):\n%s", diff)
	}
}

// A failure is logged at most once a minute, however many nodes meet it, and the line says how often it came since.
func TestSameFailureIsCounted(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{Idle: time.Hour}, func(j *journal.Journal, log *lines) {
		meet := func(node int) {
			r := asked(oci.KindManifest, "1.27", failing(diagnose.RateLimited, "aaaaaaaa"))
			r.Client = "node-" + strconv.Itoa(node)
			j.Observe(r)
		}
		for node := range 50 {
			meet(node)
		}
		pass(59 * time.Second)
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "client=node-0") {
			t.Errorf("logged %q, want one line", got)
		}
		meet(100)
		pass(2 * time.Second)
		want(t, log)
		meet(101)
		synctest.Wait()
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "client=node-101 upstream_status=503 repeats=50") {
			t.Errorf("logged %q, want one line that counts", got)
		}
		j.Observe(asked(oci.KindManifest, "1.28", failing(diagnose.RateLimited, "bbbbbbbb")))
		synctest.Wait()
		if got := log.take(); len(got) != 1 || !strings.Contains(got[0], "id=bbbbbbbb") {
			t.Errorf("logged %q, want the line of another failure", got)
		}
	})
}

// The warning does not wait for the pull's end.
func TestFailureIsLoggedAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", failing(diagnose.Stalled, "aaaaaaaa")))
		synctest.Wait()
		want(t, log, warnStart+"reason=stalled class=network id=aaaaaaaa"+warnEnd)
	})
}

func TestPullsAreSeparate(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
		other := func(change func(*journal.Request)) journal.Request {
			return asked(oci.KindManifest, "1.27", func(r *journal.Request) { r.Ref.Digest = child; change(r) })
		}
		j.Observe(asked(oci.KindManifest, "1.27", nil))
		j.Observe(other(func(r *journal.Request) { r.Client = "node-2" }))
		j.Observe(other(func(r *journal.Request) { r.Ref.Name = "library/redis" }))
		j.Observe(other(func(r *journal.Request) { r.Ref.Host = "quay.io" }))
		j.Observe(other(func(r *journal.Request) { r.Ref.Tag = "1.28" }))
		j.Observe(asked(oci.KindBlob, layer, size(7))) // to the one active last
		pass(61 * time.Second)
		got := log.take()
		if len(got) != 5 || !strings.Contains(got[4], "nginx:1.28 ") || !strings.Contains(got[4], "bytes=7 ") {
			t.Errorf("logged %q, want five pulls, the last with the blob", got)
		}
	})
}

// A layer may take longer than a pull may be idle.
func TestLongBlobKeepsItsPullOpen(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", nil))
		b := asked(oci.KindBlob, layer, nil)
		j.Begin(b)
		pass(10 * time.Minute)
		want(t, log)
		b.Bytes, b.Took = 10<<30, 10*time.Minute
		j.Observe(b)
		pass(61 * time.Second)
		want(t, log, pullStart+"served bytes=10737418240 from_cache=10737418240 took=10m0s")

		// A pull whose end was lost is closed after a day.
		j.Observe(asked(oci.KindManifest, "1.27", nil))
		j.Begin(asked(oci.KindBlob, layer, nil))
		pass(25 * time.Hour)
		if got := log.take(); len(got) != 1 {
			t.Errorf("logged %q", got)
		}
	})
}

func TestStopClosesWhatIsOpen(t *testing.T) {
	t.Parallel()
	log := &lines{}
	j := journal.New(journal.Options{Log: log.logger()})
	j.Observe(asked(oci.KindManifest, "1.27", nil)) // before Run: it waits
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := log.take(); len(got) != 1 || !strings.HasPrefix(got[0], pullStart+"looked") {
		t.Errorf("logged %q", got)
	}
}

func TestObserveNeverBlocks(t *testing.T) {
	t.Parallel()
	log := &lines{}
	j := journal.New(journal.Options{Log: log.logger(), Buffer: 2})
	for range 5 { // Run does not run: a send that blocks would hang
		j.Observe(asked(oci.KindManifest, "1.27", nil))
	}
	if n := j.Dropped(); n != 3 {
		t.Errorf("dropped %d, want 3", n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := j.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(log.take(), "\n"); !strings.Contains(got,
		`msg="journal is overloaded; some requests are not recorded" count=3`) {
		t.Errorf("logged %q", got)
	}
}

// A failure is recorded before its answer has ended. A success may wait a moment for others.
func TestFailureIsRecordedAtOnce(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{}, func(j *journal.Journal, log *lines) {
		j.Observe(asked(oci.KindManifest, "1.27", failing(diagnose.UpstreamError, "aaaaaaaa")))
		synctest.Wait()
		want(t, log, warnStart+"reason=upstream-error class=upstream id=aaaaaaaa"+warnEnd)
	})
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	bubble(t, journal.Options{Idle: time.Hour}, func(j *journal.Journal, log *lines) {
		const clients = 11_000
		for i := range clients {
			r := asked(oci.KindManifest, "1.27", nil)
			r.Client = strconv.Itoa(i)
			j.Observe(r)
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		pass(time.Second)
		if j.Dropped() > 0 {
			t.Fatalf("lost %d events", j.Dropped())
		}
		got := log.take()
		if len(got) != clients-10_000 || !strings.Contains(got[0], "client=0 ") {
			t.Errorf("%d pulls were closed, want the %d longest idle", len(got), clients-10_000)
		}
	})
}
