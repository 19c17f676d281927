package app

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/internal/kube"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/warm/feed"
)

// cluster is what speaks to the API server; each is nil where the configuration does not ask for it.
type cluster struct {
	client   *kube.Client
	poster   *kube.Poster // of Events
	feed     *feed.Feed   // of images in use
	follower *kube.Follower
}

// useKubernetes makes the client of the API server, and the Poster of Events.
func (a *App) useKubernetes(k config.Kubernetes) error {
	client, err := newKube(k)
	if err != nil && k.Events {
		return fmt.Errorf("kubernetes.events: %w", err)
	}
	if err != nil && k.Coverage {
		return fmt.Errorf("kubernetes.coverage: %w", err)
	}
	if err != nil {
		return fmt.Errorf("kubernetes.feed: %w", err)
	}
	a.cluster.client = client
	if k.Events {
		instance, _ := os.Hostname() // of a pod, its name; without one they are all "mirror"
		a.cluster.poster = kube.NewPoster(kube.PosterOptions{Client: client, Canonical: a.canonical, Instance: instance, Log: a.log})
	}
	return nil
}

// newFeed makes the feed of the images that the cluster uses.
func (a *App) newFeed(c *config.Config) {
	k := c.Kubernetes
	a.cluster.feed = feed.New(feed.Options{Jobs: a.warm, Keep: c.Warm.Keep, Log: a.log, Canonical: func(r oci.Ref) (oci.Ref, bool) {
		own, err := a.puller.Canonical(a.canonical(r))
		return own, err == nil
	}})
	fits := func(name string) func(string) bool {
		return func(pattern string) bool { return glob.Text(pattern, name) }
	}
	a.cluster.follower = kube.NewFollower(kube.FollowerOptions{
		Client: a.cluster.client, Sink: a.cluster.feed, Log: a.log,
		Namespace: func(name string) bool {
			return slices.ContainsFunc(k.FeedNamespaces, fits(name)) && !slices.ContainsFunc(k.FeedExcluded, fits(name))
		},
	})
	a.metrics.ReadFeed(a.cluster.feed.Stats, a.cluster.follower.Stats)
}

// feed keeps the images of the cluster warm where that is configured.
func (a *App) feed(ctx context.Context) error {
	if a.cluster.feed == nil {
		return nil
	}
	var follow sync.WaitGroup
	follow.Go(func() { _ = a.cluster.follower.Run(ctx) }) // it ends with the context alone
	defer follow.Wait()
	return a.cluster.feed.Run(ctx)
}

// post posts Events where that is configured. An error does not stop the mirror.
func (a *App) post(ctx context.Context) error {
	if a.cluster.poster == nil {
		return nil
	}
	if err := a.cluster.poster.Run(ctx); err != nil && ctx.Err() == nil {
		a.log.ErrorContext(ctx, "posting of Kubernetes Events stopped; restart the mirror to start it again", "error", err)
	}
	return nil
}

// canonical is the mirror's own reference of an image that a pod names by an alias of its registry, or below a name of the
// mirror.
func (a *App) canonical(r oci.Ref) oci.Ref {
	setup := a.setup.Load()
	if t, err := setup.Routes.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: r.Host, Name: r.Name}); err == nil {
		r.Repo = t.Repo
		return r
	}
	r, _ = belowMirror(setup.Routes, r)
	return r
}

// belowMirror is the reference of an image that is named below a name of the mirror, as mirror.example:5000/docker.io/acme/app.
// False: the name does not begin with an upstream.
func belowMirror(routes *route.Table, r oci.Ref) (oci.Ref, bool) {
	t, err := routes.Resolve(oci.Request{Kind: oci.KindManifest, Name: r.Name})
	if err != nil || t.Via != route.ViaPrefix {
		return r, false
	}
	r.Repo = t.Repo
	return r, true
}
