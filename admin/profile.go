package admin

import (
	"fmt"
	"net/http"
	"net/http/pprof"
	"strconv"
	"time"
)

const (
	// longestProfile is how long a profile or trace may record. A trace of a busy mirror is megabytes a second.
	longestProfile = time.Minute
	// dumpPatience is how long a profile without a duration waits for another one.
	dumpPatience = 10 * time.Second
)

// profiles serves the profiles and traces of the Go runtime: at a time one that records, and one without a duration beside
// it, since each slows the whole process.
func (r router) profiles() {
	recording, dumping := make(chan struct{}, 1), make(chan struct{}, 1)
	bounded := func(long bool, h http.HandlerFunc) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			turns, patience := dumping, dumpPatience
			switch seconds := r.FormValue("seconds"); {
			case seconds != "":
				n, err := strconv.ParseFloat(seconds, 64)
				if err != nil || !(n > 0 && n <= longestProfile.Seconds()) {
					Problem(w, http.StatusBadRequest, fmt.Sprintf("seconds=%s: must be a number of seconds, at most %.0f", seconds,
						longestProfile.Seconds()))
					return
				}
				turns, patience = recording, 0
			case long: // it has a duration of its own
				turns, patience = recording, 0
			}
			if !take(r, turns, patience) {
				refused := &refusal{
					status:     http.StatusServiceUnavailable,
					detail:     "another profile or trace is being recorded; ask again when it has ended, within a minute",
					retryAfter: int(longestProfile.Seconds()),
				}
				refused.write(w)
				return
			}
			defer func() { <-turns }()
			h(w, r)
		})
	}
	for path, h := range map[string]http.Handler{
		"*": bounded(false, pprof.Index), "cmdline": http.HandlerFunc(pprof.Cmdline), "profile": bounded(true, pprof.Profile),
		"symbol": http.HandlerFunc(pprof.Symbol), "trace": bounded(true, pprof.Trace),
	} {
		r.add(http.MethodGet, "/debug/pprof/"+path, OperateAll, h)
	}
}

// take takes a turn, if one is free within patience.
func take(r *http.Request, turns chan<- struct{}, patience time.Duration) bool {
	select {
	case turns <- struct{}{}:
		return true
	default:
	}
	if patience == 0 {
		return false
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case turns <- struct{}{}:
		return true
	case <-timer.C:
	case <-r.Context().Done():
	}
	return false
}
