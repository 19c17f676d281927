package e2e_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestGracefulStop sends SIGTERM while pulls run: readiness goes first, no other pull begins, the pulls get all their bytes
// and the next parts of their image, and then the process ends well.
func TestGracefulStop(t *testing.T) {
	t.Parallel()
	const pulls = 5
	upstream := origin.Start(t, origin.Options{})
	x := upstream.AddImage("library/app", "v1", origin.Image{Layers: []int64{8 << 20}})
	layer := x.Layers[0][0]
	gate := origin.NewGate()
	upstream.Script(origin.Rule{
		Kind: origin.KindBlob, Ref: layer.Digest.String(),
		Do: origin.Fault{Stall: &origin.Stall{At: 6 << 20, Gate: gate}},
	})
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}", More: "drain: 10m"})

	group, ctx := errgroup.WithContext(t.Context())
	begun := make(chan struct{}, pulls)
	for range pulls {
		group.Go(func() error {
			p := puller{client: &http.Client{Transport: &http.Transport{}}, base: m.URL() + "/v2/docker.io/library/app/"}
			return p.get(ctx, "blobs/"+layer.Digest.String(), layer.Digest.String(), &signal{ch: begun})
		})
	}
	for range pulls {
		<-begun
	}
	m.Signal(t, syscall.SIGTERM)
	wait.For(t, time.Minute, "/readyz to say no", func() error {
		if code, body := m.Get(t, "/readyz"); code != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	if code, body := m.Get(t, "/healthz"); code != http.StatusOK {
		t.Errorf("/healthz while pulls run: %d %s, want 200: a restart now would cut them", code, body)
	}
	// Another image is refused, and told why; the rest of the one that is being pulled is served.
	wait.For(t, time.Minute, "mirror to take no new pulls", func() error {
		if code, body := mirrord.Get(t, m.URL()+"/v2/docker.io/library/other/manifests/1"); code != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})
	config := x.Configs[0].Digest
	p := puller{client: &http.Client{Transport: &http.Transport{}}, base: m.URL() + "/v2/docker.io/library/app/"}
	if err := p.get(t.Context(), "blobs/"+config.String(), config.String(), io.Discard); err != nil {
		t.Errorf("the next part of a pull under way: %v", err)
	}
	if err := m.Exited(); err != nil {
		t.Fatalf("before the pulls were over: %v", err)
	}
	gate.Open()
	if err := group.Wait(); err != nil {
		t.Errorf("a pull that ran when the mirror was told to stop: %v", err)
	}
	equal(t, "exit code", m.WaitExit(t, 30*time.Second), 0)
}

// signal is a writer that tells of the first byte.
type signal struct {
	ch   chan<- struct{}
	done bool
}

func (s *signal) Write(p []byte) (int, error) {
	if !s.done {
		s.done = true
		s.ch <- struct{}{}
	}
	return len(p), nil
}

// endless starts a mirror with that drain time, and a pull through it that has begun and does not end by itself.
func endless(t *testing.T, drain string) (*mirrord.Mirror, <-chan error) {
	t.Helper()
	upstream := origin.Start(t, origin.Options{})
	x := upstream.AddImage("library/app", "v1", origin.Image{Layers: []int64{8 << 20}})
	layer := x.Layers[0][0].Digest.String()
	upstream.Script(origin.Rule{
		Kind: origin.KindBlob, Ref: layer,
		Do: origin.Fault{Stall: &origin.Stall{At: 6 << 20, Gate: origin.NewGate()}},
	})
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL() + "]}", More: "drain: " + drain})
	begun := make(chan struct{}, 1)
	got := make(chan error, 1)
	go func() {
		p := puller{client: &http.Client{Transport: &http.Transport{}}, base: m.URL() + "/v2/docker.io/library/app/"}
		got <- p.get(context.WithoutCancel(t.Context()), "blobs/"+layer, layer, &signal{ch: begun})
	}()
	<-begun
	return m, got
}

// TestDrainEnds holds the mirror to its drain time where a pull would never end.
func TestDrainEnds(t *testing.T) {
	t.Parallel()
	m, got := endless(t, "1s")
	start := time.Now()
	m.Signal(t, syscall.SIGTERM)
	equal(t, "exit code", m.WaitExit(t, 30*time.Second), 0) // the default is a minute
	if took := time.Since(start); took < time.Second {
		t.Errorf("it stopped after %s, want a little more than the drain time of 1s", took)
	}
	if err := <-got; err == nil {
		t.Error("the pull that was cut off looks whole to its client")
	}
}

