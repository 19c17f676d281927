package pull_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

// So many failures are remembered, those that were asked for last: a client that makes up tags pushes out its own.
func TestFailuresAreBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const most = 10_000
		_ = w.fails(ask(app, "in-use"))
		_ = w.fails(ask(app, "first"))
		for i := range most {
			_ = w.fails(ask(app, fmt.Sprint("made-up-", i)))
			if i%100 == 0 {
				_ = w.fails(ask(app, "in-use"))
			}
		}
		w.hub.asked()
		_ = w.fails(ask(app, "in-use"))
		_ = w.fails(ask(app, fmt.Sprint("made-up-", most-1)))
		w.hub.wants(t)
		_ = w.fails(ask(app, "first"))
		if n := len(w.hub.asked()); n == 0 {
			t.Error("more failures are remembered than may be")
		}
	})
}

// A failure is the answer to all requests for the same, by HEAD or GET, for a time that depends on its kind.
func TestFailuresAreRemembered(t *testing.T) {
	digest := descriptor("", []byte("nothing")).Digest
	byTag := func(w *world, head bool) error {
		a := ask(app, "1")
		a.Request.Head = head
		return w.fails(a)
	}
	byDigest := func(w *world, head bool) error {
		a := ask(app, digest.String())
		a.Request.Head = head
		return w.fails(a)
	}
	blob := func(w *world, head bool) error {
		a := askBlob(app, digest)
		a.Request.Head = head
		_, err := w.Blob(context.Background(), a)
		return err
	}
	refused := func(code int) error { return status(code)("") }
	limited := func(after time.Duration) error { return &fault.Error{Status: 429, RetryAfter: after} }
	unasked := &fault.Error{
		Status: 429, RetryAfter: 6 * time.Hour, Steps: []fault.Step{{Name: fault.StepManifest, Err: fault.ErrNotAsked}},
	}
	content := func(k fault.ContentKind) error {
		return &fault.Error{Status: 200, Err: &fault.ContentError{Kind: k}}
	}
	for _, tt := range []struct {
		name   string
		ask    func(w *world, head bool) error
		fault  error
		memory time.Duration
	}{
		{"tag 404", byTag, refused(404), 10 * time.Second},
		{"tag 410", byTag, refused(410), 10 * time.Second},
		{"tag 401", byTag, refused(401), 10 * time.Second},
		{"tag 403", byTag, refused(403), 10 * time.Second},
		{"tag 451", byTag, refused(451), 10 * time.Second},
		{"tag 502", byTag, refused(502), 2 * time.Second},
		{"tag no network", byTag, refused(0), 2 * time.Second},
		{"tag 429", byTag, refused(429), time.Second},
		{"tag 429 for 30 s", byTag, limited(30 * time.Second), 30 * time.Second},
		{"tag 429 for 6 h", byTag, limited(6 * time.Hour), time.Hour},
		{"tag 429 without a request", byTag, unasked, 2 * time.Second},
		{"tag HTML", byTag, content(fault.ContentNotRegistry), 2 * time.Second},
		{"digest 404", byDigest, refused(404), 2 * time.Second},
		{"digest 403", byDigest, refused(403), 10 * time.Second},
		{"digest wrong", byDigest, content(fault.ContentDigest), 2 * time.Second},
		{"digest of no manifest", byDigest, content(fault.ContentNotManifest), 10 * time.Second},
		{"digest too large", byDigest, content(fault.ContentTooLarge), 10 * time.Second},
		{"digest stalled", byDigest, content(fault.ContentStalled), 2 * time.Second},
		{"blob 404", blob, refused(404), 2 * time.Second},
		{"blob 401", blob, refused(401), 10 * time.Second},
		{"blob 503", blob, refused(503), 2 * time.Second},
		{"blob short", blob, content(fault.ContentSize), 2 * time.Second},
		{"not by the upstream", byTag, errors.New("odd"), 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.hub.behave(func(string) error { return tt.fault }, nil)
				want := func(calls int) {
					t.Helper()
					if got := w.hub.asked(); len(got) != calls {
						t.Errorf("calls %q, want %d", got, calls)
					}
				}
				begun := time.Now()
				first := tt.ask(w, true)
				if !same(first, tt.fault) {
					t.Fatalf("got %v, want %v", first, tt.fault)
				}
				want(1)
				for range 2 {
					for _, head := range []bool{false, true} {
						if err := tt.ask(w, head); !sameBut(err, first, time.Since(begun)) {
							t.Errorf("head=%t: got %v, want the same error", head, err)
						}
					}
					time.Sleep(tt.memory - 1)
				}
				want(0)
				_ = tt.ask(w, false)
				want(1)
			})
		})
	}
}

// sameBut reports whether an error is another one, some time later: its RetryAfter counts down.
func sameBut(err, first error, later time.Duration) bool {
	e, ok := errors.AsType[*fault.Error](err)
	f, ok2 := errors.AsType[*fault.Error](first)
	if !ok || !ok2 || f.RetryAfter == 0 {
		return same(err, first)
	}
	want := *f
	want.RetryAfter = max(want.RetryAfter-later, time.Second)
	return cmp.Equal(*e, want, cmpopts.EquateErrors())
}

