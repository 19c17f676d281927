package e2e_test

import (
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// The points at which a process dies that writes the configuration of a node, and one that takes it back. A file is written twice
// where another one was there: first that one's copy.
var (
	deathsOfInstall = []string{
		"node/folder", "node/folder:2", "node/part", "node/written", "node/named", "node/kept", "node/part:2", "node/written:2", "node/named:2", "node/part:3",
		"node/written:3", "node/named:3",
	}
	deathsOfUninstall = []string{"node/swept", "node/restored", "node/swept:2", "node/removed", "node/swept:3"}
)

// diesOnANode reports whether a process of TestNodeIsKilled dies at a point.
func diesOnANode(name string) bool {
	return slices.ContainsFunc(slices.Concat(deathsOfInstall, deathsOfUninstall), func(s string) bool { return s == name || strings.HasPrefix(s, name+":") })
}

// killedNode is a node whose configuration is written by processes that die.
type killedNode struct {
	dir    string
	before map[string]string // its files
	ours   map[string]string // and those with ours in their places
	mirror *httptest.Server
	up     atomic.Bool
}

// files are those below a folder, and the folders, by path. What goes in the meantime is left out.
func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	if err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			all[strings.TrimPrefix(path, dir)+"/"] = ""
			return nil
		}
		var b []byte
		if err == nil {
			b, err = os.ReadFile(path)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		all[strings.TrimPrefix(path, dir)] = string(b)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func newKilledNode(t *testing.T, program string) *killedNode {
	t.Helper()
	n := &killedNode{dir: filepath.Join(t.TempDir(), "certs.d")}
	n.up.Store(true)
	n.mirror = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !n.up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("ready"))
	}))
	t.Cleanup(n.mirror.Close)
	for name, content := range map[string]string{
		"docker.io/hosts.toml": "server = \"https://registry-1.docker.io\" # by hand\n", "docker.io/ca.crt": "of another program", "notes.txt": "",
		"quay.io/hosts.toml": "server = \"https://quay.io\"\n",
	} {
		file := filepath.Join(n.dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.before = files(t, n.dir)
	n.install(t, program)
	n.ours = files(t, n.dir)
	n.uninstall(t, program)
	n.is(t, "after a first change", n.before)
	return n
}

func (n *killedNode) options() []string {
	return []string{"--mirror", n.mirror.URL, "--registry", "docker.io", "--registry", "ghcr.io"}
}

func (n *killedNode) install(t *testing.T, program string, env ...string) proc.Result {
	t.Helper()
	config := filepath.Join(filepath.Dir(n.dir), "config.toml")
	if err := os.WriteFile(config, []byte("version = 2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := append([]string{"setup", "containerd", "--install=" + n.dir, "--containerd-config", config}, n.options()...)
	return proc.Run(t, proc.Options{Env: env}, program, args...)
}

func (n *killedNode) uninstall(t *testing.T, program string, env ...string) proc.Result {
	t.Helper()
	return proc.Run(t, proc.Options{Env: env}, program, "setup", "containerd", "--uninstall="+n.dir)
}

// is compares the files with what they are to be.
func (n *killedNode) is(t *testing.T, when string, want map[string]string) {
	t.Helper()
	if d := cmp.Diff(want, files(t, n.dir)); d != "" {
		t.Errorf("%s (-want +got):\n%s", when, d)
	}
}

// works holds a node in the middle of a change to what is promised: each hosts.toml is the former one or ours, as a whole, and no
// file of another program is another.
func (n *killedNode) works(t *testing.T, when string) {
	t.Helper()
	now := files(t, n.dir)
	for _, name := range []string{"/docker.io/hosts.toml", "/ghcr.io/hosts.toml"} {
		got, ok := now[name]
		_, was := n.before[name]
		if !ok && was || ok && got != n.ours[name] && (!was || got != n.before[name]) {
			t.Errorf("%s: %s is %q", when, name, got)
		}
	}
	for name, content := range n.before {
		if got, ok := now[name]; name != "/docker.io/hosts.toml" && (!ok || got != content) {
			t.Errorf("%s: %s is %q", when, name, got)
		}
	}
	if len(now) > len(n.ours)+1 {
		t.Errorf("%s: files %q", when, slices.Sorted(maps.Keys(now)))
	}
}

// TestNodeIsKilled: a process that dies by SIGKILL between any two steps of writing the configuration of a node, or of taking it back,
// leaves a node that works, and the next one goes on from there. Files of others survive. A second run changes nothing.
func TestNodeIsKilled(t *testing.T) {
	t.Parallel()
	program, err := crashing()
	if err != nil {
		t.Fatal(err)
	}
	died := func(t *testing.T, r proc.Result, at string) {
		t.Helper()
		if point, _, _ := strings.Cut(at, ":"); r.Code == 0 || !strings.Contains(r.Stderr, "died at "+point) {
			t.Fatalf("it did not die at %s: code %d, %s", at, r.Code, r.Text())
		}
	}
	for _, at := range deathsOfInstall {
		t.Run("install "+at, func(t *testing.T) {
			t.Parallel()
			n := newKilledNode(t, program)
			died(t, n.install(t, program, "MIRROR_CRASH="+at), at)
			n.works(t, "after the death")
			n.install(t, program)
			n.is(t, "after the next run", n.ours)
			if r := n.install(t, program); strings.Count(r.Stdout, "unchanged ") != 2 {
				t.Errorf("once more: %s", r.Text())
			}
			n.is(t, "once more", n.ours)
			n.uninstall(t, program)
			n.is(t, "at the end", n.before)

			died(t, n.install(t, program, "MIRROR_CRASH="+at), at)
			n.uninstall(t, program)
			n.is(t, "taken back after the death", n.before)
		})
	}
	for _, at := range deathsOfUninstall {
		t.Run("uninstall "+at, func(t *testing.T) {
			t.Parallel()
			n := newKilledNode(t, program)
			n.install(t, program)
			died(t, n.uninstall(t, program, "MIRROR_CRASH="+at), at)
			n.works(t, "after the death")
			n.uninstall(t, program)
			n.is(t, "after the next run", n.before)
			if r := n.uninstall(t, program); !strings.Contains(r.Stdout, "nothing of ours") {
				t.Errorf("once more: %s", r.Text())
			}
			n.is(t, "once more", n.before)
		})
	}
	for _, at := range deathsOfInstall {
		t.Run("agent writes "+at, func(t *testing.T) {
			t.Parallel()
			n := newKilledNode(t, program)
			a := n.agent(t, program, at)
			a.WaitExit(t, time.Minute)
			n.works(t, "after the death")
			n.goesOn(t, program)
		})
	}
	for _, at := range append(slices.Clone(deathsOfUninstall), "node/folder:3", "node/part:5", "node/kept:2", "node/written:6", "node/named:4") {
		t.Run("agent withdraws and restores "+at, func(t *testing.T) {
			t.Parallel()
			n := newKilledNode(t, program)
			a := n.agent(t, program, at)
			n.becomes(t, n.ours)
			n.up.Store(false)
			if !slices.Contains(deathsOfUninstall, at) { // it dies when it puts its files back
				n.becomes(t, n.before)
				n.up.Store(true)
			}
			a.WaitExit(t, time.Minute)
			n.works(t, "after the death")
			n.goesOn(t, program)
		})
	}
}

// agent starts one that dies at a point; empty: at none.
func (n *killedNode) agent(t *testing.T, program, at string) *proc.Process {
	t.Helper()
	o := proc.Options{Name: "agent"}
	if at != "" {
		o.Env = []string{"MIRROR_CRASH=" + at}
	}
	p, err := proc.Launch(o, program, append([]string{"node", "run", "--dir", n.dir, "--every", "1s", "--listen", ""}, n.options()...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.End() })
	return p
}

// becomes waits until the node has certain files.
func (n *killedNode) becomes(t *testing.T, want map[string]string) {
	t.Helper()
	wait.For(t, time.Minute, "the node to change", func() error {
		if d := cmp.Diff(want, files(t, n.dir)); d != "" {
			return &diffError{d}
		}
		return nil
	})
}

type diffError struct{ diff string }

func (e *diffError) Error() string { return "(-want +got):\n" + e.diff }

// goesOn holds the next agent to what is promised: with a mirror that is dead the node is as it was, with one that answers it has ours,
// and a stop leaves it as it was.
func (n *killedNode) goesOn(t *testing.T, program string) {
	t.Helper()
	n.up.Store(false)
	a := n.agent(t, program, "")
	n.becomes(t, n.before)
	n.up.Store(true)
	n.becomes(t, n.ours)
	a.Signal(t, syscall.SIGTERM)
	equal(t, "exit code of the agent", a.WaitExit(t, time.Minute), 0)
	n.is(t, "after the stop", n.before)
}