// TestSecondSignal has the mirror stop now, though a pull is under way and the drain time is long.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	m, got := endless(t, "10m")
	m.Signal(t, syscall.SIGINT)
	wait.For(t, time.Minute, "the first signal to be taken", func() error {
		if code, body := m.Get(t, "/readyz"); code != http.StatusServiceUnavailable {
			return fmt.Errorf("%d %s", code, body)
		}
		return m.Exited()
	})
	m.Signal(t, syscall.SIGINT)
	equal(t, "exit code", m.WaitExit(t, time.Minute), 0)
	if err := <-got; err == nil {
		t.Error("the pull that was cut off looks whole to its client")
	}
	for _, text := range []string{"a second signal stops now", "at the second signal were cut off"} {
		if log := fmt.Sprint(m.Log()); !strings.Contains(log, text) {
			t.Errorf("no %q in the log:\n%s", text, log)
		}
	}
}

// TestReload changes the configuration of a running mirror: by a change of the file, and by SIGHUP. An invalid one is
// reported with every mistake, and the old one stays.
func TestReload(t *testing.T) {
	t.Parallel()
	upstream := origin.Start(t, origin.Options{})
	upstream.AddImage("acme/app", "v1", origin.Image{})
	line := "docker.io: {endpoints: [" + upstream.URL() + "]}"
	m := mirrord.Start(t, mirrord.Options{Upstreams: line})
	const reloaded = "the configuration was reloaded"
	const refused = "the configuration was not reloaded; the old one stays in use until this one is corrected"
	url := func(host string) string { return m.URL() + "/v2/" + host + "/acme/app/manifests/v1" }
	if code, _ := mirrord.Get(t, url("docker.io")); code != http.StatusOK {
		t.Fatalf("docker.io: %d", code)
	}
	if code, _ := mirrord.Get(t, url("registry.corp.example")); code != http.StatusNotFound {
		t.Fatalf("registry.corp.example before it is configured: %d", code)
	}

	// The file changes, in place of the old one as editors and Kubernetes do.
	rewrite(t, m.File, mirrord.Config(m.Dir, mirrord.Options{
		Upstreams: line + "\nregistry.corp.example: {endpoints: [" + upstream.URL() + "]}",
	}))
	wait.For(t, time.Minute, "the new upstream", func() error {
		if code, body := mirrord.Get(t, url("registry.corp.example")); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, body)
		}
		return nil
	})

	// An invalid one.
	rewrite(t, m.File, strings.Replace(mirrord.Config(m.Dir, mirrord.Options{Upstreams: line}), "listen:", "lisen:", 1))
	wait.For(t, time.Minute, "the refusal", func() error { return said(m, refused, 1) })
	if l, _ := m.Line("the configuration has a mistake"); !strings.Contains(fmt.Sprint(l["error"]), "lisen") {
		t.Errorf("the refusal does not name the mistake: %v", l)
	}
	if code, _ := mirrord.Get(t, url("registry.corp.example")); code != http.StatusOK {
		t.Errorf("after an invalid configuration the upstream of the valid one answers %d", code)
	}

	// SIGHUP reads it again though nothing has changed.
	n := count(m, refused)
	m.Signal(t, syscall.SIGHUP)
	wait.For(t, time.Minute, "another refusal", func() error { return said(m, refused, n+1) })

	// One that has lost its last lines may be half of what an editor writes, on SIGHUP too: the end of the document says
	// that it is not.
	const cut = "the configuration was not reloaded; the old one stays in use"
	fewer := mirrord.Config(m.Dir, mirrord.Options{Upstreams: line})
	// Written in place: a file that is renamed into place is whole.
	if err := os.WriteFile(m.File, []byte(fewer), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Signal(t, syscall.SIGHUP)
	wait.For(t, time.Minute, "the refusal of half a file, and why", func() error {
		for _, line := range m.Log() {
			if line["msg"] == cut && strings.Contains(fmt.Sprint(line["error"]), "looks cut off") {
				return nil
			}
		}
		return errors.New("the log does not have it")
	})
	if code, _ := mirrord.Get(t, url("registry.corp.example")); code != http.StatusOK {
		t.Errorf("after half a configuration the upstream of the whole one answers %d", code)
	}
	n = count(m, reloaded)
	rewrite(t, m.File, fewer+"...\n")
	m.Signal(t, syscall.SIGHUP)
	wait.For(t, time.Minute, "the next one to be in use", func() error {
		if code, _ := mirrord.Get(t, url("registry.corp.example")); code != http.StatusNotFound {
			return fmt.Errorf("the upstream that is gone still answers %d", code)
		}
		return said(m, reloaded, n+1)
	})
}

func count(m *mirrord.Mirror, msg string) int {
	n := 0
	for _, line := range m.Log() {
		if line["msg"] == msg {
			n++
		}
	}
	return n
}

