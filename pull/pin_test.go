package pull_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// pinTo pins acme/app to a digest.
func (w *world) pinTo(tag string, d oci.Digest, until time.Time) error {
	return w.Pin(context.Background(), catalog.Pin{Ref: appRef(tag, ""), Digest: d, Since: time.Now(), Until: until, By: catalog.PinnedByAPI})
}

// A pin fetches the whole image first, and then serves it with the registry stopped, whatever the tag means there.
func TestPinServesWithoutTheRegistry(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "main", "one")
		w.get(ask(app, "main"))
		two := w.hub.push(t, app, "main", "two")
		time.Sleep(2 * time.Minute)
		if got := w.get(ask(app, "main")).Digest; got != two.index.Digest {
			t.Fatalf("the tag means %s", got)
		}
		if err := w.pinTo("main", one.index.Digest, time.Time{}); err != nil {
			t.Fatal(err)
		}
		w.hub.asked()
		w.hub.behave(status(503), nil)
		for range 2 {
			if got := w.get(ask(app, "main")).Digest; got != one.index.Digest {
				t.Errorf("pinned, the tag means %s", got)
			}
			time.Sleep(48 * time.Hour)
		}
		m, err := w.Survey(appRef("main", one.index.Digest), nil)
		if err != nil || len(m.Missing()) != 0 {
			t.Errorf("missing of the pinned image: %v, %v", m.Missing(), err)
		}
		w.hub.wants(t)
		w.restart()
		if got := w.get(ask(app, "main")).Digest; got != one.index.Digest {
			t.Errorf("after a restart, the tag means %s", got)
		}
		w.hub.wants(t)
		if err := w.Unpin(appRef("main", "")); err != nil {
			t.Fatal(err)
		}
		w.hub.behave(nil, nil)
		if got := w.get(ask(app, "main")).Digest; got != two.index.Digest {
			t.Errorf("unpinned, the tag means %s", got)
		}
		if err := w.Unpin(appRef("main", "")); !errors.Is(err, catalog.ErrUnknown) {
			t.Errorf("a second unpin: %v", err)
		}
	})
}

// A pin ends at its time.
func TestPinEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "main", "one")
		w.get(ask(app, "main"))
		two := w.hub.push(t, app, "main", "two")
		if err := w.pinTo("main", one.index.Digest, time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Minute)
		if got := w.get(ask(app, "main")).Digest; got != one.index.Digest {
			t.Errorf("before its end: %s", got)
		}
		time.Sleep(2 * time.Minute)
		if got := w.get(ask(app, "main")).Digest; got != two.index.Digest {
			t.Errorf("after its end: %s", got)
		}
	})
}

// The end of a pin is one line of the log, at its time, or at the next start.
func TestEndOfAPinIsLogged(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		var log testlog.Log
		w.log = slog.New(slog.NewTextHandler(&log, nil))
		w.restart()
		one := w.hub.push(t, app, "main", "one")
		w.hub.push(t, app, "other", "one")
		start := time.Now()
		for tag, until := range map[string]time.Time{"main": start.Add(7 * time.Minute), "other": {}} {
			pin := catalog.Pin{Ref: appRef(tag, ""), Digest: one.index.Digest, Until: until, Reason: "INC-1"}
			if err := w.Pin(t.Context(), pin); err != nil {
				t.Fatal(err)
			}
		}
		lines := func(when string, want int) {
			t.Helper()
			synctest.Wait()
			if n := strings.Count(log.String(), "pin ended"); n != want {
				t.Errorf("%s there are %d lines, want %d: %s", when, n, want, log.String())
			}
		}
		time.Sleep(7*time.Minute - 1)
		lines("before its end", 0)
		time.Sleep(time.Nanosecond)
		lines("at its end", 1)
		if text := log.String(); !strings.Contains(text, "repository=docker.io/acme/app tag=main digest="+one.index.Digest.String()) || !strings.Contains(text, "reason=INC-1") {
			t.Error(text)
		}
		time.Sleep(time.Hour)
		w.restart()
		time.Sleep(time.Hour)
		lines("after a restart", 1)

		again := catalog.Pin{Ref: appRef("main", ""), Digest: one.index.Digest, Until: time.Now().Add(time.Hour)}
		if err := w.Pin(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		w.stop()
		time.Sleep(2 * time.Hour)
		w.restart()
		lines("after a start past its end", 2)
	})
}

// What can't be fetched is not pinned, and the error says what is missing.
func TestPinOfAnIncompleteImage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "main", "one")
		layer := one.children[0].Children[1].Digest
		w.hub.mu.Lock()
		delete(w.hub.blobs, app+"@"+layer.String())
		w.hub.mu.Unlock()
		err := w.pinTo("main", one.index.Digest, time.Time{})
		missing, ok := errors.AsType[*pull.MissingError](err)
		if !ok || !slices.Contains(missing.Digests, layer) {
			t.Fatalf("%v, want a *MissingError with the layer", err)
		}
		if pin, ok := w.books.Catalog.(*catalog.Catalog).Pinned(appRef("main", ""), time.Now()); ok {
			t.Errorf("it is pinned to %s", pin.Digest)
		}
	})
}

// Content of a pin is kept from eviction while the pin lasts, over a restart too, and no purge removes it. Content that is lost
// all the same is fetched again.
func TestPinKeepsContent(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "main", "one")
		if err := w.pinTo("main", one.index.Digest, time.Time{}); err != nil {
			t.Fatal(err)
		}
		kept := func() bool {
			return slices.ContainsFunc(w.shelf.kept(), func(k keep) bool {
				return k.holder == "pin docker.io/acme/app:main" && k.digests == 7 && k.until.After(time.Now().Add(time.Hour))
			})
		}
		if !kept() {
			t.Error("a new pin keeps nothing")
		}
		for _, ref := range []oci.Ref{appRef("main", ""), appRef("", one.index.Digest)} {
			if _, ok := errors.AsType[*pull.PinnedError](w.Purge(context.Background(), ref)); !ok {
				t.Errorf("purge of %s does not say that it is pinned", ref)
			}
		}
		layer := one.children[0].Children[1].Digest
		if _, ok := errors.AsType[*pull.PinnedError](w.PurgeContent(layer)); !ok {
			t.Error("a layer of a pinned image is purged")
		}
		w.restart()
		synctest.Wait()
		if !kept() {
			t.Error("after a restart nothing is kept")
		}
		w.shelf.evict(layer)
		w.hub.asked()
		time.Sleep(11 * time.Minute)
		if _, here := w.shelf.Stat(layer); !here {
			t.Error("a lost layer is not fetched again")
		}
		w.hub.wants(t, "BLOB acme/app@"+layer.String())
		if err := w.Unpin(appRef("main", "")); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if !slices.ContainsFunc(w.shelf.kept(), func(k keep) bool { return k.holder == "pin docker.io/acme/app:main" && k.digests == 0 }) {
			t.Error("after the end of the pin its content is kept")
		}
		if err := w.Purge(context.Background(), appRef("main", "")); err != nil {
			t.Errorf("purge after the pin: %v", err)
		}
	})
}

// The digest of one platform is not pinned for all: a node reports it, and it looks like any other.
func TestPinOfAPart(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "main", "one")
		w.get(ask(app, "main"))
		err := w.pinTo("main", im.children[1].Digest, time.Time{})
		part, ok := errors.AsType[*pull.PartError](err)
		if !ok || part.Index != im.index.Digest || part.Platform != "linux/arm64" {
			t.Errorf("%v, want a *PartError with the index", err)
		}
		if err := w.pinTo("main", im.index.Digest, time.Time{}); err != nil {
			t.Error(err)
		}
	})
}
