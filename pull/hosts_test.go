package pull_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
)

// at asks for a manifest of a registry.
func at(host, tag string) pull.Ask {
	return pull.Ask{Request: oci.Request{Kind: oci.KindManifest, Namespace: host, Name: app, Tag: tag}}
}

// Each host of a pattern is a registry of its own, which is opened for clients that may read there, and keeps its state for as
// long as it is the same.
func TestHostsOfAPattern(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		const one, two = "one.azurecr.io", "two.azurecr.io"
		hosts := map[string]*registry{one: newRegistry(one), two: newRegistry(two)}
		hosts[one].push(t, app, "1", "a")
		var opened []string
		broken := errors.New("too many files")
		use := func(rules *access.Rules) {
			t.Helper()
			table, err := route.New([]route.Upstream{{
				Name: "*.azurecr.io", Fits: func(host string) bool { return strings.HasSuffix(host, ".azurecr.io") },
			}}, "")
			if err != nil {
				t.Fatal(err)
			}
			w.Use(pull.Setup{Routes: table, Rules: rules, Sites: map[string]pull.Site{"*.azurecr.io": {
				Name: "*.azurecr.io", Tags: catalog.Policies{Base: policy}, Ruled: rules != nil, Open: func(host string) (pull.Upstream, error) {
					opened = append(opened, host)
					if r := hosts[host]; r != nil {
						return r, nil
					}
					return nil, broken
				},
			}}})
		}
		use(nil)
		c := w.get(at("ONE.azurecr.io", "1"))
		if c.Ref.Host != one || c.Ref.Name != app {
			t.Errorf("%+v", c.Ref)
		}
		_ = w.fails(at(two, "1"))
		if err := w.fails(at("three.azurecr.io", "1")); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff([]string{one, two, "three.azurecr.io"}, opened); diff != "" {
			t.Error(diff)
		}
		// The no of two is remembered, though its site is looked up anew.
		hosts[two].asked()
		_ = w.fails(at(two, "1"))
		hosts[two].wants(t)
		// Content of one is not two's.
		hosts[two].asked()
		digest := at(two, "")
		digest.Request.Digest = c.Digest
		_ = w.fails(digest)
		hosts[two].wants(t, "GET "+app+"@"+c.Digest.String())

		// Nor is it forgotten for hosts that a client makes up, while it is asked for.
		hosts[two].asked()
		for i := range 3000 {
			name := fmt.Sprint("made", i, ".azurecr.io")
			hosts[name] = hosts[two]
			if i%100 == 0 {
				_ = w.fails(at(two, "1"))
			} else {
				_, _ = w.Manifest(t.Context(), at(name, "1"))
			}
			if i == 0 {
				hosts[two].wants(t)
			}
		}
		hosts[two].asked()
		_ = w.fails(at(two, "1"))
		hosts[two].wants(t)

		opened = nil
		use(forAll("one.azurecr.io/**"))
		w.get(at(one, "1"))
		_, err := w.Manifest(t.Context(), at(two, "1"))
		if _, ok := errors.AsType[*access.ForbiddenError](err); !ok {
			t.Errorf("got %v", err)
		}
		if diff := cmp.Diff([]string{one}, opened); diff != "" {
			t.Errorf("opened for a client that may not read there: %s", diff)
		}
	})
}
