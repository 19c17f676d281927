package symptom_test

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
)

// pasted is a text from a bug report, and its meaning.
type pasted struct {
	Kind   string // of its client: cluster, other, none
	Want   string // classes, each of which is right; none: no failing pull
	Reason string // where the text leaves no choice
	Count  int64  // 0: not judged
	Image  string // a part of the image's name
	Host   string
	Text   string
	Source string
	Form   string
}

// fields are the files of such texts.
var fields = []string{"testdata/field.jsonl", "testdata/more.jsonl"}

func field(t testing.TB, file string) (all []pasted) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var p pasted
		if err := json.Unmarshal(lines.Bytes(), &p); err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if lines.Err() != nil || len(all) == 0 {
		t.Fatalf("%s: %v", file, lines.Err())
	}
	return all
}

// score counts the texts of a kind that are right, and the mistakes in the others.
type score struct{ texts, right, wrong, silent, counted, miscounted, reported, unnamed int }

func (s *score) judge(t testing.TB, p pasted) {
	t.Helper()
	r := read(t, p.Text+"\n")
	s.texts++
	wants := strings.Split(p.Want, "|")
	none := slices.Contains(wants, "none")
	ok := len(r.Failures) > 0 || none
	wrong := false
	for _, f := range r.Failures {
		if !slices.Contains(wants, string(f.Class)) {
			ok = false
			wrong = wrong || f.Class != diagnose.ClassUnknown || none && len(wants) == 1
		}
	}
	switch {
	case ok:
		s.right++
	case len(r.Failures) == 0:
		s.silent++
	case wrong:
		s.wrong++
	}
	if !ok {
		t.Logf("%s: want %s\n%s\n%+v", p.Source, p.Want, p.Text, r.Failures)
	}
	if p.Count > 0 {
		s.counted++
		if r.Total() != p.Count {
			s.miscounted++
			t.Logf("%s: counted %d, want %d\n%s\n%+v", p.Source, r.Total(), p.Count, p.Text, r.Failures)
		}
	}
	for _, f := range r.Failures {
		s.reported++
		if f.Image == "" && f.Host == "" {
			s.unnamed++
		}
	}
	s.details(t, p, r)
}

// details holds the reader to the other facts about a text.
func (*score) details(t testing.TB, p pasted, r *symptom.Report) {
	t.Helper()
	if p.Reason != "" && !slices.ContainsFunc(r.Failures, func(f symptom.Failure) bool { return string(f.Reason) == p.Reason }) {
		t.Errorf("%s: no %s\n%s\n%+v", p.Source, p.Reason, p.Text, r.Failures)
	}
	for _, f := range r.Failures {
		if !strings.Contains(f.Image, p.Image) || !strings.Contains(f.Host, p.Host) {
			t.Errorf("%s: image %q, host %q, want %q, %q\n%s", p.Source, f.Image, f.Host, p.Image, p.Host, p.Text)
		}
		if strings.HasSuffix(f.Image, ":latest") && !strings.Contains(p.Text, "latest") {
			t.Errorf("%s: %s is not in the text\n%s", p.Source, f.Image, p.Text)
		}
	}
}

// TestField holds the reader to texts from public bug reports, by kind of client: field.jsonl is what it is measured by,
// more.jsonl is what was found besides.
func TestField(t *testing.T) {
	t.Parallel()
	for _, file := range fields {
		scores := map[string]*score{}
		for _, p := range field(t, file) {
			if scores[p.Kind] == nil {
				scores[p.Kind] = &score{}
			}
			scores[p.Kind].judge(t, p)
		}
		for kind, least := range map[string]int{"cluster": 95, "other": 90, "none": 100} {
			if scores[kind] == nil {
				continue
			}
			s := scores[kind]
			t.Logf("%s, %s: %+v", file, kind, *s)
			if s.right*100 < s.texts*least || s.wrong*100 > s.texts {
				t.Errorf("%s, %s: %d of %d are right and %d wrong; want %d in 100, and 1 wrong at most", file, kind, s.right, s.texts, s.wrong, least)
			}
			if s.silent > 0 || s.miscounted > 0 {
				t.Errorf("%s, %s: %d failing pulls are missed, %d of %d are counted wrong", file, kind, s.silent, s.miscounted, s.counted)
			}
		}
	}
}

// The texts of the corpus, one after the other in one file, are read as they are alone: no text changes its neighbours.
func TestFieldTogether(t *testing.T) {
	t.Parallel()
	var all strings.Builder
	for _, p := range field(t, fields[0]) {
		if p.Want == "none" {
			all.WriteString(p.Text + "\n\n")
		}
	}
	if r := read(t, all.String()); r.Total() > 0 {
		t.Errorf("%+v", r.Failures)
	}
}

