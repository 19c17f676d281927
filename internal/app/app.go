package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/recency"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/server"
)

// Options for an App.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log; a reload may change it. Nil: it may not
	File    string         // that the configuration came from, to be shown; empty: none
	// Again reads the configuration again and has Reload take it, for the admin listener. Nil: that can't be asked.
	Again func(context.Context) (admin.Reloaded, error)
}

// App is a running mirror.
type App struct {
	log     *slog.Logger
	level   *slog.LevelVar
	version string
	via     string

	config *config.Config // since the start: what needs a restart is as it says
	file   string
	again  func(context.Context) (admin.Reloaded, error)
	began  time.Time
	taken  atomic.Pointer[admin.Config] // what is told of the configuration in use
	reload sync.Mutex                   // one Reload at a time; guards sites
	sites  *sites

	store     *disk.Store
	index     *recency.Index
	db        *state.DB
	catalog   *catalog.Catalog
	cache     *cache.Cache
	memory    *memory.Budget // for documents
	puller    *pull.Puller
	journal   *journal.Journal
	record    *journal.Record
	server    *server.Server
	metrics   *metrics.Metrics
	poster    *kube.Poster // nil: no Events
	routes    atomic.Pointer[route.Table]
	setup     atomic.Pointer[pull.Setup]
	cert      certificate
	adminCert certificate
	token     atomic.Pointer[string]

	main, admin, scrape net.Listener // scrape may be nil
	ready               atomic.Bool
	hurry               context.Context // ends when Run is to stop without waiting for pulls
	stopNow             context.CancelFunc
}

// New takes the data folder into use and listens. The context bounds the wait for another mirror that has the folder,
// at most a minute, in which nothing listens; then the error is a *disk.LockedError.
func New(ctx context.Context, o Options) (_ *App, err error) {
	a := &App{
		log: o.Log, level: o.Level, version: o.Version, config: o.Config, via: "mirror-" + rand.Text()[:12],
		file: o.File, again: o.Again, began: time.Now(),
	}
	a.hurry, a.stopNow = context.WithCancel(context.Background())
	a.taken.Store(&admin.Config{File: a.file, TakenAt: a.began.UTC().Truncate(time.Millisecond)})
	defer func() {
		if err != nil {
			_ = a.close()
		}
	}()
	c := o.Config
	f, err := readFiles(c)
	if err != nil {
		return nil, err
	}
	// A port that is taken is told at once, not after the wait for the folder. But nothing listens during that wait: a node
	// that is refused goes on to the registry, one whose connection is never answered hangs.
	if err := a.listen(ctx, c, f.token); err != nil {
		return nil, err
	}
	a.unlisten()
	if c.Kubernetes.Events {
		if a.poster, err = newPoster(c.Kubernetes, a.canonical, a.log); err != nil {
			return nil, err
		}
	}
	if err := a.open(ctx, c); err != nil {
		return nil, err
	}
	if err := a.listen(ctx, c, f.token); err != nil {
		return nil, err
	}
	if c.Admin.InClear() {
		a.log.WarnContext(ctx, "the admin listener is reached from other machines without TLS: its token is sent in clear; set "+
			"admin.tls.cert and admin.tls.key, or listen on 127.0.0.1", "admin", c.Admin.Listen)
	}
	a.warnOfCertificates(c)
	a.use(f)
	if err := a.build(c); err != nil {
		return nil, err
	}
	setup, err := a.sites.setup(c)
	if err != nil {
		return nil, err
	}
	a.settle(c, setup)
	a.sites.settle() // before the first request; their background work begins with Run
	return a, nil
}

// listen opens the ports. An admin listener that others reach needs a token.
func (a *App) listen(ctx context.Context, c *config.Config, token string) (err error) {
	if a.main, err = listen(ctx, c.Listen, "listen"); err != nil {
		return err
	}
	if a.admin, err = listen(ctx, c.Admin.Listen, "admin.listen"); err != nil {
		return err
	}
	if token == "" && !isLoopback(a.admin.Addr()) {
		return fmt.Errorf("admin.listen: %s is %s here, which other machines may reach, and there is no token; "+
			"set admin.tokenFile, or listen on 127.0.0.1", c.Admin.Listen, a.admin.Addr())
	}
	if c.Metrics.Listen != "" {
		a.scrape, err = listen(ctx, c.Metrics.Listen, "metrics.listen")
	}
	return err
}