// said is nil where the log has msg at least n times.
func said(m *mirrord.Mirror, msg string, n int) error {
	if have := count(m, msg); have < n {
		return fmt.Errorf("the log has %q %d times, want %d", msg, have, n)
	}
	return m.Exited()
}

// rewrite replaces a file by another one.
func rewrite(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(file+".new", file); err != nil {
		t.Fatal(err)
	}
}

// TestSecondProcess starts a mirror on the data of one that runs. It waits a minute for it, then names the holder. SIGHUP,
// which some tools send to all that they have started, does not end it meanwhile.
func TestSecondProcess(t *testing.T) {
	t.Parallel()
	o := mirrord.Options{Upstreams: "ghcr.io: {}", Dir: t.TempDir()}
	first := mirrord.Start(t, o)
	o.NoWait = true
	second := mirrord.Start(t, o)
	wait.For(t, time.Minute, "the second one to wait", func() error {
		return said(second, "cache folder is in use by another mirror; waiting until that one stops", 1)
	})
	second.Signal(t, syscall.SIGHUP)
	equal(t, "exit code", second.WaitExit(t, 3*time.Minute), 3)
	for _, want := range []string{first.Data, fmt.Sprintf("process %d", first.Pid()), "cache.dir"} {
		if !strings.Contains(second.Output(), want) {
			t.Errorf("it does not name %q:\n%s", want, second.Output())
		}
	}
	if code, body := first.Get(t, "/readyz"); code != http.StatusOK {
		t.Errorf("the first one: %d %s", code, body)
	}
}

// TestPortInUse starts a mirror on ports that are in use.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"listen", "admin.listen"} {
		t.Run(setting, func(t *testing.T) {
			t.Parallel()
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = l.Close() }()
			dir := t.TempDir()
			variable := "MIRROR_" + strings.ToUpper(strings.ReplaceAll(setting, ".", "_"))
			m := mirrord.Start(t, mirrord.Options{
				Upstreams: "ghcr.io: {}", Dir: dir, NoWait: true,
				Env: []string{variable + "=" + l.Addr().String()},
			})
			equal(t, "exit code", m.WaitExit(t, 30*time.Second), 1)
			for _, want := range []string{setting, l.Addr().String(), "in use"} {
				if !strings.Contains(m.Output(), want) {
					t.Errorf("it does not say %q:\n%s", want, m.Output())
				}
			}
		})
	}
}

// TestNoConfig runs "mirror serve" without any configuration, in a network of its own since it takes fixed ports.
func TestNoConfig(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := proc.Start(t, proc.Options{Name: "mirror", Dir: dir}, tool.System(t, "unshare"), "--net", "sh", "-c",
		`ip link set lo up && exec "$0" serve`, mirrord.Binary)
	wait.For(t, time.Minute, "mirror without configuration", func() error {
		if err := p.Exited(); err != nil {
			return err
		}
		if !strings.Contains(p.Output(), "mirror is ready") {
			return fmt.Errorf("it is not ready:\n%s", p.Output())
		}
		return nil
	})
	for path, want := range map[string]int{
		"127.0.0.1:5000/v2/": 200, "127.0.0.1:5000/healthz": 200, "127.0.0.1:5000/readyz": 200,
		"127.0.0.1:5001/healthz": 200, "127.0.0.1:5001/readyz": 200, "127.0.0.1:5001/metrics": 200,
	} {
		code, err := inside(p.Pid(), path)
		if err != nil || code != want {
			t.Errorf("%s: %d, %v; want %d", path, code, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "mirror-data", "state.db")); err != nil {
		t.Errorf("data is not in ./mirror-data: %v", err)
	}
	p.Signal(t, syscall.SIGTERM)
	equal(t, "exit code", p.WaitExit(t, 30*time.Second), 0)
}

// inside asks, from within the network of a process, for HOST:PORT/PATH.
func inside(pid int, address string) (code int, err error) {
	host, path, _ := strings.Cut(address, "/")
	runtime.LockOSThread()
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return 0, err
	}
	defer func() { _ = home.Close() }()
	there, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
	if err != nil {
		return 0, err
	}
	defer func() { _ = there.Close() }()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return 0, err
	}
	// The thread must come home: were it ended, the kernel would end the processes that it has started.
	defer func() {
		if e := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); e != nil {
			panic(e)
		}
		runtime.UnlockOSThread()
	}()
	return ask(host, path)
}

// ask does it on this goroutine alone.
func ask(host, path string) (int, error) {
	c, err := net.DialTimeout("tcp", host, 30*time.Second)
	if err != nil {
		return 0, err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := fmt.Fprintf(c, "GET /%s HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return 0, err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}
