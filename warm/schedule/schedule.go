// Package schedule has images pulled ahead of time again and again: at times, or when a tag moves.
//
//	a time has come ─────────────────────────────────────────────────┐
//	a move that was seen, a report of a webhook ──┐                  ├──> a job of the schedule, unless its last one still runs
//	each minute: tags that are old enough ────────┴─> a new digest? ─┘
//
// Promise: a time that passed while the mirror was not running, or its clock stood wrong, is made up for by one job, not by as
// many as were missed.
//
// Guarantees:
//   - A schedule has one job at a time. A time that comes while that runs is left out, and counted.
//   - A time has at most one job: its key is the schedule's name and that time.
//   - A tag that was brought here is brought again only with another digest, also after a restart.
//   - A check of a tag is a HEAD, and only for a tag whose record is older than its policy's maxAge.
//
// What it does not do: jobs are those of warm, the times are those of internal/cron, and tags are checked by pull.
package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/cron"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

// Schedule is one of the configuration.
type Schedule struct {
	Name string // in jobs, logs and metrics; no two have the same
	// Cron has the times, and Text is what they are read from: a schedule with another text is a new one. Nil: when a tag moves.
	Cron *cron.Spec
	Text string
	Zone *time.Location // of the times
	// Images are canonical. Without Cron, those without a digest are watched.
	Images []oci.Ref
	// Platforms, Keep and With are as in warm.Request.
	Platforms []string
	Keep      time.Duration
	With      []string
}

// Jobs are the jobs of a warm.Engine.
type Jobs interface {
	Submit(r warm.Request) (j warm.Job, created bool, err error)
	Job(id string) (warm.Job, error)
	Jobs() []warm.Job
}

// Options for a Scheduler.
type Options struct {
	Jobs Jobs
	// Latest is the digest that a tag means. Its registry is asked if the record is older than the policy says.
	Latest func(ctx context.Context, ref oci.Ref) (oci.Digest, error)
	// Table keeps when each schedule was last run, and which digests it has brought. No other code uses it.
	Table state.Table
	// Observe is called for each job that was begun, or should have been. Nil: nothing is.
	Observe func(name string, r Result)
	Log     *slog.Logger // nil: discard
}

// Result is what came of a time, or of a move.
type Result string

// The results.
const (
	Started Result = "started"
	Skipped Result = "skipped" // the last job of the schedule still runs
	Refused Result = "refused" // by the quotas of jobs, and then it is tried again; or for good
)

// Results are all of them.
var Results = []Result{Started, Skipped, Refused}

const (
	lookEvery = time.Minute // at the clock, which may have been set
	maxMoves  = 100         // that wait to be looked at
)

// tryAgain are the pauses after a job was refused, or an image could not be brought.
var tryAgain = backoff.Backoff{First: time.Minute, Most: time.Hour}

// Scheduler begins the jobs of schedules. Its methods are safe for concurrent use.
type Scheduler struct {
	o     Options
	wake  chan struct{} // holds one: something may be due
	moves chan oci.Ref  // that were seen
	now   func() time.Time

	mu      sync.Mutex // guards what follows
	entries []*entry
}

// entry is a schedule with what is known of it.
type entry struct {
	Schedule
	last    time.Time // when it was last run, or first seen
	due     time.Time // the first time after that; with Cron alone
	refused pause     // after its job was refused

	// Without Cron:
	tags     []*tag
	check    bool   // its tags are to be looked at now
	checking bool   // a goroutine does that, and owns job and what tags have
	job      string // the id of its last one; empty: what came of it is known
}

// tag is one that a schedule watches.
type tag struct {
	ref     oci.Ref
	brought oci.Digest // empty: none was
	wanted  oci.Digest // by the job that runs
	failed  pause      // after it could not be checked or brought
}

// pause follows a failure. It is longer after each one in a row.
type pause struct {
	failures int       // in a row
	until    time.Time // zero: there is none
}

// begin begins a pause after one more failure.
func (p *pause) begin(now time.Time) {
	p.failures++
	p.until = now.Add(tryAgain.After(p.failures))
}

