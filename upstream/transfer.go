package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

const (
	maxAttempts   = 8           // without a byte in between
	firstAttempts = 3           // until the first byte: somebody waits for the headers, and may have somewhere else to go
	fairProgress  = 64 << 10    // bytes after which a break is answered at once: a line that breaks now and then
	longestWait   = time.Minute // of a Retry-After in the middle of a blob
	slowTime      = time.Minute // of waiting, in which less than
	slowBytes     = 60 << 10    // is too little: twice in a row it is given up
	extent        = 4 << 20     // the flight asks for parts in multiples of this,
	maxPart       = 16 << 20    // up to this
)

// transfer yields a range of a blob through breaks. Each time it asks the registry anew: signed URLs that it had
// redirected to may have expired, and another one may lead to a host that works.
//
//	begin ──► open ──► Read ... Read ──► EOF, once the range is complete
//	                     │   ▲
//	                break│   │open, after a pause, for the rest
//	                     └───┘ ──► *Error, after 8 attempts without a byte
type transfer struct {
	ctx    context.Context // of the whole transfer, which is its life
	c      *call
	digest oci.Digest
	pos    int64 // of the next byte to yield
	end    int64 // exclusive; -1: not known yet
	whole  bool  // the range is the whole blob, as far as we know
	part   bool  // it is wanted by itself: a blob from its beginning is of no use
	all    bool  // the whole blob comes, though a part of it was asked for
	size   int64 // of the blob; -1: not known
	host   atomic.Pointer[string]

	cur      io.ReadCloser // nil: to be opened
	step     Step          // how cur came
	opened   time.Time
	gained   int64         // bytes since the last break
	attempts int           // since the last byte
	waited   time.Duration // for the upstream, since the rate was last looked at
	brought  int64         // bytes in that time
	crawled  bool          // the last time there were too few
	wait     *backoff.ExponentialBackOff
	err      error // how it ended
}

func newTransfer(ctx context.Context, c *call, d oci.Digest, w flight.Want) *transfer {
	t := &transfer{
		ctx: ctx, c: c, digest: d, pos: w.From, end: w.To, size: -1, part: w.Part,
		wait: &backoff.ExponentialBackOff{
			InitialInterval: 200 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
		},
	}
	t.whole = isWhole(w)
	t.host.Store(new(string))
	t.wait.Reset()
	return t
}

// isWhole reports whether a range is the whole blob, which is not asked for as a range: not every registry knows them.
// Where we are not told the size, we go by what the flight's parts of a blob look like.
func isWhole(w flight.Want) bool {
	switch {
	case w.From != 0:
		return false
	case w.To <= 0:
		return true
	case w.Size > 0:
		return w.To == w.Size
	}
	return w.To%extent != 0 || w.To > maxPart
}

// begin opens the transfer. It is less patient than a break in the middle.
func (t *transfer) begin() error {
	for {
		t.attempts++
		err := t.open()
		if err == nil || t.attempts >= firstAttempts || t.ctx.Err() != nil || !t.worthAnother(err, true) {
			return err
		}
		if !t.sleep(t.wait.NextBackOff()) {
			return err
		}
	}
}

// Read yields the next bytes of the range. Its error, EOF apart, is an *Error with everything that was tried.
func (t *transfer) Read(p []byte) (int, error) {
	for t.err == nil {
		if t.end >= 0 && t.pos >= t.end {
			t.finish(io.EOF)
			break
		}
		if len(p) == 0 {
			return 0, nil
		}
		begun := time.Now()
		if t.cur == nil {
			if err := t.reopen(); err != nil {
				t.finish(t.c.wrap(err))
				break
			}
		}
		q := p
		if t.end >= 0 {
			q = p[:min(int64(len(p)), t.end-t.pos)]
		}
		n, err := t.cur.Read(q)
		t.advance(n)
		slow := t.slow(n, time.Since(begun))
		switch {
		case t.end >= 0 && t.pos == t.end, t.end < 0 && errors.Is(err, io.EOF):
			t.finish(io.EOF)
			return n, io.EOF
		case slow != nil && t.crawled:
			t.broke(slow)
			t.finish(t.c.wrap(&fault{err: slow, step: t.step}))
			return n, t.err
		case slow != nil: // perhaps another host is faster
			t.crawled = true
			t.broke(slow)
		case err != nil:
			t.broke(err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, t.err
}

// slow judges the rate now and then, by the time that was spent waiting for the upstream alone. A line that brings a
// byte now and then is never stalled, and never done.
func (t *transfer) slow(n int, d time.Duration) error {
	t.waited += d
	t.brought += int64(n)
	if t.waited < slowTime {
		return nil
	}
	brought, waited := t.brought, t.waited
	t.brought, t.waited = 0, 0
	if brought >= slowBytes {
		t.crawled = false
		return nil
	}
	return &ContentError{
		Kind: ContentSlow, Want: fmt.Sprintf("%d bytes in %s", slowBytes, slowTime),
		Got: fmt.Sprintf("%d bytes in %s", brought, waited.Round(time.Second)),
	}
}

func (t *transfer) advance(n int) {
	if n > 0 {
		t.pos += int64(n)
		t.gained += int64(n)
		t.attempts = 0
	}
}

// Close ends the transfer.
func (t *transfer) Close() error {
	t.finish(errClosed)
	return nil
}

var errClosed = errors.New("read after Close")

func (t *transfer) finish(err error) {
	if t.err == nil {
		t.err = err
	}
	if t.cur != nil {
		t.cur.Close()
		t.cur = nil
	}
}

// broke notes that the current answer ended too early.
func (t *transfer) broke(err error) {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // a clean end before the end is none
	}
	t.step.Name, t.step.Took, t.step.Err = StepBody, time.Since(t.opened), err
	t.c.trace(t.step)
	t.cur.Close()
	t.cur = nil
}

// reopen asks for the rest, until it comes or there is no use in going on.
func (t *transfer) reopen() error {
	last := error(&fault{err: t.step.Err, step: t.step})
	if t.gained > 0 {
		t.wait.Reset()
	}
	pause := t.gained < fairProgress
	t.gained = 0
	for {
		if t.ctx.Err() != nil {
			return t.gone()
		}
		if t.attempts >= maxAttempts {
			return last
		}
		if pause && !t.sleep(max(t.wait.NextBackOff(), min(retryAfter(last), longestWait))) {
			return t.gone()
		}
		pause = true
		t.attempts++
		err := t.open()
		if err == nil {
			return nil
		}
		if t.ctx.Err() != nil {
			return t.gone()
		}
		if last = err; !t.worthAnother(err, false) {
			return err
		}
	}
}

// gone is the error of a transfer whose context has ended.
func (t *transfer) gone() error {
	return &fault{err: context.Cause(t.ctx), step: Step{Name: StepBody, Host: *t.host.Load(), Err: context.Cause(t.ctx)}}
}

func (t *transfer) sleep(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-t.ctx.Done():
		return false
	}
}

func retryAfter(err error) time.Duration {
	r, _ := refusalIn(err)
	return r.retryAfter
}

// worthAnother reports whether asking again may help. Before the first byte only a broken connection or a stumbling
// server is given a second chance: somebody waits.
func (t *transfer) worthAnother(err error, first bool) bool {
	if r, ok := refusalIn(err); ok {
		f, _ := errors.AsType[*fault](err)
		elsewhere := f.step.Name == StepBlobHost
		switch {
		case r.retryAfter > longestWait, first && r.retryAfter > time.Second:
			return false
		case r.status >= 500:
			return r.status != http.StatusNotImplemented
		case r.status == http.StatusUnauthorized, r.status == http.StatusForbidden, r.status == http.StatusBadRequest:
			return elsewhere || !first && r.status != http.StatusBadRequest // a signed URL that has expired
		case r.status == http.StatusNotFound, r.status == http.StatusGone:
			return elsewhere && !first
		case r.status == http.StatusRequestTimeout, r.status == http.StatusTooEarly,
			r.status == http.StatusTooManyRequests, r.status == http.StatusRequestedRangeNotSatisfiable:
			return !first
		}
		return false
	}
	if e, ok := errors.AsType[*ContentError](err); ok {
		return !t.part && (!first || e.Kind == ContentRange || e.Kind == ContentStalled)
	}
	return !final(err) && (!first || broke(err))
}

// final reports whether an error stays, however often one asks.
func final(err error) bool {
	if _, ok := errors.AsType[*RealmError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*RedirectError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*AddressError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*ProxyError](err); ok {
		return true
	}
	_, ok := errors.AsType[*tls.CertificateVerificationError](err)
	return ok
}

// open asks for what is left of the range, and leaves an answer that begins with it in cur.
func (t *transfer) open() error {
	a := t.c.blobAsk(t.digest)
	a.from = t.pos
	ranged := t.pos > 0 || !t.whole
	if ranged {
		last := ""
		if t.end >= 0 {
			last = fmt.Sprint(t.end - 1)
		}
		a.header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%s", t.pos, last)}}
	}
	resp, err := t.ask(a, ranged)
	if err != nil {
		return err
	}
	t.step, t.opened = t.c.steps[len(t.c.steps)-1], time.Now()
	t.host.Store(&resp.host)
	if err := t.take(resp, ranged); err != nil {
		resp.Body.Close()
		t.cur = nil
		return err
	}
	return nil
}

// ask makes the request: parts of a blob go to where the registry has sent us for another part.
func (t *transfer) ask(a ask, ranged bool) (*answer, error) {
	if ranged {
		return t.c.part(t.ctx, a, t.digest, !t.opened.IsZero())
	}
	return t.c.follow(t.ctx, a)
}

// take checks an answer against what was asked.
func (t *transfer) take(resp *answer, ranged bool) error {
	if !isIdentity(resp.Header) {
		return t.wrong(ContentEncoding, "identity", oneLine(resp.Header.Get("Content-Encoding"), 80))
	}
	if resp.StatusCode == http.StatusPartialContent {
		return t.takePart(resp, ranged)
	}
	total := resp.ContentLength
	if isHTML(resp.Header) && (total < 0 || total != t.end) &&
		resp.Header.Get("Docker-Content-Digest") != t.digest.String() {
		return t.wrong(ContentNotRegistry, "a blob", "a web page")
	}
	if t.part && t.pos > 0 {
		return t.wrong(ContentRange, fmt.Sprintf("bytes %d-%d", t.pos, t.end-1), "the whole blob")
	}
	if err := t.learnSize(total); err != nil {
		return err
	}
	t.all = ranged && t.pos == 0
	if t.end < 0 {
		t.end = t.size
	}
	t.cur = resp.Body
	return t.skip(t.pos)
}

func (t *transfer) takePart(resp *answer, ranged bool) error {
	got := resp.Header.Get("Content-Range")
	r, ok := parseContentRange(got)
	length := resp.ContentLength
	right := ok && r.from == t.pos && (t.end >= 0 && r.end == t.end || t.end < 0 && r.size == r.end) &&
		(length < 0 || length == r.end-r.from)
	switch {
	case !ranged:
		return t.wrong(ContentRange, "the whole blob", "a part of it")
	case guard.ContentRange && !right:
		last := ""
		if t.end >= 0 {
			last = fmt.Sprint(t.end - 1)
		}
		return t.wrong(ContentRange, fmt.Sprintf("bytes %d-%s", t.pos, last),
			fmt.Sprintf("%q with %d bytes", oneLine(got, 80), length))
	}
	if err := t.learnSize(r.size); err != nil {
		return err
	}
	t.end = r.end
	t.cur = resp.Body
	return nil
}

// learnSize takes in the size that an answer says. It may not change, nor be less than the range needs.
func (t *transfer) learnSize(size int64) error {
	switch {
	case size < 0:
		return nil
	case t.size >= 0 && size != t.size:
		return t.wrong(ContentSize, fmt.Sprintf("%d bytes, as before", t.size), fmt.Sprintf("%d bytes", size))
	case size < t.end, size < t.pos:
		return t.wrong(ContentSize, fmt.Sprintf("at least %d bytes", max(t.end, t.pos)), fmt.Sprintf("%d bytes", size))
	}
	t.size = size
	return nil
}

// skip reads past bytes that we have: a registry that knows no ranges sends the blob from its beginning.
func (t *transfer) skip(n int64) error {
	m, err := io.CopyN(io.Discard, t.cur, n)
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	step := t.step
	step.Name, step.Took, step.Err = StepBody, time.Since(t.opened), fmt.Errorf("after %d bytes of %d to skip: %w", m, n,
		err)
	t.c.trace(step)
	return &fault{err: step.Err, step: step}
}

// wrong is an answer that is not what was asked for.
func (t *transfer) wrong(kind ContentKind, want, got string) error {
	err := &ContentError{Kind: kind, Want: want, Got: got}
	step := t.step
	step.Err = err
	if n := len(t.c.steps); n > 0 {
		t.c.steps[n-1].Err = err
	}
	return &fault{err: err, step: step}
}
