package webhook_test

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/webhook"
)

// Whatever a body holds, the answer is one of a few, and what is marked is a well-formed name at an upstream of the list.
func FuzzBody(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil || len(files) == 0 {
		f.Fatal(err)
	}
	for _, kind := range webhook.Types() {
		f.Add(kind, []byte(`{"events":[{"action":"delete","target":{"repository":"a"}}],"updated_tags":{"x":[]},"package":null}`))
	}
	f.Add("github", []byte("payload=%7b%7d&x=y"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		h := start(t)
		path, header := prove(kind, kind, secret, body)
		if strings.ContainsAny(path, " \x00\n\r%?#") || strings.ContainsFunc(path, func(r rune) bool { return r > '~' || r < '!' }) {
			return
		}
		w := h.send(t, path, body, header...)
		switch w.Code {
		case http.StatusAccepted, http.StatusBadRequest, http.StatusNotFound:
		default:
			t.Errorf("%d %s", w.Code, w.Body)
		}
		for _, r := range w.Body.String() {
			if r != '\n' && (r < ' ' || r > '~') {
				t.Errorf("the answer has %q: %q", r, w.Body)
			}
		}
		checkMarks(t, names(t).Routes, h.marks.take())
	})
}

// FuzzRecorded changes bytes of the recorded bodies.
func FuzzRecorded(f *testing.F) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.json"))
	if err != nil {
		f.Fatal(err)
	}
	for i := range files {
		f.Add(uint8(i), uint16(0), uint16(0), []byte(""))
		f.Add(uint8(i), uint16(40), uint16(7), []byte("null,"))
	}
	f.Fuzz(func(t *testing.T, file uint8, at, length uint16, with []byte) {
		name := strings.TrimSuffix(filepath.Base(files[int(file)%len(files)]), ".json")
		body := recorded(t, name)
		from := min(int(at), len(body))
		to := min(from+int(length), len(body))
		body = append(append(append([]byte(nil), body[:from]...), with...), body[to:]...)
		kind, _, _ := strings.Cut(name, "-")
		if kind == "acr" {
			kind = "distribution"
		}
		h := start(t)
		path, header := prove(kind, kind, secret, body)
		if w := h.send(t, path, body, header...); w.Code >= 500 || w.Code == http.StatusForbidden {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		checkMarks(t, names(t).Routes, h.marks.take())
	})
}

// checkMarks checks that names are in canonical form, at upstreams of the list.
func checkMarks(t *testing.T, routes *route.Table, list []string) {
	t.Helper()
	for _, text := range list {
		name := strings.TrimSuffix(text, ":") // all tags
		host, _, _ := strings.Cut(name, "/")
		ref, err := oci.ParseRef(name)
		if host == "images.gitlab" || err == nil && ref.Host == host && strings.HasPrefix(ref.String(), name) && routes.Entry(host) != "" {
			continue
		}
		t.Errorf("marked %q (%v, %v)", text, ref, err)
	}
}
