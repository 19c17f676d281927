package pull_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

// fresh checks an answer that is right and not stale.
func (w *world) fresh(c *pull.Content, want *oci.Manifest) {
	w.t.Helper()
	if c.Digest != want.Digest || c.MediaType != want.MediaType || c.Size != int64(len(want.Bytes)) || c.Status.Stale {
		w.t.Errorf("got %s %s of %d bytes, status %+v; want %s %s of %d bytes, not stale",
			c.Digest, c.MediaType, c.Size, c.Status, want.Digest, want.MediaType, len(want.Bytes))
	}
}

func (w *world) stale(c *pull.Content, want *oci.Manifest, age time.Duration) {
	w.t.Helper()
	if c.Digest != want.Digest || string(c.Bytes) != string(want.Bytes) {
		w.t.Errorf("got %s, want %s", c.Digest, want.Digest)
	}
	if s := c.Status; !s.Stale || s.Reason == nil || s.Outcome != cache.Hit || s.Age != age {
		w.t.Errorf("status is %+v, want a stale hit of age %s with a reason", s, age)
	}
}

func TestColdTagIsOneHeadAndOneGet(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		c := w.get(ask(app, "1"))
		w.fresh(c, im.index)
		if c.Status.Outcome != cache.Miss || string(c.Bytes) != string(im.index.Bytes) {
			t.Errorf("status %+v", c.Status)
		}
		if want := (oci.Ref{Repo: oci.Repo{Host: hub, Name: app}, Tag: "1", Digest: im.index.Digest}); c.Ref != want {
			t.Errorf("ref is %v, want %v", c.Ref, want)
		}
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+im.index.Digest.String())

		w.fresh(w.get(ask(app, "1")), im.index)
		w.fresh(w.get(head(ask(app, "1"))), im.index)
		w.fresh(w.get(ask(app, im.index.Digest.String())), im.index)
		w.hub.wants(t)
	})
}

// Clients ask by HEAD for the tag and by GET for the digest, never by GET for the tag: that must be enough to know the
// tag when its upstream is down.
func TestHeadThenGetByDigestRecordsTheTag(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		c := w.get(head(ask(app, "1")))
		w.fresh(c, im.index)
		if c.Status.Outcome != cache.Miss || c.Bytes != nil {
			t.Errorf("a HEAD fetched: %+v", c)
		}
		w.hub.wants(t, "HEAD acme/app:1")
		w.fresh(w.get(head(ask(app, "1"))), im.index)
		w.hub.wants(t)
		w.get(ask(app, im.index.Digest.String()))
		w.hub.wants(t, "GET acme/app@"+im.index.Digest.String())

		w.restart()
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.stale(w.get(ask(app, "1")), im.index, time.Hour)
		w.hub.wants(t, "HEAD acme/app:1")
	})
}

// A node that has the image sends HEAD alone. The ledger has the tag, with its moves, over a restart, and the record gives no right to
// content. No manifest is fetched for it.
func TestHeadAloneIsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		images := []image{w.hub.push(t, app, "1", "a"), w.hub.push(t, app, "1", "b")}
		var want []catalog.Seen
		for i, at := range []int{0, 1, 0} {
			w.hub.push(t, app, "1", []string{"a", "b"}[at])
			synctest.Wait() // a batch may be written now
			before := w.writes()
			w.fresh(w.get(head(ask(app, "1"))), images[at].index)
			if n := w.writes() - before; n > 1 { // that the repository was shown
				t.Errorf("a client waited for %d writes", n)
			}
			now := time.Now()
			want = append([]catalog.Seen{{
				Digest: images[at].index.Digest, First: now, Last: now, Source: catalog.ByCheck, Reversion: i == 2, Reported: true,
			}}, want...)
			time.Sleep(time.Hour)
		}
		want[2].Source = catalog.ByPull
		w.hub.wants(t, "HEAD acme/app:1", "HEAD acme/app:1", "HEAD acme/app:1")
		w.restart()
		got, err := w.books.Tag(tagOne)
		if diff := cmp.Diff(want, got.History); err != nil || diff != "" {
			t.Errorf("%v (-want +got):\n%s", err, diff)
		}
		if m, err := w.books.Member(tagOne.Repo, got.Digest); err != nil || m.Standing != catalog.Unknown {
			t.Errorf("content that was only reported is known: %+v, %v", m, err)
		}
		w.fresh(w.get(head(ask(app, "1"))), images[0].index)
		w.restart()
		w.fresh(w.get(head(ask(app, "1"))), images[0].index) // within maxAge, and its size is not recorded
		w.hub.wants(t, "HEAD acme/app:1", "HEAD acme/app:1")

		w.fresh(w.get(ask(app, "1")), images[0].index)
		if got, err := w.books.Tag(tagOne); err != nil || got.IsReported() || got.History[0].Platforms == nil || got.History[2].Reported {
			t.Errorf("after the manifest has come: %+v, %v", got.History, err)
		}
	})
}

