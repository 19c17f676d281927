package app_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(childConfig); file != "" {
		if err := child(file); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// parse makes a configuration in a folder of its own.
func parse(t *testing.T, dir, upstreams string) *config.Config {
	t.Helper()
	text := "listen: 127.0.0.1:0\nadmin: {listen: 127.0.0.1:0}\ndrain: 5s\ndefaultUpstream: \"\"\n" +
		"cache: {dir: data, size: 1GiB, minFree: 0}\nupstreams:\n" + upstreams
	c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// upstreamOf names an origin by its port, since image names take no port but in front.
func upstreamOf(o *origin.Origin) string {
	return fmt.Sprintf("  %s: {endpoints: [%q]}\n", nameOf(o), o.URL())
}

func nameOf(o *origin.Origin) string {
	_, port, _ := strings.Cut(o.Host(), ":")
	return "port" + port + ".test"
}

// eventually looks until it is so, for as long as a very slow machine may take.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for begun := time.Now(); !is(); <-tick.C {
		if time.Since(begun) > time.Minute {
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

// running is an app and the way to end it.
type running struct {
	*app.App
	stop func() error
}

func run(t *testing.T, c *config.Config) *running {
	t.Helper()
	a, err := app.New(t.Context(), app.Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	r := &running{App: a, stop: sync.OnceValue(func() error {
		cancel()
		return <-done
	})}
	t.Cleanup(func() {
		a.StopNow() // no test pulls any more
		if err := r.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return r
}

// pull gets an image of an origin through the app and verifies every digest of it.
func (r *running) pull(t *testing.T, o *origin.Origin, image string) error {
	t.Helper()
	ref, err := name.ParseReference(r.Addr().String()+"/"+nameOf(o)+"/"+image, name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	img, err := remote.Image(ref, remote.WithContext(t.Context()), remote.WithTransport(tr))
	if err != nil {
		return err
	}
	if _, err := img.ConfigFile(); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		body, err := l.Compressed()
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, body) // verified as it is read
		if err := errors.Join(err, body.Close()); err != nil {
			return err
		}
	}
	return nil
}

func TestPullThroughAndWithoutUpstream(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	built := o.AddImage("acme/app", "v1", origin.Image{Layers: []int64{100 << 10, 6 << 20}, Index: true})
	dir := t.TempDir()
	r := run(t, parse(t, dir, upstreamOf(o)))
	for range 3 {
		if err := r.pull(t, o, "acme/app:v1"); err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range built.Blobs() {
		if n := o.CountRef(origin.KindBlob, string(d.Digest), http.MethodGet); n != 1 {
			t.Errorf("blob %s: %d GETs, want 1", d.Digest, n)
		}
	}
	o.Down()
	if err := r.pull(t, o, "acme/app:v1"); err != nil {
		t.Errorf("upstream down: %v", err)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	again := run(t, parse(t, dir, upstreamOf(o)))
	if err := again.pull(t, o, "acme/app:v1"); err != nil {
		t.Errorf("upstream down, after a restart: %v", err)
	}
	if files, _ := os.ReadDir(filepath.Join(dir, "data", "spool")); len(files) != 0 {
		t.Errorf("spool holds %d files", len(files))
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DisableKeepAlives: true}
	resp, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestReload(t *testing.T) {
	t.Parallel()
	a := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}})
	b := origin.Start(t, origin.Options{})
	a.AddImage("acme/app", "v1", origin.Image{})
	a.AddImage("acme/app", "v2", origin.Image{Seed: 2})
	b.AddImage("acme/app", "v1", origin.Image{Seed: 3})
	dir := t.TempDir()
	r := run(t, parse(t, dir, upstreamOf(a)))
	if err := r.pull(t, a, "acme/app:v1"); err != nil {
		t.Fatal(err)
	}
	if err := r.pull(t, b, "acme/app:v1"); err == nil {
		t.Error("an upstream that is not configured answers")
	}
	if err := r.Reload(parse(t, dir, upstreamOf(a)+upstreamOf(b))); err != nil {
		t.Fatal(err)
	}
	if err := r.pull(t, b, "acme/app:v1"); err != nil {
		t.Errorf("after the reload: %v", err)
	}
	if err := r.pull(t, a, "acme/app:v2"); err != nil {
		t.Error(err)
	}
	if n := a.Count(origin.KindToken); n != 1 {
		t.Errorf("%d tokens, want 1: the registry did not change, so it keeps its own", n)
	}
	bad := parse(t, dir, upstreamOf(a))
	bad.Upstreams[0].Endpoints[0].CA = filepath.Join(dir, "no-such.crt")
	if err := r.Reload(bad); err == nil || !strings.Contains(err.Error(), "no-such.crt") {
		t.Errorf("a reload with a missing file: %v", err)
	}
	if err := r.pull(t, b, "acme/app:v1"); err != nil {
		t.Errorf("after a bad reload the old configuration is not in use: %v", err)
	}
	get(t, "http://"+r.Addr().String()+"/v2/app/manifests/1?ns=invented.example")
	_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
	for _, want := range []string{
		"mirror_config_reload_success 0", `mirror_requests_total{kind="blob",`,
		`mirror_upstream_requests_total{code="200",`, "mirror_cache_bytes ", "mirror_build_info{",
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("metrics lack %q", want)
		}
	}
	if strings.Contains(metrics, "acme") || strings.Contains(metrics, "invented") {
		t.Error("metrics name what a client has said: it could make series")
	}
}

// A port that is taken is told before anything is touched.
func TestPortInUse(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dir := t.TempDir()
	c := parse(t, dir, "  ghcr.io: {}\n")
	c.Listen = l.Addr().String()
	_, err = app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "listen: port") || !strings.Contains(err.Error(), "choose another") {
		t.Errorf("err = %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); err == nil {
		t.Error("the data folder was made")
	}
}

func TestEmptyTokenIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := parse(t, dir, "  ghcr.io: {}\n")
	c.Admin.TokenFile = filepath.Join(dir, "token")
	if err := os.WriteFile(c.Admin.TokenFile, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)}); err == nil ||
		!strings.Contains(err.Error(), "is empty") {
		t.Errorf("err = %v", err)
	}
}

// A pull that runs when the stop comes is finished; new ones are refused; /readyz says so meanwhile.
func TestStopLetsPullsFinish(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	built := o.AddImage("acme/app", "v1", origin.Image{Layers: []int64{5 << 20}})
	layer := built.Layers[0][0]
	gate := origin.NewGate()
	o.Script(origin.Rule{
		Kind: origin.KindBlob, Ref: string(layer.Digest), Do: origin.Fault{Stall: &origin.Stall{At: 1 << 20, Gate: gate}},
	})
	c := parse(t, t.TempDir(), upstreamOf(o))
	c.Drain = 5 * time.Minute // the pull ends when the gate opens, however slow the machine is
	r := run(t, c)
	base := "http://" + r.Addr().String() + "/v2/" + nameOf(o) + "/acme/app"
	get(t, base+"/manifests/v1")
	got := make(chan int, 1)
	go func() {
		_, body := get(t, base+"/blobs/"+string(layer.Digest))
		got <- len(body)
	}()
	<-gate.Arrived()
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop() }()
	eventually(t, "/readyz tells of the stop", func() bool {
		status, _ := get(t, "http://"+r.AdminAddr().String()+"/readyz")
		return status == http.StatusServiceUnavailable
	})
	gate.Open()
	if n := <-got; int64(n) != layer.Size {
		t.Errorf("the running pull got %d bytes of %d", n, layer.Size)
	}
	if err := <-stopped; err != nil {
		t.Error(err)
	}
}
