// Package standin lets tests stand in for the web services of clouds: a handler answers as the service would, over
// loopback, or without a network where a test has a clock of its own. It is for tests alone.
package standin

import (
	"context"
	"net/http"
	"net/http/httptest"
	"sync"
	"time"
)

// Service is a stand-in. The zero value with a Handler is ready.
type Service struct {
	Handler http.Handler
	Skew    time.Duration // of its clock against ours
	Fault   Answer        // may answer in place of the handler; nil: none does

	mu    sync.Mutex
	asked []string
}

// ServeHTTP notes a request and answers it.
func (s *Service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked = append(s.asked, r.Method+" "+r.URL.Path)
	n := len(s.asked)
	s.mu.Unlock()
	w.Header().Set("Date", time.Now().Add(s.Skew).UTC().Format(http.TimeFormat))
	if s.Fault != nil && s.Fault(n, w, r) {
		return
	}
	s.Handler.ServeHTTP(w, r)
}

// Asked returns the requests so far: "METHOD /path".
func (s *Service) Asked() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.asked...)
}

// RoundTrip asks the stand-in without a network, whatever host the request is for.
func (s *Service) RoundTrip(req *http.Request) (*http.Response, error) {
	rec := httptest.NewRecorder()
	done := make(chan struct{})
	in := req.Clone(req.Context())
	in.Host = req.URL.Host
	in.RequestURI = req.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	go func() {
		defer close(done)
		s.ServeHTTP(rec, in)
	}()
	select {
	case <-done:
		return rec.Result(), nil
	case <-req.Context().Done():
		<-done // a handler that hangs looks at the context
		return nil, context.Cause(req.Context())
	}
}

// Hang waits for d, or until the client of a request has left.
func Hang(r *http.Request, d time.Duration) {
	select {
	case <-time.After(d):
	case <-r.Context().Done():
	}
}
