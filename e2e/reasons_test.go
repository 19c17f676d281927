package e2e_test

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/trouble"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

var (
	everything = flag.Bool("reasons", false, "TestReasons: all scenes with all clients, instead of the quick ones with two")
	update     = flag.Bool("update", false, "write the parts of the documentation that tests generate")
)

// catalogue is the page with the matrix.
const catalogue = "../docs/failures/README.md"

// reader pulls as people do, and says what they read: what a program prints, or what the kubelet gets to hear.
type reader struct {
	name string
	pull func(context.Context, *trouble.Place) (printed string, pulled bool)
}

// cells of the matrix in which no words of the mirror's can be.
const (
	no404    = "no: a 404"
	noStatus = "no: a status"
	noLate   = "no: cut off"
	noUnsaid = "no: its own words"
)

// TestReasons pulls from a place where each thing goes wrong that has a reason of its own, and reads what the client
// prints: the cause and the remedy, for each of the clients that can show them. Which can, is the matrix in the
// catalogue of failures.
func TestReasons(t *testing.T) {
	t.Parallel()
	world, err := trouble.NewWorld(proc.Dir(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(world.Close)
	var places []*trouble.Place
	for _, s := range trouble.All() {
		if s.Slow && !*everything {
			continue
		}
		p, err := world.Set(s)
		if err != nil {
			t.Fatal(err)
		}
		places = append(places, p)
	}
	m, err := world.Mirror(t.Context(), places, mirrord.Options{Program: mirrord.Binary, Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if strings.Contains(m.Output(), "DATA RACE") {
			t.Errorf("the race detector spoke:\n%s", m.Output())
		}
	})
	readers := readersOf(t, m, places)
	for _, p := range places {
		if p.Busy != nil {
			if err := p.Busy(t.Context(), m.URL()); err != nil {
				t.Fatal(err)
			}
		}
	}

	var mu sync.Mutex
	cells := make(map[string]map[string]string) // by title and client
	var slow, quick errgroup.Group
	quick.SetLimit(8)
	for _, p := range places {
		row := make(map[string]string)
		cells[p.Title()] = row
		for _, r := range readers {
			group := &quick
			if p.Slow {
				group = &slow
			}
			group.Go(func() error {
				cell := read(t, m, p, r)
				mu.Lock()
				defer mu.Unlock()
				row[r.name] = cell
				return nil
			})
		}
	}
	_, _ = quick.Wait(), slow.Wait() // they report themselves
	checkMatrix(t, readers, places, cells)
}

// readersOf are the clients.
func readersOf(t *testing.T, m *mirrord.Mirror, places []*trouble.Place) []reader {
	t.Helper()
	hosts := make(map[string]string)
	for _, p := range places {
		hosts[p.Host] = cmp.Or(p.Node, "http://127.0.0.1:9") // nothing listens there
	}
	lines := []containerd.Line{containerd.V2}
	if *everything {
		lines = containerd.Lines
	}
	var all []reader
	for _, line := range lines {
		c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Hosts: hosts})
		all = append(all, reader{"containerd " + string(line), func(ctx context.Context, p *trouble.Place) (string, bool) {
			if p.First != "" {
				if _, err := c.Pull(ctx, p.First); err != nil {
					t.Errorf("%s: %v", p.First, err)
				}
			}
			_, err := c.Pull(ctx, p.Ref())
			return fmt.Sprint(err), err == nil
		}})
	}
	if *everything {
		all = append(all, reader{"Podman", func(ctx context.Context, p *trouble.Place) (string, bool) {
			c := podman.New(t, podman.Options{Mirror: m.Host, Registry: p.Host, Location: strings.TrimPrefix(p.Node, "http://")})
			if p.First != "" {
				if _, err := c.Pull(t, p.First); err != nil {
					t.Errorf("%s: %v", p.First, err)
				}
			}
			_, err := c.PullWithin(ctx, t, p.Ref())
			return fmt.Sprint(err), err == nil
		}})
	}
	crane, dir := tool.Built(t, "crane"), t.TempDir()
	return append(all, reader{"crane", func(ctx context.Context, p *trouble.Place) (string, bool) {
		r, err := proc.Exec(ctx, proc.Options{}, crane, "pull", "--platform", "linux/amd64", m.Host+"/"+p.Ref(),
			filepath.Join(dir, p.Name+".tar"))
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		return r.Text(), err == nil && r.Code == 0
	}})
}

// finding is what the mirror has recorded.
type finding struct{ ID, Reason, Class, Summary, Remedy string }

