package limit

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// MaxRetryAfter bounds the wait that ParseRetryAfter returns. Docker Hub's window, the longest one known, is six hours.
const MaxRetryAfter = 6 * time.Hour

// ParseRetryAfter reads a Retry-After header (RFC 9110, section 10.2.3). 0: it says no wait, or the wait is over.
func ParseRetryAfter(v string, now time.Time) time.Duration {
	d, _ := parseWait(v, now)
	return min(d, MaxRetryAfter)
}

// parseWait reads how long it is until something: seconds, or a time. Some registries send a time where seconds belong, as
// seconds since 1970 or in a smaller unit; no wait is as long as that number of seconds. False: the text does not say, or
// the time has passed.
func parseWait(v string, now time.Time) (time.Duration, bool) {
	v = strings.Trim(v, " \t\"")
	if n, err := strconv.ParseFloat(v, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return waitFromNumber(n, now)
	}
	if d, err := time.ParseDuration(v); err == nil {
		return d, d >= 0
	}
	t, err := http.ParseTime(v)
	for _, layout := range []string{time.RFC3339, time.RFC1123Z, time.RFC1123} {
		if err != nil {
			t, err = time.Parse(layout, v)
		}
	}
	if err != nil {
		return 0, false
	}
	return waitUntil(t, now)
}

const (
	// unixSeconds is the smallest number that is read as a time since 1970: 1973. As seconds to wait it would be three years.
	unixSeconds = 1e8
	unixMillis  = 1e11 // the smallest one in milliseconds; those in smaller units begin at a thousand times as much each
	unixEnd     = 1e20 // from here on it is not a time in any unit
)

// waitFromNumber is the wait that a number stands for. NaN and negative numbers stand for none.
func waitFromNumber(n float64, now time.Time) (time.Duration, bool) {
	switch {
	case !(n >= 0): // NaN, too
		return 0, false
	case n < unixSeconds:
		return time.Duration(math.Ceil(n*1000)) * time.Millisecond, true
	case n >= unixEnd:
		return math.MaxInt64, true
	}
	for n = math.Floor(n); n >= unixMillis; {
		n /= 1000
	}
	return waitUntil(time.UnixMilli(int64(n*1000)), now)
}

func waitUntil(t, now time.Time) (time.Duration, bool) {
	d := t.Sub(now)
	return max(d, 0), d >= 0
}

// longestSkew is by how much the clock of a registry may differ from ours to be used.
const longestSkew = 24 * time.Hour

// ServerTime is the time by the clock of the server that sent an answer. Times in that answer are compared with it. It is
// now where the answer has no usable Date.
func ServerTime(h http.Header, now time.Time) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil && t.Sub(now).Abs() < longestSkew {
		return t
	}
	return now
}
