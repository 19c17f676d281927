package fault

import (
	"cmp"
	"slices"
)

// maxSteps bounds a Trace: a large blob over a bad line is asked for hundreds of times. The first steps show how it began,
// the last ones how it ended.
const maxSteps = 64

// Trace is what one operation has tried so far, the latest step at the end. It is for one goroutine.
type Trace struct {
	Endpoint string // the steps are on behalf of, where they do not say
	Steps    []Step
}

// Add appends steps.
func (t *Trace) Add(steps ...Step) {
	for _, s := range steps {
		s.Endpoint = cmp.Or(s.Endpoint, t.Endpoint)
		t.Steps = append(t.Steps, s)
	}
	if over := len(t.Steps) - maxSteps; over > 0 {
		t.Steps = slices.Delete(t.Steps, maxSteps/4, maxSteps/4+over)
	}
}

// Last is the latest step, which may be changed; nil where there is none.
func (t *Trace) Last() *Step {
	if len(t.Steps) == 0 {
		return nil
	}
	return &t.Steps[len(t.Steps)-1]
}

// Blame notes an error at the latest step, unless that has one.
func (t *Trace) Blame(err error) {
	if last := t.Last(); last != nil && last.Err == nil {
		last.Err = err
	}
}

// Decided moves the step that decided to the end: an anonymous attempt may have failed after it.
func (t *Trace) Decided(s Step) {
	for i, old := range slices.Backward(t.Steps) {
		if old.Name == s.Name && old.Host == s.Host && old.Status == s.Status && old.Took == s.Took {
			t.Steps = slices.Delete(t.Steps, i, i+1)
			break
		}
	}
	s.Endpoint = cmp.Or(s.Endpoint, t.Endpoint)
	t.Steps = append(t.Steps, s)
}