// goesOn reports whether the pause is not over. One that ends later than any pause is from before the clock was set back.
func (p pause) goesOn(now time.Time) bool {
	return now.Before(p.until) && p.until.Sub(now) <= tryAgain.Most
}

// record is an entry of the table.
type record struct {
	Text    string                `json:"text,omitempty"`
	Last    time.Time             `json:"last,omitzero"`
	Brought map[string]oci.Digest `json:"brought,omitempty"` // by image
}

// New makes a Scheduler without schedules.
func New(o Options) *Scheduler {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(string, Result) {}
	}
	return &Scheduler{o: o, wake: make(chan struct{}, 1), moves: make(chan oci.Ref, maxMoves), now: func() time.Time { return time.Now().Round(0) }}
}

// Use replaces the schedules. What is known of one with the same name and the same times stays.
func (s *Scheduler) Use(list []Schedule) {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.entries
	s.entries = nil
	for _, x := range list {
		e := &entry{Schedule: x, check: true}
		r := s.load(x)
		if i := slices.IndexFunc(had, func(old *entry) bool { return old.Name == x.Name && old.Text == x.Text }); i >= 0 && x.Cron != nil {
			e.refused = had[i].refused
		}
		e.ran(r.Last)
		if x.Cron == nil {
			for _, ref := range x.Images {
				if ref.Digest == "" {
					e.tags = append(e.tags, &tag{ref: ref, brought: r.Brought[ref.String()]})
				}
			}
		}
		s.entries = append(s.entries, e)
	}
	s.prune()
	s.signal()
}

// Upcoming is a schedule and when it begins its next job; zero: when a tag moves.
type Upcoming struct {
	Name string
	Next time.Time
}

// Upcoming returns all schedules, in their order.
func (s *Scheduler) Upcoming() (list []Upcoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, e := range s.entries {
		x := Upcoming{Name: e.Name, Next: e.due}
		if e.Cron != nil && e.refused.goesOn(now) {
			x.Next = e.refused.until
		}
		list = append(list, x)
	}
	return list
}

// load reads the record of a schedule. One that is seen for the first time has been run now.
func (s *Scheduler) load(x Schedule) (r record) {
	it, err := s.o.Table.Get(x.Name)
	if err == nil {
		err = json.Unmarshal(it.Value, &r)
	}
	if err == nil && r.Text == x.Text {
		return r
	}
	if err != nil && !errors.Is(err, state.ErrNotFound) {
		s.o.Log.Warn("cannot read when a schedule was last run; its next time counts", "name", x.Name, "error", err)
	}
	r = record{Text: x.Text, Last: s.now()}
	s.write(x.Name, r)
	return r
}

// save writes the record of an entry.
func (s *Scheduler) save(e *entry) {
	r := record{Text: e.Text, Last: e.last}
	for _, t := range e.tags {
		if t.brought != "" {
			if r.Brought == nil {
				r.Brought = make(map[string]oci.Digest)
			}
			r.Brought[t.ref.String()] = t.brought
		}
	}
	s.write(e.Name, r)
}

func (s *Scheduler) write(name string, r record) {
	b, err := json.Marshal(r)
	if err == nil {
		err = s.o.Table.Write([]state.Item{{Key: name, Value: b}})
	}
	if err != nil {
		s.o.Log.Warn("cannot write when a schedule was last run; after a restart it may be run once more", "name", name, "error", err)
	}
}

// prune removes the records of schedules that are not there any more. The lock is held.
func (s *Scheduler) prune() {
	var gone []state.Item
	for it, err := range s.o.Table.Scan("") {
		if err != nil {
			return // the next Use does it
		}
		if !slices.ContainsFunc(s.entries, func(e *entry) bool { return e.Name == it.Key }) {
			gone = append(gone, state.Item{Key: it.Key})
		}
	}
	if len(gone) > 0 {
		_ = s.o.Table.Write(gone) // the next Use tries again
	}
}

func (s *Scheduler) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Moved says that a tag has moved, or may have; without a tag, all of its repository. It never blocks: of a flood of moves, some are
// noticed with the next look.
func (s *Scheduler) Moved(ref oci.Ref) {
	select {
	case s.moves <- ref:
	default:
	}
}

