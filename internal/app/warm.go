package app

import (
	"context"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/warm"
)

// newWarm makes the engine of pulls ahead of time, with the jobs of an earlier run.
func (a *App) newWarm(c *config.Config) *warm.Engine {
	w := c.Warm
	return warm.New(warm.Options{
		Puller: a.puller, Cache: a.cache, Table: a.folder.state.Table("jobs"), Log: a.log,
		Limits: warm.Limits{
			MaxJobs: w.MaxJobs, MaxImages: w.MaxImages, MaxBytes: int64(w.MaxBytes), MaxShare: float64(w.MaxShare) / 100,
			Parallel: w.Parallel, Keep: w.Keep,
		},
		Patience: w.Patience, Platforms: a.platforms, Transfers: a.transfers,
	})
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
