package server_test

import (
	"bufio"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream"
)

// wire is the front end over the real packages below it, in front of scripted upstreams: docker.io, which is the default,
// and ghcr.io.
type wire struct {
	*httptest.Server
	hub, ghcr *origin.Origin
	puller    *pull.Puller
	setup     pull.Setup
	records   *records
	log       *testlog.Log
}

// wired are the options of a wire.
type wired struct {
	hub, ghcr  origin.Options
	policy     catalog.Policy // zero: tags are checked at each pull, patiently
	credential auth.Source    // for docker.io
	adapt      func(*upstream.Options)
	wait       time.Duration // of a client; 0: the default
	via        string
	elsewhere  bool        // clients can't go on to the registry
	store      cache.Store // nil: one in memory
}

func newWire(t *testing.T, o wired) *wire {
	t.Helper()
	if o.policy == (catalog.Policy{}) {
		o.policy = catalog.Policy{Wait: 5 * time.Second, StaleIfError: time.Hour}
	}
	w := &wire{hub: origin.Start(t, o.hub), ghcr: origin.Start(t, o.ghcr), records: new(records), log: new(testlog.Log)}
	log := w.logger()
	if o.store == nil {
		o.store = cachetest.NewStore()
	}
	content := cache.New(cache.Options{Store: o.store, Size: 1 << 30, Log: log})
	known := catalog.New(statetest.NewTable(), statetest.NewTable(), catalog.Options{Log: log})
	w.puller = pull.New(pull.Options{Cache: content, Catalog: known, Log: log, Wait: o.wait})
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	setup := pull.Setup{Sites: make(map[string]pull.Site)}
	for name, at := range map[string]*origin.Origin{"docker.io": w.hub, "ghcr.io": w.ghcr} {
		u, err := url.Parse(at.URL())
		if err != nil {
			t.Fatal(err)
		}
		options := upstream.Options{
			Name: name, Endpoints: []upstream.Endpoint{{URL: u, RootCAs: at.CA()}}, Log: log, Via: o.via,
			Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
		}
		if name == "docker.io" {
			options.Credential = o.credential
		}
		if o.adapt != nil {
			o.adapt(&options)
		}
		r, err := upstream.New(options)
		if err != nil {
			t.Fatal(err)
		}
		setup.Sites[name] = pull.Site{Name: name, Upstream: r, Tags: catalog.Policies{Base: o.policy}}
		group.Go(func() error { return r.Run(ctx) })
	}
	var err error
	setup.Routes, err = route.New([]route.Upstream{
		{Name: "docker.io", Library: true, Aliases: []string{"index.docker.io"}}, {Name: "ghcr.io"},
	}, "docker.io")
	if err != nil {
		t.Fatal(err)
	}
	w.setup = setup
	w.puller.Use(setup)
	for _, run := range []func(context.Context) error{content.Run, known.Run, w.puller.Run} {
		group.Go(func() error { return run(ctx) })
	}
	t.Cleanup(func() { // after the server has stopped
		cancel()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	})
	w.Server = serve(t, server.New(server.Options{
		Puller: w.puller, Observe: w.records.observe, ErrorPhrase: true, ClientsFallBack: !o.elsewhere,
		Help: "https://help.example/", Via: o.via, Log: log,
	}))
	return w
}

// logger logs everything.
func (w *wire) logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// dial opens a connection to the mirror with a deadline.
func (w *wire) dial(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("tcp", w.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return c, bufio.NewReader(c)
}

func (w *wire) do(t *testing.T, method, path string, header ...string) (*http.Response, []byte) {
	t.Helper()
	return do(t, w.Server, method, path, header...)
}
