package standin

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Answer may answer a request in place of the handler: it then returns true. It is given the number of the request, from 1.
type Answer func(n int, w http.ResponseWriter, r *http.Request) bool

// Fault is a service that fails, and the result for the login that uses it.
type Fault struct {
	Name   string
	Answer Answer
	Err    string        // a part of the error; empty: the login works
	Asked  int           // the number of requests
	Within time.Duration // how long it may take; 0: no time
}

// Login is a login of a cloud, for the faults that its services share.
type Login struct {
	Host   string        // the service that fails, as errors name it
	Path   string        // the end of its paths; empty: it gets all requests
	Header http.Header   // of its answers
	Before int           // requests to other services before the first one to it
	After  int           // requests to other services once it has answered well
	Limit  time.Duration // of one request
	Secret string        // known to the service; empty: none

	// Try logs in by way of a service. good: the credential is the right one. shown is text that must not have a secret.
	Try func(t *testing.T, s *Service) (good bool, shown any, err error)
	// Clean fails the test where a text shows a secret.
	Clean func(t *testing.T, what string, v any)
}

// Reply is an answer with a status and a body.
func (l Login) Reply(status int, body string) Answer {
	return l.at(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
		return true
	})
}

// at limits an answer to the requests of the service.
func (l Login) at(a Answer) Answer {
	return func(n int, w http.ResponseWriter, r *http.Request) bool {
		if !strings.HasSuffix(r.URL.Path, l.Path) {
			return false
		}
		maps.Copy(w.Header(), l.Header)
		return a(n, w, r)
	}
}

// faults are those of any service.
func (l Login) faults() []Fault {
	once, all := l.Before+1, l.Before+3
	list := []Fault{
		{Name: "busy once", Asked: l.Before + 2 + l.After, Within: 2 * time.Second, Answer: l.at(func(n int, w http.ResponseWriter, _ *http.Request) bool {
			if n == once {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			return n == once
		})},
		{Name: "busy for good", Asked: all, Within: 4 * time.Second, Err: l.Host + " answered 429: slow", Answer: l.Reply(429, "slow")},
		{Name: "down", Asked: all, Within: 4 * time.Second, Err: "answered 502: a web page", Answer: l.Reply(502, "<html>")},
		{Name: "busy for long", Asked: once, Err: "answered 429", Answer: l.at(func(_ int, w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("Retry-After", "120")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		})},
		{Name: "slow", Asked: once + l.After, Within: l.Limit, Answer: l.at(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
			Hang(r, l.Limit-time.Second)
			return false
		})},
		{
			Name: "hangs", Asked: once, Within: l.Limit, Err: fmt.Sprintf("%s did not answer within %s", l.Host, l.Limit),
			Answer: l.at(func(_ int, _ http.ResponseWriter, r *http.Request) bool {
				Hang(r, time.Hour)
				return true
			}),
		},
		{Name: "redirect", Asked: once, Err: "answered 307", Answer: l.at(func(_ int, w http.ResponseWriter, r *http.Request) bool {
			http.Redirect(w, r, "https://evil.example/", http.StatusTemporaryRedirect)
			return true
		})},
		{Name: "web page", Asked: once, Err: "what is not JSON", Answer: l.Reply(200, "<html>"+l.Secret)},
		{Name: "web page as a refusal", Asked: once, Err: "answered 403: a web page", Answer: l.Reply(403, "<html>"+l.Secret)},
		{Name: "nothing", Asked: once, Err: "what is not JSON", Answer: l.Reply(200, "")},
		{Name: "cut", Asked: once, Err: "what is not JSON", Answer: l.Reply(200, `{"token":"`+l.Secret)},
		{Name: "empty object", Asked: once, Err: "answered without", Answer: l.Reply(200, "{}")},
		{Name: "without end", Asked: once, Err: "more than 1048576 bytes", Answer: l.Reply(200, strings.Repeat(" ", 2<<20))},
	}
	if l.Secret != "" {
		list = append(list, Fault{Name: "refusal that repeats a secret", Asked: once, Err: "answered 400: bad key ***", Answer: l.Reply(400, "bad key "+l.Secret)})
	}
	return list
}

// TestFaults runs the faults of any service, and those of its own, against a login. Each runs in a bubble of its own.
func TestFaults(t *testing.T, l Login, own ...Fault) {
	t.Parallel()
	for _, f := range append(l.faults(), own...) {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				service := &Service{Fault: f.Answer}
				begun := time.Now()
				good, shown, err := l.Try(t, service)
				if d := time.Since(begun); d > f.Within {
					t.Errorf("took %s, want at most %s", d, f.Within)
				}
				l.Clean(t, "error", err)
				l.Clean(t, "log and state", shown)
				if (f.Err == "") != (err == nil) || err != nil && !strings.Contains(err.Error(), f.Err) {
					t.Errorf("error %v, want %q", err, f.Err)
				}
				if good != (err == nil) {
					t.Errorf("the right credential: %v, with %v", good, err)
				}
				if n := len(service.Asked()); n != f.Asked {
					t.Errorf("asked %d times, want %d", n, f.Asked)
				}
			})
		})
	}
}
