// Package warmtest has jobs that bring nothing, for the tests of packages that begin jobs.
package warmtest

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/warm"
)

// Jobs are those of a warm.Engine that is not there. Its methods are safe for concurrent use; once it is in use, its fields are
// changed in Set alone.
type Jobs struct {
	Takes    time.Duration              // each job
	Fails    map[string]bool            // images that are not brought
	FailsAll func(images []string) bool // a job none of whose images is brought; nil: there is none
	Refuse   error                      // each request; nil: none

	mu       sync.Mutex // guards all fields
	requests []warm.Request
	begun    []time.Time
	refused  int
}

// Set runs change while no method reads the fields.
func (s *Jobs) Set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// Submit begins a job, unless there is one with that key.
func (s *Jobs) Submit(r warm.Request) (warm.Job, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.Refuse != nil {
		s.refused++
		return warm.Job{}, false, s.Refuse
	}
	if r.Key != "" {
		if i := slices.IndexFunc(s.requests, func(old warm.Request) bool { return old.Key == r.Key }); i >= 0 {
			return s.job(i), false, nil
		}
	}
	s.requests = append(s.requests, r)
	s.begun = append(s.begun, time.Now())
	return s.job(len(s.requests) - 1), true, nil
}

// job is the job of a request. The lock is held.
func (s *Jobs) job(i int) warm.Job {
	r := s.requests[i]
	j := warm.Job{ID: fmt.Sprint(i), Name: r.Name, By: r.By, State: warm.Running}
	if time.Since(s.begun[i]) < s.Takes {
		return j
	}
	j.State = warm.Done
	for _, name := range r.Images {
		m := warm.Image{Image: name, State: warm.Done}
		if s.Fails[name] || s.FailsAll != nil && s.FailsAll(r.Images) {
			m.State, j.State = warm.Failed, warm.Failed
		}
		j.Images = append(j.Images, m)
	}
	return j
}

// Job returns a job, or warm.ErrUnknown.
func (s *Jobs) Job(id string) (warm.Job, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.requests {
		if fmt.Sprint(i) == id {
			return s.job(i), nil
		}
	}
	return warm.Job{}, warm.ErrUnknown
}

// Jobs are all of them.
func (s *Jobs) Jobs() (list []warm.Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.requests {
		list = append(list, s.job(i))
	}
	return list
}

// Requests are those that became jobs.
func (s *Jobs) Requests() []warm.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// Begun are the times at which jobs were begun.
func (s *Jobs) Begun() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.begun)
}

// Running is how many jobs are not over.
func (s *Jobs) Running() (n int) {
	for _, j := range s.Jobs() {
		if !j.State.Over() {
			n++
		}
	}
	return n
}

// Refused is how many requests were refused.
func (s *Jobs) Refused() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}