func TestFailureOfOneIsNotThatOfAnother(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.behave(status(403), nil)
		_ = w.fails(ask(app, "1"))
		_ = w.fails(ask(app, "2"))
		_ = w.fails(ask("acme/other", "1"))
		_ = w.fails(ask("ghcr.io/acme/app", "1"))
		w.hub.wants(t, "HEAD acme/app:1", "HEAD acme/app:2", "HEAD acme/other:1")
		w.ghcr.wants(t, "HEAD acme/app:1")
		d := descriptor("", []byte("nothing")).Digest
		_ = w.fails(ask(app, d.String()))
		if _, err := w.Blob(t.Context(), head(askBlob(app, d))); err == nil {
			t.Error("blob: no error")
		}
		w.hub.wants(t, "GET acme/app@"+d.String(), "STAT acme/app@"+d.String())
	})
}

func TestForgetClearsARepository(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.behave(status(403), nil)
		_ = w.fails(ask(app, "1"))
		_ = w.fails(ask("acme/other", "1"))
		w.Forget(oci.Repo{Host: hub, Name: app})
		w.hub.asked()
		_ = w.fails(ask(app, "1"))
		_ = w.fails(ask("acme/other", "1"))
		w.hub.wants(t, "HEAD acme/app:1")
	})
}

// A reload may have repaired the cause of a failure, and the upstream does not show it: a password file has the same name with
// another password in it.
func TestUseClearsFailures(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.behave(status(403), nil)
		_ = w.fails(ask(app, "1"))
		_ = w.fails(ask("ghcr.io/acme/app", "1"))
		w.hub.asked()
		w.ghcr.asked()
		longer := policy
		longer.MaxAge = time.Hour
		w.use(w.hub, longer) // same upstreams
		_ = w.fails(ask(app, "1"))
		_ = w.fails(ask(app, "1"))
		_ = w.fails(ask("ghcr.io/acme/app", "1"))
		w.hub.wants(t, "HEAD acme/app:1")
		w.ghcr.wants(t, "HEAD acme/app:1")

		other := newRegistry(hub)
		im := other.push(t, app, "1", "a")
		w.use(other, longer)
		w.fresh(w.get(ask(app, "1")), im.index)
		w.hub.wants(t)

		time.Sleep(time.Hour - 1) // the new policy holds
		other.asked()
		w.get(ask(app, "1"))
		other.wants(t)
	})
}

// Once the manifest that a tag means is known to be bad, HEAD is no better than GET.
func TestHeadOfATagWhoseManifestFails(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		bad := &fault.Error{Status: 200, Err: &fault.ContentError{Kind: fault.ContentDigest}}
		w.hub.behave(func(call string) error {
			if strings.HasPrefix(call, "GET ") {
				return bad
			}
			return nil
		}, nil)
		if got := w.get(head(ask(app, "1"))).Digest; got != im.index.Digest {
			t.Errorf("before anybody knows: %s", got)
		}
		for _, a := range []pull.Ask{
			ask(app, "1"), head(ask(app, "1")), ask(app, im.index.Digest.String()), head(ask(app, im.index.Digest.String())),
		} {
			if err := w.fails(a); !same(err, error(bad)) {
				t.Errorf("%+v: %v", a.Request, err)
			}
		}
		time.Sleep(policy.MaxAge + 1) // the tag is checked again, by HEAD, and that still means nothing
		_ = w.fails(ask(app, "1"))
		w.hub.asked()
		if err := w.fails(head(ask(app, "1"))); !same(err, error(bad)) {
			t.Errorf("after a check: %v", err)
		}
	})
}

func TestARequestKeepsTheSetupItCameWith(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(time.Second))
		other := newRegistry(hub)
		other.behave(status(403), nil)
		time.AfterFunc(time.Second/2, func() { w.use(other, policy) })
		w.fresh(w.get(ask(app, "1")), im.index)
		_ = w.fails(ask(app, "2"))
	})
}

func TestFailureMemoryIsBounded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.behave(status(429), nil)
		for i := range 10_001 {
			_ = w.fails(ask(app, fmt.Sprint("v", i)))
		}
		w.hub.asked()
		_ = w.fails(ask(app, "v10000"))
		w.hub.wants(t)
		_ = w.fails(ask(app, "v0")) // the oldest made room
		w.hub.wants(t, "HEAD acme/app:v0")
	})
}

func TestRunEndsWhatOutlivedItsClient(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.hub.behave(nil, takes(50*time.Second))
		ctx, leave := context.WithTimeout(t.Context(), time.Second)
		defer leave()
		if _, err := w.Manifest(ctx, ask(app, "2")); !errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
			t.Errorf("got %v, want the client's own error", err)
		}
		if took := since(w.stop); took != 0 {
			t.Errorf("Run took %s to end", took)
		}
		w.fresh(w.get(ask(app, "1")), im.index) // the cached manifest is served
		w.hub.asked()
		_ = w.fails(ask(app, "3"))
		w.hub.wants(t)
	})
}

func TestPanicCostsOnePull(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(func(string) error { panic("odd document") }, nil)
		_ = w.fails(ask(app, "1"))
		w.hub.behave(nil, nil)
		w.fresh(w.get(ask(app, "1")), im.index)
	})
}

func TestTimeoutErrorSaysWho(t *testing.T) {
	t.Parallel()
	err := error(&pull.TimeoutError{
		Ref: oci.Ref{Repo: oci.Repo{Host: hub, Name: app}}, Waited: 25 * time.Second,
	})
	if got, want := err.Error(), "docker.io did not answer for acme/app within 25s"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Error("it is not a DeadlineExceeded")
	}
}
