package images_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/warm/images"
)

// read reads a text whose result has at most one image for each KiB of it, and at least one problem with the words.
func read(t *testing.T, text string, o images.Options, problem string) images.Result {
	t.Helper()
	r := images.Read("f", strings.NewReader(text), o)
	if !slices.ContainsFunc(r.Problems, func(p images.Problem) bool { return strings.Contains(p.String(), problem) }) {
		t.Errorf("no problem with %q: %v", problem, r.Problems[:min(3, len(r.Problems))])
	}
	return r
}

// names are the canonical names of a result.
func names(r images.Result) (list []string) {
	for _, f := range r.Images {
		list = append(list, f.Ref.String())
	}
	return list
}

func TestMaxBytes(t *testing.T) {
	t.Parallel()
	text := "image: ghcr.io/acme/a:1\n"
	if r := images.Read("f", strings.NewReader(text), images.Options{MaxBytes: int64(len(text))}); len(r.Images) != 1 || len(r.Problems) != 0 {
		t.Errorf("exactly the limit: %v", r)
	}
	r := read(t, text+" ", images.Options{MaxBytes: int64(len(text))}, "f: more than 24 bytes in all")
	if len(r.Images) != 0 {
		t.Errorf("a byte more: %v", r)
	}
	// The limit is for all files together, and a small one after a large one is read.
	dir := t.TempDir()
	write(t, dir, "a.yaml", text)
	write(t, dir, "b.yaml", "image: ghcr.io/acme/b:1\n"+strings.Repeat("#", 100))
	write(t, dir, "c.yaml", "image: ghcr.io/acme/c:1\n")
	write(t, dir, "d.yaml", "image: ghcr.io/acme/d:1\n")
	all, err := images.ReadAll([]string{dir}, nil, images.Options{MaxBytes: 60})
	if err != nil || !slices.Equal(names(all), []string{"ghcr.io/acme/a:1", "ghcr.io/acme/c:1"}) || len(all.Problems) != 2 {
		t.Errorf("a folder: %v, %v", all, err)
	}
	endless, err := images.ReadAll([]string{"-"}, zeros{}, images.Options{MaxBytes: 1 << 20})
	if err != nil || len(endless.Problems) != 1 {
		t.Errorf("an endless text: %v, %v", endless, err)
	}
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestMaxImages(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	for i := range 20 {
		fmt.Fprintf(&text, "acme/image:%d\n", i)
	}
	text.WriteString("acme/image:3\n")
	r := read(t, text.String(), images.Options{MaxImages: 10}, "f:11: more than 10 images")
	if len(r.Images) != 10 || len(r.Problems) != 1 || len(r.Images[3].Places) != 2 {
		t.Errorf("%d images, %d problems, %v", len(r.Images), len(r.Problems), r.Images[3].Places)
	}
}

func TestMaxPlaces(t *testing.T) {
	t.Parallel()
	r := images.Read("f", strings.NewReader(strings.Repeat("nginx\n", 1000)), images.Options{})
	if len(r.Images) != 1 || len(r.Images[0].Places) != 100 {
		t.Errorf("%d images", len(r.Images))
	}
}

func TestMaxProblems(t *testing.T) {
	t.Parallel()
	r := read(t, strings.Repeat("BAD\n", 5000)+"nginx\n", images.Options{}, "f:1001: more than 1000 problems")
	if len(r.Problems) != 1001 || len(r.Images) != 1 {
		t.Errorf("%d problems, %d images", len(r.Problems), len(r.Images))
	}
}

func TestMaxDocuments(t *testing.T) {
	t.Parallel()
	for form, one := range map[string]string{
		"YAML": "---\nimage: nginx\n", "YAML with ends": "image: nginx\n...\n", "JSON": "{\"image\": \"nginx\"}\n", "no content": "---\n",
	} {
		r := read(t, strings.Repeat(one, 10_000)+"---\nimage: redis\n---\n", images.Options{}, "more than 10000 documents")
		if len(r.Problems) != 1 || slices.Contains(names(r), "docker.io/library/redis:latest") {
			t.Errorf("%s: %v", form, r)
		}
		if r := images.Read("f", strings.NewReader(strings.Repeat(one, 9_999)+"---\nimage: redis\n"), images.Options{}); len(r.Problems) != 0 {
			t.Errorf("%s, as many as there may be: %v", form, r.Problems)
		}
	}
}

func TestMaxDepth(t *testing.T) {
	t.Parallel()
	const next = "\n---\nimage: nginx\n"
	const inYAML, inJSON, inWalk = "exceeded max depth of 200", "values in one item, or deeper than 200", "deeper than 200 values"
	for _, tt := range []struct{ form, text, problem string }{
		{"flow", strings.Repeat("[", 100_000), inJSON},
		{"flow of YAML", "{a: " + strings.Repeat("[", 100_000), inYAML},
		{"block", blocks(1_000), inYAML},
		{"dashes", strings.Repeat("- ", 100_000) + "a", inYAML},
		{"JSON", strings.Repeat(`{"a":`, 100_000) + "1" + strings.Repeat("}", 100_000), inJSON},
		{"items", `{"items":[` + strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000) + "]}", inJSON},
		{"a loop", "a: &a\n  b: *a\n", inWalk},
		{"a loop of lists", "a: &a [*a]\n", inWalk},
		{"a loop of merges", "a: &a {<<: *a, b: {c: *a}}\n", inWalk},
	} {
		r := read(t, tt.text+next, images.Options{}, tt.problem)
		if len(r.Problems) != 1 || r.Problems[0].Line == 0 || r.Problems[0].Document != 1 || len(r.Images) != 1 {
			t.Errorf("%s: %v", tt.form, r)
		}
	}
	for _, text := range []string{blocks(60) + " nginx", "a: &a {<<: *a, image: nginx}\n"} {
		if r := images.Read("f", strings.NewReader(text), images.Options{}); len(r.Problems) != 0 || len(r.Images) != 1 {
			t.Errorf("%.20q: %v", text, r)
		}
	}
}

