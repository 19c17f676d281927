package symptom_test

import (
	"bufio"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose/symptom"
)

// pasted is a text as people paste it into a bug report, and what it means.
type pasted struct {
	Kind   string // of its client: cluster, other, none
	Want   string // classes, each of which is right; none: no failing pull
	Reason string // where the text leaves no choice
	Count  int64  // 0: not judged
	Image  string // what the image's name must have in it
	Host   string
	Text   string
	Source string
	Form   string
}

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

// score is how many texts of a kind are right, and in which way the others are not.
type score struct{ texts, right, wrong, silent, counted, miscounted, named, unnamed int }

func (s *score) judge(t testing.TB, p pasted) {
	t.Helper()
	r, err := symptom.Read(strings.NewReader(p.Text + "\n"))
	if err != nil {
		t.Fatal(err)
	}
	s.texts++
	wants := strings.Split(p.Want, "|")
	ok, wrong := len(r.Failures) > 0, false
	if len(r.Failures) == 0 && slices.Contains(wants, "none") {
		ok = true
	}
	for _, f := range r.Failures {
		if !slices.Contains(wants, string(f.Class)) {
			ok = false
			wrong = wrong || f.Class != "unknown" || slices.Contains(wants, "none") && len(wants) == 1
		}
		if p.Reason != "" && string(f.Reason) != p.Reason {
			t.Logf("%s: %s, would be %s", p.Source, f.Reason, p.Reason)
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
		s.named++
		if f.Image == "" || f.Host == "" || !strings.Contains(f.Image, p.Image) || !strings.Contains(f.Host, p.Host) {
			s.unnamed++
			t.Logf("%s: image %q, host %q (want %q, %q)\n%s", p.Source, f.Image, f.Host, p.Image, p.Host, p.Text)
		}
	}
}

// TestField holds the reader to texts from public bug reports, by kind of client.
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
		for kind, s := range scores {
			t.Logf("%s, %s: %+v", file, kind, *s)
		}
	}
}