// Tags that a client makes up leave no record, and a registry's word by HEAD opens no content of another repository.
func TestHeadsOpenAndGrowNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		other := w.hub.push(t, "acme/private", "1", "a")
		w.get(ask("acme/private", "1"))
		for i := range 1000 {
			_ = w.fails(head(ask(app, fmt.Sprint("made-up-", i))))
		}
		n := 0
		for _, err := range w.books.Catalog.(*catalog.Catalog).Tags("") {
			if n++; err != nil {
				t.Error(err)
			}
		}
		if n != 1 {
			t.Errorf("%d records, want that of the private repository", n)
		}
		said := oci.Descriptor{Digest: other.index.Digest, Size: int64(len(other.index.Bytes)), MediaType: other.index.MediaType}
		w.hub.push(t, app, "1", "b")
		w.use(&lateResolve{registry: w.hub, answers: []oci.Descriptor{said, said, said, said}}, policy)
		w.get(head(ask(app, "1")))
		for range 2 {
			err := w.fails(ask(app, "1"))
			if e, ok := errors.AsType[*fault.Error](err); !ok || e.Status != 404 {
				t.Errorf("by tag: %v", err)
			}
			if c, err := w.Manifest(t.Context(), ask(app, other.index.Digest.String())); err == nil {
				t.Errorf("by digest: %s was served", c.Digest)
			}
			w.restart()
			w.use(&lateResolve{registry: w.hub, answers: []oci.Descriptor{said, said, said, said}}, policy)
		}
	})
}

func TestTagWithinMaxAgeIsNotChecked(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.hub.asked()
		w.hub.push(t, app, "1", "b")
		time.Sleep(time.Minute - 1)
		c := w.get(ask(app, "1"))
		w.fresh(c, im.index)
		if c.Status.Age != time.Minute-1 || c.Status.Outcome != cache.Hit {
			t.Errorf("status %+v", c.Status)
		}
		w.hub.wants(t)
	})
}

func TestOlderTagIsChecked(t *testing.T) {
	t.Run("unchanged", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			im := w.hub.push(t, app, "1", "a")
			w.get(ask(app, "1"))
			w.hub.asked()
			time.Sleep(time.Minute)
			c := w.get(ask(app, "1"))
			w.fresh(c, im.index)
			if c.Status.Outcome != cache.Hit || c.Status.Age != 0 {
				t.Errorf("status %+v", c.Status)
			}
			w.hub.wants(t, "HEAD acme/app:1")
			time.Sleep(time.Minute - 1)
			w.get(ask(app, "1"))
			w.hub.wants(t) // the check counts as confirmation
		})
	})
	t.Run("moved", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			w.hub.push(t, app, "1", "a")
			w.get(ask(app, "1"))
			w.hub.asked()
			b := w.hub.push(t, app, "1", "b")
			time.Sleep(time.Minute)
			w.fresh(w.get(ask(app, "1")), b.index)
			w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+b.index.Digest.String())
			w.hub.behave(status(500), nil)
			time.Sleep(time.Hour)
			w.stale(w.get(ask(app, "1")), b.index, time.Hour)
		})
	})
	t.Run("moved and its manifest does not come", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			a := w.hub.push(t, app, "1", "a")
			w.get(ask(app, "1"))
			b := w.hub.push(t, app, "1", "b")
			fail := status(500)
			w.hub.behave(func(call string) error {
				if strings.HasPrefix(call, "GET") {
					return fail(call)
				}
				return nil
			}, nil)
			time.Sleep(time.Hour)
			w.stale(w.get(ask(app, "1")), a.index, time.Hour)
			w.restart() // recorded content can be served
			w.hub.behave(status(500), nil)
			w.stale(w.get(ask(app, "1")), a.index, time.Hour)
			w.hub.behave(nil, nil)
			time.Sleep(time.Minute)
			w.fresh(w.get(ask(app, "1")), b.index)
		})
	})
	t.Run("moved back to a cached digest", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			a := w.hub.push(t, app, "1", "a")
			w.get(ask(app, "1"))
			w.hub.push(t, app, "1", "b")
			time.Sleep(time.Hour)
			w.get(ask(app, "1"))
			w.hub.push(t, app, "1", "a")
			time.Sleep(time.Hour)
			w.hub.asked()
			w.fresh(w.get(ask(app, "1")), a.index)
			w.hub.wants(t, "HEAD acme/app:1")
		})
	})
}