// blocks are mappings in mappings; the last key is "image", without a value.
func blocks(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String() + strings.Repeat(" ", n) + "image:"
}

// TestMaxValues fills a document with values, and with aliases that stand for billions of them.
func TestMaxValues(t *testing.T) {
	t.Parallel()
	const next = "\n---\nimage: nginx\n"
	const before, inJSON, inWalk = "values in one document; divide it", "values in one item", "values, aliases"
	var bomb, merges strings.Builder
	bomb.WriteString("a0: &a0 {image: \"ghcr.io/acme/bomb:1\"}\n")
	merges.WriteString("a0: &a0 {image: \"ghcr.io/acme/bomb:1\"}\n")
	for i := range 40 {
		fmt.Fprintf(&bomb, "a%d: &a%d [*a%d, *a%[3]d, *a%[3]d, *a%[3]d]\n", i+1, i+1, i)
		fmt.Fprintf(&merges, "a%d: &a%d {<<: [*a%d, *a%[3]d, *a%[3]d, *a%[3]d]}\n", i+1, i+1, i)
	}
	for _, tt := range []struct{ form, text, problem string }{
		{"aliases", bomb.String(), inWalk},
		{"merges", merges.String(), inWalk},
		{"loops", "a: &a {b: *a, c: *a}\n", inWalk},
		{"a list", "[" + strings.Repeat("a,", 60_000) + "]", before},
		{"a mapping", strings.Repeat("a: b\n", 60_000), before},
		{"JSON", `{"a": [` + strings.Repeat("1,", 100_000) + "1]}", inJSON},
		{"items", `{"items": [1, [` + strings.Repeat("1,", 100_000) + "1]]}", inJSON},
	} {
		r := read(t, tt.text+next, images.Options{MaxValues: 100_000}, "more than 100000 "+tt.problem)
		if !slices.Contains(names(r), "docker.io/library/nginx:latest") {
			t.Errorf("%s: the next document is not read: %v", tt.form, r)
		}
		if p := r.Problems[len(r.Problems)-1]; p.Line != 1 || p.Document != 1 {
			t.Errorf("%s: %v", tt.form, p)
		}
	}
	// The pods of a cluster are one document, and many more.
	pods := strings.Repeat(`{"spec": {"containers": [{"image": "nginx"}]}},`, 20_000)
	if r := images.Read("f", strings.NewReader(`{"items": [`+pods+`{}]}`), images.Options{MaxValues: 100}); len(r.Problems) != 0 || len(r.Images) != 1 {
		t.Errorf("items: %v", r.Problems)
	}
}

// TestMemory bounds the heap while the shortest texts of a value are read. Half of it or more is garbage.
func TestMemory(t *testing.T) { //nolint:paralleltest // it watches the heap of the process
	const most = 100_000
	for form, text := range map[string]string{
		"flow":    "[" + strings.Repeat("a,", most/2-2) + "]",
		"empty":   "[" + strings.Repeat("[],", most/4-2) + "]",
		"pairs":   "{" + strings.Repeat("a,", most/2-2) + "}",
		"dashes":  strings.Repeat("-\n", most/2-2),
		"keys":    strings.Repeat("a:\n", most/2-2),
		"marks":   strings.Repeat("?\n", most/2-2),
		"singles": "[" + strings.Repeat("a: b,", most/4-2) + "]",
	} {
		runtime.GC()
		before, peak := heap(), uint64(0)
		done := make(chan images.Result)
		go func() { done <- images.Read("f", strings.NewReader(text), images.Options{MaxValues: most}) }()
		var r images.Result
		for reading := true; reading; {
			select {
			case r = <-done:
				reading = false
			default:
				peak = max(peak, heap())
				runtime.Gosched()
			}
		}
		if len(r.Problems) > 1 { // that not all of it was visited
			t.Errorf("%s: %v", form, r.Problems)
		}
		if cost := (max(peak, before) - before) / most; cost > 1000 {
			t.Errorf("%s: %d bytes for a value", form, cost)
		}
	}
}

