package diagnose_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
)

// TestExplainRegistries holds the findings about each registry's refusals against testdata/registries.golden.
func TestExplainRegistries(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, p := range origin.Plays() {
		s := origin.Perform(t, p)
		err := refused(t, p, s)
		if err == nil {
			continue // success has its tests in upstream
		}
		f := diagnose.Explain(err)
		fmt.Fprintf(&got, "%s: %s\n\t%s %d at %s", p.Registry, p.Situation, f.Reason, f.Status, s.Blank(f.Host))
		if f.Declined {
			got.WriteString(", declined")
		}
		fmt.Fprintf(&got, "\n\t%s\n\t%s\n\n", s.Blank(f.Summary), s.Blank(f.Remedy))
	}
	golden(t, "registries.golden", got.String())
}

// refused is why a pull of the play's tag fails.
func refused(t *testing.T, p origin.Play, s *origin.Stage) error {
	t.Helper()
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	aside, err := url.Parse(s.AsideURL)
	if err != nil {
		t.Fatal(err)
	}
	o := upstream.Options{
		Name: p.Registry, Endpoints: []upstream.Endpoint{{URL: u}}, AuthHosts: []string{aside.Host},
		Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
	}
	if p.User != "" {
		o.Credential = auth.Credential{Name: "ours", Username: p.User, Password: auth.NewSecret(p.Password)}
	}
	r, err := upstream.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if p.Get {
		_, err = r.Manifest(t.Context(), origin.PlayRepository, origin.PlayTag)
	} else {
		_, err = r.Resolve(t.Context(), origin.PlayRepository, origin.PlayTag)
	}
	return err
}
