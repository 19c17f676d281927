package schedule

import (
	"context"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

// onMove looks at the tags of a schedule, and begins a job for those whose digest has not been brought here. The entry is checking.
func (s *Scheduler) onMove(ctx context.Context, e *entry) {
	if s.settled(e) {
		moved := s.moved(ctx, e)
		s.bring(ctx, e, moved)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	e.checking = false
	if e.check { // meanwhile
		s.signal()
	}
}

// settled takes over what has come of the last job. False: it still runs.
func (s *Scheduler) settled(e *entry) bool {
	if e.job == "" {
		return true
	}
	j, err := s.o.Jobs.Job(e.job) // one that is not known any more has brought nothing
	if err == nil && !j.State.Over() {
		return false
	}
	e.job = ""
	done := make(map[string]bool)
	for _, m := range j.Images {
		done[m.Image] = m.State == warm.Done
	}
	for _, t := range e.tags {
		if t.wanted == "" {
			continue
		}
		if done[at(t.ref, t.wanted).String()] {
			t.brought, t.failed = t.wanted, pause{}
		} else {
			t.failed.begin(s.now())
		}
		t.wanted = ""
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.save(e)
	return true
}

// at is a tag's reference with the digest that it means.
func at(ref oci.Ref, d oci.Digest) oci.Ref {
	ref.Digest = d
	return ref
}

// moved are the tags that mean a digest which has not been brought here.
func (s *Scheduler) moved(ctx context.Context, e *entry) (list []*tag) {
	failed, first, reason := 0, oci.Ref{}, error(nil)
	for _, t := range e.tags {
		t.wanted = ""
		if t.failed.goesOn(s.now()) {
			continue
		}
		d, err := s.o.Latest(ctx, t.ref)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			t.failed.begin(s.now())
			if t.failed.failures == 1 {
				if failed++; failed == 1 {
					first, reason = t.ref, err
				}
			}
		case d != t.brought:
			t.wanted = d
			list = append(list, t)
		default:
			t.failed.failures = 0
		}
	}
	if failed > 0 {
		s.o.Log.WarnContext(ctx, "cannot check tags of a schedule; they are tried again", "name", e.Name, "count", failed,
			"ref", first.String(), "error", reason)
	}
	return list
}

// bring begins a job for tags that have moved.
func (s *Scheduler) bring(ctx context.Context, e *entry, tags []*tag) {
	if len(tags) == 0 || s.runs(e) { // one from before a restart
		return
	}
	images := make([]oci.Ref, len(tags))
	for i, t := range tags {
		images[i] = at(t.ref, t.wanted)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if id, err := s.submit(ctx, e, "", images, s.now()); err == nil {
		e.job = id
	}
}
