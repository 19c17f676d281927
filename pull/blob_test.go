package pull_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/upstream/fault"
)

// blob pulls a blob that must come, and compares it.
func (w *world) blob(t *testing.T, a pull.Ask, want []byte) pull.Status {
	t.Helper()
	c, err := w.Blob(t.Context(), a)
	if err != nil {
		t.Errorf("blob %s: %v", a.Request.Digest, err)
		return pull.Status{}
	}
	defer func() { _ = c.Close() }()
	if err := c.Ready(t.Context(), 0, c.Size); err != nil {
		t.Errorf("blob %s: %v", a.Request.Digest, err)
		return c.Status
	}
	got, err := io.ReadAll(c.Object)
	if err != nil || string(got) != string(want) || c.Size != int64(len(want)) || c.Digest != a.Request.Digest {
		t.Errorf("blob %s: %d bytes of %d, %v", a.Request.Digest, len(got), len(want), err)
	}
	return c.Status
}

// headBlob asks for a blob's size.
func (w *world) headBlob(t *testing.T, a pull.Ask, want int) pull.Status {
	t.Helper()
	c, err := w.Blob(t.Context(), head(a))
	if err != nil {
		t.Fatalf("head of blob %s: %v", a.Request.Digest, err)
	}
	if c.Object != nil || c.Size != int64(want) || c.Digest != a.Request.Digest {
		t.Errorf("head of blob: %+v, want %d bytes", c, want)
	}
	return c.Status
}

// layer is one of an image whose manifest has been pulled, and its content.
func (w *world) layer(t *testing.T) (oci.Digest, []byte) {
	t.Helper()
	im := w.hub.push(t, app, "1", "a")
	w.get(ask(app, im.children[0].Digest.String()))
	w.hub.asked()
	d := im.children[0].Children[1].Digest
	return d, im.blobs[d]
}

func TestBlobOfAKnownManifest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		if s := w.headBlob(t, askBlob(app, d), len(b)); s.Outcome != cache.Miss {
			t.Errorf("status %+v", s)
		}
		w.hub.wants(t, "STAT acme/app@"+d.String()) // that it stands in the manifest is its publisher's word
		w.headBlob(t, askBlob(app, d), len(b))
		w.hub.wants(t)
		if s := w.blob(t, askBlob(app, d), b); s.Outcome != cache.Miss {
			t.Errorf("status %+v", s)
		}
		w.hub.wants(t, "BLOB acme/app@"+d.String())
		w.hub.behave(status(503), nil)
		if s := w.blob(t, askBlob(app, d), b); s.Outcome != cache.Hit {
			t.Errorf("status %+v", s)
		}
		w.headBlob(t, askBlob(app, d), len(b))
		w.hub.wants(t)
	})
}

func TestBlobOfNoKnownManifest(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		for d, b := range im.blobs {
			w.headBlob(t, askBlob(app, d), len(b))
			w.hub.wants(t, "STAT acme/app@"+d.String())
			w.headBlob(t, askBlob(app, d), len(b))
			w.blob(t, askBlob(app, d), b)
			w.hub.wants(t, "BLOB acme/app@"+d.String())
		}
	})
}

func TestBlobHerd(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		d := im.children[0].Children[1].Digest
		w.hub.behave(nil, takes(time.Second))
		statuses := make(chan pull.Status, 200)
		for range cap(statuses) {
			go func() { statuses <- w.headBlob(t, askBlob(app, d), len(im.blobs[d])) }()
		}
		collapsed := 0
		for range cap(statuses) {
			if (<-statuses).Collapsed {
				collapsed++
			}
		}
		if collapsed != 199 {
			t.Errorf("%d of 200 shared a trip", collapsed)
		}
		w.hub.wants(t, "STAT acme/app@"+d.String())
	})
}

