package transfer

import (
	"fmt"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	rateTime  = time.Minute // of waiting for bytes, in which
	leastRate = 60 << 10    // bytes must come
)

// rate watches how fast bytes come, by the time that is spent waiting for the upstream alone. A connection that brings a
// byte now and then never stalls, and never finishes.
type rate struct {
	waited time.Duration // since the rate was last judged
	bytes  int64         // that came in that time
	slow   int           // times in a row that there were too few
}

// add records bytes that came, and the wait for them. Its error says that the rate is too low.
func (r *rate) add(n int, waited time.Duration) error {
	r.waited += waited
	r.bytes += int64(n)
	if r.waited < rateTime {
		return nil
	}
	came, in := r.bytes, r.waited
	r.bytes, r.waited = 0, 0
	if came >= leastRate {
		r.slow = 0
		return nil
	}
	r.slow++
	return &fault.ContentError{
		Kind: fault.ContentSlow, Want: fmt.Sprintf("%d bytes in %s", leastRate, rateTime),
		Got: fmt.Sprintf("%d bytes in %s", came, in.Round(time.Second)),
	}
}
