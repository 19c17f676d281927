package app

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/acr"
	"github.com/registrymirror/mirror/auth/docker"
	"github.com/registrymirror/mirror/auth/ecr"
	"github.com/registrymirror/mirror/auth/gar"
	"github.com/registrymirror/mirror/auth/plugin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/upstream"
)

// login makes the credentials of an upstream. They ask nobody yet.
// label is what metrics call the upstream.
func (s *sites) login(u config.Upstream, label string) (auth.Pool, error) {
	var pool auth.Pool
	for _, c := range u.Credentials {
		source, err := s.source(u, c, label)
		if err != nil {
			return nil, fmt.Errorf("credential %s: %w", c.Name, err)
		}
		pool = append(pool, auth.Member{Source: source, Repositories: c.Repositories})
	}
	return pool, nil
}

// source makes the source of one credential.
func (s *sites) source(u config.Upstream, c config.Credential, label string) (auth.Source, error) {
	log := s.log.With("upstream", u.Name)
	r := auth.Refresh{Name: c.Name, Lifetime: c.Lifetime, Log: log, Observe: s.metrics.fetched(label)}
	switch {
	case c.PasswordFile != "":
		path, err := filepath.Abs(c.PasswordFile)
		if err != nil {
			return nil, err
		}
		return &auth.File{Name: c.Name, Username: c.Username, Path: path, Log: log}, nil
	case c.PasswordEnv != "":
		return auth.Env{Name: c.Name, Username: c.Username, Variable: c.PasswordEnv, Log: log}, nil
	case c.DockerConfig != "":
		return docker.NewConfig(docker.Options{
			Name: c.Name, Path: c.DockerConfig, Host: u.Name, Lifetime: c.Lifetime, Log: log, Observe: r.Observe,
		}), nil
	case c.Helper != "":
		return docker.NewHelper(docker.Helper{Program: c.Helper, Host: u.Name}, r), nil
	case c.Plugin != nil:
		return plugin.New(plugin.Options{
			Command: c.Plugin.Command, Args: c.Plugin.Args, Env: c.Plugin.Env, Host: u.Name,
			TokenFile: c.Plugin.TokenFile, Annotations: c.Plugin.Annotations,
		}, r), nil
	case c.ECR != nil:
		host, _ := u.CloudHost("ecr") // what is no host of its own is New's to refuse
		return ecr.New(ecr.Options{Host: host}, r)
	case c.GAR != nil:
		host, _ := u.CloudHost("gar")
		return gar.New(gar.Options{Host: host, KeyFile: c.GAR.KeyFile}, r)
	case c.ACR != nil:
		host, _ := u.CloudHost("acr")
		return acr.New(acr.Options{Host: host}, r)
	}
	return nil, errors.New("it has no source")
}

// Credentials says how the credentials of each upstream in use are. It asks no host and no program.
func (s *sites) Credentials() map[string][]auth.Status {
	s.mu.Lock()
	used := maps.Collect(s.registries())
	s.mu.Unlock()
	// Without the lock: files are looked at, and a disk may hang.
	all := make(map[string][]auth.Status, len(used))
	for name, st := range used {
		if list := st.credentials(); list != nil {
			all[name] = list
		}
	}
	return all
}

