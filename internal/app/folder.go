package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/recency"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/state"
)

// folder is the data folder, with everything that outlives a restart.
type folder struct {
	store *disk.Store
	index *recency.Index
	state *state.DB
}

// open takes the folder into use. wait is how long it waits for another mirror that has it; 0: the default of disk.
func (f *folder) open(ctx context.Context, c *config.Config, wait time.Duration, log *slog.Logger) (err error) {
	f.store, err = disk.Open(c.Cache.Dir, disk.Options{
		Strict: c.Cache.Durability == "strict", Wait: wait, Stop: ctx.Done(), Log: log,
	})
	if _, locked := errors.AsType[*disk.LockedError](err); err != nil && !locked && ctx.Err() == nil {
		return fmt.Errorf("%w; cache.dir must be a folder that this user can make and write to", err)
	}
	if err != nil {
		return err
	}
	f.index = recency.Open(c.Cache.Dir, log)
	f.state, err = state.Open(filepath.Join(c.Cache.Dir, "state.db"), state.Options{
		Log: log, Expendable: catalog.Tables(), Owner: catalog.Owner, Age: catalog.Age,
	})
	return err
}

// close closes the files that are open, and gives the folder back.
func (f *folder) close() error {
	var errs []error
	if f.state != nil {
		errs = append(errs, f.state.Close())
	}
	if f.index != nil {
		errs = append(errs, f.index.Close())
	}
	if f.store != nil { // last: it holds the lock of the folder
		errs = append(errs, f.store.Close())
	}
	return errors.Join(errs...)
}

// size is the budget of the cache in bytes. It warns of a budget that the disk can't hold.
func (f *folder) size(c *config.Config, log *slog.Logger) (int64, error) {
	disk, err := f.store.Free()
	if err != nil {
		if c.Cache.Size.Percent > 0 {
			return 0, fmt.Errorf("cache.size: %w; write a size, as in 20GiB", err)
		}
		return int64(c.Cache.Size.Bytes), nil // the cache works with a disk whose size is not known
	}
	size := c.Cache.Size.Of(disk.Total)
	if size > disk.Total {
		log.Warn("cache.size is larger than the disk of cache.dir: content is evicted when the disk is full, before that size is reached; "+
			"write less, or a percentage of the disk, as in 80%",
			"cache_dir", c.Cache.Dir, "size", config.Size(size).String(), "max", config.Size(disk.Total).String())
	}
	return size, nil
}
