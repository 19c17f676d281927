package warm

import (
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// Stats are the numbers of an Engine. Counters are since the start.
type Stats struct {
	Jobs    map[State]int64          // that are not over, now; and that ended, counted
	Images  map[State]int64          // that ended, counted
	Causes  map[diagnose.Class]int64 // of images that failed, counted
	Waiting map[string]int64         // jobs that wait, by code
	Bytes   int64                    // of blobs that jobs have fetched
	Kept    int64                    // bytes that jobs keep
	Running int64                    // blobs that are fetched now
}

// counts are the counters of an Engine.
type counts struct {
	jobs, images map[State]int64
	causes       map[diagnose.Class]int64
	bytes        int64
}

// stats are the present numbers.
func (q *queue) stats(now time.Time) Stats {
	s := Stats{
		Jobs: map[State]int64{Queued: 0, Running: 0}, Images: make(map[State]int64), Causes: make(map[diagnose.Class]int64),
		Waiting: make(map[string]int64), Bytes: q.counts.bytes,
	}
	for _, class := range diagnose.Classes() {
		s.Causes[class] = q.counts.causes[class]
	}
	for _, state := range []State{Done, Failed, Cancelled} {
		s.Jobs[state], s.Images[state] = q.counts.jobs[state], q.counts.images[state]
	}
	for _, code := range []string{WaitRateWindow, WaitUpstreamDown, WaitDisk, WaitLivePulls, WaitOtherJobs} {
		s.Waiting[code] = 0
	}
	for _, j := range q.order {
		if j.state.Over() {
			continue
		}
		s.Jobs[j.state]++
		if w := q.waiting(j, now); w != nil {
			s.Waiting[w.Code]++
		}
	}
	s.Kept, _ = q.contents.kept()
	for u := range q.units {
		if u.kind == fetching {
			s.Running++
		}
	}
	return s
}
