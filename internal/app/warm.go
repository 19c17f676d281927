package app

import (
	"context"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/schedule"
)

// newWarm makes the engine of pulls ahead of time, with the jobs of an earlier run.
func (a *App) newWarm(c *config.Config) *warm.Engine {
	w := c.Warm
	o := warm.Options{
		Puller: named{a.puller, a.own}, Cache: a.cache, Table: a.folder.state.Table("jobs"), Log: a.log,
		Limits: warm.Limits{
			MaxJobs: w.MaxJobs, MaxImages: w.MaxImages, MaxBytes: int64(w.MaxBytes), MaxShare: float64(w.MaxShare) / 100,
			Parallel: w.Parallel, Keep: w.Keep,
		},
		Patience: w.Patience, Platforms: a.platforms, Transfers: a.transfers,
	}
	if c.Kubernetes.Feed {
		o.InUse = func() []oci.Ref { return a.cluster.feed.InUse() }
	}
	return warm.New(o)
}

// schedulesOf are the schedules of a configuration that has been checked.
func (a *App) schedulesOf(c *config.Config) (list []schedule.Schedule) {
	for _, s := range c.Warm.Schedules {
		spec, zone := s.Times()
		x := schedule.Schedule{
			Name: s.Name, Cron: spec, Text: s.Cron + " " + zone.String(), Zone: zone, Platforms: s.Platforms, Keep: s.Keep, With: s.With,
		}
		for _, text := range s.Images {
			if ref, err := oci.ParseRef(text); err == nil {
				x.Images = append(x.Images, a.canonical(ref))
			}
		}
		list = append(list, x)
	}
	return list
}

// transfers are the blobs that an upstream sends now, and those that wait for their turn there.
func (a *App) transfers(host string) (running, waiting int) {
	for _, e := range a.registries.EndpointSeries()[a.entry(host)] {
		running, waiting = running+e.Running, waiting+e.Waiting
	}
	return running, waiting
}

// runCache runs the cache, which evicts nothing before jobs keep their content again.
func (a *App) runCache(ctx context.Context) error {
	a.warm.Restore(ctx)
	return a.cache.Run(ctx)
}
