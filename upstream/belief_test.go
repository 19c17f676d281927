package upstream_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
)

// Registries say in many ways when there is more. Each is obeyed until then, and no longer.
func TestTimesOfALimit(t *testing.T) {
	t.Parallel()
	unix := func(t time.Time, unit time.Duration) string { return fmt.Sprint(t.UnixNano() / int64(unit)) }
	for _, tt := range []struct {
		name, header string
		value        func(more time.Time) string
		silent       bool // nothing is left to be believed: it is as a 429 that says nothing
	}{
		{name: "seconds", value: func(time.Time) string { return "5" }},
		{name: "seconds since 1970", value: func(t time.Time) string { return unix(t, time.Second) }},
		{name: "milliseconds since 1970", value: func(t time.Time) string { return unix(t, time.Millisecond) }},
		{name: "microseconds since 1970", value: func(t time.Time) string { return unix(t, time.Microsecond) }},
		{name: "nanoseconds since 1970", value: func(t time.Time) string { return unix(t, time.Nanosecond) }},
		{name: "with a fraction", value: func(t time.Time) string { return unix(t, time.Second) + ".25" }},
		{name: "date", value: func(t time.Time) string { return t.UTC().Format(http.TimeFormat) }},
		{name: "ISO 8601", value: func(t time.Time) string { return t.UTC().Format(time.RFC3339) }},
		{name: "time that is over", value: func(t time.Time) string { return unix(t.Add(-time.Hour), time.Second) }, silent: true},
		{
			name: "date that is over", value: func(t time.Time) string { return t.Add(-time.Hour).UTC().Format(http.TimeFormat) },
			silent: true,
		},
		{name: "reset in seconds", header: "RateLimit-Reset", value: func(time.Time) string { return "5" }},
		{name: "reset as seconds since 1970", header: "RateLimit-Reset", value: func(t time.Time) string { return unix(t, time.Second) }},
		{
			name: "reset as milliseconds since 1970", header: "RateLimit-Reset",
			value: func(t time.Time) string { return unix(t, time.Millisecond) },
		},
		{
			name: "reset as a date", header: "RateLimit-Reset",
			value: func(t time.Time) string { return t.UTC().Format(http.TimeFormat) },
		},
		{name: "one field", header: "RateLimit", value: func(t time.Time) string {
			return "limit=1, remaining=0, reset=" + unix(t, time.Second)
		}},
		{name: "structured", header: "RateLimit", value: func(t time.Time) string { return `"a";r=0;t=` + unix(t, time.Second) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := &metered{limit: map[string]int{"anonymous": 0}, silent: true}
			meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
				header := orElse(tt.header, "Retry-After")
				m.header = http.Header{header: {tt.value(time.Now().Add(5 * time.Second))}}
				if tt.header == "RateLimit-Reset" {
					m.header.Set("RateLimit-Remaining", "0")
				}
				wait := 5 * time.Second
				if tt.silent {
					wait = time.Second
				}
				_, err := gets(t.Context(), r, "app", 1)
				if e := upstreamError(t, err); e.Status != 429 || e.RetryAfter != wait {
					t.Fatalf("%v, after %s, want %s", e, e.RetryAfter, wait)
				}
				m.again()
				m.limit = nil
				m.want(t, "at first", "1 GET app as anonymous")
				if !tt.silent {
					time.Sleep(wait - 1500*time.Millisecond)
					_, err = gets(t.Context(), r, "other", 1)
					if e := upstreamError(t, err); e.RetryAfter != 1500*time.Millisecond {
						t.Errorf("it does not count down: %s", e.RetryAfter)
					}
					m.want(t, "before it is over")
					time.Sleep(1500 * time.Millisecond)
				}
				time.Sleep(wait)
				if came, err := gets(t.Context(), r, "other", 1); came != 1 {
					t.Error(err)
				}
				m.want(t, "when it is over", "1 GET other as anonymous")
			})
		})
	}
}

