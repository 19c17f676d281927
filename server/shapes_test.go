package server_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/origin"
)

// Requests of clients whose mirror endpoint has a path, or that escape characters without need, mean the same as others, and
// the upstream gets only the repository.
func TestFormsOfRequests(t *testing.T) {
	t.Parallel()
	for _, form := range []struct{ name, before, repo, after string }{
		{"ns", "", "acme/app", "ns=ghcr.io"},
		{"path", "ghcr.io/", "acme/app", ""},
		{"path and ns", "ghcr.io/", "acme/app", "ns=ghcr.io"},
		{"path with capitals and ns", "GHCR.IO/", "acme/app", "ns=ghcr.io"},
		{"escaped", "ghcr%2Eio/", "acme/%61pp", "ns=ghcr%2Eio"},
	} {
		t.Run(form.name, func(t *testing.T) {
			t.Parallel()
			w := newWire(t, wired{policy: catalog.Policy{
				MaxAge: time.Minute, Wait: 5 * time.Second, StaleIfError: time.Hour,
			}})
			im := w.ghcr.AddImage("acme/app", "1", origin.Image{Index: true})
			w.ghcr.AddReferrer("acme/app", im.Root, "application/spdx+json")
			escape := func(s string) string {
				if form.name == "escaped" {
					return strings.Replace(s, ":", "%3A", 1)
				}
				return s
			}
			root, layer := escape(im.Root.Digest.String()), escape(im.Layers[0][0].Digest.String())
			for _, path := range []string{"manifests/1", "manifests/" + root, "blobs/" + layer, "tags/list", "referrers/" + root} {
				for _, method := range []string{"HEAD", "GET"} {
					uri := "/v2/" + form.before + form.repo + "/" + path
					if form.after != "" {
						uri += "?" + form.after
					}
					if res, body := w.do(t, method, uri); res.StatusCode != 200 {
						t.Errorf("%s %s: %s %s", method, uri, res.Status, body)
					}
				}
			}
			var asked []string
			for _, q := range w.ghcr.Requests() {
				asked = append(asked, fmt.Sprintf("%s %s %s", q.Method, q.Kind, q.Repo))
			}
			slices.Sort(asked)
			want := []string{
				"GET blob acme/app", "GET manifest acme/app", "GET referrers acme/app", "GET tags acme/app", "HEAD blob acme/app",
				"HEAD manifest acme/app",
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, asked); diff != "" {
				t.Errorf("the upstream was asked (-want +got):\n%s", diff)
			}
			if n := len(w.hub.Requests()); n > 0 {
				t.Errorf("another upstream was asked %d times", n)
			}
		})
	}
}

// The link to the next page of a list has the form of the request for the first.
func TestPagesOfAPathAndNS(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{ghcr: origin.Options{PageSize: 2}})
	for _, tag := range []string{"a", "b", "c"} {
		w.ghcr.AddImage("acme/app", tag, origin.Image{})
	}
	uri, pages := "/v2/ghcr.io/acme/app/tags/list?ns=ghcr.io", 0
	for ; uri != "" && pages < 5; pages++ {
		res, body := w.do(t, "GET", uri)
		if res.StatusCode != 200 {
			t.Fatalf("%s: %s %s", uri, res.Status, body)
		}
		uri, _, _ = strings.Cut(strings.TrimPrefix(res.Header.Get("Link"), "<"), ">")
	}
	if pages != 2 || len(w.ghcr.Requests()) != 2 {
		t.Errorf("%d pages, %d requests", pages, len(w.ghcr.Requests()))
	}
}

// A path that begins with another registry than ns is not read as the path of an endpoint.
func TestPathOfAnotherRegistry(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	w.ghcr.AddImage("docker.io/app", "1", origin.Image{})
	if res, body := w.do(t, "GET", "/v2/docker.io/app/manifests/1?ns=ghcr.io"); res.StatusCode != 200 {
		t.Errorf("%s %s", res.Status, body)
	}
	res, _ := w.do(t, "HEAD", "/v2/reg.example:5000/app/manifests/1?ns=ghcr.io")
	if res.StatusCode != 400 || len(w.hub.Requests()) != 0 {
		t.Errorf("a port in the name: %s, %d requests to another", res.Status, len(w.hub.Requests()))
	}
}
