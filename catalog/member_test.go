package catalog_test

import (
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
)

const (
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

func child(d oci.Digest, mediaType string, size int64) oci.Child {
	return oci.Child{Descriptor: oci.Descriptor{Digest: d, MediaType: mediaType, Size: size}}
}

// Statements about content, one after the other, and the record in the end.
func TestWhatIsKnownOfContent(t *testing.T) {
	t.Parallel()
	manifest := oci.Manifest{Digest: aa, MediaType: manifestType, Bytes: make([]byte, 500)}
	by := func(c oci.Child) func(*catalog.Catalog) error { // by an index or an image that refers to it
		return func(c2 *catalog.Catalog) error {
			c2.Name(acme, []oci.Descriptor{c.Descriptor})
			return nil
		}
	}
	itself := func(c *catalog.Catalog) error { return c.Learn(acme, &manifest, catalog.ShownByLogin) }
	blob := func(size int64) func(*catalog.Catalog) error {
		return func(c *catalog.Catalog) error {
			return c.LearnBlob(acme, oci.Descriptor{Digest: aa, MediaType: "x/y", Size: size}, catalog.ShownByLogin)
		}
	}
	for _, tt := range []struct {
		name  string
		said  []func(*catalog.Catalog) error
		media string
		size  int64
	}{
		{"by a parent", []func(*catalog.Catalog) error{by(child(aa, layerType, 7))}, layerType, 7},
		{"without a size", []func(*catalog.Catalog) error{by(child(aa, layerType, -1))}, layerType, -1},
		{
			"a size is not forgotten",
			[]func(*catalog.Catalog) error{by(child(aa, layerType, 7)), by(child(aa, layerType, -1))},
			layerType, 7,
		},
		{"a size is added", []func(*catalog.Catalog) error{by(child(aa, layerType, -1)), blob(7)}, layerType, 7},
		{
			"a size is set right",
			[]func(*catalog.Catalog) error{by(child(aa, layerType, 9)), by(child(aa, layerType, 7))},
			layerType, 7,
		},
		{
			"a manifest's size counts more than an upstream's word",
			[]func(*catalog.Catalog) error{by(child(aa, layerType, 7)), blob(9)},
			layerType, 7,
		},
		{"and sets it right", []func(*catalog.Catalog) error{blob(9), by(child(aa, layerType, 7))}, layerType, 7},
		{"a word is taken back", []func(*catalog.Catalog) error{blob(9), blob(-1)}, "", -1},
		{"and given again", []func(*catalog.Catalog) error{blob(9), blob(-1), blob(7)}, "", 7},
		{
			"a manifest's is not taken back",
			[]func(*catalog.Catalog) error{blob(9), by(child(aa, layerType, 7)), blob(-1)},
			layerType, 7,
		},
		{"a type is added", []func(*catalog.Catalog) error{blob(7), by(child(aa, layerType, 7))}, layerType, 7},
		{"a manifest knows best, last", []func(*catalog.Catalog) error{by(child(aa, "x/y", 9)), itself}, manifestType, 500},
		{
			"a manifest knows best, first",
			[]func(*catalog.Catalog) error{itself, by(child(aa, "x/y", 9)), blob(1)},
			manifestType, 500,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			refs := statetest.NewTable()
			c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
			for _, say := range tt.said {
				if err := say(c); err != nil {
					t.Fatal(err)
				}
			}
			got, err := c.Member(acme, aa)
			want := oci.Descriptor{MediaType: tt.media, Digest: aa, Size: tt.size}
			if d := cmp.Diff(want, got.Descriptor); d != "" || err != nil {
				t.Errorf("%v, %s", err, d)
			}
			again, err := catalog.New(statetest.NewTable(), refs, catalog.Options{}).Member(acme, aa)
			shown := got.Standing
			if shown == catalog.Named {
				shown = catalog.Unknown // a manifest names it anew
			}
			if again.Standing != shown || again.Manifest != got.Manifest || err != nil {
				t.Errorf("by the table: %+v, %v", again, err)
			}
			last := tt.said[len(tt.said)-1]
			before := refs.Writes()
			if err := last(c); err != nil || refs.Writes() != before {
				t.Errorf("said again: %d writes, %v", refs.Writes()-before, err)
			}
		})
	}
}

// What is known of content of which several things were learnt, in every order: the strongest word counts, and to name what
// is known takes nothing from it.
func TestStandingOfContent(t *testing.T) {
	t.Parallel()
	d := oci.Descriptor{MediaType: layerType, Digest: aa, Size: 7}
	say := map[string]func(c *catalog.Catalog) error{
		"named": func(c *catalog.Catalog) error { c.Name(acme, []oci.Descriptor{d}); return nil },
		"login": func(c *catalog.Catalog) error { return c.LearnBlob(acme, d, catalog.ShownByLogin) },
		"all":   func(c *catalog.Catalog) error { return c.LearnBlob(acme, d, catalog.ShownToAll) },
		"sends": func(c *catalog.Catalog) error { c.Show(acme, aa, catalog.ShownByLogin); return nil },
	}
	strength := map[string]catalog.Standing{
		"named": catalog.Named, "login": catalog.ShownByLogin, "all": catalog.ShownToAll, "sends": catalog.ShownByLogin,
	}
	for first := range say {
		for second := range say {
			for _, restart := range []bool{false, true} {
				refs := statetest.NewTable()
				c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
				if err := say[first](c); err != nil {
					t.Fatal(err)
				}
				want := max(strength[first], strength[second])
				if restart {
					c = catalog.New(statetest.NewTable(), refs, catalog.Options{})
					if first == "named" || first == "sends" { // in memory alone
						want = strength[second]
					}
				}
				if err := say[second](c); err != nil {
					t.Fatal(err)
				}
				if m, err := c.Member(acme, aa); m.Standing != want || err != nil {
					t.Errorf("%s, restart %t, %s: %d, want %d, %v", first, restart, second, m.Standing, want, err)
				}
				for _, elsewhere := range []oci.Repo{nginx, {Host: "*", Name: ""}} {
					if m, err := c.Member(elsewhere, aa); m.Standing != catalog.Unknown || err != nil {
						t.Errorf("in %q: %+v %v", elsewhere, m, err)
					}
				}
				if open, err := c.IsOpen(aa); open || err != nil {
					t.Errorf("open: %t %v", open, err)
				}
			}
		}
	}
}