func TestSlowCheckServesTheCopyAndGoesOn(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		b := w.hub.push(t, app, "1", "b")
		w.get(ask(app, b.index.Digest.String())) // so that the check alone decides
		time.Sleep(time.Hour)
		w.hub.asked()
		w.hub.behave(nil, takes(10*time.Second))

		var c *pull.Content
		if took := since(func() { c = w.get(ask(app, "1")) }); took != 5*time.Second {
			t.Errorf("the first waited %s, want 5 s", took)
		}
		w.stale(c, a.index, time.Hour)
		if e, ok := errors.AsType[*pull.TimeoutError](c.Status.Reason); !ok || e.Waited != 5*time.Second {
			t.Errorf("reason is %v", c.Status.Reason)
		}
		// The upstream is in trouble by now: no client waits long for the check that still runs.
		if took := since(func() { c = w.get(ask(app, "1")) }); took != time.Second {
			t.Errorf("the second waited %s, want 1 s", took)
		}
		w.stale(c, a.index, time.Hour+5*time.Second)
		w.hub.wants(t, "HEAD acme/app:1")

		time.Sleep(4*time.Second + 1) // it is recorded when it comes
		w.fresh(w.get(ask(app, "1")), b.index)
		w.hub.wants(t)
	})
}

func TestPatienceComesBackWithAnAnswerInTime(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		wait := func(want time.Duration) {
			t.Helper()
			time.Sleep(time.Hour)
			if took := since(func() { w.get(ask(app, "1")) }); took != want {
				t.Errorf("waited %s, want %s", took, want)
			}
			time.Sleep(time.Minute)
		}
		w.hub.behave(nil, takes(10*time.Second))
		wait(5 * time.Second)
		wait(time.Second)
		wait(time.Second)
		w.hub.behave(nil, takes(3*time.Second)) // slow, but in time: from the next time on it's waited for
		wait(time.Second)
		wait(3 * time.Second)
		w.hub.behave(status(503), takes(2*time.Second))
		wait(2 * time.Second)
		wait(time.Second)
		w.hub.behave(status(429), takes(time.Second/2)) // a limit answers fast, and says nothing of the tag
		wait(time.Second / 2)
		w.hub.behave(nil, takes(3*time.Second))
		wait(time.Second)
		wait(3 * time.Second)
		w.fresh(w.get(ask(app, "1")), a.index)
	})
}

func TestHealthyUpstreamAt800MillisecondsIsNeverStale(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, takes(800*time.Millisecond))
		for i := range 50 {
			if i%10 == 9 {
				im = w.hub.push(t, app, "1", "a"+string(rune('0'+i)))
			}
			time.Sleep(time.Minute)
			w.fresh(w.get(ask(app, "1")), im.index)
		}
	})
}

func TestUpstreamThatRefusesServesTheCopy(t *testing.T) {
	limited := &fault.Error{Op: "resolve", Upstream: hub, Repository: app, Status: 429, RetryAfter: 90 * time.Second}
	page := &fault.Error{Status: 200, Err: &fault.ContentError{Kind: fault.ContentNotRegistry}}
	for _, tt := range []struct {
		name   string
		fault  error
		memory time.Duration // until the upstream is asked again
	}{
		{"401", status(401)(""), 10 * time.Second},
		{"403", status(403)(""), 10 * time.Second},
		{"404: a tag that was deleted is kept", status(404)(""), 10 * time.Second},
		{"405", status(405)(""), 10 * time.Second},
		{"429", status(429)(""), time.Second},
		{"429 with Retry-After", limited, 90 * time.Second},
		{"500", status(500)(""), 2 * time.Second},
		{"no network", &fault.Error{Op: "resolve", Err: errors.New("refused")}, 2 * time.Second},
		{"a page", page, 2 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				im := w.hub.push(t, app, "1", "a")
				w.get(ask(app, "1"))
				time.Sleep(time.Hour)
				w.hub.asked()
				w.hub.behave(func(string) error { return tt.fault }, nil)
				for _, age := range []time.Duration{0, tt.memory - 1} { // remembered in between
					time.Sleep(age)
					c := w.get(ask(app, "1"))
					w.stale(c, im.index, time.Hour+age)
					if !sameBut(c.Status.Reason, tt.fault, age) {
						t.Errorf("reason is %v, want %v", c.Status.Reason, tt.fault)
					}
				}
				w.hub.wants(t, "HEAD acme/app:1")
				time.Sleep(time.Nanosecond)
				w.hub.behave(nil, nil)
				w.fresh(w.get(ask(app, "1")), im.index)
				w.hub.wants(t, "HEAD acme/app:1")

				w.hub.behave(func(string) error { return tt.fault }, nil)
				time.Sleep(policy.StaleIfError + 1)
				if err := w.fails(ask(app, "1")); !same(err, tt.fault) {
					t.Errorf("beyond staleIfError: %v, want %v", err, tt.fault)
				}
			})
		})
	}
}

