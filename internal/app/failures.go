package app

import (
	"context"
	"time"

	"github.com/registrymirror/mirror/journal"
)

// synced is the record of failures as of now: who was told of a failure and asks for it at once finds it.
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

// sync waits for what was observed before, for a moment: a journal that is stopping has nothing more to tell.
func (s synced) sync() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = s.Sync(ctx)
}
