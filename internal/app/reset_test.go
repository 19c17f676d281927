package app_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin/client"
	"github.com/registrymirror/mirror/internal/origin"
)

// A registry has said that it limits us for hours, and no longer does. The operator's word ends it: a reload, or a reset by
// name or alias; and nothing else does.
func TestResetOfAnUpstream(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"reload", "one.test", "First.Test", "alias"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, origin.Options{})
			o.AddImage("acme/app", "v1", origin.Image{})
			built := o.AddImage("acme/app", "v2", origin.Image{Seed: 2})
			dir := t.TempDir()
			conf := func() string {
				return fmt.Sprintf("  one.test: {endpoints: [%q], aliases: [first.test, alias]}\n", o.URL())
			}
			r := run(t, parse(t, dir, conf()))
			stop := o.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
				Status: 429, Header: http.Header{"Retry-After": {fmt.Sprint(time.Now().Add(3 * time.Hour).Unix())}},
			}})
			ask := func(reference string) int {
				status, _ := get(t, "http://"+r.Addr().String()+"/v2/one.test/acme/app/manifests/"+reference)
				return status
			}
			for range 2 {
				if got := ask("v1"); got != http.StatusServiceUnavailable {
					t.Fatalf("limited: %d", got)
				}
				ask(built.Root.Digest.String())
			}
			stop()
			o.ClearRequests()
			if got := ask("v1"); got != http.StatusServiceUnavailable || o.Count(origin.KindManifest) != 0 {
				t.Errorf("it is believed: %d, %d requests", got, o.Count(origin.KindManifest))
			}
			switch c, err := client.New(client.Options{URL: "http://" + r.AdminAddr().String()}); {
			case err != nil:
				t.Fatal(err)
			case how == "reload":
				if err := r.Reload(parse(t, dir, conf())); err != nil {
					t.Fatal(err)
				}
			default:
				if _, err := c.Do(t.Context(), http.MethodPost, "upstreams/reset", nil, []byte(`{"upstream":"two.test"}`)); err == nil ||
					!strings.Contains(err.Error(), "not an upstream") {
					t.Errorf("an unknown one: %v", err)
				}
				body, err := c.Do(t.Context(), http.MethodPost, "upstreams/reset", nil, []byte(fmt.Sprintf(`{"upstream":%q}`, how)))
				if err != nil || !strings.Contains(string(body), `["one.test"]`) {
					t.Fatalf("%s, %v", body, err)
				}
			}
			for _, reference := range []string{"v1", built.Root.Digest.String()} {
				if got := ask(reference); got != http.StatusOK {
					t.Errorf("%s: %d", reference, got)
				}
			}
		})
	}
}
