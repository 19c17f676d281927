package app

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
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/metrics"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream"
)

// sites are the registries in use. One that a reload does not change is kept, with its tokens and connections; one that
// it changes or drops loses its background work, and ends with the last pull that holds it.
type sites struct {
	version, via string
	metrics      *metrics.Metrics
	log          *slog.Logger

	mu      sync.Mutex // guards what follows
	ctx     context.Context
	wg      sync.WaitGroup
	running map[string]*site // in use
	next    map[string]*site // of a setup that is not in use yet
	hosts   map[string]*site // of patterns in use, those that clients have named
}

// site is a registry with what it was made of.
type site struct {
	conf     config.Upstream
	files    [][]byte           // what its endpoints name, as it was read
	registry *upstream.Registry // nil: it is a pattern
	login    auth.Pool          // who we are to it; nil: nobody
	stop     context.CancelFunc // of its background work; nil while that doesn't run

	pattern *config.Upstream // that the host fits; nil: the registry is written out
	used    time.Time        // of a host: when somebody last asked for it
}

func newSites(version, via string, m *metrics.Metrics, log *slog.Logger) *sites {
	return &sites{version: version, via: via, metrics: m, log: log, running: make(map[string]*site), hosts: make(map[string]*site)}
}

// setup makes the Setup of a configuration. Nothing of it is in use before settle.
func (s *sites) setup(c *config.Config) (pull.Setup, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string]*site, len(c.Upstreams))
	setup := pull.Setup{Sites: make(map[string]pull.Site, len(c.Upstreams))}
	var names []route.Upstream
	for _, u := range c.Upstreams {
		to := pull.Site{Name: u.Name, Ruled: u.Access == "rules", Tags: catalog.Policy{
			MaxAge: u.Tags.MaxAge, Wait: u.Tags.Wait, StaleIfError: u.Tags.StaleIfError,
			DropDeleted: u.Tags.Deleted == "drop",
		}, Login: hasLogin(u)}
		entry := route.Upstream{Name: u.Name, Aliases: u.Aliases, Library: u.Library}
		if u.IsPattern() {
			next[u.Name] = &site{conf: made(u)}
			entry.Fits, to.Open = u.Fits, s.opener(&u)
		} else {
			st, err := s.site(u, u.Name, s.running[u.Name])
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
	setup.Routes, setup.Rules = table, rulesOf(c)
	s.next = next
	return setup, nil
}

// hasLogin reports whether requests to an upstream may carry a login of ours: a credential, or a certificate.
func hasLogin(u config.Upstream) bool {
	return len(u.Credentials) > 0 || slices.ContainsFunc(u.Endpoints, func(e config.Endpoint) bool {
		return e.ClientCert != ""
	})
}

// rulesOf are the rules of a configuration. Each is for everybody: no other one is accepted yet.
func rulesOf(c *config.Config) *access.Rules {
	var globs []string
	for _, r := range c.Rules {
		globs = append(globs, r.Pull...)
	}
	return access.NewRules(globs...)
}

// made is what of an upstream's settings its registry is made of. Policy is the puller's; it may change without a new
// registry.
func made(u config.Upstream) config.Upstream {
	u.Tags = config.Tags{}
	return u
}

// site returns the registry of u: the old one, which may be nil, where nothing changed that it is made of. label is what
// metrics call it. The lock is held.
func (s *sites) site(u config.Upstream, label string, old *site) (*site, error) {
	o := upstream.Options{
		Public: u.Access == "public",
		Name:   u.Name, AuthHosts: u.AuthHosts, RedirectHosts: u.RedirectHosts, CDNHosts: u.CDNHosts, Via: s.via,
		UserAgent:    "mirror/" + s.version + " (+https://github.com/registrymirror/mirror)",
		MaxTransfers: u.MaxTransfers,
		Observe:      s.metrics.Exchange(label), Received: s.metrics.Received(label), Log: s.log.With("upstream", u.Name),
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
	if old != nil && reflect.DeepEqual(old.conf, made(u)) && reflect.DeepEqual(old.files, files) {
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
	return &site{conf: made(u), files: files, registry: r, login: login}, nil
}

// settle makes the last setup the one in use: background work of new registries starts, that of others ends.
func (s *sites) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		return
	}
	for name, old := range s.running {
		if s.next[name] != old && old.stop != nil {
			old.stop()
		}
	}
	for name, st := range s.next { // a reload is a word of the operator: what was refused may have been repaired
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
		return // run has not begun
	}
	for name, st := range s.registries() {
		s.start(name, st)
	}
}

// registries are all that are in use, by name: those that are written out, and the hosts of patterns. The lock is held.
func (s *sites) registries() iter.Seq2[string, *site] {
	return func(yield func(string, *site) bool) {
		for _, all := range []map[string]*site{s.running, s.hosts} {
			for name, st := range all {
				if st.registry != nil && !yield(name, st) {
					return
				}
			}
		}
	}
}

// start starts the background work of a registry, unless it runs. The lock is held.
func (s *sites) start(name string, st *site) {
	if st.stop != nil {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	st.stop = cancel
	s.wg.Go(func() {
		if err := auth.Run(ctx, st.login); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "credentials of an upstream are not renewed ahead of time any more, but when they "+
				"are needed", "upstream", name, "err", err)
		}
	})
	s.wg.Go(func() {
		if err := st.registry.Run(ctx); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "background work of an upstream ended; its tokens are now renewed when they "+
				"are needed", "upstream", name, "err", err)
		}
	})
}

// run owns the background work of all registries until ctx ends.
func (s *sites) run(ctx context.Context) error {
	s.mu.Lock()
	s.ctx = ctx
	if s.next == nil {
		s.next = s.running
	}
	s.mu.Unlock()
	s.settle()
	<-ctx.Done()
	s.mu.Lock()
	s.ctx = nil // a reload that comes now starts nothing
	s.mu.Unlock()
	s.wg.Wait()
	return nil
}
