package images_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/unicode"

	"github.com/registrymirror/mirror/warm/images"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// corpus are the files of testdata/corpus by name.
func corpus(t testing.TB) map[string][]byte {
	t.Helper()
	paths, err := filepath.Glob("testdata/corpus/*")
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, path := range paths {
		if filepath.Ext(path) == ".golden" {
			continue
		}
		if files[filepath.Base(path)], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	if len(files) < 12 {
		t.Fatalf("only %d files", len(files))
	}
	return files
}

// TestCorpus holds what is found in the forms that people have to the golden files.
func TestCorpus(t *testing.T) {
	t.Parallel()
	for name, data := range corpus(t) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := report(images.Read(name, bytes.NewReader(data), images.Options{}))
			path := filepath.Join("testdata", "corpus", name+".golden")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("go test ./warm/images -update rewrites the golden file (-want +got):\n%s", diff)
			}
			if strings.Contains(got, "not/this") {
				t.Error("an image was found in a place that is not for one")
			}
		})
	}
}

// report is a result as a text.
func report(r images.Result) string {
	var b strings.Builder
	for _, f := range r.Images {
		fmt.Fprintf(&b, "%s\n    as %q\n", f.Ref, f.Image)
		for _, p := range f.Places {
			fmt.Fprintf(&b, "    %s\n", p)
		}
	}
	b.WriteString("problems:\n")
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "    %s\n", p)
	}
	return b.String()
}

// TestWindows reads the corpus with the line ends, the marks and the encodings of Windows: the result is the same.
func TestWindows(t *testing.T) {
	t.Parallel()
	for name, data := range corpus(t) {
		want := report(images.Read(name, bytes.NewReader(data), images.Options{}))
		crlf := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
		wide, err := unicode.UTF16(unicode.LittleEndian, unicode.UseBOM).NewEncoder().Bytes(crlf)
		if err != nil {
			t.Fatal(err)
		}
		for form, data := range map[string][]byte{
			"CRLF":            crlf,
			"a mark":          append([]byte("\ufeff"), data...),
			"marks of pieces": bytes.ReplaceAll(data, []byte("\n---\n"), []byte("\n\ufeff---\n")),
			"UTF-16":          wide,
		} {
			got := report(images.Read(name, bytes.NewReader(data), images.Options{}))
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s with %s (-want +got):\n%s", name, form, diff)
			}
		}
	}
}
