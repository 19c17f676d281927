package upstream

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
	"sync"
	"time"
)

// ask is one HTTP request to be made.
type ask struct {
	step   StepName
	method string
	url    *url.URL
	header http.Header
	body   io.Reader // nil but for refresh tokens
	reach  reach     // of the host
	from   int64     // offset of the first byte asked for, for Observe

	// known says of a host that a redirect leads to that it need not be asked: the error is errKnownHost then. Nil: all are
	// asked.
	known func(host string) bool
}

// request makes an HTTP request with the headers that all of ours have.
func (c *core) request(a ask) (*http.Request, error) {
	// The context comes with the round trip: it ends with the body.
	req, err := http.NewRequestWithContext(context.Background(), a.method, a.url.String(), a.body)
	if err != nil {
		return nil, errors.New("malformed URL") // the error itself would repeat it, query and all
	}
	maps.Copy(req.Header, a.header)
	req.Header.Set("User-Agent", c.o.UserAgent)
	req.Header.Set("Accept-Encoding", "identity")
	if c.o.Via != "" && a.step != StepToken && a.step != StepBlobHost {
		req.Header.Set("Via", "1.1 "+c.o.Via)
	}
	return req, nil
}

// roundTrip makes one exchange and says what happened on the way. The body of an answer is guarded against stalls,
// and must be closed.
func (c *call) roundTrip(ctx context.Context, rt http.RoundTripper, req *http.Request, a ask) (
	*http.Response, []Step, error,
) {
	at, _ := originOf(a.url)
	proxy, _ := c.ep.proxy(a.url) // its error is the transport's to report
	if proxy != nil {
		a.reach = reachAny // what is dialled is the proxy
	}
	ctx, cancel := context.WithCancelCause(ctx)
	t := new(tracer)
	m := &meter{
		ctx: ctx, cancel: cancel, stall: c.o.StallTimeout, begun: time.Now(), observe: c.o.Observe,
		received: c.o.Received,
		x: Exchange{
			Upstream: c.o.Name, Kind: a.step, Endpoint: c.ep.name, Method: a.method, Host: at.String(), From: a.from,
		},
	}
	hooks := t.hooks()
	if done := hooks.TLSHandshakeDone; c.look != nil {
		hooks.TLSHandshakeDone = func(s tls.ConnectionState, err error) {
			c.look(at.String(), s)
			done(s, err)
		}
	}
	resp, err := rt.RoundTrip(req.WithContext(httptrace.WithClientTrace(withReach(ctx, a.reach), hooks)))
	if errors.Is(err, io.EOF) {
		// Nobody may take a connection that was closed without an answer for the end of a body.
		err = fmt.Errorf("no answer: %w", io.ErrUnexpectedEOF)
	}
	if _, ours := errors.AsType[*patienceError](context.Cause(ctx)); ours && err != nil {
		err = context.Cause(ctx)
	}
	last := Step{Name: a.step, Host: at.String(), Took: time.Since(m.begun), Err: err}
	if err != nil {
		m.fail(err)
		return nil, t.steps(last, proxy), err
	}
	last.Status, m.x.Status = resp.StatusCode, resp.StatusCode
	m.body, resp.Body = resp.Body, m
	return resp, t.steps(last, proxy), nil
}

// meter is a body that counts, that gives up where no byte comes for too long, and that ends the exchange.
type meter struct {
	ctx      context.Context // of the exchange; it is the body's life
	cancel   context.CancelCauseFunc
	body     io.ReadCloser
	stall    time.Duration
	timer    *time.Timer
	grace    time.Duration // of a document: see paced; 0: it has no least pace
	waited   time.Duration // in Read
	begun    time.Time
	observe  func(Exchange)
	received func(int)
	once     sync.Once
	x        Exchange
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
		m.received(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(m.ctx); cause != nil {
			err = cause
		}
		if errors.Is(err, errPace) {
			err = &paceError{got: m.x.Bytes, took: m.waited}
		}
		m.x.Err = err
	}
	return n, err
}

// giveUp ends a read that waits for too long.
func (m *meter) giveUp() {
	if m.grace > 0 {
		m.cancel(errPace)
		return
	}
	m.cancel(&ContentError{Kind: ContentStalled, Want: fmt.Sprintf("a byte within %s", m.stall), Got: "none"})
}

// Close ends the exchange. Not while Read waits: to end that, cancel the context.
func (m *meter) Close() error {
	m.cancel(context.Canceled)
	err := m.body.Close()
	m.once.Do(m.end)
	return err
}

func (m *meter) fail(err error) {
	m.x.Err = err
	m.cancel(err)
	m.once.Do(m.end)
}

func (m *meter) end() {
	m.x.Took = time.Since(m.begun)
	if m.observe != nil {
		m.observe(m.x)
	}
}
