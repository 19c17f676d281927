package images_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm/images"
)

// FuzzRead holds that no text brings Read down, that what it gives has places and is within bounds, and that a text does not
// keep the document after it from being read.
func FuzzRead(f *testing.F) {
	// In parts: the engine shortens what it finds interesting, which takes minutes for a long text.
	for _, data := range corpus(f) {
		for document := range bytes.SplitSeq(data, []byte("\n---\n")) {
			f.Add(string(document[:min(len(document), 400)]))
		}
	}
	f.Add("a: &a {<<: [*a, {b: *a}], image: *a}")
	f.Add("image: {repository: a/b, tag: !!binary aGk=, digest: ~, image: !x y}")
	f.Add("%YAML 1.1\n--- !!map\n? image\n: |\n  nginx\n...\n# end\n")
	f.Fuzz(func(t *testing.T, text string) {
		o := images.Options{MaxImages: 50, MaxValues: 5_000}
		r := images.Read("f", strings.NewReader(text), o)
		lines := 1
		for _, end := range []string{"\n", "\r", "\u0085", "\u2028", "\u2029"} { // YAML has these
			lines += strings.Count(text, end)
		}
		wide := strings.HasPrefix(text, "\xff\xfe") || strings.HasPrefix(text, "\xfe\xff") // UTF-16
		check := func(p images.Place) {
			if p.File != "f" || p.Document < 0 || p.Line < 0 || !wide && p.Line > lines+1 || len(p.Path) > 400 {
				t.Errorf("a place that can't be: %+v, of %d lines", p, lines)
			}
		}
		refs := make(map[oci.Ref]bool)
		for _, found := range r.Images {
			if ref, err := oci.ParseRef(found.Ref.String()); err != nil || ref != found.Ref || refs[ref] {
				t.Errorf("%v is not canonical, or is there twice", found.Ref)
			}
			refs[found.Ref] = true
			if ref, err := oci.ParseRef(found.Image); err != nil || ref != found.Ref {
				t.Errorf("%q is not %v", found.Image, found.Ref)
			}
			if len(found.Places) == 0 || len(found.Places) > 100 {
				t.Errorf("%v has %d places", found.Ref, len(found.Places))
			}
			for _, p := range found.Places {
				check(p)
				if p.Document == 0 || p.Line == 0 {
					t.Errorf("%v is nowhere: %+v", found.Ref, p)
				}
			}
		}
		if len(r.Images) > o.MaxImages || len(r.Problems) > 1001 {
			t.Errorf("%d images, %d problems", len(r.Images), len(r.Problems))
		}
		for _, p := range r.Problems {
			check(p.Place)
			if s := p.String(); p.Text == "" || len(s) > 1500 || strings.ContainsAny(s, "\n\r") || !utf8.ValidString(s) {
				t.Errorf("a problem that can't be shown: %q", s)
			}
		}
		// As a document of a stream, also if it is a plain list.
		after := images.Read("f", strings.NewReader("---\n"+text+"\n---\n---\nimage: ghcr.io/acme/after:1\n"), o)
		if len(after.Images) < o.MaxImages && lines < 5_000 && !slices.Contains(names(after), "ghcr.io/acme/after:1") {
			t.Errorf("the document after it is not read: %v", after.Problems)
		}
	})
}
