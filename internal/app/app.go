package app

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/internal/registries"
	"github.com/registrymirror/mirror/internal/share"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/schedule"
	"github.com/registrymirror/mirror/webhook"
)

// Options for an App.
type Options struct {
	Config  *config.Config
	Version string
	Log     *slog.Logger
	Level   *slog.LevelVar // of Log; a reload may change it. Nil: it may not
	File    string         // that the configuration came from, to be shown; empty: none
	// Reload reads the configuration again and calls App.Reload with it, for the admin listener. Nil: it has no reload.
	Reload func(context.Context) (admin.Reloaded, error)
}

// App is a running mirror. It has many fields since each component is one, and only the App knows all of them.
type App struct {
	o   Options // of the start: settings that need a restart are as they are here
	log *slog.Logger

	folder     folder
	catalog    *catalog.Catalog
	cache      *cache.Cache
	memory     *memory.Budget // for documents
	puller     *pull.Puller
	warm       *warm.Engine
	schedules  *schedule.Scheduler
	journal    *journal.Journal
	failures   *journal.Record
	deliveries *coverage.Record // which client got which image
	server     *server.Server
	webhooks   *webhook.Handler
	clients    *identity.Verifier
	accounts   accounts             // guarded as reloading says
	limits     config.ClientsLimits // in use; guarded as reloading says
	metrics    *metrics.Metrics
	cluster    cluster
	registries *registries.Registries

	reloading sync.Mutex // one reload at a time
	files     inUse
	setup     atomic.Pointer[pull.Setup]
	inEffect  atomic.Pointer[config.Config] // the configuration that the setup is of
	about     atomic.Pointer[admin.About]   // this process, with the configuration in use

	lastSurvey atomic.Pointer[tagSurvey] // of the tags in use; nil: there was none yet

	lastCoverage atomic.Pointer[coverage.Report] // without details; nil: there was none yet

	listeners listeners
	ready     atomic.Bool
	hurry     chan struct{} // holds one: Run is to stop without waiting for pulls
}

// New takes the data folder into use and listens. The context bounds the wait for another mirror that has the folder,
// at most a minute, in which nothing listens; then the error is a *disk.LockedError.
func New(ctx context.Context, o Options) (_ *App, err error) {
	a := newApp(o)
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
	// A port that is in use is reported at once, not after the wait for the folder. But nothing listens during that wait: a
	// node whose connection is refused goes on to the registry, and one whose connection is never answered hangs.
	if err := a.listeners.open(ctx, c, f.keys); err != nil {
		return nil, err
	}
	a.listeners.close()
	a.listeners = listeners{}
	if c.Kubernetes.Events || c.Kubernetes.Feed || c.Kubernetes.Coverage {
		if err := a.useKubernetes(c.Kubernetes); err != nil {
			return nil, err
		}
	}
	if f.clients.Accounts, err = a.accountsOf(c); err != nil {
		return nil, err
	}
	if err := a.folder.open(ctx, c, 0, a.log); err != nil {
		return nil, err
	}
	if err := a.listeners.open(ctx, c, f.keys); err != nil {
		return nil, err
	}
	if c.Admin.InClear() {
		a.log.WarnContext(ctx, "the admin listener is reached from other machines without TLS: its token is sent in clear; set "+
			"admin.tls.cert and admin.tls.key, or listen on 127.0.0.1", "addr", c.Admin.Listen)
	}
	a.warnOfCertificates(c)
	if err := a.assemble(c, f); err != nil {
		return nil, err
	}
	return a, nil
}

// newApp is an App without components.
func newApp(o Options) *App {
	a := &App{o: o, log: o.Log, hurry: make(chan struct{}, 1)}
	now := stamp(time.Now())
	a.about.Store(&admin.About{
		Version: o.Version, GoVersion: runtime.Version(), StartedAt: now, Config: admin.Config{File: o.File, TakenAt: now},
	})
	return a
}

// assemble makes the components and puts the configuration into use. Background work begins with Run.
func (a *App) assemble(c *config.Config, f files) error {
	a.files.use(f, a.listeners.admin)
	if err := a.build(c); err != nil {
		return err
	}
	setup, err := a.registries.Setup(c)
	if err != nil {
		return err
	}
	a.use(c, setup, f) // before the first request
	a.warm = a.newWarm(c)
	a.metrics.ReadWarm(a.warm.Stats)
	a.schedules = schedule.New(schedule.Options{
		Jobs: a.warm, Latest: a.puller.Latest, Table: a.folder.state.Table("schedules"), Log: a.log,
		Observe: func(name string, r schedule.Result) { a.metrics.Scheduled(name, string(r)) },
	})
	a.schedules.Use(a.schedulesOf(c))
	if c.Kubernetes.Feed {
		a.newFeed(c)
	}
	return nil
}

