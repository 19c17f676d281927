package config

import (
	"github.com/registrymirror/mirror/internal/strictyaml"
)

// Webhooks are the webhooks in the order in which they are written.
type Webhooks []Webhook

// Webhook is a registry, or CI, that reports pushes.
type Webhook struct {
	// Name is the key: the end of the path to which reports are sent.
	Name string `yaml:"-"`

	// Type is the kind of sender: dockerhub, github (GitHub Packages, ghcr.io), quay, harbor, gitlab (the notifications of its
	// registry), gitea (and Forgejo), distribution (CNCF Distribution, and Azure's registry) or generic (scripts, CI, Amazon
	// ECR, Artifactory).
	Type string `yaml:"type" enum:"dockerhub,github,quay,harbor,gitlab,gitea,distribution,generic"`
	// SecretFile is a file with the secret that reports must show or be signed with, at least 16 characters. Each line is one:
	// while one replaces another, both count. It is read again when it changes.
	SecretFile string `yaml:"secretFile" path:"file"`
	// Upstream is the upstream that the reports are about, by name or alias, where the sender calls itself by another name
	// than images do. Reports about others have no effect then. Empty: the registry that a report names.
	Upstream string `yaml:"upstream"`
}

// SetKey begins a webhook. It is for decoding.
func (w *Webhook) SetKey(written string) { *w = Webhook{Name: written} }

// Key is its name. It is for decoding.
func (w *Webhook) Key() string { return w.Name }

// checkWebhooks checks the webhooks, and puts the canonical name of an upstream in the place of an alias.
func (c *Config) checkWebhooks(found *mistakes) {
	upstreams := c.wholeUpstreams()
	for i := range c.Webhooks {
		w := &c.Webhooks[i]
		path := strictyaml.Join("webhooks", w.Name)
		if !namePattern.MatchString(w.Name) {
			found.add(path, quoted(w.Name)+" is not a name", "write letters, digits, -, . or _, at most 63: it is the end of a URL")
		}
		if w.Type == "" {
			found.add(path+".type", "is missing", "say which registry calls, as in type: dockerhub", path)
		}
		if w.SecretFile == "" {
			found.add(path+".secretFile", "is missing: everyone could call the webhook",
				"name a file with a long random secret, as openssl rand -hex 32 prints", path)
		}
		if w.Upstream == "" {
			continue
		}
		u := upstreams.Named(w.Upstream)
		if u == nil {
			found.add(path+".upstream", quoted(w.Upstream)+" is not among the upstreams", "add it under upstreams, or name one of them")
			continue
		}
		w.Upstream = u.Name
	}
}
