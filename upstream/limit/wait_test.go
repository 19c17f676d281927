package limit_test

import (
	"testing"
	"time"

	"github.com/registrymirror/mirror/upstream/limit"
)

func TestParseRetryAfter(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for v, want := range map[string]time.Duration{
		"": 0, "60": time.Minute, " 60 ": time.Minute, "0": 0, "-5": 0, "1.5": 1500 * time.Millisecond, "soon": 0,
		`"60"`: time.Minute, "+60": time.Minute, "60s": time.Minute, "1500ms": 1500 * time.Millisecond, "NaN": 0, "Inf": limit.MaxRetryAfter,
		"1795435205": 5 * time.Second, "1795435205.5": 5 * time.Second, "1795435205000": 5 * time.Second,
		"1795435205000000": 5 * time.Second, "1795435205000000000": 5 * time.Second, "1.795435205e9": 5 * time.Second,
		"1795435195": 0, "1795435195000": 0, "1795521600": limit.MaxRetryAfter, "999999999": 0,
		"2026-11-23T12:02:00Z": 2 * time.Minute, "2026-11-23T13:02:00+01:00": 2 * time.Minute, "2026-11-23T11:00:00Z": 0,
		"Mon, 23 Nov 2026 12:02:00 +0000": 2 * time.Minute, "Monday, 23-Nov-26 12:02:00 GMT": 2 * time.Minute,
		"999999999999999999999999": limit.MaxRetryAfter, "86400000": limit.MaxRetryAfter,
		"Mon, 23 Nov 2026 12:02:00 GMT": 2 * time.Minute, "Mon, 23 Nov 2026 11:00:00 GMT": 0,
		"Sun, 23 Nov 2036 11:00:00 GMT": limit.MaxRetryAfter,
	} {
		if got := limit.ParseRetryAfter(v, now); got != want {
			t.Errorf("%q: %s, want %s", v, got, want)
		}
	}
}

func FuzzRetryAfter(f *testing.F) {
	for _, s := range []string{"60", "Mon, 23 Nov 2026 12:02:00 GMT", "-1", "1e9", "99999999999999999999"} {
		f.Add(s)
	}
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	f.Fuzz(func(t *testing.T, s string) {
		if d := limit.ParseRetryAfter(s, now); d < 0 || d > limit.MaxRetryAfter {
			t.Errorf("%q: %s", s, d)
		}
	})
}