func TestBlobIsAskedForWhereItIsNotKnownToBelong(t *testing.T) {
	for _, tt := range []struct{ name, other, at string }{
		{"other repository", "acme/other", "acme/other"},
		{"other upstream", "ghcr.io/acme/app", app},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				d, b := w.layer(t)
				w.blob(t, askBlob(app, d), b)
				w.hub.asked()
				asked := w.hub
				if tt.at == app {
					asked = w.ghcr
				}
				for _, a := range []pull.Ask{askBlob(tt.other, d), head(askBlob(tt.other, d))} {
					_, err := w.Blob(t.Context(), a)
					if e, ok := errors.AsType[*fault.Error](err); !ok || e.Status != 404 {
						t.Errorf("got %v, want the upstream's 404", err)
					}
				}
				asked.wants(t, "STAT "+tt.at+"@"+d.String())
				asked.blobs[tt.at+"@"+d.String()] = b
				time.Sleep(time.Minute)
				w.blob(t, askBlob(tt.other, d), b) // it belongs there: the bytes are here
				asked.wants(t, "STAT "+tt.at+"@"+d.String())
			})
		})
	}
}

func TestBlobOfUnknownSize(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d := descriptor("", []byte("x")).Digest
		if err := w.books.LearnBlob(oci.Repo{Host: hub, Name: app}, oci.Descriptor{Digest: d, Size: -1}, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
		w.hub.blobs[app+"@"+d.String()] = []byte("x")
		w.headBlob(t, askBlob(app, d), 1)
		w.hub.wants(t, "STAT acme/app@"+d.String())
		w.blob(t, askBlob(app, d), []byte("x"))
	})
}

func TestSecondMismatchIsRememberedForAMinute(t *testing.T) {
	for _, tt := range []struct {
		name string
		meet func(t *testing.T, w *world, d oci.Digest, mismatch error)
	}{
		{"before the first byte", func(t *testing.T, w *world, d oci.Digest, mismatch error) {
			w.shelf.hold = fmt.Errorf("fill: %w", mismatch)
			if _, err := w.Blob(t.Context(), askBlob(app, d)); !errors.Is(err, mismatch) {
				t.Errorf("got %v", err)
			}
			w.shelf.hold = nil
		}},
		{"by Ready", func(t *testing.T, w *world, d oci.Digest, mismatch error) {
			w.shelf.wait = func(context.Context) error { return mismatch }
			c, err := w.Blob(t.Context(), askBlob(app, d))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Ready(t.Context(), 0, 3); !errors.Is(err, mismatch) {
				t.Errorf("got %v", err)
			}
			w.shelf.wait = nil
			w.shelf.evict(d)
		}},
		{"in the middle", func(t *testing.T, w *world, d oci.Digest, mismatch error) {
			c, err := w.Blob(t.Context(), askBlob(app, d))
			if err != nil {
				t.Fatal(err)
			}
			c.Failed(nil)
			c.Failed(io.ErrClosedPipe) // the client's own
			if _, err := w.Blob(t.Context(), head(askBlob(app, d))); err != nil {
				t.Errorf("got %v", err)
			}
			c.Failed(fmt.Errorf("send: %w", mismatch))
			w.shelf.evict(d)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				d, b := w.layer(t)
				tt.meet(t, w, d, &flight.MismatchError{Host: hub, Got: descriptor("", []byte("other")).Digest})
				// An accident: it is fetched once more at once.
				mismatch := &flight.MismatchError{Host: hub, Got: descriptor("", []byte("other")).Digest}
				tt.meet(t, w, d, mismatch)
				w.hub.asked()
				time.Sleep(time.Minute - 1)
				if _, err := w.Blob(t.Context(), askBlob(app, d)); !errors.Is(err, mismatch) {
					t.Errorf("got %v", err)
				}
				w.hub.wants(t)
				time.Sleep(time.Nanosecond)
				w.blob(t, askBlob(app, d), b)
				w.hub.wants(t, "BLOB acme/app@"+d.String())
			})
		})
	}
}

func TestWrongSizeOfAnotherRequestIsNotRemembered(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.shelf.hold = &flight.MismatchError{Host: hub, Size: 7, GotSize: int64(len(b))}
		if _, err := w.Blob(t.Context(), askBlob(app, d)); err == nil {
			t.Error("no error")
		}
		w.shelf.hold = nil
		w.blob(t, askBlob(app, d), b)
	})
}

// A fetch for a client counts for its address, whatever name the client gives itself.
func TestBlobIsFetchedForItsClient(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		for peer, want := range map[string]string{"": "node-7", "192.0.2.9": "192.0.2.9"} {
			a := askBlob(app, d)
			a.Client, a.Peer = "node-7", peer
			w.blob(t, a, b)
			if got := w.shelf.source.Client; got != want {
				t.Errorf("fetched for %q, want %q", got, want)
			}
			w.shelf.evict(d)
		}
	})
}

