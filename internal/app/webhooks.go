package app

import (
	"net/url"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/webhook"
)

// expirer marks tags in the catalog, has the puller forget what it remembers of them, and has schedules look at them.
type expirer struct{ *App }

// Expire implements webhook.Expirer.
func (e expirer) Expire(repo oci.Repo, tag string) error {
	ref := oci.Ref{Repo: repo, Tag: tag}
	err := e.catalog.Expire(ref, catalog.ByWebhook, time.Now())
	e.puller.Forget(repo) // a tag whose image can't be stored has no record, and a 404 is remembered
	e.schedules.Moved(ref)
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
