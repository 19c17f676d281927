package schedule

import "time"

// SetNow replaces the clock, which may jump. Before Run.
func (s *Scheduler) SetNow(now func() time.Time) { s.now = now }
