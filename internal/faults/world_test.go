package faults_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream"
)

const (
	repo = "library/app"
	host = "127.0.0.1:5000" // the mirror's
)

// world is a mirror as internal/app puts it together, in front of a scripted registry, on a network in memory and a
// folder in memory.
type world struct {
	t       *testing.T
	net     *origin.Network
	up      *origin.Origin
	dir     string
	real    *disk.Store
	store   *shakyStore // nil: the cache uses its store directly
	cache   *cache.Cache
	puller  *pull.Puller
	server  *server.Server
	front   *http.Server
	client  *http.Client
	options upstream.Options
	group   errgroup.Group
	ctx     context.Context
	cancel  context.CancelFunc
	serving chan struct{}

	mu    sync.Mutex // guards wrong
	wrong []string   // broken promises that a plan has found
}

func (w *world) errorf(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wrong = append(w.wrong, fmt.Sprintf(format, args...))
}

// wiring is how worlds differ.
type wiring struct {
	origin   origin.Options
	auth     auth.Source
	adapt    func(*upstream.Options, *world)
	buffer   int   // of connections
	parallel int64 // ParallelAbove
	size     int64 // of the cache
	strict   bool
	shaky    bool // calls of the store can be made to fail
}

// shelf is where folders are made: in memory if possible, since a trial makes a dozen files.
func shelf() string {
	if fi, err := os.Stat("/dev/shm"); err == nil && fi.IsDir() {
		return "/dev/shm"
	}
	return ""
}

func newWorld(t *testing.T, o wiring) *world {
	w := &world{t: t, net: &origin.Network{Buffer: o.buffer}, serving: make(chan struct{})}
	var err error
	if w.dir, err = os.MkdirTemp(shelf(), "mirror-faults-"); err != nil {
		t.Fatal(err)
	}
	o.origin.Network = w.net
	if w.up, err = origin.New(o.origin); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	if *show {
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	if w.real, err = disk.Open(w.dir, disk.Options{Log: log, Wait: -1, Strict: o.strict}); err != nil {
		t.Fatal(err)
	}
	var store cache.Store = w.real
	if o.shaky {
		w.store = &shakyStore{Faulty: cachetest.NewFaulty(w.real)}
		store = w.store
	}
	if o.size == 0 {
		o.size = 1 << 30
	}
	w.cache = cache.New(cache.Options{
		Store: store, Size: o.size, Free: w.real.Free, Log: log, ParallelAbove: o.parallel,
	})
	known := catalog.New(statetest.NewTable(), statetest.NewTable(), catalog.Options{Log: log})
	w.puller = pull.New(pull.Options{Cache: w.cache, Catalog: known, Log: log})
	at, err := url.Parse(w.up.URL())
	if err != nil {
		t.Fatal(err)
	}
	w.options = upstream.Options{
		Name: "docker.io", Endpoints: []upstream.Endpoint{{URL: at, RootCAs: w.up.CA()}}, Log: log, Credential: o.auth,
		AuthHosts: []string{w.up.TokenHost()},
		Proxy:     func(*url.URL) (*url.URL, error) { return nil, nil },
		Dial:      w.net.Dial,
	}
	if o.adapt != nil {
		o.adapt(&w.options, w)
	}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.puller.Use(w.setup(w.newRegistry()))
	for _, run := range []func(context.Context) error{w.cache.Run, known.Run, w.puller.Run} {
		w.group.Go(func() error { return run(w.ctx) })
	}
	w.server = server.New(server.Options{Puller: w.puller, ErrorPhrase: true, ClientsFallBack: true, Log: log})
	w.front = w.server.HTTPServer(nil, false)
	l, err := w.net.Listen(host)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(w.serving)
		_ = w.front.Serve(l)
	}()
	w.client = w.newClient()
	return w
}

func (w *world) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext: w.net.Dial, DisableCompression: true, MaxIdleConnsPerHost: 100,
	}}
}

// newRegistry makes another registry for the same upstream, as a reload does.
func (w *world) newRegistry() *upstream.Registry {
	r, err := upstream.New(w.options)
	if err != nil {
		w.t.Fatal(err)
	}
	w.group.Go(func() error { return r.Run(w.ctx) })
	return r
}

func (w *world) setup(r *upstream.Registry) pull.Setup {
	routes, err := route.New([]route.Upstream{{Name: "docker.io", Library: true}}, "docker.io")
	if err != nil {
		w.t.Fatal(err)
	}
	return pull.Setup{Routes: routes, Sites: map[string]pull.Site{"docker.io": {
		Name: "docker.io", Upstream: r,
		Tags: catalog.Policies{Base: catalog.Policy{MaxAge: time.Minute, Wait: 5 * time.Second, StaleIfError: 168 * time.Hour}},
	}}}
}

// stop ends the world as internal/app ends the mirror: the server, then background work, then the store.
func (w *world) stop() error {
	w.client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var errs []error
	if err := w.server.Stop(ctx, 0, w.front); err != nil {
		errs = append(errs, fmt.Errorf("stop serving: %w", err))
	}
	<-w.serving
	w.cancel()
	if err := w.group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		errs = append(errs, fmt.Errorf("run: %w", err))
	}
	if w.store != nil {
		w.store.EndFaults()
	}
	if err := w.real.Close(); err != nil {
		errs = append(errs, err)
	}
	w.up.Close()
	errs = append(errs, os.RemoveAll(w.dir))
	return errors.Join(errs...)
}

// url is a blob's, or a manifest's, at the mirror.
func blobURL(d oci.Digest) string { return "http://" + host + "/v2/" + repo + "/blobs/" + d.String() }

func manifestURL(ref string) string { return "http://" + host + "/v2/" + repo + "/manifests/" + ref }
