package catalog_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/catalog"
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

// What is said of content, one after the other, and what is known in the end.
func TestWhatIsKnownOfContent(t *testing.T) {
	t.Parallel()
	manifest := oci.Manifest{Digest: aa, MediaType: manifestType, Bytes: make([]byte, 500)}
	by := func(c oci.Child) func(*catalog.Catalog) error { // by an index or an image that refers to it
		return func(c2 *catalog.Catalog) error {
			d := digest.FromString(fmt.Sprint(c))
			return c2.Learn(acme, &oci.Manifest{Digest: d, MediaType: indexType, Bytes: []byte("{}"), Children: []oci.Child{c}})
		}
	}
	itself := func(c *catalog.Catalog) error { return c.Learn(acme, &manifest) }
	blob := func(mediaType string, size int64) func(*catalog.Catalog) error {
		return func(c *catalog.Catalog) error {
			return c.LearnBlob(acme, oci.Descriptor{Digest: aa, MediaType: mediaType, Size: size})
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
		{"a size is added", []func(*catalog.Catalog) error{by(child(aa, layerType, -1)), blob("", 7)}, layerType, 7},
		{
			"a size is set right",
			[]func(*catalog.Catalog) error{by(child(aa, layerType, 9)), by(child(aa, layerType, 7))},
			layerType, 7,
		},
		{
			"a manifest's size counts more than an upstream's word",
			[]func(*catalog.Catalog) error{by(child(aa, layerType, 7)), blob("", 9)},
			layerType, 7,
		},
		{"and sets it right", []func(*catalog.Catalog) error{blob("", 9), by(child(aa, layerType, 7))}, layerType, 7},
		{"a word is taken back", []func(*catalog.Catalog) error{blob("", 9), blob("", -1)}, "", -1},
		{"and given again", []func(*catalog.Catalog) error{blob("", 9), blob("", -1), blob("", 7)}, "", 7},
		{
			"a manifest's is not taken back",
			[]func(*catalog.Catalog) error{blob("", 9), by(child(aa, layerType, 7)), blob("", -1)},
			layerType, 7,
		},
		{"a type is added", []func(*catalog.Catalog) error{blob("", 7), by(child(aa, layerType, 7))}, layerType, 7},
		{"a manifest knows best, last", []func(*catalog.Catalog) error{by(child(aa, "x/y", 9)), itself}, manifestType, 500},
		{
			"a manifest knows best, first",
			[]func(*catalog.Catalog) error{itself, by(child(aa, "x/y", 9)), blob("z/z", 1)},
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
			want := oci.Descriptor{MediaType: tt.media, Digest: aa, Size: tt.size}
			for name, c := range map[string]*catalog.Catalog{
				"memory": c, "table": catalog.New(statetest.NewTable(), refs, catalog.Options{}),
			} {
				got, ok, err := c.Member(acme, aa)
				if d := cmp.Diff(want, got); d != "" || !ok || err != nil {
					t.Errorf("%s: %t, %v, %s", name, ok, err, d)
				}
			}
			last := tt.said[len(tt.said)-1]
			before := refs.Writes()
			if err := last(c); err != nil || refs.Writes() != before {
				t.Errorf("said again: %d writes, %v", refs.Writes()-before, err)
			}
		})
	}
}

// One manifest is one write, though it has a layer twice, and any number of its readers write it no more often than
// they are.
func TestLearnIsOneWrite(t *testing.T) {
	t.Parallel()
	refs := statetest.NewTable()
	c := catalog.New(statetest.NewTable(), refs, catalog.Options{Remembered: 100})
	m := &oci.Manifest{Digest: aa, MediaType: manifestType, Bytes: []byte("{}")}
	for i := range 1000 {
		m.Children = append(m.Children, child(digest.FromString(fmt.Sprint(i%900)), layerType, int64(i%900)))
	}
	if err := c.Learn(acme, m); err != nil || refs.Writes() != 1 {
		t.Fatalf("%d writes, %v", refs.Writes(), err)
	}
	var wg sync.WaitGroup
	for range 10 { // most of it is not in memory
		wg.Go(func() {
			if err := c.Learn(acme, m); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := refs.Writes(); n != 1 {
		t.Errorf("%d writes of what is known", n)
	}
	for i := range 900 {
		d, ok, err := c.Member(acme, digest.FromString(fmt.Sprint(i)))
		if err != nil || !ok || d.Size != int64(i) {
			t.Fatalf("%d: %+v, %t, %v", i, d, ok, err)
		}
	}
}
