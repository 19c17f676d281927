package app

import (
	"net/url"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/webhook"
)

// expirer marks tags in the catalog, and has the puller forget what it remembers of them.
type expirer struct {
	catalog *catalog.Catalog
	puller  *pull.Puller
}

// Expire implements webhook.Expirer.
func (e expirer) Expire(repo oci.Repo, tag, source string) error {
	err := e.catalog.Expire(oci.Ref{Repo: repo, Tag: tag}, catalog.Source(source), time.Now())
	e.puller.Forget(repo) // a tag whose image can't be stored has no record, and a 404 is remembered
	return err
}

// webhooksOf are the webhooks of a configuration.
func webhooksOf(c *config.Config, routes *route.Table, secrets map[string][]string) webhook.Setup {
	s := webhook.Setup{Names: webhook.Names{Routes: routes}}
	for _, w := range c.Webhooks {
		s.Hooks = append(s.Hooks, webhook.Hook{Name: w.Name, Type: w.Type, Secrets: secrets[w.Name], Upstream: w.Upstream})
	}
	for _, u := range c.Upstreams {
		for _, e := range u.Endpoints {
			if at, err := url.Parse(e.URL); err == nil {
				s.Names.Endpoints = append(s.Names.Endpoints, webhook.Endpoint{Upstream: u.Name, Host: at.Host, Prefix: e.Prefix})
			}
		}
	}
	return s
}
