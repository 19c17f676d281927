package catalog_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	nginx = oci.Repo{Host: "docker.io", Name: "library/nginx"}
	acme  = oci.Repo{Host: "ghcr.io", Name: "acme/app"}
	aa    = digest.FromString("aa")
	bb    = digest.FromString("bb")
)

func TestTagsMoveAndAreRemembered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags, refs := statetest.NewTable(), statetest.NewTable()
		c := catalog.New(tags, refs, catalog.Options{})
		ref := oci.Ref{Repo: nginx, Tag: "1.27"}
		if _, err := c.Tag(ref); !errors.Is(err, catalog.ErrUnknown) {
			t.Fatalf("unknown tag: %v", err)
		}
		start := time.Now()
		first, err := c.Moved(ref, catalog.Tag{}, aa, time.Now(), catalog.ByCheck)
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		if first, err = c.Moved(ref, first, aa, time.Now(), catalog.ByCheck); err != nil || !first.Checked.Equal(start.Add(time.Hour)) {
			t.Errorf("confirmed: %v, %v", first.Checked, err)
		}
		if n := tags.Writes(); n != 1 {
			t.Errorf("%d writes; a confirmation costs none at once", n)
		}
		second, err := c.Moved(ref, first, bb, time.Now(), catalog.ByCheck)
		if err != nil {
			t.Fatal(err)
		}
		third, err := c.Moved(ref, second, aa, time.Now(), catalog.ByCheck)
		if err != nil {
			t.Fatal(err)
		}
		hour := start.Add(time.Hour)
		want := []catalog.Seen{
			{Digest: aa, First: hour, Last: hour, Source: catalog.ByCheck, Reversion: true},
			{Digest: bb, First: hour, Last: hour, Source: catalog.ByCheck},
			{Digest: aa, First: start, Last: hour, Source: catalog.ByCheck},
		}
		if d := cmp.Diff(want, third.History); d != "" {
			t.Errorf("history (-want +got):\n%s", d)
		}
		// A restart: the records on disk are those that were returned.
		again, err := catalog.New(tags, refs, catalog.Options{}).Tag(ref)
		if err != nil || again.Digest != aa || again.Version != third.Version || len(again.History) != 3 {
			t.Errorf("after a restart: %+v, %v", again, err)
		}
		if err := c.Forget(ref); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Tag(ref); !errors.Is(err, catalog.ErrUnknown) {
			t.Errorf("forgotten tag: %v", err)
		}
	})
}

func TestConfirmationsAreFlushed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tags, refs := statetest.NewTable(), statetest.NewTable()
		c := catalog.New(tags, refs, catalog.Options{})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = c.Run(ctx) }()
		ref := oci.Ref{Repo: nginx, Tag: "latest"}
		tag, err := c.Moved(ref, catalog.Tag{}, aa, time.Now(), catalog.ByCheck)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 { // ten checks in half a minute: one write
			time.Sleep(2 * time.Second)
			if tag, err = c.Moved(ref, tag, aa, time.Now(), catalog.ByCheck); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(30 * time.Second)
		synctest.Wait()
		if n := tags.Writes(); n != 2 {
			t.Errorf("%d writes, want 2", n)
		}
		// A tag from before the flush still confirms and moves.
		if tag, err = c.Moved(ref, tag, aa, time.Now(), catalog.ByCheck); err != nil || !tag.Checked.Equal(time.Now()) {
			t.Errorf("confirmed by an older copy: %v, %v", tag.Checked, err)
		}
		last := tag.Checked
		cancel()
		<-done
		again, err := catalog.New(tags, refs, catalog.Options{}).Tag(ref)
		if err != nil || !again.Checked.Equal(last) {
			t.Errorf("after the stop: checked %v, %v; want %v", again.Checked, err, last)
		}
	})
}