// unlisten closes the ports.
func (a *App) unlisten() {
	for _, l := range []net.Listener{a.main, a.admin, a.scrape} {
		if l != nil {
			_ = l.Close()
		}
	}
	a.main, a.admin, a.scrape = nil, nil, nil
}

// open takes the data folder and what is in it.
func (a *App) open(ctx context.Context, c *config.Config) (err error) {
	a.store, err = disk.Open(c.Cache.Dir, disk.Options{
		Strict: c.Cache.Durability == "strict", Stop: ctx.Done(), Log: a.log,
	})
	if _, locked := errors.AsType[*disk.LockedError](err); err != nil && !locked && ctx.Err() == nil {
		return fmt.Errorf("%w; cache.dir must be a folder that this user can make and write to", err)
	}
	if err != nil {
		return err
	}
	a.index = recency.Open(c.Cache.Dir, a.log)
	a.db, err = state.Open(filepath.Join(c.Cache.Dir, "state.db"), state.Options{
		Log: a.log, Expendable: []string{"refs", "tags"}, Owner: catalog.Owner, Age: catalog.Age,
	})
	return err
}

// build makes the components. Nothing runs yet.
func (a *App) build(c *config.Config) error {
	size, err := a.size(c)
	if err != nil {
		return err
	}
	a.catalog = catalog.New(a.db.Table("tags"), a.db.Table("refs"), catalog.Options{Log: a.log})
	a.cache = cache.New(cache.Options{
		Store: a.store, Index: a.index, Size: size, Free: a.store.Free,
		MinFree: cache.MinFree{Percent: c.Cache.MinFree.Percent, Bytes: int64(c.Cache.MinFree.Bytes)}, Log: a.log,
		Dir:           c.Cache.Dir,
		ParallelAbove: int64(c.Cache.ParallelAbove),
	})
	a.memory = memory.New(memory.Options{})
	a.puller = pull.New(pull.Options{
		Memory: a.memory,
		Cache:  a.cache, Catalog: a.catalog, Private: access.NewPrivate(a.db.Table("private"), a.log), Log: a.log,
	})
	a.metrics = metrics.New(a.version, a.entry)
	a.metrics.ReadCache(a.cache.Stats, a.store.Scrubbed)
	a.record = journal.NewRecord(a.db.Table("failures"), a.log)
	a.journal = journal.New(a.journalOptions())
	a.server = server.New(server.Options{
		Puller: a.puller,
		Observe: func(r journal.Request) {
			a.metrics.Request(r)
			a.journal.Observe(r)
		},
		Begin:       a.journal.Begin,
		ErrorPhrase: c.ErrorPhrase, ClientsFallBack: c.ClientsFallBack, Via: a.via,
		Ready: a.ready.Load, Log: a.log, Proxies: proxies(c),
	})
	a.metrics.ReadServer(a.server.InFlight)
	a.sites = newSites(a.version, a.via, a.metrics, a.log)
	a.metrics.ReadUpstreams(a.sites.endpointSeries, a.sites.credentialSeries)
	return nil
}

// size is the budget of the cache in bytes. One that the disk can't hold is told: the disk is full long before.
func (a *App) size(c *config.Config) (int64, error) {
	disk, err := a.store.Free()
	if err != nil {
		if c.Cache.Size.Percent > 0 {
			return 0, fmt.Errorf("cache.size: %w; write a size, as in 20GiB", err)
		}
		return int64(c.Cache.Size.Bytes), nil // the cache copes with a disk that does not say
	}
	size := c.Cache.Size.Of(disk.Total)
	if size > disk.Total {
		a.log.Warn("cache.size is more than the disk of cache.dir has: content goes when the disk is full, long before that; write less, or "+
			"a percentage of the disk, as in 80%", "cache", c.Cache.Dir, "size", config.Size(size).String(), "disk_bytes", disk.Total)
	}
	return size, nil
}