// mark makes the schedules that watch a tag due.
func (s *Scheduler) mark(ref oci.Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.entries {
		e.check = e.check || slices.ContainsFunc(e.tags, func(t *tag) bool { return t.ref.Repo == ref.Repo && (ref.Tag == "" || t.ref.Tag == ref.Tag) })
	}
}

// Run begins jobs until ctx ends, whose error it returns.
func (s *Scheduler) Run(ctx context.Context) error {
	var checks sync.WaitGroup
	defer checks.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
			s.mu.Lock()
			for _, e := range s.entries {
				e.check = true
			}
			s.mu.Unlock()
		case ref := <-s.moves:
			s.mark(ref)
		case <-s.wake:
		}
		timer.Reset(s.look(ctx, &checks))
	}
}

// look begins what is due, and returns how long it is to the next look.
func (s *Scheduler) look(ctx context.Context, checks *sync.WaitGroup) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now, wait := s.now(), lookEvery
	for _, e := range s.entries {
		if e.Cron != nil {
			wait = min(wait, s.onTime(ctx, e, now))
		} else if e.check && !e.checking && !e.refused.goesOn(now) {
			e.check, e.checking = false, true
			checks.Go(func() { s.onMove(ctx, e) })
		}
	}
	return max(wait, 0)
}

// onTime begins the job of a schedule if its time has come, and returns how long it is to the next one. The lock is held.
func (s *Scheduler) onTime(ctx context.Context, e *entry, now time.Time) time.Duration {
	if e.last.After(now) { // the clock was set back; a time that comes again has the job that it had
		e.ran(now)
	}
	if e.due.After(now) {
		return e.due.Sub(now)
	}
	if e.refused.goesOn(now) {
		return e.refused.until.Sub(now)
	}
	if s.runs(e) {
		s.o.Log.WarnContext(ctx, "a schedule is left out this time: its last job still runs", "name", e.Name)
		s.o.Observe(e.Name, Skipped)
	} else if _, err := s.submit(ctx, e, e.due.UTC().Format(time.RFC3339), e.Images, now); isQuota(err) {
		return e.refused.until.Sub(now)
	}
	e.ran(now)
	s.save(e)
	return e.due.Sub(now)
}

// ran notes when the schedule was run.
func (e *entry) ran(at time.Time) {
	e.last = at
	if e.Cron != nil {
		e.due = e.Cron.Next(at.In(e.Zone))
	}
}

// runs reports whether a job of a schedule is not over: one from before a restart, too.
func (s *Scheduler) runs(e *entry) bool {
	return slices.ContainsFunc(s.o.Jobs.Jobs(), func(j warm.Job) bool {
		return j.By == catalog.BySchedule && j.Name == e.Name && !j.State.Over()
	})
}

// submit begins a job. The lock is held.
func (s *Scheduler) submit(ctx context.Context, e *entry, key string, images []oci.Ref, now time.Time) (id string, err error) {
	r := warm.Request{Platforms: e.Platforms, Keep: e.Keep, With: e.With, By: catalog.BySchedule, Name: e.Name}
	if key != "" {
		r.Key = "schedule " + e.Name + " " + key
	}
	for _, ref := range images {
		r.Images = append(r.Images, ref.String())
	}
	j, created, err := s.o.Jobs.Submit(r)
	if err == nil {
		e.refused = pause{}
		if created {
			s.o.Observe(e.Name, Started)
		}
		return j.ID, nil
	}
	e.refused.begin(now)
	if e.refused.failures == 1 || !isQuota(err) {
		s.o.Log.WarnContext(ctx, "a job of a schedule was refused", "name", e.Name, "error", err, "next_try", e.refused.until.UTC().Format(time.RFC3339))
		s.o.Observe(e.Name, Refused)
	}
	return "", err
}

// isQuota reports whether a job was refused because there are too many: that passes.
func isQuota(err error) bool {
	_, ok := errors.AsType[*warm.QuotaError](err)
	return ok
}