// Records of earlier versions do not say how the content was learnt: it counts as named.
func TestRecordsOfEarlierVersionsAreNoProof(t *testing.T) {
	t.Parallel()
	refs := statetest.NewTable()
	for i, value := range []string{
		`{"type":"` + manifestType + `","size":500,"own":true}`, `{"type":"` + layerType + `","size":7}`, `{"size":7,"heard":true}`,
		`{"type":"` + layerType + `","size":7,"shown":"maybe"}`,
	} {
		d := digest.FromString(fmt.Sprint(i))
		if err := refs.Write([]state.Item{{Key: acme.String() + "@" + string(d), Value: []byte(value)}}); err != nil {
			t.Fatal(err)
		}
		c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
		if m, err := c.Member(acme, d); m.Standing != catalog.Named || err != nil {
			t.Errorf("%s: %+v %v", value, m, err)
		}
		if open, err := c.IsOpen(d); open || err != nil {
			t.Errorf("%s: open %t %v", value, open, err)
		}
		if err := c.LearnBlob(acme, oci.Descriptor{Digest: d, Size: 7}, catalog.ShownToAll); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*catalog.Catalog{c, catalog.New(statetest.NewTable(), refs, catalog.Options{})} {
			if m, err := c.Member(acme, d); m.Standing != catalog.ShownToAll || err != nil {
				t.Errorf("%s, shown: %+v %v", value, m, err)
			}
		}
	}
}

// When a repository was shown is exact in memory and within an hour on disk; of refusals the first one counts.
func TestWhenARepositoryWasShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		refs := statetest.NewTable()
		c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
		start := time.Now()
		note := func(f func(oci.Repo) error, writes int) {
			t.Helper()
			before := refs.Writes()
			if err := f(acme); err != nil || refs.Writes()-before != writes {
				t.Errorf("%d writes, want %d, %v", refs.Writes()-before, writes, err)
			}
		}
		check := func(shown, refused time.Duration) {
			t.Helper()
			r, err := c.Repository(acme)
			at := func(d time.Duration) time.Time {
				if d < 0 {
					return time.Time{}
				}
				return start.Add(d)
			}
			if !r.Shown.Equal(at(shown)) || !r.Refused.Equal(at(refused)) || err != nil {
				t.Errorf("shown %s, refused %s, %v", r.Shown.Sub(start), r.Refused.Sub(start), err)
			}
		}
		note(c.NoteRefused, 0) // it was never shown
		check(-1, -1)
		note(c.NoteShown, 1)
		time.Sleep(time.Hour - 1)
		note(c.NoteShown, 0)
		check(time.Hour-1, -1)
		time.Sleep(time.Hour)
		note(c.NoteShown, 1)
		time.Sleep(time.Minute)
		note(c.NoteRefused, 1)
		time.Sleep(time.Minute)
		note(c.NoteRefused, 0)
		check(2*time.Hour-1, 2*time.Hour-1+time.Minute)
		c = catalog.New(statetest.NewTable(), refs, catalog.Options{})
		check(2*time.Hour-1, 2*time.Hour-1+time.Minute)
		note(c.NoteShown, 1)
		check(2*time.Hour-1+2*time.Minute, 2*time.Hour-1+time.Minute)
	})
}

// One manifest is one small write, however many children it has: they are named in memory, and known by it.
func TestLearnIsOneWrite(t *testing.T) {
	t.Parallel()
	refs := statetest.NewTable()
	c := catalog.New(statetest.NewTable(), refs, catalog.Options{})
	m := &oci.Manifest{Digest: aa, MediaType: manifestType, Bytes: []byte("{}")}
	for i := range 1000 {
		m.Children = append(m.Children, child(digest.FromString(fmt.Sprint(i%900)), layerType, int64(i%900)))
	}
	if err := c.Learn(acme, m, catalog.ShownToAll); err != nil || refs.Writes() != 1 {
		t.Fatalf("%d writes, %v", refs.Writes(), err)
	}
	items := 0
	for _, err := range refs.Scan("") {
		if err != nil {
			t.Fatal(err)
		}
		items++
	}
	if items != 1 {
		t.Errorf("%d items", items)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if err := c.Learn(acme, m, catalog.ShownToAll); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := refs.Writes(); n != 1 {
		t.Errorf("%d writes of known records", n)
	}
	for i := range 900 {
		d, err := c.Member(acme, digest.FromString(fmt.Sprint(i)))
		if err != nil || d.Standing != catalog.Named || d.Size != int64(i) {
			t.Fatalf("%d: %+v, %v", i, d, err)
		}
	}
}