// proxies are those of the configuration, which has checked them.
func proxies(c *config.Config) (list client.Proxies) {
	for _, text := range c.TrustedProxies {
		if p, err := netip.ParsePrefix(text); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// Addr is where clients pull.
func (a *App) Addr() net.Addr { return a.main.Addr() }

// AdminAddr is the operator's side.
func (a *App) AdminAddr() net.Addr { return a.admin.Addr() }

// Run serves until ctx ends, then stops as the package says. Its error is nil after a stop in order.
func (a *App) Run(ctx context.Context) error {
	var stopping time.Time
	defer func() {
		if err := a.close(); err != nil {
			a.log.Error("the data folder was not closed in order; nothing is lost", "err", err)
		}
		if !stopping.IsZero() {
			a.log.Info("stopped", "took", time.Since(stopping).Round(time.Millisecond))
		}
	}()
	c := a.config
	// Background work ends after the last pull, not with the signal.
	bg, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	work, bg := errgroup.WithContext(bg)
	for _, run := range []func(context.Context) error{
		a.cache.Run, a.catalog.Run, a.db.Run, a.puller.Run, a.journal.Run, a.sites.run, a.scrub, a.post,
	} {
		work.Go(func() error { return run(bg) })
	}

	main := a.server.HTTPServer(a.tls(c), c.TLS.HTTP2)
	side := sideServer(admin.New(admin.Options{
		Loopback: isLoopback(a.admin.Addr()), Hosts: names(c, c.Admin.Listen),
		Metrics: a.metrics.Handler(), Ready: a.readiness, Token: a.adminToken, Log: a.log, Upstreams: a.sites.upstreams,
		Failures: synced{a.journal, a.record}, Pulls: a.journal.Pulls, Doctor: a.examine,
		Cache: func() admin.Cache {
			upstreams, clients := a.metrics.Bytes()
			return admin.ViewCache(a.cache.Stats(), upstreams, clients)
		},
		About: a.about, Reload: a.again,
		Reset: a.reset,
	}), a.log)
	served := make(chan error, 3)
	l := server.Listen(a.main, server.ListenOptions{
		Limit: connections(a.log), Proxies: proxies(c), Log: a.log, TLS: c.TLS.Enabled(), Mismatch: a.server.Mismatch(c.TLS.Enabled()),
	})
	go func() {
		if c.TLS.Enabled() {
			served <- main.ServeTLS(l, "", "")
		} else {
			served <- main.Serve(l)
		}
	}()
	go func() {
		if c.Admin.TLS.Enabled() {
			side.TLSConfig = a.adminCert.config()
			served <- side.ServeTLS(a.side(a.admin), "", "")
		} else {
			served <- side.Serve(a.side(a.admin))
		}
	}()
	servers := []*http.Server{side}
	if a.scrape != nil {
		s := sideServer(admin.NewMetrics(admin.Options{
			Loopback: isLoopback(a.scrape.Addr()), Hosts: names(c, c.Metrics.Listen), Metrics: a.metrics.Handler(), Ready: a.readiness,
		}), a.log)
		servers = append(servers, s)
		go func() { served <- s.Serve(a.side(a.scrape)) }()
	}
	a.ready.Store(true)
	a.log.InfoContext(ctx, "mirror is ready", "listen", a.Addr().String(), "admin", a.AdminAddr().String(),
		"cache", c.Cache.Dir, "upstreams", len(c.Upstreams), "version", a.version)

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	case <-bg.Done():
		err = context.Cause(bg)
	}
	stopping = time.Now()
	if e := a.stop(main, c.Drain); e != nil && err == nil {
		err = e
	}
	stop()
	if e := work.Wait(); e != nil && !errors.Is(e, context.Canceled) && err == nil {
		err = e
	}
	for _, s := range servers { // last, so that /readyz tells of the stop while it lasts
		_ = s.Close()
	}
	return err
}

// scrub reads what is stored, again and again, unless it is turned off.
func (a *App) scrub(ctx context.Context) error {
	every := a.config.Cache.Scrub
	if every <= 0 {
		return nil
	}
	return a.store.Scrub(ctx, disk.ScrubOptions{Every: every, Remove: a.cache.Remove})
}

// stop lets what runs finish within the drain time.
func (a *App) stop(main *http.Server, drain time.Duration) error {
	a.ready.Store(false)
	a.log.Info("stopping: pulls under way may finish; a second signal stops now", "drain", drain)
	ctx, cancel := context.WithTimeoutCause(context.Background(), drain, errDrained)
	defer cancel()
	ctx, now := context.WithCancelCause(ctx)
	defer now(nil)
	defer context.AfterFunc(a.hurry, func() { now(errHurried) })()
	err := a.server.Stop(ctx, 0, main)
	switch {
	case errors.Is(err, errDrained):
		a.log.Warn("pulls that were still running after the drain time were cut off; clients resume them", "drain", drain)
		return nil
	case errors.Is(err, errHurried):
		a.log.Warn("pulls that were still running at the second signal were cut off; clients resume them")
		return nil
	}
	return err
}

var (
	errDrained = errors.New("the drain time is over")
	errHurried = errors.New("told to stop now")
)

// StopNow has Run, which is stopping or will, cut the pulls that are under way.
func (a *App) StopNow() { a.stopNow() }

// close releases files and listeners. It is harmless for what is not open, and the second time.
func (a *App) close() error {
	for _, l := range []net.Listener{a.main, a.admin, a.scrape} { // they stay there to be asked for their addresses
		if l != nil {
			_ = l.Close()
		}
	}
	a.stopNow()
	var errs []error
	if a.db != nil {
		errs = append(errs, a.db.Close())
	}
	if a.index != nil {
		errs = append(errs, a.index.Close())
	}
	if a.store != nil { // last: it gives the folder back
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}

func (a *App) readiness() error {
	if !a.ready.Load() {
		return errors.New("stopping")
	}
	return nil
}

// listen opens a port, or says whose setting it is and what to do.
func listen(ctx context.Context, addr, setting string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("%s: port %s is in use by another program, perhaps another mirror; "+
			"stop it or choose another port: %w", setting, addr, err)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: %s is not an address of this machine; write one that it has, or leave out the host "+
			"for all of them: %w", setting, addr, err)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: %s needs a privilege that this process lacks; "+
			"choose a port above 1023: %w", setting, addr, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w; write an address of this machine, as in 127.0.0.1:5000", setting, err)
	}
	return l, nil
}

// names are those of a listener on the operator's side: the host that it is configured with, and the operator's own.
func names(c *config.Config, listen string) []string {
	list := slices.Clone(c.Admin.Hosts)
	if host, _, err := net.SplitHostPort(listen); err == nil && host != "" {
		list = append(list, host)
	}
	return list
}

// side is a listener for operators, with few connections: they are out of those that are kept from clients.
func (a *App) side(l net.Listener) net.Listener {
	return server.Listen(l, server.ListenOptions{Limit: maxSideConns, Log: a.log})
}

// sideServer is the server of a listener for operators. Profiles take as long as they are asked to: no write timeout.
func sideServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 32 << 10,
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug), ConnState: server.TrackConnections,
	}
}

// adminToken is the token that the admin listener wants now; empty where none is configured.
func (a *App) adminToken() string {
	if t := a.token.Load(); t != nil {
		return *t
	}
	return ""
}

// readToken reads admin.tokenFile. An empty token would let everybody in, so it is refused.
func readToken(path string) (string, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("admin.tokenFile: %w; it names a file that this user can read, with a long random token in it",
			err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("admin.tokenFile: %s is empty; write a long random token to it", path)
	}
	return token, nil
}