func TestMovesMeet(t *testing.T) {
	t.Parallel()
	tags := statetest.NewTable()
	c := catalog.New(tags, statetest.NewTable(), catalog.Options{})
	ref := oci.Ref{Repo: nginx, Tag: "latest"}
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			if _, err := c.Moved(ref, catalog.Tag{}, digest.FromString(fmt.Sprint(i%5)), time.Now(), catalog.ByCheck); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := c.Tag(ref)
	all := make(map[oci.Digest]bool)
	for _, s := range got.History {
		all[s.Digest] = true
	}
	if err != nil || len(all) != 5 {
		t.Errorf("%d digests in the history, %v; want 5", len(all), err)
	}
	stored, err := catalog.New(tags, statetest.NewTable(), catalog.Options{}).Tag(ref)
	if err != nil || stored.Digest != got.Digest || stored.Version != got.Version {
		t.Errorf("memory has %s (%d), the table %s (%d)", got.Digest, got.Version, stored.Digest, stored.Version)
	}
}

func TestMembersBelongToTheirRepositoryAlone(t *testing.T) {
	t.Parallel()
	tags, refs := statetest.NewTable(), statetest.NewTable()
	c := catalog.New(tags, refs, catalog.Options{})
	layer := oci.Descriptor{MediaType: "application/vnd.oci.image.layer.v1.tar+gzip", Digest: bb, Size: 77}
	m := &oci.Manifest{
		Digest: aa, MediaType: "application/vnd.oci.image.manifest.v1+json", Bytes: []byte("{}"),
		Children: []oci.Child{{Descriptor: layer}},
	}
	if err := c.Learn(nginx, m, catalog.ShownToAll); err != nil {
		t.Fatal(err)
	}
	if err := c.Learn(nginx, m, catalog.ShownToAll); err != nil || refs.Writes() != 1 {
		t.Errorf("%d writes, %v; the second time is known already", refs.Writes(), err)
	}
	if d, err := c.Member(nginx, bb); err != nil || d.Standing != catalog.Named || d.Size != 77 || d.MediaType != layer.MediaType {
		t.Errorf("layer: %+v %v", d, err)
	}
	for _, c := range []*catalog.Catalog{c, catalog.New(tags, refs, catalog.Options{})} {
		d, err := c.Member(nginx, aa)
		if err != nil || d.Standing != catalog.ShownToAll || !d.Manifest || d.Size != 2 || d.MediaType != m.MediaType {
			t.Errorf("manifest: %+v %v", d, err)
		}
		for _, other := range []oci.Repo{
			acme,
			{Host: nginx.Host, Name: "library/ngin"},
			{Host: "quay.io", Name: nginx.Name},
		} {
			if m, err := c.Member(other, bb); m.Standing != catalog.Unknown || err != nil {
				t.Errorf("%s has content that only %s refers to (%v)", other, nginx, err)
			}
		}
	}
	if err := c.LearnBlob(acme, layer, catalog.ShownToAll); err != nil {
		t.Fatal(err)
	}
	if m, _ := c.Member(acme, bb); m.Standing != catalog.ShownToAll {
		t.Error("a learnt blob is not a member")
	}
}

func TestATableThatFails(t *testing.T) {
	t.Parallel()
	tags, refs := statetest.NewTable(), statetest.NewTable()
	broken := errors.New("read-only file system")
	tags.Fail = func() error { return broken }
	refs.Fail = tags.Fail
	c := catalog.New(tags, refs, catalog.Options{})
	if _, err := c.Moved(oci.Ref{Repo: nginx, Tag: "x"}, catalog.Tag{}, aa, time.Now(), catalog.ByCheck); !errors.Is(err, broken) {
		t.Errorf("Moved: %v", err)
	}
	if err := c.LearnBlob(nginx, oci.Descriptor{Digest: bb, Size: 1}, catalog.ShownToAll); !errors.Is(err, broken) {
		t.Errorf("LearnBlob: %v", err)
	}
	if m, err := c.Member(nginx, bb); m.Standing != catalog.Unknown || err != nil {
		t.Errorf("what could not be written is a member: %+v %v", m, err)
	}
}

func BenchmarkMember(b *testing.B) {
	c := catalog.New(statetest.NewTable(), statetest.NewTable(), catalog.Options{})
	_ = c.LearnBlob(nginx, oci.Descriptor{Digest: bb, Size: 1}, catalog.ShownToAll)
	b.ReportAllocs()
	for b.Loop() {
		if m, _ := c.Member(nginx, bb); m.Standing == catalog.Unknown {
			b.Fatal("no member")
		}
	}
}
