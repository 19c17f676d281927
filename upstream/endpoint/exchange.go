package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
)

// Request is one HTTP request to be made.
type Request struct {
	Step   fault.StepName // what it is for
	Method string
	URL    *url.URL
	Header http.Header
	Body   io.Reader // nil but for refresh tokens
	Reach  Reach     // of the host
}

// Answer is a successful answer (200 or 206), after redirects, and where it came from.
type Answer struct {
	*http.Response
	URL   *url.URL
	Host  string // of URL, as Origin.String has it
	Reach Reach  // of that host
	Step  fault.Step
}

// Exchange is one HTTP request and its answer, for metrics.
type Exchange struct {
	Kind   fault.StepName // what the request was for
	Status int            // 0: no answer
	Bytes  int64          // of the body that were read
	Took   time.Duration
}

// NewRequest makes an HTTP request with the headers that all requests have.
func (e *Endpoint) NewRequest(a Request) (*http.Request, error) {
	// The context comes with the round trip: it ends with the body.
	req, err := http.NewRequestWithContext(context.Background(), a.Method, a.URL.String(), a.Body)
	if err != nil {
		return nil, errors.New("malformed URL") // the error itself would repeat it with its query
	}
	maps.Copy(req.Header, a.Header)
	req.Header.Set("User-Agent", e.o.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if e.o.Via != "" && a.Step != fault.StepToken && a.Step != fault.StepBlobHost {
		req.Header.Set("Via", "1.1 "+e.o.Via)
	}
	return req, nil
}

// RoundTrip makes one exchange over a transport of the endpoint, and returns its steps: at least one. The body of the answer
// fails when it stalls, and must be closed.
func (e *Endpoint) RoundTrip(ctx context.Context, rt http.RoundTripper, req *http.Request, a Request) (
	*http.Response, []fault.Step, error,
) {
	at, _ := OriginOf(a.URL)
	proxy, _ := e.Proxy(a.URL) // its error is the transport's to report
	if proxy != nil {
		a.Reach = ReachAny // the address that is dialled is the proxy's
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := new(tracer)
	m := &meter{o: &e.o, ctx: ctx, cancel: cancel, begun: time.Now(), x: Exchange{Kind: a.Step}}
	hooks := t.hooks()
	if done := hooks.TLSHandshakeDone; e.o.Handshake != nil {
		hooks.TLSHandshakeDone = func(s tls.ConnectionState, err error) {
			e.o.Handshake(at.String(), s)
			done(s, err)
		}
	}
	resp, err := rt.RoundTrip(req.WithContext(httptrace.WithClientTrace(context.WithValue(ctx, reachKey{}, a.Reach), hooks)))
	if errors.Is(err, io.EOF) {
		// A connection that was closed without an answer must not be taken for the end of a body.
		err = fmt.Errorf("no answer: %w", io.ErrUnexpectedEOF)
	}
	if err != nil && fault.Is[*fault.PatienceError](context.Cause(ctx)) {
		err = context.Cause(ctx)
	}
	last := fault.Step{Name: a.Step, Host: at.String(), Took: time.Since(m.begun), Err: err}
	if err != nil {
		m.body = http.NoBody
		m.Close()
		return nil, t.steps(last, proxy), err
	}
	last.Status, m.x.Status = resp.StatusCode, resp.StatusCode
	m.body, resp.Body = resp.Body, m
	return resp, t.steps(last, proxy), nil
}

// meter is the body of an answer. It counts bytes, fails when no byte comes for too long, and ends the exchange.
type meter struct {
	o      *Options
	ctx    context.Context // of the exchange, which ends with the body
	cancel context.CancelCauseFunc
	body   io.ReadCloser
	timer  *time.Timer
	grace  time.Duration // of a document: see paced; 0: it has no least pace
	waited time.Duration // in Read
	begun  time.Time
	once   sync.Once
	x      Exchange
}

func (m *meter) Read(p []byte) (int, error) {
	if m.timer == nil {
		m.timer = time.AfterFunc(m.patience(), m.giveUp)
	} else {
		m.timer.Reset(m.patience())
	}
	n, err := m.timed(p)
	m.timer.Stop()
	if n > 0 {
		m.x.Bytes += int64(n)
		m.o.Received(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(m.ctx); cause != nil {
			err = cause
		}
		if errors.Is(err, errPace) {
			err = &paceError{fault.PatienceError{After: m.waited}, m.x.Bytes}
		}
	}
	return n, err
}

// giveUp ends a read that waits for too long.
func (m *meter) giveUp() {
	if m.grace > 0 {
		m.cancel(errPace)
		return
	}
	m.cancel(&fault.ContentError{Kind: fault.ContentStalled, Want: fmt.Sprintf("a byte within %s", m.o.StallTimeout), Got: "none"})
}

// Close ends the exchange. It must not be called while Read waits: cancel the context to end that.
func (m *meter) Close() error {
	m.cancel(context.Canceled)
	err := m.body.Close()
	m.once.Do(func() {
		m.x.Took = time.Since(m.begun)
		if m.o.Observe != nil {
			m.o.Observe(m.x)
		}
	})
	return err
}

// Redirected is the request to where a redirect leads.
func (a Request) Redirected(to *url.URL, r Reach, endpoint Origin) Request {
	a.URL, a.Reach = to, r
	if o, _ := OriginOf(to); o != endpoint && a.Step == fault.StepBlobRegistry {
		a.Step = fault.StepBlobHost
	}
	if a.Method == http.MethodHead && (a.Step == fault.StepBlobRegistry || a.Step == fault.StepBlobHost) {
		// Signed URLs of object stores are good for one method, and that is GET.
		a.Method, a.Header = http.MethodGet, http.Header{"Range": {"bytes=0-0"}}
	}
	return a
}

// IsRedirect reports whether a status is of a redirect to another address.
func IsRedirect(status int) bool {
	return slices.Contains([]int{301, 302, 303, 307, 308}, status)
}

// ReachOf is the reach of redirects by the host of a URL, which answered from addr. A proxy hides that address.
func (e *Endpoint) ReachOf(u *url.URL, addr string) Reach {
	if e.Proxied(u) {
		return reachPublic
	}
	return reachFrom(addr)
}

// Drain reads an unwanted body, as far as that costs less than a new connection, and closes it.
func Drain(body io.ReadCloser) {
	_, _ = io.CopyN(io.Discard, body, fault.MaxErrorBody)
	body.Close()
}
