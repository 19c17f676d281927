// Package registry runs distribution's own registry, the upstream of most deployments, with files in the test's folder.
package registry

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// Registry is a running one.
type Registry struct {
	*proc.Process
	Host string // HOST:PORT
}

// URL is its base.
func (r *Registry) URL() string { return "http://" + r.Host }

// Options of a registry.
type Options struct {
	Proxy   string // URL of a registry that it mirrors; empty: it is one of its own, which takes pushes
	More    string // YAML of other top-level keys
	Program string // Start finds it
	Dir     string // for its files; Start makes one
}

const settings = `version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: %q}
  delete: {enabled: true}
http:
  addr: 127.0.0.1:0
`

var listening = regexp.MustCompile(`listening on (127\.0\.0\.1:\d+)`)

// Start runs one on a port of its own choice until the test ends.
func Start(t testing.TB, o Options) *Registry {
	t.Helper()
	o.Program, o.Dir = tool.Built(t, "registry"), t.TempDir()
	r, err := Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.End()
		if t.Failed() {
			t.Log(r.Tail())
		}
	})
	return r
}

// Launch runs one until End. Program and Dir have to be set.
func Launch(ctx context.Context, o Options) (*Registry, error) {
	text := fmt.Sprintf(settings, filepath.Join(o.Dir, "data"))
	if o.Proxy != "" {
		text += fmt.Sprintf("proxy: {remoteurl: %q}\n", o.Proxy)
	}
	text += o.More
	file := filepath.Join(o.Dir, "config.yml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return nil, err
	}
	p, err := proc.Launch(proc.Options{Name: "registry", Env: []string{"OTEL_TRACES_EXPORTER=none"}}, o.Program, "serve", file)
	if err != nil {
		return nil, err
	}
	r := &Registry{Process: p}
	err = wait.Until(ctx, time.Minute, func() error {
		if m := listening.FindStringSubmatch(r.Output()); m != nil {
			r.Host = m[1]
			return nil
		}
		if err := r.Exited(); err != nil {
			return err
		}
		return errors.New("it does not say where it listens")
	})
	if err != nil {
		r.End()
		return nil, fmt.Errorf("registry: %w", err)
	}
	return r, nil
}