// heap is how many bytes of the heap are in use, garbage included.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// TestLongKeys bounds the length of paths: a key can be as long as the text, and stand before each image.
func TestLongKeys(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("k", 900) + ": {" + strings.Repeat("image: nginx, "+strings.Repeat("b", 900)+": {", 50) + strings.Repeat("}", 51)
	r := images.Read("f", strings.NewReader(text), images.Options{})
	if len(r.Images) != 1 || len(r.Problems) != 0 {
		t.Fatal(r)
	}
	for _, p := range r.Images[0].Places {
		if len(p.Path) > 400 {
			t.Errorf("a path of %d bytes", len(p.Path))
		}
	}
}

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFolder reads a folder with charts, links, hidden files, pipes and files of other kinds.
func TestFolder(t *testing.T) {
	t.Parallel()
	top := t.TempDir()
	dir := filepath.Join(top, "manifests")
	write(t, top, "outside.yaml", "image: acme/outside:1\n")
	write(t, top, "other/other.yaml", "image: acme/other:1\n")
	write(t, dir, "b.yml", "image: acme/b:1\n")
	write(t, dir, "a/A.YAML", "image: acme/a:1\n")
	write(t, dir, "c.json", `{"image": "acme/c:1"}`)
	write(t, dir, "d.txt", "acme/d:1\n")
	write(t, dir, "LICENSE.txt", "Copyright the authors\n\nnginx:1\n")
	write(t, dir, "requirements.txt", "flask\nredis==5\n")
	write(t, dir, "README.md", "image: acme/readme:1\n")
	write(t, dir, ".git/config.yaml", "image: acme/git:1\n")
	write(t, dir, ".hidden.yaml", "image: acme/hidden:1\n")
	write(t, dir, "chart/Chart.yaml", "name: chart\n")
	write(t, dir, "chart/values.yaml", "image: acme/chart:1\n")
	// A ConfigMap as a volume.
	write(t, dir, "volume/..2026_11_30/list.txt", "acme/volume:1\n")
	links := map[string]string{
		"volume/..data": "..2026_11_30", "volume/list.txt": "..data/list.txt", "out.yaml": "../outside.yaml", "z.yaml": "a", "loop": ".",
		"away.yaml": "nowhere.yaml", "overlay": "../other", "no-end": "no-end",
	}
	for name, target := range links {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe.yaml"), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := images.ReadAll([]string{dir, "-", filepath.Join(dir, "README.md")}, strings.NewReader("acme/stdin:1"), images.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"acme/a:1", "acme/b:1", "acme/c:1", "acme/d:1", "acme/volume:1", "acme/stdin:1", "acme/readme:1"}
	for i := range want {
		want[i] = "docker.io/" + want[i]
	}
	if !slices.Equal(names(r), want) {
		t.Errorf("images: %v", names(r))
	}
	var problems []string
	for _, p := range r.Problems {
		if strings.Contains(p.Text, "statat") {
			t.Error(p.Text)
		}
		rel, err := filepath.Rel(dir, p.File)
		if err != nil {
			t.Fatal(err)
		}
		problems = append(problems, rel)
	}
	if !slices.Equal(problems, []string{"away.yaml", "chart", "out.yaml", "overlay", "pipe.yaml"}) {
		t.Errorf("problems: %v", r.Problems)
	}
	if file := r.Images[0].Places[0].File; file != filepath.Join(dir, "a/A.YAML") {
		t.Errorf("the place is %s", file)
	}
}

func TestMaxFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, dir, "00000.txt", "nginx:1\n")
	for i := range 10_000 {
		if err := os.Link(filepath.Join(dir, "00000.txt"), filepath.Join(dir, fmt.Sprintf("%05d.txt", i+1))); err != nil {
			t.Fatal(err)
		}
	}
	r, err := images.ReadAll([]string{dir}, nil, images.Options{})
	if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0].String(), "10000.txt: more than 10000 files") {
		t.Errorf("%v, %v", r.Problems, err)
	}
}

func TestMissingPath(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "missing.yaml")
	if _, err := images.ReadAll([]string{path}, nil, images.Options{}); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("got %v", err)
	}
}

// TestCutJSON reads a list of pods that was cut off: what is before the cut is found, and the cut is a problem.
func TestCutJSON(t *testing.T) {
	t.Parallel()
	text := "{\n\"items\": [\n{\"spec\": {\"containers\": [{\"image\": \"nginx\"}]}},\n{\"spec\": {\"conta"
	r := read(t, text, images.Options{}, "f:4: ")
	if len(r.Images) != 1 || len(r.Images[0].Places) != 1 || len(r.Problems) != 1 || r.Problems[0].Document != 1 {
		t.Errorf("%v", r)
	}
}
