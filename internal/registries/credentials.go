package registries

import (
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/acr"
	"github.com/registrymirror/mirror/auth/docker"
	"github.com/registrymirror/mirror/auth/ecr"
	"github.com/registrymirror/mirror/auth/gar"
	"github.com/registrymirror/mirror/auth/plugin"
	"github.com/registrymirror/mirror/config"
)

// login builds the credentials of an upstream, which fetch nothing yet. label is the upstream's name in metrics.
func (s *Registries) login(u config.Upstream, label string) (auth.Pool, error) {
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

// source builds the source of one credential.
func (s *Registries) source(u config.Upstream, c config.Credential, label string) (auth.Source, error) {
	log := s.log.With("upstream", u.Name)
	r := auth.Refresh{Name: c.Name, Lifetime: c.Lifetime, Log: log, Observe: s.metrics.Refreshed(label)}
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
		host, _ := u.CloudHost("ecr") // New refuses a host that is not one of its own
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

// List describes the registries in use for the admin listener, sorted by name.
func (s *Registries) List() []admin.Upstream {
	s.mu.Lock()
	s.trim(maxNewHosts)
	used := maps.Clone(s.running)
	maps.Copy(used, s.hosts)
	s.mu.Unlock()
	list := make([]admin.Upstream, 0, len(used))
	// Without the lock: the state of a file is read, and a disk may hang.
	for _, name := range slices.Sorted(maps.Keys(used)) {
		st := used[name]
		u := admin.ViewUpstream(name, st.conf.Access, st.endpoints(), st.credentials())
		for i := range u.Credentials {
			u.Credentials[i].Repositories = st.conf.Credentials[i].Repositories
		}
		list = append(list, u)
	}
	return list
}