func TestDownUpstreamServesAWarmImage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, "library/nginx", "1", "a")
		w.pull(t, "nginx", "1", im)
		w.restart() // nothing is left in memory
		w.hub.behave(status(0), takes(time.Second))
		time.Sleep(time.Hour)
		w.hub.asked()
		if took := since(func() { w.pull(t, "nginx", "1", im) }); took > time.Second {
			t.Errorf("a warm pull took %s with the upstream down", took)
		}
		w.hub.wants(t, "HEAD library/nginx:1")
	})
}

func TestRecordedDigestThatIsGone(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		b := w.hub.push(t, app, "1", "b")
		w.shelf.evict(a.index.Digest)
		w.restart()
		delete(w.hub.manifests, app+"@"+a.index.Digest.String())
		w.hub.asked()
		w.fresh(w.get(ask(app, "1")), b.index)
		w.hub.wants(t, "GET acme/app@"+a.index.Digest.String(), "HEAD acme/app:1",
			"GET acme/app@"+b.index.Digest.String())
	})
}

func TestTagOfBytesThatAnotherRepositoryBrought(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.hub.push(t, "acme/other", "1", "a")
		w.fresh(w.get(head(ask("acme/other", "1"))), im.index)
		other := oci.Ref{Repo: oci.Repo{Host: hub, Name: "acme/other"}, Tag: "1"}
		if got, err := w.books.Tag(other); err != nil || !got.IsReported() || got.History[0].Size != 0 {
			t.Errorf("recorded before the repository is known to have it: %v, %v", got, err)
		}
		w.get(ask("acme/other", im.index.Digest.String()))
		if got, err := w.books.Tag(other); err != nil || got.Digest != im.index.Digest {
			t.Errorf("not recorded: %v, %v", got, err)
		}
	})
}

func TestMovedTagWhoseManifestIsSlow(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		b := w.hub.push(t, app, "1", "b")
		time.Sleep(time.Hour)
		w.hub.asked()
		w.hub.behave(nil, func(call string) time.Duration {
			if strings.HasPrefix(call, "GET") {
				return 8 * time.Second
			}
			return 0
		})
		for _, want := range []time.Duration{5 * time.Second, time.Second} {
			if took := since(func() {
				if s := w.get(ask(app, "1")).Status; !s.Stale || !isTimeout(s.Reason) {
					t.Errorf("status %+v", s)
				}
			}); took != want {
				t.Errorf("waited %s, want %s", took, want)
			}
		}
		time.Sleep(2*time.Second + 1)
		w.fresh(w.get(ask(app, "1")), b.index)
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+b.index.Digest.String())
	})
}

// The record of a tag counts from when the upstream said it, not from when it is written.
func TestLateGetByDigestMakesNoTagYounger(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(head(ask(app, "1")))
		time.Sleep(30 * time.Second)
		w.get(ask(app, im.index.Digest.String()))
		time.Sleep(30 * time.Second)
		w.hub.asked()
		w.fresh(w.get(ask(app, "1")), im.index)
		w.hub.wants(t, "HEAD acme/app:1")
	})
}

// A tag that was asked for by HEAD is recorded once its manifest is here, however long after: a slow node, or a tool that
// looked at the tag before the pull.
func TestSlowClientLosesNoTag(t *testing.T) {
	for _, lag := range []time.Duration{0, 11 * time.Second, 59 * time.Second, 10 * time.Minute, 3 * time.Hour} {
		t.Run(lag.String(), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				im := w.hub.push(t, app, "1", "a")
				w.get(head(ask(app, "1")))
				time.Sleep(lag)
				w.pullDigest(t, app, im)
				w.restart()
				w.hub.asked()
				w.hub.behave(status(503), nil)
				time.Sleep(time.Hour)
				w.stale(w.get(ask(app, "1")), im.index, time.Hour+lag)
				w.hub.wants(t, "HEAD acme/app:1")
			})
		})
	}
}

