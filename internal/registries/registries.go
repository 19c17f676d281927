package registries

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream"
)

// Registries are the registries in use. One that a reload does not change is kept, with its tokens and connections. One that
// it changes or removes loses its background work, and ends with the last pull that uses it.
type Registries struct {
	version, via string
	metrics      *metrics.Metrics
	log          *slog.Logger

	mu      sync.Mutex // guards the fields that follow
	ctx     context.Context
	wg      sync.WaitGroup
	running map[string]*registryState // in use, by name in the configuration
	next    map[string]*registryState // of a setup that is not in use yet
	hosts   map[string]*registryState // the hosts of patterns in use that clients have named
}

// registryState is a registry with what it was built from.
type registryState struct {
	conf     config.Upstream
	files    [][]byte           // the content of the files that its endpoints name
	registry *upstream.Registry // nil: it is a pattern
	login    auth.Pool          // credentials; nil means anonymous
	stop     context.CancelFunc // of its background work; nil while that doesn't run

	pattern *config.Upstream // that the host matches; nil: the registry has an entry of its own
	used    time.Time        // of a host: when a client last asked for it
}

// New returns Registries without any. via is the mirror's name in Via headers; empty: requests have none.
func New(version, via string, m *metrics.Metrics, log *slog.Logger) *Registries {
	return &Registries{version: version, via: via, metrics: m, log: log, running: make(map[string]*registryState), hosts: make(map[string]*registryState)}
}

// Setup builds the Setup of a configuration. It comes into use with UseNext.
func (s *Registries) Setup(c *config.Config) (pull.Setup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*registryState, len(c.Upstreams))
	setup := pull.Setup{Sites: make(map[string]pull.Site, len(c.Upstreams)), Platforms: c.Platforms}
	var names []route.Upstream
	for _, u := range c.Upstreams {
		tags, err := policies(u.Tags)
		if err != nil {
			return pull.Setup{}, fmt.Errorf("upstream %s: %w", u.Name, err)
		}
		to := pull.Site{
			Name: u.Name, Ruled: u.Access == "rules", Tags: tags, Login: hasLogin(u), Names: &access.Names{Only: u.Only, Deny: u.Deny},
		}
		if u.Access == "client" {
			to.Own = &access.Lifetime{MaxAge: u.ClientLogins.MaxAge, StaleIfError: u.ClientLogins.StaleIfError}
		}
		entry := route.Upstream{Name: u.Name, Aliases: u.Aliases, Library: u.Library}
		if u.IsPattern() {
			next[u.Name] = &registryState{conf: buildSettings(u)}
			entry.Fits, to.Open = u.Fits, s.opener(&u)
		} else {
			st, err := s.build(u, u.Name, s.running[u.Name])
			if err != nil {
				return pull.Setup{}, fmt.Errorf("upstream %s: %w", u.Name, err)
			}
			next[u.Name], to.Upstream = st, st.registry
		}
		names, setup.Sites[u.Name] = append(names, entry), to
	}
	table, err := route.New(names, c.DefaultUpstream)
	if err != nil {
		return pull.Setup{}, err
	}
	setup.Routes, setup.Rules = table, access.NewRules(rulesOf(c)...)
	s.next = next
	return setup, nil
}

// rulesOf are the rules of a configuration.
func rulesOf(c *config.Config) (list []access.Rule) {
	for _, r := range c.Rules {
		list = append(list, access.Rule{Who: r.Who, Pull: r.Pull})
	}
	return list
}

// hasLogin reports whether requests to an upstream may carry a login of the mirror: a credential, or a certificate.
func hasLogin(u config.Upstream) bool {
	return len(u.Credentials) > 0 || slices.ContainsFunc(u.Endpoints, func(e config.Endpoint) bool {
		return e.ClientCert != ""
	})
}

// buildSettings are the settings that a registry is built from. Tag policies, only and deny are the puller's, and pins the
// catalog's: they may change without a new registry.
func buildSettings(u config.Upstream) config.Upstream {
	u.Tags, u.Pins, u.Only, u.Deny, u.ClientLogins = config.Tags{}, nil, nil, nil, config.ClientLogins{}
	return u
}

// build returns the registry of u: the old one, which may be nil, where nothing changed that it was built from. label is its
// name in metrics. The lock is held.
func (s *Registries) build(u config.Upstream, label string, old *registryState) (*registryState, error) {
	o := upstream.Options{
		Public: u.Access == "public",
		Name:   u.Name, AuthHosts: u.AuthHosts, RedirectHosts: u.RedirectHosts, CDNHosts: u.CDNHosts, Via: s.via,
		UserAgent:    "mirror/" + s.version + " (+https://github.com/registrymirror/mirror)",
		MaxTransfers: u.MaxTransfers, Reserve: float64(u.RateLimitReserve) / 100,
		Observe: s.metrics.Exchange(label), Received: s.metrics.Received(label), Log: s.log.With("upstream", u.Name),
	}
	var files [][]byte
	for _, e := range u.Endpoints {
		endpoint, read, err := endpointOf(u, e)
		if err != nil {
			return nil, err
		}
		files = append(files, read...)
		o.Endpoints = append(o.Endpoints, endpoint)
	}
	if old != nil && reflect.DeepEqual(old.conf, buildSettings(u)) && reflect.DeepEqual(old.files, files) {
		return old, nil
	}
	login, err := s.login(u, label)
	if err != nil {
		return nil, err
	}
	if login != nil {
		o.Credential = login
	}
	r, err := upstream.New(o)
	if err != nil {
		return nil, err
	}
	return &registryState{conf: buildSettings(u), files: files, registry: r, login: login}, nil
}

// UseNext puts the last setup into use: the background work of new registries starts, that of others ends.
func (s *Registries) UseNext() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, old := range s.running {
		if s.next[name] != old && old.stop != nil {
			old.stop()
		}
	}
	for name, st := range s.next { // by a reload the operator may say that a cause of refusals is mended
		if s.running[name] == st && st.registry != nil {
			st.registry.Reset()
		}
	}
	s.running, s.next = s.next, nil
	for host, st := range s.hosts {
		now := s.running[st.pattern.Name]
		if _, named := s.running[host]; named || now == nil || !reflect.DeepEqual(now.conf.At(host), st.conf) {
			s.drop(host)
			continue
		}
		st.registry.Reset()
	}
	if s.ctx == nil {
		return // Run has not begun
	}
	for name, st := range s.inUse() {
		s.start(name, st)
	}
}

// inUse are all registries in use, by name: those with an entry of their own, and the hosts of patterns. The lock is held.
func (s *Registries) inUse() iter.Seq2[string, *registryState] {
	return func(yield func(string, *registryState) bool) {
		for _, all := range []map[string]*registryState{s.running, s.hosts} {
			for name, st := range all {
				if st.registry != nil && !yield(name, st) {
					return
				}
			}
		}
	}
}

// start starts the background work of a registry, unless it runs. The lock is held.
func (s *Registries) start(name string, st *registryState) {
	if st.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	st.stop = cancel
	s.wg.Go(func() {
		if err := auth.Run(ctx, st.login); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "renewal of credentials in the background stopped; they are renewed when a pull needs them",
				"upstream", name, "error", err)
		}
	})
	s.wg.Go(func() {
		if err := st.registry.Run(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "background work of an upstream stopped; its tokens are renewed when a pull needs them",
				"upstream", name, "error", err)
		}
	})
}

// Run owns the background work of all registries until ctx ends.
func (s *Registries) Run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	for name, st := range s.inUse() {
		s.start(name, st)
	}
	s.mu.Unlock()
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil // a reload that comes now starts nothing
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
