package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

func TestPins(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ref, other := oci.Ref{Repo: nginx, Tag: "1.27"}, oci.Ref{Repo: acme, Tag: "1.27"}
		now := time.Now()
		if _, ok := l.Pinned(ref, now); ok {
			t.Error("pinned by nothing")
		}
		want := catalog.Pin{Ref: ref, Digest: aa, Since: now, Until: now.Add(time.Hour), Reason: "incident 7", By: catalog.PinnedByAPI, Operator: "alice"}
		asked := want
		asked.Ref.Digest, asked.Since, asked.By = bb, time.Time{}, "anything"
		if err := l.SetPin(asked); err != nil {
			t.Fatal(err)
		}
		for range 2 { // also after a restart
			if got, ok := l.Pinned(ref, now); !ok || !cmp.Equal(got, want) {
				t.Errorf("%v %s", ok, cmp.Diff(want, got))
			}
			if got := l.Pins(now); !cmp.Equal(got, []catalog.Pin{want}) {
				t.Errorf("%+v", got)
			}
			if _, ok := l.Pinned(other, now); ok {
				t.Error("another repository's tag is pinned")
			}
			l.restart()
		}
		if _, ok := l.Pinned(ref, want.Until); ok || len(l.Pins(want.Until)) != 0 {
			t.Error("pinned after its end")
		}
		want.Digest, want.Until = bb, time.Time{}
		if err := l.SetPin(want); err != nil {
			t.Fatal(err)
		}
		if got, ok := l.Pinned(ref, now.Add(1e5*time.Hour)); !ok || got.Digest != bb {
			t.Errorf("changed, without end: %+v, %v", got, ok)
		}
		if err := l.RemovePin(other); !errors.Is(err, catalog.ErrUnknown) {
			t.Errorf("no pin: %v", err)
		}
		if err := l.RemovePin(ref); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, ok := l.Pinned(ref, now); ok {
				t.Error("removed, and pinned")
			}
			l.restart()
		}
		if err := l.RemovePin(ref); !errors.Is(err, catalog.ErrUnknown) {
			t.Errorf("removed twice: %v", err)
		}
	})
}

// The pins of the configuration come first. Those of the API below them come back when these are gone.
func TestPinsOfTheConfiguration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		ref := oci.Ref{Repo: nginx, Tag: "1.27"}
		now := time.Now()
		if err := l.SetPin(catalog.Pin{Ref: ref, Digest: aa}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		l.UsePins([]catalog.Pin{{Ref: ref, Digest: bb}})
		since := time.Now()
		time.Sleep(time.Hour)
		l.UsePins([]catalog.Pin{{Ref: ref, Digest: bb}}) // a reload
		want := catalog.Pin{Ref: ref, Digest: bb, Since: since, By: catalog.PinnedByConfig}
		if got, ok := l.Pinned(ref, now); !ok || !cmp.Equal(got, want) {
			t.Errorf("%v %s", ok, cmp.Diff(want, got))
		}
		if err := l.RemovePin(ref); !errors.Is(err, catalog.ErrPinnedByConfig) {
			t.Errorf("removed: %v", err)
		}
		if err := l.SetPin(catalog.Pin{Ref: ref, Digest: cc}); !errors.Is(err, catalog.ErrPinnedByConfig) {
			t.Errorf("set: %v", err)
		}
		l.UsePins(nil)
		if got, ok := l.Pinned(ref, now); !ok || got.Digest != aa || got.By != catalog.PinnedByAPI {
			t.Errorf("%+v, %v", got, ok)
		}
	})
}

func TestPinsThatAreRefused(t *testing.T) {
	t.Parallel()
	l := newLedger()
	ref := oci.Ref{Repo: nginx, Tag: "1"}
	for name, pin := range map[string]catalog.Pin{
		"no tag": {Ref: oci.Ref{Repo: nginx}, Digest: aa}, "no host": {Ref: oci.Ref{Repo: oci.Repo{Name: "x"}, Tag: "1"}, Digest: aa},
		"no digest": {Ref: ref}, "not a digest": {Ref: ref, Digest: "sha256:1"},
		"a long reason": {Ref: ref, Digest: aa, Reason: strings.Repeat("x", 2000)},
	} {
		if err := l.SetPin(pin); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	broken := errors.New("read-only file system")
	l.pins.SetFail(func() error { return broken })
	if err := l.SetPin(catalog.Pin{Ref: ref, Digest: aa}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	if _, ok := l.Pinned(ref, time.Now()); ok {
		t.Error("what could not be written is pinned")
	}
}

// There are 10,000 pins at most. Those that have ended make room.
func TestPinsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		pins := statetest.NewTable()
		items := make([]state.Item, 10_000)
		for i := range items {
			until := ""
			if i == 17 {
				until = `,"until":"` + time.Now().Add(time.Minute).Format(time.RFC3339) + `"`
			}
			items[i] = state.Item{Key: fmt.Sprint("docker.io/library/nginx:", i), Value: fmt.Appendf(nil, `{"digest":%q%s}`, aa, until)}
		}
		if err := pins.Write(items); err != nil {
			t.Fatal(err)
		}
		c := catalog.New(statetest.NewTable(), statetest.NewTable(), catalog.Options{Pins: pins})
		one := catalog.Pin{Ref: oci.Ref{Repo: nginx, Tag: "one-more"}, Digest: bb}
		if err := c.SetPin(one); !errors.Is(err, catalog.ErrTooManyPins) {
			t.Errorf("10,001 pins: %v", err)
		}
		if err := c.SetPin(catalog.Pin{Ref: oci.Ref{Repo: nginx, Tag: "5"}, Digest: bb}); err != nil {
			t.Errorf("a pin that is there: %v", err)
		}
		time.Sleep(time.Minute)
		if err := c.SetPin(one); err != nil {
			t.Errorf("one has ended: %v", err)
		}
		if n := len(c.Pins(time.Now())); n != 10_000 {
			t.Errorf("%d pins", n)
		}
	})
}

// Pins are on disk when the call returns, and outlive damage of the file: the last good copy has them. A record that can't be
// read pins nothing and is reported; the others are read.
func TestPinsAndDamage(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	ref := oci.Ref{Repo: nginx, Tag: "1.27"}
	open := func(o state.Options) (*state.DB, *catalog.Catalog) {
		db, err := state.Open(path, o)
		if err != nil {
			t.Fatal(err)
		}
		return db, catalog.New(db.Table("tags"), db.Table("refs"), catalog.Options{Pins: db.Table("pins"), Clients: db.Table("clients")})
	}
	db, c := open(state.Options{})
	if err := c.SetPin(catalog.Pin{Ref: ref, Digest: aa}); err != nil {
		t.Fatal(err)
	}
	if err := db.Table("pins").Write([]state.Item{{Key: "docker.io/a/b:later", Value: []byte("of a later version")}}); err != nil {
		t.Fatal(err)
	}
	var items []state.Item
	for i := range 1000 {
		items = append(items, state.Item{Key: fmt.Sprint("docker.io/x:", i), Value: []byte("x")})
	}
	if err := db.Table("tags").Write(items); err != nil {
		t.Fatal(err)
	}
	moved(t, c, oci.Ref{Repo: nginx, Tag: "500"}, catalog.Tag{}, aa)
	if err := db.Table("tags").Write(items[:1]); err != nil { // a root that is damaged costs the last change
		t.Fatal(err)
	}
	if err := errors.Join(db.Copy(), db.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	for at := 0; at < len(whole); at += page {
		for name, o := range map[string]state.Options{"small": {}, "large": {AtOnce: 1, Expendable: catalog.Tables()}} {
			b := bytes.Clone(whole)
			clear(b[at : at+page])
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			db, c := open(o)
			if pin, ok := c.Pinned(ref, time.Now()); !ok || pin.Digest != aa {
				t.Errorf("%s file, page %d zeroed: %+v, %v", name, at/page, pin, ok)
			}
			if n := len(c.Pins(time.Now())); n != 1 {
				t.Errorf("%s file, page %d zeroed: %d pins", name, at/page, n)
			}
			if err := c.SetPin(catalog.Pin{Ref: oci.Ref{Repo: acme, Tag: "x"}, Digest: bb}); err != nil {
				t.Errorf("%s file, page %d zeroed: %v", name, at/page, err)
			}
			if tag, err := c.Tag(oci.Ref{Repo: nginx, Tag: "500"}); err != nil || tag.Digest != aa {
				t.Errorf("%s file, page %d zeroed: tag %s, %v", name, at/page, tag.Digest, err)
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			if bad, _ := filepath.Glob(path + ".bad-*"); len(bad) > 0 {
				for _, f := range bad {
					_ = os.Remove(f)
				}
			}
		}
	}
}

// Pins are looked up while others are set: no lookup waits for the disk, and the race detector sees no conflict.
func TestPinsAtOnce(t *testing.T) {
	t.Parallel()
	l := newLedger()
	ref := oci.Ref{Repo: nginx, Tag: "1"}
	held, writing := make(chan struct{}), make(chan struct{})
	l.pins.SetFail(func() error { close(writing); <-held; return nil })
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := l.SetPin(catalog.Pin{Ref: ref, Digest: aa}); err != nil {
			t.Error(err)
		}
	})
	<-writing
	if _, ok := l.Pinned(ref, time.Now()); ok {
		t.Error("pinned before that is on disk")
	}
	_ = l.Pins(time.Now())
	close(held)
	wg.Wait()
	if _, ok := l.Pinned(ref, time.Now()); !ok {
		t.Error("not pinned")
	}
}

func BenchmarkPinned(b *testing.B) {
	l := newLedger()
	for i := range 1000 {
		if err := l.SetPin(catalog.Pin{Ref: oci.Ref{Repo: nginx, Tag: fmt.Sprint(i)}, Digest: aa}); err != nil {
			b.Fatal(err)
		}
	}
	ref, now := oci.Ref{Repo: nginx, Tag: "500"}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := l.Pinned(ref, now); !ok {
			b.Fatal("not pinned")
		}
	}
}