// upstreams says how the registries in use are, for the operator's side.
func (s *sites) upstreams() []admin.Upstream {
	s.mu.Lock()
	s.trim(maxNewHosts)
	s.mu.Unlock()
	endpoints, credentials := s.State(), s.Credentials()
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []admin.Upstream
	confs := make(map[string]config.Upstream, len(s.running)+len(s.hosts))
	for _, all := range []map[string]*site{s.running, s.hosts} {
		for name, st := range all {
			confs[name] = st.conf
		}
	}
	for _, name := range slices.Sorted(maps.Keys(confs)) {
		conf := confs[name]
		u := admin.Upstream{
			Name: name, Access: conf.Access, Endpoints: []admin.Endpoint{}, Credentials: []admin.Credential{},
			Limits: []admin.Limit{},
		}
		for _, e := range endpoints[name] {
			u.Endpoints = append(u.Endpoints, admin.Endpoint{
				URL: e.URL, State: string(e.State), Since: e.Since.UTC(),
				LastError: e.LastError, LastErrorAt: e.LastErrorAt.UTC(),
			})
			for _, b := range e.Budgets {
				u.Limits = append(u.Limits, admin.Limit{
					Credential: b.Credential, Source: b.Source, Endpoint: e.URL, Limit: max(b.Limit, 0), Remaining: b.Remaining,
					WindowSeconds: int64(b.Window.Seconds()), ResetAt: b.Reset.UTC(), SaidAt: b.At.UTC(),
					Spent: spentOf(b.Spent),
				})
			}
		}
		for i, st := range credentials[name] {
			c := admin.Credential{
				Name: st.Name, Kind: st.Kind, For: st.For, State: string(st.State), Since: st.Since.UTC(),
				ExpiresAt: st.Expires.UTC(), LastRefresh: st.LastRefresh.UTC(),
				LastError: st.LastError, LastErrorAt: st.LastErrorAt.UTC(),
			}
			if i < len(conf.Credentials) { // a reload in between may have made them fewer
				c.Repositories = conf.Credentials[i].Repositories
			}
			u.Credentials = append(u.Credentials, c)
		}
		list = append(list, u)
	}
	return list
}

// spentOf is who has spent a limit, as the API says it; nil where another limit of the same credential says so.
func spentOf(s upstream.Spent) *admin.Spent {
	if s.Since.IsZero() {
		return nil
	}
	told := &admin.Spent{Since: s.Since.UTC(), Requests: s.Requests, Repositories: []admin.Use{}}
	for _, u := range s.By {
		told.Repositories = append(told.Repositories, admin.Use(u))
	}
	if s.Elsewhere >= 0 {
		told.Elsewhere = &s.Elsewhere
	}
	return told
}

// fetched counts attempts to get credentials of an upstream.
func (m *metrics) fetched(upstream string) func(auth.Fetched) {
	return func(f auth.Fetched) {
		result := "ok"
		if f.Err != nil {
			result = "error"
		}
		m.credentials.WithLabelValues(upstream, f.Name, result).Inc()
	}
}

// states are all that a credential can be in.
var states = []auth.State{
	auth.StateUnknown, auth.StateOK, auth.StateExpiring, auth.StateExpired, auth.StateRejected, auth.StateFailing,
}

// credentialCollector shows how credentials are. Its labels are those of the configuration in use.
type credentialCollector struct {
	credentials            func() map[string][]auth.Status
	expiry, refresh, state *prometheus.Desc
}

func newCredentialCollector(credentials func() map[string][]auth.Status) *credentialCollector {
	labels := []string{"upstream", "credential"}
	return &credentialCollector{
		credentials: credentials,
		expiry: prometheus.NewDesc("mirror_credential_expiry_seconds",
			"How long until a credential expires; below zero once it has; absent where that isn't known. It is renewed when "+
				"half of its life is over: where little is left it can't be.", labels, nil),
		refresh: prometheus.NewDesc("mirror_credential_refresh_timestamp_seconds",
			"When a credential last came from its source, as a time since 1970.", labels, nil),
		state: prometheus.NewDesc("mirror_credential_state",
			"1 for the state that a credential is in: unknown, ok, expiring (it can't be renewed, and still works), expired, "+
				"rejected (by the registry), or failing (its source).", append(labels, "state"), nil),
	}
}

// Describe implements prometheus.Collector.
func (c *credentialCollector) Describe(to chan<- *prometheus.Desc) {
	to <- c.expiry
	to <- c.refresh
	to <- c.state
}

// Collect implements prometheus.Collector.
func (c *credentialCollector) Collect(to chan<- prometheus.Metric) {
	for name, list := range c.credentials() {
		for _, st := range list {
			if !st.Expires.IsZero() {
				to <- prometheus.MustNewConstMetric(c.expiry, prometheus.GaugeValue, time.Until(st.Expires).Seconds(), name, st.Name)
			}
			if !st.LastRefresh.IsZero() {
				to <- prometheus.MustNewConstMetric(c.refresh, prometheus.GaugeValue, float64(st.LastRefresh.Unix()), name,
					st.Name)
			}
			for _, state := range states {
				is := 0.0
				if st.State == state {
					is = 1
				}
				to <- prometheus.MustNewConstMetric(c.state, prometheus.GaugeValue, is, name, st.Name, string(state))
			}
		}
	}
}