// A manifest gives a blob a wrong size: the error says so, now and while it is remembered.
func TestSizeThatAManifestGotWrong(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		mismatch := &flight.MismatchError{Digest: d, Host: hub, Size: int64(len(b)), GotSize: 5}
		for range 3 {
			w.shelf.hold = mismatch
			_, err := w.Blob(t.Context(), askBlob(app, d))
			if e, ok := errors.AsType[*pull.ClaimError](err); !ok || e.Claim != int64(len(b)) || e.Size != 5 || !errors.Is(err, mismatch) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// A HEAD has told a wrong size. It is not believed for good: the pull after the one that finds out asks again.
func TestSizeThatTheUpstreamGotWrongIsForgotten(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := []byte("a layer")
		d := descriptor("", b).Digest
		w.hub.blobs[app+"@"+d.String()] = b
		if err := w.books.LearnBlob(oci.Repo{Host: hub, Name: app}, oci.Descriptor{Digest: d, Size: 35}, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
		w.shelf.hold = &flight.MismatchError{Host: hub, Size: 35, GotSize: int64(len(b))}
		if _, err := w.Blob(t.Context(), askBlob(app, d)); err == nil {
			t.Error("no error")
		}
		w.shelf.hold = nil
		w.hub.asked()
		w.blob(t, askBlob(app, d), b)
		w.hub.wants(t, "BLOB "+app+"@"+d.String(), "STAT "+app+"@"+d.String())
		w.headBlob(t, askBlob(app, d), len(b))
		w.hub.wants(t)
	})
}

// A registry has sent other content with a size of its own, and is repaired. Whichever part of the mirror finds out, the size
// is not believed for good.
func TestSizeOfOtherContentIsForgotten(t *testing.T) {
	for _, tt := range []struct {
		name string
		find func(t *testing.T, w *world, d oci.Digest, b []byte)
	}{
		{"by the registry's next answer", func(t *testing.T, w *world, d oci.Digest, b []byte) {
			w.hub.behave(func(op string) error {
				if !strings.HasPrefix(op, "BLOB ") {
					return nil
				}
				return &fault.Error{Op: "blob", Upstream: hub, Status: 200, Err: fault.WrongClaim(5242880, 7)}
			}, nil)
			if _, err := w.Blob(t.Context(), askBlob(app, d)); err == nil {
				t.Error("no error")
			}
			w.hub.behave(nil, nil)
		}},
		{"by the digest", func(t *testing.T, w *world, d oci.Digest, b []byte) {
			w.blob(t, askBlob(app, d), b) // which another answer of the registry has changed since
			repo := oci.Repo{Host: hub, Name: app}
			if err := w.books.LearnBlob(repo, oci.Descriptor{Digest: d, Size: 5 << 20}, catalog.ShownToAll); err != nil {
				t.Fatal(err)
			}
			w.shelf.wrong(&flight.MismatchError{Host: hub, Digest: d, Got: descriptor("", nil).Digest, Size: 5 << 20})
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				b := []byte("a layer")
				d := descriptor("", b).Digest
				w.hub.blobs[app+"@"+d.String()] = b
				repo := oci.Repo{Host: hub, Name: app}
				if err := w.books.LearnBlob(repo, oci.Descriptor{Digest: d, Size: 5 << 20}, catalog.ShownToAll); err != nil {
					t.Fatal(err)
				}
				tt.find(t, w, d, b)
				time.Sleep(2 * time.Minute)
				if m, err := w.books.Member(repo, d); err != nil || m.Size == 5<<20 {
					t.Errorf("%+v, %v", m, err)
				}
				w.blob(t, askBlob(app, d), b)
			})
		})
	}
}

// Content that turns out to be wrong when no client reads it any more is remembered as well.
func TestWrongContentWithoutAReader(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		b := []byte("a layer")
		d := descriptor("", b).Digest
		w.hub.blobs[app+"@"+d.String()] = b
		for i := range 2 {
			w.blob(t, askBlob(app, d), b)
			w.shelf.wrong(&flight.MismatchError{Host: hub, Digest: d, Got: descriptor("", nil).Digest, Size: int64(i)})
		}
		w.hub.asked()
		_, err := w.Blob(t.Context(), askBlob(app, d))
		if _, ok := errors.AsType[*flight.MismatchError](err); !ok {
			t.Errorf("got %v", err)
		}
		w.hub.wants(t)
		time.Sleep(time.Minute)
		w.blob(t, askBlob(app, d), b)
	})
}

func TestColdBlobWaitsNoLongerThanAClient(t *testing.T) {
	block := func(ctx context.Context) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	inBubble(t, func(t *testing.T, w *world) {
		d, _ := w.layer(t)
		w.shelf.wait = block
		c, err := w.Blob(t.Context(), askBlob(app, d))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		if took := since(func() { err = c.Ready(t.Context(), 0, 1) }); took != 20*time.Second || !isTimeout(err) {
			t.Errorf("after %s: %v", took, err)
		}
		w.shelf.evict(d)
		if _, again := w.Blob(t.Context(), head(askBlob(app, d))); !same(again, err) {
			t.Errorf("got %v, then %v", err, again)
		}
	})
	t.Run("client leaves", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			d, b := w.layer(t)
			w.shelf.wait = block
			ctx, leave := context.WithTimeout(t.Context(), time.Second)
			defer leave()
			c, err := w.Blob(ctx, askBlob(app, d))
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Ready(ctx, 0, 1); !errors.Is(err, context.DeadlineExceeded) || isTimeout(err) {
				t.Errorf("got %v, want the client's own", err)
			}
			w.shelf.wait = nil
			w.blob(t, askBlob(app, d), b)
		})
	})
}

func TestReadyOfContentThatIsHere(t *testing.T) {
	t.Parallel()
	if err := (&pull.Content{}).Ready(t.Context(), 0, 1); err != nil {
		t.Error(err)
	}
	(&pull.Content{}).Failed(io.ErrUnexpectedEOF)
}

func TestFetchThatWasGivenUpIsNotAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.hub.behave(func(string) error { return &fault.Error{Op: "blob", Err: context.Canceled} }, nil)
		if _, err := w.Blob(t.Context(), askBlob(app, d)); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		w.hub.behave(nil, nil)
		w.blob(t, askBlob(app, d), b)
	})
}

// A download without readers ends before the upstream was asked again. What it answered until then is not the answer to the next
// client, for which it is asked as often as for any other.
func TestFetchWithoutReadersIsNotAFailure(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.blob(t, askBlob(app, d), b)
		w.shelf.evict(d)
		w.hub.behave(status(503), nil)
		ctx, leave := context.WithCancel(t.Context())
		leave()
		if _, err := w.shelf.source.Fetch(ctx, flight.Want{To: int64(len(b)), Size: int64(len(b))}); err == nil {
			t.Error("no error")
		}
		w.hub.behave(nil, nil)
		w.blob(t, askBlob(app, d), b)
	})
}

// A registry that fails after it has begun to send a blob: a HEAD that it answers with 503 is answered from what the download has
// shown.
func TestHeadBesideADownload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.hub.behave(func(call string) error {
			if strings.HasPrefix(call, "STAT ") {
				return status(503)(call)
			}
			return nil
		}, func(call string) time.Duration {
			if strings.HasPrefix(call, "STAT ") {
				return time.Second
			}
			return 0
		})
		done := make(chan struct{})
		go func() {
			defer close(done)
			c, err := w.Blob(t.Context(), head(askBlob(app, d)))
			if err != nil {
				t.Errorf("HEAD: %v", err)
			} else if c.Size != int64(len(b)) {
				t.Errorf("HEAD: %d bytes, want %d", c.Size, len(b))
			}
		}()
		synctest.Wait()
		w.blob(t, askBlob(app, d), b)
		<-done
		w.hub.wants(t, "STAT acme/app@"+d.String(), "BLOB acme/app@"+d.String())
		w.shelf.evict(d)
		w.blob(t, askBlob(app, d), b) // the failure is not remembered
	})
}

// Once a download has begun, an earlier failure is not the answer to clients that can join it.
func TestFailureEndsWithADownload(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.blob(t, askBlob(app, d), b)
		w.shelf.evict(d)
		src := w.shelf.source
		w.hub.behave(status(503), nil)
		if _, err := w.Blob(t.Context(), askBlob(app, d)); err == nil {
			t.Error("no error")
		}
		w.hub.behave(nil, nil)
		body, err := src.Fetch(t.Context(), flight.Want{To: int64(len(b)), Size: int64(len(b))})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		w.blob(t, askBlob(app, d), b)
	})
}

