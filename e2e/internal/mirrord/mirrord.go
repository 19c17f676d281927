// Package mirrord runs the real binary: as a server until the test ends, or as a command.
package mirrord

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// Binary is the program under test. TestMain sets it.
var Binary string

// Options of a mirror.
type Options struct {
	// Upstreams is YAML: the value of the key upstreams.
	Upstreams string
	// More is YAML of other top-level keys. listen, admin, cache.dir, log are set already; cache is open for more keys
	// through Cache.
	More  string
	Cache string // more keys of the mapping cache, as in "size: 1GiB"
	// Level is that of the log; empty: debug.
	Level string
	// Program is the binary; Start has the one under test.
	Program string
	// Dir is the folder of configuration and data. Empty: one of its own.
	Dir string
	// NoWait returns at once: for a mirror that is not meant to become ready.
	NoWait bool
	Env    []string
	// Resolver is a file that the mirror alone sees as /etc/resolv.conf. It takes root.
	Resolver string
}

// Mirror is a running one.
type Mirror struct {
	*proc.Process
	Host  string // HOST:PORT where clients pull
	Admin string // http://HOST:PORT of the operator's side
	Dir   string
	File  string // its configuration
	Data  string // its data folder
}

// URL is where clients pull.
func (m *Mirror) URL() string { return "http://" + m.Host }

// Config is the text of a configuration, with ports of the kernel's choice.
func Config(dir string, o Options) string {
	level, cache := o.Level, ""
	if level == "" {
		level = "debug"
	}
	if o.Cache != "" {
		cache = ", " + o.Cache
	}
	if !strings.Contains(o.Cache, "minFree") { // the disk of the machine may be nearly full
		cache += ", minFree: 0"
	}
	return fmt.Sprintf(`listen: 127.0.0.1:0
admin: {listen: 127.0.0.1:0}
log: {level: %s, format: json}
cache: {dir: %q%s}
%s
upstreams:
%s
`, level, filepath.Join(dir, "data"), cache, strings.TrimSpace(o.More), indent(o.Upstreams))
}

func indent(s string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(s), "\n", "\n  ")
}

// Start runs a mirror until the test ends, and returns when it is ready.
func Start(t testing.TB, o Options) *Mirror {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Program == "" {
		o.Program = Binary
	}
	m, err := Launch(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !m.End() {
			t.Errorf("the mirror did not stop when it was asked to")
		}
		if strings.Contains(m.Output(), "DATA RACE") {
			t.Errorf("the race detector spoke:\n%s", m.Output())
		}
		if t.Failed() {
			t.Log(m.Tail())
		}
	})
	return m
}

// Launch runs a mirror until End, and returns when it is ready. Program and Dir have to be set.
func Launch(ctx context.Context, o Options) (*Mirror, error) {
	m := &Mirror{Dir: o.Dir, File: filepath.Join(o.Dir, "mirror.yaml"), Data: filepath.Join(o.Dir, "data")}
	if err := os.WriteFile(m.File, []byte(Config(o.Dir, o)), 0o600); err != nil {
		return nil, err
	}
	var err error
	command := []string{o.Program, "serve", "--config", m.File}
	if o.Resolver != "" { // in a mount namespace that goes with the process
		command = append([]string{
			"unshare", "--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, o.Resolver,
		}, command...)
	}
	m.Process, err = proc.Launch(proc.Options{Name: "mirror", Dir: o.Dir, Env: o.Env, Again: 300 * time.Millisecond, Grace: 90 * time.Second},
		command[0], command[1:]...)
	if err != nil || o.NoWait {
		return m, err
	}
	if err := m.Ready(ctx); err != nil {
		m.End()
		return nil, fmt.Errorf("mirror: %w", err)
	}
	return m, nil
}

// Ready waits until the mirror says that it is ready, and learns its addresses. It fails at once where the mirror has
// ended.
func (m *Mirror) Ready(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-m.Done():
			cancel()
		case <-ctx.Done():
		}
	}()
	return wait.Until(ctx, 2*time.Minute, func() error {
		if err := m.Exited(); err != nil {
			return err
		}
		line, ok := m.Line("mirror is ready")
		if !ok {
			return errors.New("it has not said that it is ready")
		}
		m.Host, m.Admin = fmt.Sprint(line["listen"]), "http://"+fmt.Sprint(line["admin"])
		if code, body := get(ctx, m.Admin+"/readyz"); code != http.StatusOK {
			return fmt.Errorf("/readyz: %d %s", code, body)
		}
		return nil
	})
}

// Log is the lines of its log, as JSON.
func (m *Mirror) Log() []map[string]any {
	var list []map[string]any
	for _, text := range m.Lines() {
		var line map[string]any
		if json.Unmarshal([]byte(text), &line) == nil {
			list = append(list, line)
		}
	}
	return list
}

// Line is the first line of its log with that message.
func (m *Mirror) Line(msg string) (map[string]any, bool) {
	for _, line := range m.Log() {
		if line["msg"] == msg {
			return line, true
		}
	}
	return nil, false
}

// Get asks the operator's side. A code of 0 means that there was no answer.
func (m *Mirror) Get(t testing.TB, path string) (code int, body string) {
	t.Helper()
	return Get(t, m.Admin+path)
}

// Get asks for a URL on a connection of its own. A code of 0 means that there was no answer.
func Get(t testing.TB, url string) (code int, body string) {
	t.Helper()
	return get(t.Context(), url)
}

func get(ctx context.Context, url string) (code int, body string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, err.Error()
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(b)
}
