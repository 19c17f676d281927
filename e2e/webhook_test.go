package e2e_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// relay passes reports on to a mirror that is not there yet when its registry starts, and remembers what came of them.
type relay struct {
	mu      sync.Mutex
	to      string
	answers []string // status, Content-Type of the report, and the mirror's sentence
}

func (r *relay) ServeHTTP(w http.ResponseWriter, in *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	body, err := io.ReadAll(in.Body)
	if err != nil || r.to == "" {
		w.WriteHeader(http.StatusServiceUnavailable) // the registry sends it again
		return
	}
	out, err := http.NewRequestWithContext(context.WithoutCancel(in.Context()), in.Method, r.to, bytes.NewReader(body))
	if err == nil {
		out.Header = in.Header.Clone()
		var res *http.Response
		if res, err = http.DefaultClient.Do(out); err == nil {
			defer res.Body.Close()
			text, _ := io.ReadAll(res.Body)
			r.answers = append(r.answers, fmt.Sprint(res.StatusCode, " ", in.Header.Get("Content-Type"), " ", string(text)))
			w.WriteHeader(res.StatusCode)
			return
		}
	}
	r.answers = append(r.answers, err.Error())
	w.WriteHeader(http.StatusBadGateway)
}

func (r *relay) point(to string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.to = to
}

func (r *relay) all() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return strings.Join(r.answers, "")
}

// TestWebhookOfDistribution pushes over a tag: distribution's registry reports it, and the next pull gets the new image, although
// the tag is fresh for a day.
func TestWebhookOfDistribution(t *testing.T) {
	t.Parallel()
	const secret = "5b1d7e9042c64f3a8d0e1f2a3b4c5d6e"
	between := &relay{}
	front := httptest.NewServer(between)
	t.Cleanup(front.Close)
	upstream := registry.Start(t, registry.Options{More: fmt.Sprintf(`notifications:
  endpoints:
    - name: mirror
      url: %s
      headers: {Authorization: [Bearer %s]}
      timeout: 5s
      threshold: 5
      backoff: 100ms
      ignore: {actions: [pull], mediatypes: [application/octet-stream]}
`, front.URL, secret)})
	first := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "hook.secret"), []byte(secret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mirrord.Start(t, mirrord.Options{
		Dir: dir, Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "], tags: {maxAge: 24h}}",
		More: "webhooks: {registry: {type: distribution, secretFile: hook.secret}}",
	})
	means := func() string {
		t.Helper()
		res, err := http.Get(m.URL() + "/v2/docker.io/" + appRepository + "/manifests/v1")
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, res.Body) // a tag is recorded with its manifest
		if err := errors.Join(err, res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		return res.Header.Get("Docker-Content-Digest")
	}
	equal(t, "digest at first", means(), first.Digest.String())
	second := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{2 << 10})
	equal(t, "digest before the report", means(), first.Digest.String())
	between.point(m.URL() + "/webhooks/registry") // the registry has kept the reports
	marked := "checked at the next pull: docker.io/" + appRepository + ":v1\n"
	err := wait.Until(t.Context(), time.Minute, func() error {
		if n := strings.Count(between.all(), marked); n < 2 {
			return errors.New("so far: " + between.all())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	equal(t, "digest after the report", means(), second.Digest.String())
	for line := range strings.Lines(between.all()) {
		if !strings.HasPrefix(line, "202 application/vnd.docker.distribution.events.v") {
			t.Errorf("answer: %s", line)
		}
	}
}