// The digest of a manifest, asked for among blobs: as the upstream answers, and never as bytes of no type. Where it does
// not answer, the cached manifest is served with its own type.
func TestManifestAmongBlobs(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "1", "a")
		w.get(ask(app, "1"))
		w.hub.asked()
		a := askBlob(app, im.index.Digest)
		for _, a := range []pull.Ask{head(a), a} {
			if c, err := w.Blob(t.Context(), a); !status404(err) {
				t.Errorf("%+v, %v; the upstream has no such blob", c, err)
			}
		}
		w.hub.wants(t, "STAT acme/app@"+im.index.Digest.String()) // remembered in between

		w.hub.behave(status(503), nil)
		time.Sleep(time.Minute)
		c, err := w.Blob(t.Context(), head(a))
		if err != nil || c.MediaType != im.index.MediaType || c.Size != int64(len(im.index.Bytes)) {
			t.Errorf("upstream down: %+v, %v", c, err)
		}
		w.hub.behave(nil, nil)
		time.Sleep(time.Minute)
		w.hub.mu.Lock()
		w.hub.blobs[app+"@"+im.index.Digest.String()] = im.index.Bytes
		w.hub.mu.Unlock()
		c, err = w.Blob(t.Context(), a)
		if err != nil || c.MediaType != im.index.MediaType {
			t.Fatalf("the upstream has it: %+v, %v", c, err)
		}
		_ = c.Close()
	})
}

func status404(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Status == 404
}

// A size of 0 that was learnt from a HEAD, of a blob that is not empty.
func TestSizeThatNoBlobHas(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, content := w.layer(t)
		if err := w.books.LearnBlob(oci.Repo{Host: hub, Name: "acme/other"}, oci.Descriptor{Digest: d}, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
		w.hub.blobs["acme/other@"+d.String()] = content
		w.blob(t, askBlob("acme/other", d), content)
		w.hub.wants(t, "STAT acme/other@"+d.String(), "BLOB acme/other@"+d.String())
		w.headBlob(t, askBlob("acme/other", d), len(content))
	})
}

// The empty config is answered the same by HEAD and GET where the upstream lacks it.
func TestEmptyConfigThatIsMissing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		empty := []byte("{}")
		desc := descriptor("application/vnd.oci.empty.v1+json", empty)
		m := document(t, oci.MediaTypeOCIManifest, map[string]any{"config": desc, "layers": []oci.Descriptor{desc}})
		w.hub.manifests[app+"@"+m.Digest.String()] = m
		w.get(ask(app, m.Digest.String()))
		w.headBlob(t, askBlob(app, desc.Digest), 2)
		w.blob(t, askBlob(app, desc.Digest), empty)
		w.headBlob(t, askBlob(app, desc.Digest), 2)
		// Of a repository that does not refer to it, it is as the upstream says.
		for _, a := range []pull.Ask{head(askBlob("acme/other", desc.Digest)), askBlob("acme/other", desc.Digest)} {
			if _, err := w.Blob(t.Context(), a); !status404(err) {
				t.Errorf("another repository: %v", err)
			}
		}
	})
}

// A part that the upstream refuses is brought by another fetch of the same download: it is not the answer to the next client.
func TestRefusedPartIsNotRemembered(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		busy bool // the mirror itself refused it
	}{
		"too many connections": {&fault.Error{Status: 429, RetryAfter: time.Minute}, false},
		"no turn":              {&fault.Error{Err: &fault.QueueError{Most: 10}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				d, b := w.layer(t)
				w.blob(t, askBlob(app, d), b)
				w.hub.behave(func(string) error { return tt.err }, nil)
				_, err := w.shelf.source.Fetch(t.Context(), flight.Want{From: 1, To: 2, Size: int64(len(b)), Part: true})
				if !errors.Is(err, tt.err) || errors.Is(err, flight.ErrBusy) != tt.busy {
					t.Errorf("the part: %v", err)
				}
				w.hub.behave(nil, nil)
				w.shelf.evict(d)
				w.blob(t, askBlob(app, d), b)
			})
		})
	}
}