// However long a registry says that it refuses: after an hour one request looks, then one every five minutes, until one is
// given what it asks for.
func TestLongRefusalsAreLookedAt(t *testing.T) {
	t.Parallel()
	far := func(d time.Duration) string { return fmt.Sprint(int64(d / time.Second)) }
	for name, header := range map[string]http.Header{
		"6 hours": {"Retry-After": {far(6 * time.Hour)}},
		"a year":  {"Retry-After": {far(365 * 24 * time.Hour)}},
		"2036":    {"Retry-After": {"Sun, 23 Nov 2036 11:00:00 GMT"}},
		"a month": {"Ratelimit-Remaining": {"0"}, "Ratelimit-Reset": {far(31 * 24 * time.Hour)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &metered{limit: map[string]int{"anonymous": 0}, silent: true, header: header}
			meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
				ask := func(n int) int {
					came, _ := gets(t.Context(), r, "app", n)
					return came
				}
				ask(1)
				m.requests()
				looks := 0
				for range 59 {
					time.Sleep(time.Minute)
					ask(10)
					looks += len(m.requests())
				}
				if looks != 0 {
					t.Errorf("within an hour it was asked %d times", looks)
				}
				time.Sleep(time.Minute)
				if n := ask(10); n != 0 {
					t.Errorf("%d came", n)
				}
				m.want(t, "after an hour", "1 GET app as anonymous")
				m.limit = nil
				time.Sleep(time.Hour)
				if n := ask(10); n != 10 {
					t.Errorf("%d of 10 came, though it gives all", n)
				}
				m.want(t, "after another hour", "10 GET app as anonymous")
			})
		})
	}
}

// What a registry said of its limit long ago, and does not say any more, does not hold requests back for a month.
func TestBudgetThatIsNotSaidAnyMore(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 1}}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		m.window = ";w=2000000"
		if came, err := gets(t.Context(), r, "app", 2); came != 1 {
			t.Fatal(came, err)
		}
		m.limit = nil
		m.requests()
		time.Sleep(time.Hour)
		if came, err := gets(t.Context(), r, "app", 5); came != 5 {
			t.Error(came, err)
		}
		m.want(t, "after an hour", "5 GET app as anonymous")
	})
}

// Reset makes the next request ask, whatever was said before.
func TestReset(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]http.Header{
		"retry":  {"Retry-After": {"3600"}},
		"budget": {"Ratelimit-Remaining": {"0"}, "Ratelimit-Reset": {"3600"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &metered{limit: map[string]int{"anonymous": 0}, silent: true, header: header}
			meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
				_, _ = gets(t.Context(), r, "app", 2)
				m.want(t, "refused", "1 GET app as anonymous")
				if s := r.State()[0]; s.State != endpoint.StateDegraded {
					t.Errorf("%+v", s)
				}
				m.limit = nil
				time.Sleep(time.Second)
				r.Reset()
				if came, err := gets(t.Context(), r, "app", 3); came != 3 {
					t.Error(came, err)
				}
				if s := r.State()[0]; s.State != endpoint.StateUp {
					t.Errorf("%+v", s)
				}
			})
		})
	}
}

// A request that was under way when another was refused says nothing about what was refused.
func TestAnswerFromBeforeARefusal(t *testing.T) {
	t.Parallel()
	var slow chan struct{}
	m := &metered{limit: map[string]int{"anonymous": 1}, silent: true, header: http.Header{"Retry-After": {"600"}}}
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v2/slow/manifests/"+string(digestOf(manifest)) && r.Header.Get("Authorization") != "" {
			<-slow
		}
		m.serve(w, r)
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		slow = make(chan struct{})
		done := make(chan error)
		go func() {
			_, err := gets(context.Background(), r, "slow", 1)
			done <- err
		}()
		time.Sleep(time.Second)
		if came, err := gets(t.Context(), r, "app", 2); came != 1 {
			t.Fatal(came, err)
		}
		m.mu.Lock()
		m.limit = nil
		m.mu.Unlock()
		close(slow)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		m.requests()
		if came, _ := gets(t.Context(), r, "app", 1); came != 0 {
			t.Error("the refusal ended with an answer to an older request")
		}
		m.want(t, "then")
	})
}