// pullDigest gets the index of an image as clients do that know its digest.
func (w *world) pullDigest(t *testing.T, repo string, im image) {
	t.Helper()
	w.fresh(w.get(ask(repo, im.index.Digest.String())), im.index)
}

// The manifest comes, and by then the tag means another one, which no client has asked for: the digest that was served by the tag pulls.
func TestSlowClientOfATagThatMoved(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(head(ask(app, "1")))
		b := w.hub.push(t, app, "1", "b")
		time.Sleep(70 * time.Second)
		w.fresh(w.get(head(ask(app, "1"))), b.index)
		time.Sleep(10 * time.Second)
		w.pullDigest(t, app, a)
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.stale(w.get(ask(app, "1")), a.index, time.Hour+80*time.Second)
		w.restart()
		w.stale(w.get(ask(app, "1")), a.index, time.Hour+80*time.Second)

		// Once a client has asked for the newer one, the tag means that, and the older one never takes its place again.
		w.hub.behave(nil, nil)
		time.Sleep(2 * time.Second)
		w.fresh(w.get(ask(app, "1")), b.index)
		w.restart()
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.stale(w.get(ask(app, "1")), b.index, time.Hour)
	})
}

// Two reports on a tag, whose manifests come in the wrong order.
func TestManifestsThatComeInTheWrongOrder(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		a := w.hub.push(t, app, "1", "a")
		w.get(head(ask(app, "1")))
		b := w.hub.push(t, app, "1", "b")
		time.Sleep(70 * time.Second)
		w.get(head(ask(app, "1")))
		w.pullDigest(t, app, b)
		w.pullDigest(t, app, a)
		w.restart()
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.stale(w.get(ask(app, "1")), b.index, time.Hour)
	})
}

// A GET by tag whose manifest takes long.
func TestSlowManifestIsRecorded(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.behave(nil, func(call string) time.Duration {
			if strings.HasPrefix(call, "GET") {
				return 20 * time.Second
			}
			return 0
		})
		w.fresh(w.get(ask(app, "1")), im.index)
		w.restart()
		w.hub.asked()
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.stale(w.get(ask(app, "1")), im.index, time.Hour+20*time.Second)
	})
}

// Nothing can be written, the manifest is in memory alone, and the upstream goes down.
func TestTagOfADiskThatIsFull(t *testing.T) {
	full := errors.New("no space left on device")
	inBubble(t, func(t *testing.T, w *world) {
		w.shelf.breaks(func() error { return full })
		im := w.hub.push(t, app, "1", "a")
		w.fresh(w.get(ask(app, "1")), im.index)
		w.hub.behave(status(503), nil)
		time.Sleep(2 * time.Minute) // content that is in no file is forgotten with time
		w.stale(w.get(ask(app, "1")), im.index, 2*time.Minute)

		// Room again: the next check writes the manifest that is in memory, and records the tag.
		w.shelf.breaks(nil)
		w.hub.behave(nil, nil)
		time.Sleep(time.Minute)
		w.fresh(w.get(ask(app, "1")), im.index)
		w.restart()
		w.hub.behave(status(503), nil)
		time.Sleep(time.Hour)
		w.stale(w.get(ask(app, "1")), im.index, time.Hour)
	})
}

// A registry that knows its manifests by tag alone: the manifest of the tag is served, by tag and by digest, and recorded.
func TestRegistryThatKnowsTagsOnly(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.hub.knowsTagsOnly()
		d := im.index.Digest.String()
		w.fresh(w.get(head(ask(app, "1"))), im.index)
		w.fresh(w.get(ask(app, d)), im.index)
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+d, "GET acme/app:1")
		w.fresh(w.get(ask(app, "1")), im.index)
		w.hub.wants(t)
		b := w.hub.push(t, app, "1", "b")
		time.Sleep(time.Minute)
		w.fresh(w.get(ask(app, "1")), b.index)
		w.hub.wants(t, "HEAD acme/app:1", "GET acme/app@"+b.index.Digest.String(), "GET acme/app:1")
	})
	t.Run("another digest", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			im := w.hub.push(t, app, "1", "a")
			w.hub.knowsTagsOnly()
			w.get(head(ask(app, "1")))
			w.hub.push(t, app, "1", "b")
			_ = w.fails(ask(app, im.index.Digest.String()))
			w.hub.asked()
			_ = w.fails(ask(app, im.children[0].Digest.String()))
			w.hub.wants(t, "GET acme/app@"+im.children[0].Digest.String())
		})
	})
}
