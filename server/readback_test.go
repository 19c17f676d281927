package server_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/server"
)

// explained are the findings of a golden file of package diagnose, by the names of their cases.
func explained(t *testing.T) map[string]diagnose.Finding {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("..", "diagnose", "testdata", "explain.golden"))
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string]diagnose.Finding)
	for block := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		rows := strings.Split(block, "\n")
		reason, _, _ := strings.Cut(rows[1], " ")
		f := diagnose.Finding{Reason: diagnose.Reason(reason), Summary: rows[2]}
		for _, row := range rows[3:] {
			switch {
			case strings.HasPrefix(row, "~ "):
				f.Short = row[2:]
			case strings.HasPrefix(row, "-> "):
				f.Remedy = row[3:]
			case strings.HasPrefix(row, "   upstream="):
				for field := range strings.FieldsSeq(row) {
					if v, ok := strings.CutPrefix(field, "upstream="); ok {
						f.Upstream = v
					}
					if v, ok := strings.CutPrefix(field, "host="); ok {
						f.Host = v
					}
				}
			}
		}
		all[strings.TrimPrefix(rows[0], "# ")] = f
	}
	if len(all) < 100 {
		t.Fatalf("%d findings", len(all))
	}
	return all
}

// mirror explain reads each status line of the mirror back to its reason, from the kubelet's event alone: by its id. Without
// the id it reads the most common ones by their words, and says of the others that the reason is unknown.
func TestPhraseIsReadBack(t *testing.T) {
	t.Parallel()
	common := []diagnose.Reason{
		diagnose.ConnectRefused, diagnose.DNSNotFound, diagnose.NotFoundOrNoAccess, diagnose.TagNotFound, diagnose.RateLimited,
	}
	byWords := make(map[diagnose.Reason]bool)
	for name, f := range explained(t) {
		image := "docker.io/library/nginx:1.27"
		if f.Upstream != "" && f.Upstream != "docker.io" {
			image = f.Upstream + "/acme/app:v1"
		}
		event := func(phrase string) string {
			return fmt.Sprintf("Failed to pull image %q: failed to pull and unpack image %q: failed to resolve reference %q: unexpected status from HEAD "+
				"request to https://mirror.corp:5000/v2/x/manifests/1?ns=x: 502 %s\n", image, image, image, phrase)
		}
		read := func(text string) diagnose.Reason {
			t.Helper()
			r, err := symptom.Read(strings.NewReader(text))
			if err != nil || len(r.Failures) != 1 {
				t.Fatalf("%s: %v %+v\n%s", name, err, r, text)
			}
			return r.Failures[0].Reason
		}
		phrase := server.Phrase(http.StatusBadGateway, f, f.ID(image))
		if got := read(event(phrase)); got != f.Reason {
			t.Errorf("%s: %s, want %s\n%s", name, got, f.Reason, phrase)
		}
		// The id is of another image, or a program has cut it off.
		for _, text := range []string{
			server.Phrase(http.StatusBadGateway, f, "00000000"),
			phrase[:strings.LastIndexByte(phrase, '[')],
			"Bad Gateway (mirror: " + strings.TrimPrefix(f.Summary, "the mirror ") + "; " + f.Remedy + " [00000000])",
		} {
			switch got := read(event(text)); {
			case got == f.Reason:
				byWords[got] = true
			case got != diagnose.Unknown:
				t.Errorf("%s without its id: %s, want %s or unknown\n%s", name, got, f.Reason, text)
			}
		}
	}
	for _, r := range common {
		if !byWords[r] {
			t.Errorf("%s is not read by its words", r)
		}
	}
}