// The prefix that a CI system, a journal, a terminal or a mail program puts before each line changes nothing.
func TestFieldInWrappers(t *testing.T) {
	t.Parallel()
	lines := func(before, after string) func(string) string {
		return func(text string) string {
			return before + strings.ReplaceAll(text, "\n", after+"\n"+before) + after
		}
	}
	wrappers := map[string]func(string) string{
		"GitHub":       lines("2024-05-01T10:00:01.1234567Z ", ""),
		"GitLab":       lines("2024-09-01T08:00:00.000001Z 01O ", ""),
		"Jenkins":      lines("10:00:01 ", ""),
		"Cloud Build":  lines("Step #2 - \"pull\": ", ""),
		"CodeBuild":    lines("[Container] 2024/03/27 12:58:52 ", ""),
		"compose":      lines("web-1  | ", ""),
		"CRI":          lines("2024-05-01T10:00:01.123456789Z stderr F ", ""),
		"journal":      lines("Jan 25 19:34:57 worker0 agent[818854]: ", ""),
		"colours":      lines("\x1b[31m", "\x1b[0m"),
		"indented":     lines("    ", ""),
		"quoted":       lines("> ", ""),
		"carriage":     lines("", "\r"),
		"spaces after": lines("", "   "),
	}
	for _, file := range fields {
		for i, p := range field(t, file) {
			if file == fields[0] && i%2 > 0 || file != fields[0] && i%7 > 0 {
				continue // some are enough
			}
			if p.Form == "yaml" || p.Form == "json" || strings.Contains(p.Source, "wrapped") || strings.Contains(p.Source, "cut at") || strings.Contains(p.Source, "YAML") || strings.Contains(p.Source, "yaml") {
				continue // indentation and rows mean something there
			}
			want := classesOf(read(t, p.Text+"\n"))
			for name, wrap := range wrappers {
				text := wrap(p.Text) + "\n"
				if diff := cmp.Diff(want, classesOf(read(t, text))); diff != "" {
					t.Errorf("%s, %s (-alone +wrapped):\n%s\n%s", name, p.Source, diff, text)
				}
			}
		}
	}
}

// A message is read in the same way as a line and in a document.
func TestFieldInDocuments(t *testing.T) {
	t.Parallel()
	documents := map[string]func(quoted string) string{
		"Docker's log": func(q string) string {
			return `{"log":` + q + `,"stream":"stderr","time":"2024-05-01T10:00:00.123456789Z"}`
		},
		"a logger": func(q string) string {
			return `{"level":"error","ts":1748003206.9,"msg":"it failed","error":` + q + `}`
		},
		"Docker's API": func(q string) string { return `{"message":` + q + `}` },
		"a condition": func(q string) string {
			return `{"kind":"Thing","status":{"conditions":[{"type":"Ready","message":` + q + `},{"type":"Done","message":` + q + `}]}}`
		},
		"Google's log": func(q string) string { return `[{"textPayload":` + q + `,"severity":"ERROR"}]` },
		"a journal":    func(q string) string { return `{"MESSAGE":` + q + `,"PRIORITY":"6"}` },
		"logfmt":       func(q string) string { return `time="2024-05-01T10:00:00Z" level=error msg="it failed" error=` + q },
		"klog":         func(q string) string { return `E0507 11:59:31.815103    2791 thing.go:1300] "It failed" err=` + q },
		"a cut document": func(q string) string {
			return "    \"reason\": \"Failed\",\n    \"message\": " + q + ",\n    \"type\": \"Warning\""
		},
		"YAML": func(q string) string { return "  message: " + q + "\n  reason: Failed" },
	}
	for _, file := range fields {
		for i, p := range field(t, file) {
			if file != fields[0] && i%7 > 0 || strings.Contains(p.Text, "\n") || strings.Contains(p.Text, "&quot;") || p.Kind == "none" || strings.HasPrefix(p.Text, "{") {
				continue
			}
			q, err := json.Marshal(p.Text)
			if err != nil {
				t.Fatal(err)
			}
			want := classesOf(read(t, p.Text+"\n"))
			for name, in := range documents {
				text := in(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(q))) + "\n"
				if diff := cmp.Diff(want, classesOf(read(t, text))); diff != "" {
					t.Errorf("%s, %s (-alone +in it):\n%s\n%s", name, p.Source, diff, text)
				}
			}
		}
	}
}

func classesOf(r *symptom.Report) map[string]int64 { return r.Classes }
