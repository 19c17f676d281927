package demo_test

import (
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/demo"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The errors of containerd for each kind of registry.
func TestPull(t *testing.T) {
	t.Parallel()
	for kind, says := range map[demo.Kind]string{
		demo.Healthy:  "",
		demo.Private:  "failed to fetch oauth token: unexpected status from GET request to http://ADDR/token: 401 Unauthorized",
		demo.Limiting: "unexpected status from HEAD request to http://ADDR/v2/acme/app/manifests/v1: 429 Too Many Requests",
		demo.Portal:   "could not fetch content descriptor sha256:",
	} {
		r, err := demo.Start(t.Context(), kind)
		if err != nil {
			t.Fatal(err)
		}
		got, err := demo.Pull(t.Context(), "http://"+r.Addr(), "a.example", "")
		switch {
		case says == "" && (err != nil || got.Bytes < 3<<20):
			t.Errorf("kind %d: %+v, %v", kind, got, err)
		case says != "" && (err == nil || !strings.Contains(err.Error(), strings.Replace(says, "ADDR", r.Addr(), 1)) ||
			!strings.HasPrefix(err.Error(), `failed to pull and unpack image "a.example/acme/app:v1": `)):
			t.Errorf("kind %d: %v", kind, err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		if _, err := demo.Pull(t.Context(), "http://"+r.Addr(), "a.example", ""); err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("kind %d, closed: %v", kind, err)
		}
	}
}
