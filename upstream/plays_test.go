package upstream_test

import (
	"flag"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestRegistries asks each registry that we know in each situation, and holds every request, its login, and
// what came of it, against testdata/registries.golden.
func TestRegistries(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, p := range origin.Plays() {
		fmt.Fprintf(&got, "%s: %s\n%s\n", p.Registry, p.Situation, perform(t, p))
	}
	const file = "testdata/registries.golden"
	if *update {
		if err := os.WriteFile(file, []byte(got.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update to write it)", err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", file, diff)
	}
}

// played sets us up as a play has it.
func played(t *testing.T, p origin.Play, s *origin.Stage) func(*upstream.Options) {
	t.Helper()
	aside, err := url.Parse(s.AsideURL)
	if err != nil {
		t.Fatal(err)
	}
	return func(o *upstream.Options) {
		o.Name, o.AuthHosts = p.Registry, []string{aside.Host}
		if p.User != "" {
			o.Credential = auth.Credential{Name: "ours", Username: p.User, Password: auth.NewSecret(p.Password)}
		}
	}
}

// perform is the transcript of a play.
func perform(t *testing.T, p origin.Play) string {
	t.Helper()
	s := origin.Perform(t, p)
	r := registry(t, s.URL, played(t, p, s))
	ask := func() (string, error) {
		if p.Get {
			m, err := r.Manifest(t.Context(), origin.PlayRepository, origin.PlayTag)
			if err != nil {
				return "", err
			}
			return m.Digest.String(), nil
		}
		d, err := r.Resolve(t.Context(), origin.PlayRepository, origin.PlayTag)
		return d.Digest.String(), err
	}
	var b strings.Builder
	if p.Expires {
		if _, err := ask(); err != nil {
			t.Fatalf("%s: %s: %v", p.Registry, p.Situation, err)
		}
		s.Asked()
		s.Expire()
	}
	digest, err := ask()
	tokens := make(map[string]bool)
	for _, line := range s.Asked() {
		if isToken := !strings.Contains(line, " manifest ") && !strings.Contains(line, "/manifests/"); isToken && tokens[line] {
			t.Errorf("%s: %s: asked in vain a second time: %s", p.Registry, p.Situation, line)
		}
		tokens[line] = true
		if strings.Contains(line, "stranger") {
			t.Errorf("%s: %s: an Authorization that was never given out: %s", p.Registry, p.Situation, line)
		}
		fmt.Fprintf(&b, "\t%s\n", line)
	}
	if err == nil {
		fmt.Fprintf(&b, "\t= %s\n", digest[:19])
		return b.String()
	}
	e := upstreamError(t, err)
	for _, secret := range []string{p.Password, "dckr_jti_9"} {
		if secret != "" && strings.Contains(err2s(e), secret) {
			t.Errorf("%s: %s: %q shows in %v", p.Registry, p.Situation, secret, err)
		}
	}
	fmt.Fprintf(&b, "\t= %s at %s: %d %s %s %q", e.Step().Name, s.Blank(e.Step().Host), e.Status, e.Code, e.BodyKind, e.Message)
	if e.RetryAfter > 0 {
		fmt.Fprintf(&b, ", after %s", e.RetryAfter)
	}
	if e.Credential.Name != "" {
		fmt.Fprintf(&b, ", our login %s", e.Credential.State)
	}
	if e.Probe != nil {
		fmt.Fprintf(&b, ", told: %s", e.Probe.Verdict)
	}
	if e.Err != nil {
		fmt.Fprintf(&b, "\n\t  %s", s.Blank(e.Err.Error()))
	}
	return b.String() + "\n"
}

// TestManyPullsOnAnExpiredToken has 100 pulls at once find that the token which they share has expired, in each way in
// which a registry says so.
func TestManyPullsOnAnExpiredToken(t *testing.T) {
	t.Parallel()
	for _, p := range origin.Plays() {
		if !p.Expires {
			continue
		}
		t.Run(p.Registry+": "+p.Situation, func(t *testing.T) {
			t.Parallel()
			s := origin.Perform(t, p)
			r := registry(t, s.URL, played(t, p, s))
			ask := func() error {
				_, err := r.Manifest(t.Context(), origin.PlayRepository, origin.PlayTag)
				return err
			}
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			s.Asked()
			s.Expire()
			begin := make(chan struct{})
			var wg sync.WaitGroup
			for range 100 {
				wg.Go(func() {
					<-begin
					if err := ask(); err != nil {
						t.Error(err)
					}
				})
			}
			close(begin)
			wg.Wait()
			tokens, stale, good := 0, 0, 0
			for _, line := range s.Asked() {
				switch {
				case !strings.HasPrefix(line, "GET manifest "):
					tokens++
				case strings.Contains(line, " stale "):
					stale++
				default:
					good++
				}
			}
			if tokens != 1 || stale == 0 || stale > 100 || good != 100 {
				t.Errorf("%d token requests, %d with the old token, %d with the new one; want 1, 1 to 100, 100", tokens, stale,
					good)
			}
		})
	}
}
