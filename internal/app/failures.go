package app

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/journal"
)

// synced is the record of failures as of now: a client that was told of a failure finds it at once.
type synced struct {
	*journal.Journal
	*journal.Record
}

func (s synced) Failures(f journal.Filter) []journal.Failure {
	s.sync()
	return s.Record.Failures(f)
}

func (s synced) Summary(f journal.Filter) journal.Summary {
	s.sync()
	return s.Record.Summary(f)
}

// sync waits for the requests that were observed before, for a moment: a journal that is stopping records no more.
func (s synced) sync() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.Sync(ctx)
}
