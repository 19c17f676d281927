package app

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/server"
)

// Run serves until ctx ends, then stops as the package says. Its error is nil after a clean stop.
func (a *App) Run(ctx context.Context) error {
	var stopping time.Time
	defer func() {
		if err := a.close(); err != nil {
			a.log.Error("closing the data folder failed; nothing is lost", "error", err)
		}
		if !stopping.IsZero() {
			a.log.Info("stopped", "took", time.Since(stopping).Round(time.Millisecond))
		}
	}()
	c := a.o.Config
	bg, stop := a.background(ctx, a.schedules.Run, a.feed, a.watchTags, a.watchCoverage)
	main, side, served := a.serve(c)
	a.ready.Store(true)
	a.log.InfoContext(ctx, "mirror is ready", "listen", a.Addr().String(), "admin", a.AdminAddr().String(),
		"cache_dir", c.Cache.Dir, "upstreams", len(c.Upstreams), "version", a.o.Version)

	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	case <-bg.Done():
		err = context.Cause(bg)
	}
	stopping = time.Now()
	err = cmp.Or(err, a.stop(main, c.Drain))
	err = cmp.Or(err, stop())
	a.deliveries.Close()     // after the journal has closed the last pulls
	for _, s := range side { // last, so that /readyz reports the stop while it lasts
		_ = s.Close()
	}
	return err
}

// background begins the background work, and what comes with it. It ends with stop, not with ctx: after the last pull. The context ends before that if a
// part of the work fails; stop returns the failure.
func (a *App) background(ctx context.Context, others ...func(context.Context) error) (bg context.Context, stop func() error) {
	bg, cancel := context.WithCancel(context.WithoutCancel(ctx))
	work, bg := errgroup.WithContext(bg)
	for _, run := range append(others,
		a.runCache, a.warm.Run, a.catalog.Run, a.folder.state.Run, a.puller.Run, a.journal.Run, a.registries.Run, a.scrub, a.post, a.deliveries.Run,
	) {
		work.Go(func() error { return run(bg) })
	}
	return bg, func() error {
		cancel()
		if err := work.Wait(); !errors.Is(err, context.Canceled) {
			return err
		}
		return nil
	}
}

// serve serves on all listeners. The channel has the error of the first server that ends.
func (a *App) serve(c *config.Config) (main *http.Server, side []*http.Server, served <-chan error) {
	errs := make(chan error, 3)
	mainTLS := a.files.tls(c.TLS.Enabled(), func(f *files) *tls.Certificate { return f.cert })
	if mainTLS != nil {
		mainTLS.GetConfigForClient = a.files.askForCertificate(c.TLS.HTTP2, func(f *files) (*tls.Certificate, *identity.Certificates) {
			return f.cert, f.clients.Certificates
		})
	}
	main = a.server.HTTPServer(mainTLS, c.TLS.HTTP2)
	clients := server.Listen(a.listeners.main, server.ListenOptions{
		Limit: connections(a.log), Proxies: proxies(c), Log: a.log, TLS: c.TLS.Enabled(), Mismatch: a.server.Mismatch(c.TLS.Enabled()),
		Ended: func(e server.ConnEnd) { a.metrics.ConnectionEnded(string(e)) },
	})
	go func() { errs <- serveOn(main, clients) }()

	adminTLS := a.files.tls(c.Admin.TLS.Enabled(), func(f *files) *tls.Certificate { return f.adminCert })
	if adminTLS != nil {
		adminTLS.GetConfigForClient = a.files.askForCertificate(true, func(f *files) (*tls.Certificate, *identity.Certificates) {
			return f.adminCert, f.keys.Certificates
		})
	}
	side = append(side, serveSide(a.listeners.admin, admin.New(a.adminOptions(c)), adminTLS, a.log, errs))
	if l := a.listeners.metrics; l != nil {
		side = append(side, serveSide(l, admin.NewMetrics(admin.Options{
			Loopback: isLoopback(l.Addr()), Hosts: hostNames(c, c.Metrics.Listen), Metrics: a.metrics.Handler(), Ready: a.readiness,
		}), nil, a.log, errs))
	}
	return main, side, errs
}

// adminOptions joins the admin listener to the components.
func (a *App) adminOptions(c *config.Config) admin.Options {
	return admin.Options{
		Loopback: isLoopback(a.AdminAddr()), Hosts: hostNames(c, c.Admin.Listen),
		Metrics: a.metrics.Handler(), Ready: a.readiness, Keys: a.files.adminKeys, Log: a.log,
		Upstreams: a.registries.List, Failures: synced{a.journal, a.failures}, Pulls: a.journal.Pulls, Doctor: a.examine, Self: a.checkSelf,
		Cache: func() admin.Cache {
			upstreams, clients := a.metrics.Bytes()
			return admin.ViewCache(a.cache.Stats(), upstreams, clients)
		},
		Tags: ledger{a.catalog, named{a.puller, a.own}, a.platforms, a.warm.Recheck}, Drift: a.drift, Coverage: a.covered, Uses: a.uses, Held: a.heldTags, Warm: a.warm,
		Schedules: func() (list []admin.Schedule) {
			for _, s := range a.schedules.Upcoming() {
				list = append(list, admin.Schedule{Name: s.Name, Next: s.Next})
			}
			return list
		},
		About: func() admin.About { return *a.about.Load() }, Reload: a.o.Reload, Reset: a.reset,
	}
}

// synced is the record of failures as of now: a client that was told of a failure finds it at once.
type synced struct {
	*journal.Journal
	*journal.Record
}

func (s synced) Failures(f journal.Filter) []journal.Failure {
	s.sync()
	return s.Record.Failures(f)
}

func (s synced) Summary(f journal.Filter) journal.Summary {
	s.sync()
	return s.Record.Summary(f)
}

// sync waits for the requests that were observed before, for a moment: a journal that is stopping records no more.
func (s synced) sync() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.Sync(ctx)
}

// scrub reads the stored content over and over, unless it is turned off.
func (a *App) scrub(ctx context.Context) error {
	every := a.o.Config.Cache.Scrub
	if every <= 0 {
		return nil
	}
	return a.folder.store.Scrub(ctx, disk.ScrubOptions{Every: every, Remove: a.cache.Remove})
}

// stop lets running pulls finish within the drain time.
func (a *App) stop(main *http.Server, drain time.Duration) error {
	a.ready.Store(false)
	a.log.Info("stopping: running pulls may finish; a second signal stops now", "limit", drain)
	ctx, cancel := context.WithTimeoutCause(context.Background(), drain, errDrained)
	defer cancel()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	go func() {
		select {
		case <-a.hurry:
			end(errHurried)
		case <-ctx.Done():
		}
	}()
	err := a.server.Stop(ctx, 0, main)
	switch {
	case errors.Is(err, errDrained):
		a.log.Warn("pulls that were still running after the drain time were cut off; clients resume them", "limit", drain)
		return nil
	case errors.Is(err, errHurried):
		a.log.Warn("pulls that were still running at the second signal were cut off; clients resume them")
		return nil
	}
	return err
}

var (
	errDrained = errors.New("the drain time is over")
	errHurried = errors.New("stopped by a second signal")
)

// StopNow makes Run, which is stopping or will, cut off the running pulls.
func (a *App) StopNow() {
	select {
	case a.hurry <- struct{}{}:
	default: // told before
	}
}

// close releases files and listeners. It may be called again, and before everything is open.
func (a *App) close() error {
	a.listeners.close() // they stay there to be asked for their addresses
	return a.folder.close()
}

func (a *App) readiness() error {
	if !a.ready.Load() {
		return errors.New("stopping")
	}
	return nil
}