// read has a client pull and says where it shows cause and remedy.
func read(t *testing.T, m *mirrord.Mirror, p *trouble.Place, r reader) (cell string) {
	t.Helper()
	at := fmt.Sprintf("%s, %s", p.Title(), r.name)
	patience := 3 * time.Minute
	if p.Late { // a client begins anew, more than once
		patience = 150 * time.Second
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	start := time.Now()
	text, pulled := r.pull(ctx, p)
	t.Logf("%s: after %s\n%s", at, time.Since(start).Round(time.Second/10), text)
	if pulled {
		t.Errorf("%s: it was pulled", at)
		return "?"
	}
	if p.Unsaid && r.name == "crane" { // it is not a runtime, so it is not taken for a node
		return noUnsaid
	}
	var f finding
	wait.For(t, time.Minute, at+": its record", func() error {
		var err error
		f, err = recorded(t, m, p)
		return err
	})
	for _, word := range p.Says {
		if !strings.Contains(f.Summary+"; "+f.Remedy, word) {
			t.Errorf("%s: it does not say %q: %s; %s", at, word, f.Summary, f.Remedy)
		}
	}
	phrase := ""
	rest := phrases.ReplaceAllStringFunc(text, func(s string) string {
		phrase = s
		return ""
	})
	switch {
	case p.Unsaid:
		cell = noUnsaid
	case p.Late:
		cell = noLate
	case r.name == "Podman" && strings.Contains(text, "fetching blob: invalid status code"):
		cell = noStatus
	case strings.HasPrefix(r.name, "containerd") && (f.Class == "missing" || f.Reason == "unknown-upstream"):
		cell = no404
	}
	where := ""
	switch {
	case has(phrase, p.Says):
		where = "status line"
	case has(rest, p.Says):
		where = "body"
	}
	switch {
	case cell == "" && where == "":
		t.Errorf("%s: cause and remedy are not in what it prints:\n%s\nrecorded: %s; %s", at, text, f.Summary, f.Remedy)
		return "?"
	case cell != "" && where != "":
		t.Errorf("%s: %q was thought impossible, and it prints:\n%s", at, cell, text)
	}
	return cmp.Or(cell, where)
}

// phrases are the words that the mirror puts into a status line.
var phrases = regexp.MustCompile(`\d\d\d [\w -]+ \(mirror: .*? \[[0-9a-f]{8}\]\)`)

func has(text string, words []string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// recorded is the failure of a place, of its reason and no other.
func recorded(t *testing.T, m *mirrord.Mirror, p *trouble.Place) (finding, error) {
	t.Helper()
	code, body := m.Get(t, "/api/v1/failures?declined=true&image="+url.QueryEscape(p.Ref()))
	var doc struct{ Failures []finding }
	if err := json.Unmarshal([]byte(body), &doc); code != http.StatusOK || err != nil {
		return finding{}, fmt.Errorf("%d %s (%w)", code, body, err)
	}
	for _, f := range doc.Failures {
		if f.Reason == p.Reason {
			return f, nil
		}
	}
	return finding{}, fmt.Errorf("want %s, have %v", p.Reason, doc.Failures)
}

const (
	matrixBegin = "<!-- the matrix: make reasons UPDATE=1 -->\n"
	matrixEnd   = "<!-- the end of the matrix -->\n"
)

// checkMatrix holds the page to what was seen, or writes it.
func checkMatrix(t *testing.T, readers []reader, places []*trouble.Place, cells map[string]map[string]string) {
	t.Helper()
	page, err := os.ReadFile(catalogue)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(page), matrixBegin)
	old, after, ok2 := strings.Cut(rest, matrixEnd)
	if !ok || !ok2 {
		t.Fatalf("%s has no matrix", catalogue)
	}
	if *everything {
		if have := matrix(readers, places, cells); *update && !t.Failed() {
			if err := os.WriteFile(catalogue, []byte(before+matrixBegin+have+matrixEnd+after), 0o644); err != nil { //nolint:gosec // a page
				t.Fatal(err)
			}
		} else if old != have {
			t.Errorf("%s differs from what was seen; make reasons UPDATE=1 writes it:\n%s", catalogue, have)
		}
		everyReason(t, places)
		return
	}
	var header []string
	for line := range strings.Lines(old) {
		row := split(line)
		if header == nil {
			header = row
			continue
		}
		for title, of := range cells {
			for client, have := range of {
				if i := slices.Index(header, client); len(row) == len(header) && row[0] == linked(title) && row[i] != have {
					t.Errorf("%s, %s: %q; %s says %q", title, client, have, catalogue, row[i])
				}
			}
		}
	}
	for title := range cells {
		if !strings.Contains(old, "| "+linked(title)+" |") {
			t.Errorf("%s has no row for %s", catalogue, title)
		}
	}
}

func split(row string) []string {
	parts := strings.Split(strings.Trim(strings.TrimSpace(row), "|"), "|")
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	return parts
}

// linked is a title with a link to the reason's page.
func linked(title string) string {
	reason, what, more := strings.Cut(title, ", ")
	s := "[" + reason + "](" + reason + ".md)"
	if more {
		s += ", " + what
	}
	return s
}

func matrix(readers []reader, places []*trouble.Place, cells map[string]map[string]string) string {
	var b strings.Builder
	b.WriteString("| reason |")
	for _, r := range readers {
		b.WriteString(" " + r.name + " |")
	}
	b.WriteString("\n|---|" + strings.Repeat("---|", len(readers)) + "\n")
	for _, p := range places {
		b.WriteString("| " + linked(p.Title()) + " |")
		for _, r := range readers {
			b.WriteString(" " + cells[p.Title()][r.name] + " |")
		}
		b.WriteString("\n")
	}
	b.WriteString("\nNot pulled here:\n\n")
	for _, reason := range slices.Sorted(maps.Keys(trouble.Elsewhere)) {
		fmt.Fprintf(&b, "- %s: %s\n", linked(reason), trouble.Elsewhere[reason])
	}
	return b.String()
}

// everyReason holds the scenes to the catalogue: each reason has one, or it is said why not.
func everyReason(t *testing.T, places []*trouble.Place) {
	t.Helper()
	pages, err := filepath.Glob(filepath.Join(filepath.Dir(catalogue), "*.md"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d pages: %v", len(pages), err)
	}
	node := []string{ // mirror explain alone gives these
		"node-disk-full", "name-invalid", "never-pull", "runtime-down", "signature-policy", "unpack-failed", "pull-qps", "unknown",
	}
	for _, page := range pages {
		reason := strings.TrimSuffix(filepath.Base(page), ".md")
		_, elsewhere := trouble.Elsewhere[reason]
		there := slices.ContainsFunc(places, func(p *trouble.Place) bool { return p.Reason == reason })
		if reason != "README" && !slices.Contains(node, reason) && there == elsewhere {
			t.Errorf("%s: a scene: %t, said to be elsewhere: %t; want one of the two", reason, there, elsewhere)
		}
	}
}
