package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
)

// newPoster makes who posts Events; canonical says what a pod means by the name of an image.
func newPoster(k config.Kubernetes, canonical func(oci.Ref) oci.Ref, log *slog.Logger) (*kube.Poster, error) {
	client, err := kube.NewClient(kube.ClientOptions{
		Server:    k.Server,
		TokenFile: cmp.Or(k.TokenFile, kube.DefaultTokenFile),
		CAFile:    cmp.Or(k.CAFile, kube.DefaultCAFile),
	})
	if err != nil {
		return nil, fmt.Errorf("kubernetes.events: %w", err)
	}
	instance, _ := os.Hostname() // of a pod, its name; without one they are all "mirror"
	return kube.NewPoster(kube.PosterOptions{Client: client, Canonical: canonical, Instance: instance, Log: log}), nil
}

// post posts Events where that is configured. Whatever becomes of it, the mirror serves on.
func (a *App) post(ctx context.Context) error {
	if a.poster == nil {
		return nil
	}
	if err := a.poster.Run(ctx); err != nil && ctx.Err() == nil {
		a.log.ErrorContext(ctx, "Events are not posted any more; restart the mirror to have them again", "err", err)
	}
	return nil
}

func (a *App) journalOptions() journal.Options {
	o := journal.Options{Log: a.log, OnPull: a.metrics.Pull, Record: a.record}
	if a.poster != nil {
		o.OnFailure = a.poster.Failed
		a.metrics.ReadEvents(a.poster.Stats)
	}
	return o
}

// settle puts a setup into use.
func (a *App) settle(c *config.Config, setup pull.Setup) {
	a.routes.Store(setup.Routes)
	a.setup.Store(&setup)
	a.puller.Use(setup)
	a.journal.Platforms(c.Platforms)
}

// canonical is the reference under which the mirror knows what a pod calls by another name: by an alias of its
// registry, or below a name of the mirror's own.
func (a *App) canonical(r oci.Ref) oci.Ref {
	routes := a.routes.Load()
	if routes == nil {
		return r
	}
	if t, err := routes.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: r.Host, Name: r.Name}); err == nil {
		r.Repo = t.Repo
	} else if t, err := routes.Resolve(oci.Request{Kind: oci.KindManifest, Name: r.Name}); err == nil && t.Via == route.ViaPrefix {
		r.Repo = t.Repo
	}
	return r
}