// build makes the components. Nothing runs yet.
func (a *App) build(c *config.Config) error {
	size, err := a.folder.size(c, a.log)
	if err != nil {
		return err
	}
	via := "mirror-" + rand.Text()[:12]
	f := &a.folder
	a.catalog = catalog.New(f.state.Table("tags"), f.state.Table("refs"), catalog.Options{
		Log: a.log, Clients: f.state.Table("clients"), Pins: f.state.Table("pins"),
	})
	a.cache = cache.New(cache.Options{
		Store: f.store, Index: f.index, Size: size, Free: f.store.Free,
		MinFree: cache.MinFree{Percent: c.Cache.MinFree.Percent, Bytes: int64(c.Cache.MinFree.Bytes)}, Log: a.log,
		Dir:           c.Cache.Dir,
		ParallelAbove: int64(c.Cache.ParallelAbove),
	})
	a.memory = memory.New(memory.Options{})
	a.metrics = metrics.New(a.o.Version, a.entry)
	a.puller = pull.New(pull.Options{
		Memory: a.memory,
		Cache:  a.cache, Catalog: a.catalog, Private: access.NewPrivate(f.state.Table("private"), a.log), Log: a.log,
		Moved: func(m pull.Move) {
			a.metrics.Moved(m)
			a.schedules.Moved(m.Ref)
		},
	})
	a.failures = journal.NewRecord(f.state.Table("failures"), a.log)
	a.deliveries = coverage.Open(f.state.Table("coverage"), a.log)
	o := journal.Options{Log: a.log, Record: a.failures, OnLoss: a.deliveries.Lost, OnPull: func(p journal.Pull) {
		a.metrics.Pull(p)
		a.deliveries.Note(p)
	}}
	if a.cluster.poster != nil {
		o.OnFailure = a.cluster.poster.Failed
		a.metrics.ReadEvents(a.cluster.poster.Stats)
	}
	a.journal = journal.New(o)
	a.webhooks = webhook.New(webhook.Options{
		Expirer: expirer{a}, Proxies: proxies(c), Log: a.log,
		Observe: func(name string, r webhook.Result) { a.metrics.Webhook(name, string(r)) },
	})
	a.clients = identity.New(identity.Options{Log: a.log, Observe: a.metrics.Login})
	a.server = server.New(server.Options{
		Puller: a.puller, Webhooks: a.webhooks, Clients: a.clients,
		Observe: func(r journal.Request) {
			a.metrics.Request(r)
			a.journal.Observe(r)
		},
		Begin:       a.journal.Begin,
		ErrorPhrase: c.ErrorPhrase, ClientsFallBack: c.ClientsFallBack, Via: via,
		Ready: a.ready.Load, Log: a.log, Proxies: proxies(c),
	})
	a.registries = registries.New(a.o.Version, via, a.metrics, a.log)
	a.metrics.ReadRevocations(func() []identity.List {
		f := a.files.current.Load()
		return slices.Concat(f.clients.Certificates.Lists(), f.keys.Certificates.Lists())
	})
	a.metrics.ReadCache(a.cache.Stats, f.store.Scrubbed)
	a.metrics.ReadServer(a.server.InFlight)
	a.metrics.ReadDrift(a.driftSeries)
	a.metrics.ReadCoverage(a.lastCoverage.Load, c.Kubernetes.CoverageByNode)
	a.metrics.ReadUpstreams(a.registries.EndpointSeries, a.registries.CredentialSeries)
	return nil
}

// use puts a setup of a configuration into use, with the files that it names.
func (a *App) use(c *config.Config, setup pull.Setup, f files) {
	a.setup.Store(&setup)
	a.inEffect.Store(c)
	f.clients.Challenge = challengeOf(f.clients, setup)
	a.clients.Use(f.clients)
	for _, u := range c.Upstreams {
		a.metrics.Upstream(u.Name)
	}
	a.limit(c.Clients.Limits)
	a.catalog.UsePins(registries.Pins(c))
	a.puller.Use(setup)
	a.webhooks.Use(webhooksOf(c, setup.Routes, f.webhooks))
	a.journal.Platforms(c.Platforms)
	a.registries.UseNext()
}

// limit puts the limits of clients into use. Where they have not changed, the counts stay.
func (a *App) limit(l config.ClientsLimits) {
	if l == a.limits {
		return
	}
	a.limits = l
	a.server.Limit(server.ClientLimits{
		Limits: share.New(share.Settings{
			Requests: l.MaxRequests, Bandwidth: int64(l.Bandwidth), Total: int64(l.TotalBandwidth),
		}, func(e share.Event) { a.metrics.ClientLimit(string(e)) }),
		ByAddress: l.ByAddress,
	})
}

// challengeOf says when clients are told to log in: where they can, and have to where anonymous ones may read nothing.
func challengeOf(s identity.Settings, setup pull.Setup) identity.Challenge {
	if !s.Logins() {
		return identity.Never
	}
	if setup.Rules.Anonymous() {
		return identity.Offered
	}
	for _, site := range setup.Sites {
		if !site.Ruled {
			return identity.Offered
		}
	}
	return identity.Required
}

// entry is the name of an upstream in the configuration, which is its name in metrics. Clients choose the hosts of a pattern,
// and must not make series.
func (a *App) entry(host string) string { return a.setup.Load().Routes.Entry(host) }

// reset forgets the limits, failures and refusals of a registry, given by name, by alias, as a host that matches a pattern, or
// by a pattern for all of its hosts. It returns the names of the registries.
func (a *App) reset(name string) []string {
	names := a.registries.Reset(name, a.entry(name))
	for _, n := range names {
		a.puller.ForgetUpstream(n)
	}
	return names
}

// proxies are the trusted proxies of a configuration that has been checked.
func proxies(c *config.Config) (list client.Proxies) {
	for _, text := range c.TrustedProxies {
		if p, err := netip.ParsePrefix(text); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// Addr is where clients pull.
func (a *App) Addr() net.Addr { return a.listeners.main.Addr() }

// AdminAddr is the operator's side.
func (a *App) AdminAddr() net.Addr { return a.listeners.admin.Addr() }

// stamp is a time as the API shows it.
func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }
