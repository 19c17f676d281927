package upstream

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

const (
	maxAttempts   = 8           // at each endpoint, without a byte in between
	firstAttempts = 3           // until the first byte: somebody waits for the headers, and may have somewhere else to go
	fairProgress  = 64 << 10    // bytes after which a break is answered at once: a line that breaks now and then
	longestWait   = time.Minute // of a Retry-After in the middle of a blob
	slowTime      = time.Minute // of waiting, in which less than
	slowBytes     = 60 << 10    // is too little: twice in a row it is given up
	extent        = 4 << 20     // the flight asks for parts in multiples of this,
	maxPart       = 16 << 20    // up to this
)

// transfer yields a range of a blob through breaks. Each time it asks the registry anew: signed URLs that it had
// redirected to may have expired, and another one may lead to a host that works. Where that does not help, the next
// endpoint sends the rest.
//
//	begin ──► seek ──► Read ... Read ──► EOF, once the range is complete
//	                     │   ▲
//	                break│   │seek, for the rest: the same endpoint, then the others, then after a pause all again
//	                     └───┘ ──► *Error, after 8 rounds without a byte
type transfer struct {
	ctx    context.Context // of the whole transfer, which is its life
	c      *call
	digest oci.Digest
	pos    int64     // of the next byte to yield
	end    int64     // exclusive; -1: not known yet
	whole  bool      // the range is the whole blob, as far as we know
	part   bool      // it is wanted by itself: a blob from its beginning is of no use
	all    bool      // the whole blob comes, though a part of it was asked for
	size   int64     // of the blob, as an endpoint has said it; -1: none has
	claim  int64     // its size as the caller claims it, mostly from a manifest; 0: not known
	coded  string    // the coding that the answer is said to be in
	hash   hash.Hash // of the bytes of such an answer, which is the whole blob; nil: there is none
	host   atomic.Pointer[string]
	by     time.Time // when the caller gives up; zero: not known
	turn   *turn     // at the endpoint; nil: not yet
	asker  asker     // as which it waits for one
	rested bool      // it was paused for long, and no byte has come since

	cur      io.ReadCloser      // nil: to be opened
	release  context.CancelFunc // of what cur holds
	step     fault.Step         // how cur came
	opened   time.Time
	unsized  bool   // cur came without a length: its end is all that tells one
	early    denial // cur ended cleanly before its time, at endedAt, which nothing has explained yet
	endedAt  int64
	gained   int64            // bytes since the last break
	breaks   int              // in a row, at this endpoint, with little in between
	leave    bool             // the endpoint is too slow, or sends what is wrong
	over     map[*target]bool // those that have said what will not change
	denied   []denial         // sizes that endpoints have said, other than claim
	attempts int              // rounds since the last byte
	waited   time.Duration    // for the upstream, since the rate was last looked at
	brought  int64            // bytes in that time
	crawls   int              // times in a row that there were too few
	wait     *backoff.ExponentialBackOff
	err      error // how it ended
}

func newTransfer(ctx context.Context, c *call, d oci.Digest, w flight.Want) *transfer {
	t := &transfer{
		ctx: ctx, c: c, digest: d, pos: w.From, end: w.To, size: -1, part: w.Part, by: w.By,
		over: make(map[*target]bool),
		wait: &backoff.ExponentialBackOff{
			InitialInterval: 200 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 10 * time.Second,
		},
	}
	t.whole, t.claim = isWhole(w), max(0, w.Size)
	t.asker = asker{client: w.Client, repo: c.name, blob: d, part: w.Part, needs: w.Needs}
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
		if err := t.mayRead(); err != nil {
			t.finish(t.c.wrap(err))
			break
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
		t.turn.reading(true)
		n, err := t.cur.Read(q)
		t.turn.reading(false)
		if t.hash != nil {
			_, _ = t.hash.Write(q[:n])
		}
		t.advance(n)
		slow := t.slow(n, time.Since(begun))
		switch {
		case t.end >= 0 && t.pos == t.end, t.end < 0 && errors.Is(err, io.EOF):
			if err := t.decoded(); err != nil {
				t.finish(t.c.wrap(err))
				return 0, t.err
			}
			t.c.delivered()
			t.finish(io.EOF)
			return n, io.EOF
		case errors.Is(err, io.EOF) && t.decoded() != nil: // a clean end before the content's
			t.finish(t.c.wrap(t.wrong(fault.ContentEncoding, "identity", t.coded)))
			return 0, t.err
		case slow != nil && t.crawls+1 >= max(2, len(t.c.endpoints)):
			t.broke(slow)
			t.finish(t.c.wrap(t.c.decide()))
			return n, t.err
		case slow != nil: // perhaps another host is faster
			t.crawls++
			t.broke(slow)
		case err != nil && t.rested: // not a fault of the endpoint: we did not read
			t.hangUp()
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
		t.crawls = 0
		return nil
	}
	return &fault.ContentError{
		Kind: fault.ContentSlow, Want: fmt.Sprintf("%d bytes in %s", slowBytes, slowTime),
		Got: fmt.Sprintf("%d bytes in %s", brought, waited.Round(time.Second)),
	}
}

func (t *transfer) advance(n int) {
	if n <= 0 {
		return
	}
	if t.gained < fairProgress && t.gained+int64(n) >= fairProgress {
		t.c.delivered()
	}
	t.pos += int64(n)
	t.gained += int64(n)
	t.attempts, t.rested = 0, false
	t.blame() // there was more to come
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
	t.blame()
	t.judge()
	t.close()
	// The next part of the blob is on its way to us.
	t.leaveQueue(errors.Is(err, io.EOF) && !t.part && t.pos < t.size)
}

// close ends the current answer.
func (t *transfer) close() {
	if t.cur != nil {
		t.cur.Close()
		t.release()
		t.cur = nil
	}
}

// broke notes that the current answer ended too early.
func (t *transfer) broke(err error) {
	clean := errors.Is(err, io.EOF) && t.unsized && t.claimed()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // a clean end before the end is none
	}
	t.hash = nil // the rest comes by another answer
	t.step.Name, t.step.Took, t.step.Err = fault.StepBody, time.Since(t.opened), err
	t.c.trace.Add(t.step)
	t.close()
	f := &fault.Failure{Err: err, Step: t.step, Stage: fault.StepBody}
	switch {
	case clean && t.early.ep == t.c.ep && t.endedAt == t.pos: // twice in the same place: it has no more
		f = t.deny(t.pos)
		t.over[t.c.ep], t.leave, t.early = true, true, denial{}
	case clean:
		t.blame()
		t.early, t.endedAt = denial{t.c.ep, f, -1}, t.pos
		t.c.failed(f)
		return
	}
	t.blame()
	t.c.failed(f)
	if e, ok := errors.AsType[*fault.ContentError](f); !ok || !e.Claimed {
		t.c.note(t.ctx, blobs, f)
	}
	if _, bad := errors.AsType[*fault.ContentError](err); bad {
		t.leave = true
	}
}

// begin opens the transfer. It is less patient than after a break: somebody waits.
func (t *transfer) begin() error { return t.seek(nil, true) }

// reopen asks for the rest: the same endpoint first, unless it is that which is bad.
func (t *transfer) reopen() error {
	fair := t.gained >= fairProgress
	if t.gained > 0 {
		t.wait.Reset()
	}
	if fair {
		t.breaks = 0
	}
	t.breaks++
	t.gained = 0
	last := t.c.ep
	if t.others(last) && (t.leave || !fair && t.breaks > 1) {
		t.leave, t.breaks = false, 0
		return t.seek(t.order(last, false), false)
	}
	t.leave = false
	if !fair {
		if t.attempts >= maxAttempts {
			return t.c.decide()
		}
		if !t.pause() {
			return t.gone()
		}
	}
	return t.seek(t.order(last, true), false)
}

// others reports whether somebody else may have the rest.
func (t *transfer) others(ep *target) bool {
	for _, other := range t.c.endpoints {
		if other != ep && !t.over[other] {
			return true
		}
	}
	return false
}

// order is in which order endpoints are asked after one that broke: that one first, or after those that are well.
func (t *transfer) order(broke *target, first bool) []*target {
	plan, ready := t.c.plan(blobs)
	at := slices.Index(plan, broke)
	switch plan = slices.Delete(plan, at, at+1); {
	case first:
		ready = 0
	case at < ready:
		ready--
	default:
		ready = at
	}
	return slices.Insert(plan, ready, broke)
}

// seek asks one endpoint after another until one sends the rest: a round in an order, then, after a pause, as planned.
// It ends when nobody is left who may change his mind, or when there were rounds enough.
func (t *transfer) seek(order []*target, first bool) error {
	most := maxAttempts
	if first {
		most = firstAttempts
	}
	for ; ; order = nil {
		if order == nil {
			order, _ = t.c.plan(blobs)
		}
		order = slices.DeleteFunc(order, func(ep *target) bool { return t.over[ep] })
		if t.attempts >= most || len(order) == 0 {
			return t.c.decide()
		}
		t.attempts++
		for i, ep := range order {
			err := t.openAt(ep, t.c.share(len(order)-1-i))
			switch {
			case err == nil:
				return nil
			case t.ctx.Err() != nil && first:
				return err
			case t.ctx.Err() != nil:
				return t.gone()
			case first && !t.c.goesOn(err):
				return t.c.decide()
			}
			t.over[ep] = !t.worthAnother(err, first)
		}
		if t.attempts >= most || !slices.ContainsFunc(order, func(ep *target) bool { return !t.over[ep] }) {
			return t.c.decide()
		}
		if !t.pause() {
			if first {
				return t.c.decide()
			}
			return t.gone()
		}
	}
}

// pause waits before the endpoints are asked again, for as long as they say. False: the transfer has ended meanwhile.
func (t *transfer) pause() bool {
	least := longestWait
	for _, f := range t.c.failures {
		if !t.over[f.ep] {
			least = min(least, retryAfter(f.err))
		}
	}
	return t.sleep(max(t.wait.NextBackOff(), least))
}

// openAt asks an endpoint for what is left. It may take share to answer, where there are others to ask; 0: as long as
// it takes.
func (t *transfer) openAt(ep *target, share time.Duration) error {
	t.c.at(ep)
	if err := t.enterQueue(); err != nil {
		t.c.failed(err)
		return err
	}
	ep.condition.try(t.c.o.StallTimeout)
	ctx, calm, end := hurried(t.ctx, share)
	err := t.open(ctx, calm)
	err = t.beyond(err)
	if e, ok := errors.AsType[*fault.ContentError](err); !ok || !e.Claimed { // else noted once it is known which is right
		t.c.note(t.ctx, blobs, err)
	}
	if err != nil {
		end()
		t.c.failed(err)
		return err
	}
	t.release = end
	t.turn.reading(false)
	return nil
}

// gone is the error of a transfer whose context has ended.
func (t *transfer) gone() error {
	return &fault.Failure{Err: context.Cause(t.ctx), Step: fault.Step{Name: fault.StepBody, Host: *t.host.Load(), Err: context.Cause(t.ctx)}}
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
	r, _ := fault.RefusalIn(err)
	return r.RetryAfter
}

// worthAnother reports whether asking again may help. Before the first byte only a broken connection or a stumbling
// server is given a second chance: somebody waits.
func (t *transfer) worthAnother(err error, first bool) bool {
	if _, ok := errors.AsType[*fault.QueueError](err); ok {
		return false
	}
	if r, ok := fault.RefusalIn(err); ok {
		f, _ := errors.AsType[*fault.Failure](err)
		elsewhere := f.Step.Name == fault.StepBlobHost
		switch {
		case r.RetryAfter > longestWait, first && r.RetryAfter > time.Second:
			return false
		case r.Status >= 500:
			return r.Status != http.StatusNotImplemented
		case r.Status == http.StatusUnauthorized, r.Status == http.StatusForbidden, r.Status == http.StatusBadRequest:
			return elsewhere || !first && r.Status != http.StatusBadRequest // a signed URL that has expired
		case r.Status == http.StatusNotFound, r.Status == http.StatusGone:
			return elsewhere && !first
		case r.Status == http.StatusRequestTimeout, r.Status == http.StatusTooEarly,
			r.Status == http.StatusTooManyRequests, r.Status == http.StatusRequestedRangeNotSatisfiable:
			return !first
		}
		return false
	}
	if e, ok := errors.AsType[*fault.ContentError](err); ok {
		return !t.part && (!first || e.Kind == fault.ContentRange || e.Kind == fault.ContentStalled)
	}
	return !fault.IsPermanent(err) && (!first || fault.IsBroken(err))
}

// open asks for what is left of the range, and leaves an answer that begins with it in cur.
func (t *transfer) open(ctx context.Context, calm func()) error {
	a := t.c.blobAsk(t.digest)
	a.From = t.pos
	ranged := t.pos > 0 || !t.whole
	if ranged {
		last := ""
		if t.end >= 0 {
			last = fmt.Sprint(t.end - 1)
		}
		a.Header = http.Header{"Range": {fmt.Sprintf("bytes=%d-%s", t.pos, last)}}
	}
	resp, err := t.ask(ctx, a, ranged)
	calm()
	if err != nil {
		return err
	}
	t.step, t.opened = *t.c.trace.Last(), time.Now()
	t.host.Store(&resp.host)
	if err := t.take(resp, ranged); err != nil {
		resp.Body.Close()
		t.cur = nil
		return err
	}
	return nil
}

// ask makes the request: parts of a blob go to where the registry has sent us for another part.
func (t *transfer) ask(ctx context.Context, a endpoint.Request, ranged bool) (*answer, error) {
	if ranged {
		return t.c.part(ctx, a, t.digest, !t.opened.IsZero())
	}
	return t.c.follow(ctx, a)
}

// take checks an answer against what was asked.
func (t *transfer) take(resp *answer, ranged bool) error {
	if coding := header.Coding(resp.Header); coding != "" {
		if err := t.takeCoded(resp); err != nil {
			return err
		}
	}
	if resp.StatusCode == http.StatusPartialContent {
		return t.takePart(resp, ranged)
	}
	total := resp.ContentLength
	if header.IsHTML(resp.Header) && (total < 0 || total != t.end) &&
		resp.Header.Get("Docker-Content-Digest") != t.digest.String() {
		return t.wrong(fault.ContentNotRegistry, "a blob", "a web page")
	}
	if t.part && t.pos > 0 {
		return t.wrong(fault.ContentRange, fmt.Sprintf("bytes %d-%d", t.pos, t.end-1), "the whole blob")
	}
	if err := t.learnSize(total); err != nil {
		return err
	}
	t.all, t.unsized = ranged && t.pos == 0, total < 0
	if t.end < 0 {
		t.end = t.size
	}
	t.cur = resp.Body
	return t.skip(t.pos)
}

// takeCoded judges an answer that is said to be in a coding. Many have right bytes all the same: what has the right size
// passes, and what comes whole has to have the right digest at its end, so that the cause is named.
func (t *transfer) takeCoded(resp *answer) error {
	total := resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		r, _ := header.ParseRange(resp.Header.Get("Content-Range"))
		total = r.Size
	}
	want := t.claim
	if want == 0 && t.whole {
		want = t.end
	}
	if want > 0 && total >= 0 && total != want {
		return t.denyCoded(total, fault.OneLine(resp.Header.Get("Content-Encoding"), 80))
	}
	if resp.StatusCode == http.StatusOK && t.pos == 0 {
		t.coded, t.hash = fault.OneLine(resp.Header.Get("Content-Encoding"), 80), t.digest.Algorithm().Hash()
	}
	return nil
}

// decoded reports, at the end of a blob that was said to be in a coding, that its bytes are in it. Nil: they are right.
func (t *transfer) decoded() error {
	if t.hash == nil || digest.NewDigest(t.digest.Algorithm(), t.hash) == t.digest {
		return nil
	}
	return t.wrong(fault.ContentEncoding, "identity", t.coded)
}

func (t *transfer) takePart(resp *answer, ranged bool) error {
	got := resp.Header.Get("Content-Range")
	r, ok := header.ParseRange(got)
	length := resp.ContentLength
	if ok && t.claim > 0 && r.From == t.pos && r.End == r.Size && r.Size < t.end {
		return t.learnSize(r.Size) // all that there is: it is the size that is another
	}
	right := ok && r.From == t.pos && (t.end >= 0 && r.End == t.end || t.end < 0 && r.Size == r.End) &&
		(length < 0 || length == r.End-r.From)
	switch {
	case !ranged:
		return t.wrong(fault.ContentRange, "the whole blob", "a part of it")
	case guard.ContentRange && !right:
		last := ""
		if t.end >= 0 {
			last = fmt.Sprint(t.end - 1)
		}
		return t.wrong(fault.ContentRange, fmt.Sprintf("bytes %d-%s", t.pos, last),
			fmt.Sprintf("%q with %d bytes", fault.OneLine(got, 80), length))
	}
	if err := t.learnSize(r.Size); err != nil {
		return err
	}
	t.end, t.unsized = r.End, false
	t.cur = resp.Body
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
	step.Name, step.Took, step.Err = fault.StepBody, time.Since(t.opened), fmt.Errorf("after %d bytes of %d to skip: %w", m, n,
		err)
	t.c.trace.Add(step)
	return &fault.Failure{Err: step.Err, Step: step}
}

// wrong is an answer that is not what was asked for.
func (t *transfer) wrong(kind fault.ContentKind, want, got string) *fault.Failure {
	return t.wrongBy(&fault.ContentError{Kind: kind, Want: want, Got: got})
}

func (t *transfer) wrongBy(err *fault.ContentError) *fault.Failure {
	step := t.step
	step.Err = err
	if last := t.c.trace.Last(); last != nil {
		last.Err = err
	}
	return &fault.Failure{Err: err, Step: step}
}
