package transfer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

// How an answer is asked for, and checked against what was asked.

// openAt asks an endpoint for the rest. It may take share to answer, where there are others to ask; 0: as long as it takes.
func (t *transfer) openAt(e *endpoint.Endpoint, share time.Duration) error {
	t.ep = e
	t.call.Use(e)
	if err := t.enterQueue(); err != nil {
		t.call.Failed(err)
		return err
	}
	e.Health.TryBlobs(t.pool.o.StallTimeout)
	ctx, answered, end := endpoint.WithPatience(t.ctx, share)
	err := t.open(ctx, answered)
	err = t.beyond(err)
	t.record(err)
	if err != nil {
		end()
		t.call.Failed(err)
		return err
	}
	t.pool.senders.add(blobKey(t.applicant.repo, t.digest), e, t.pos == 0)
	t.cur.release = end
	t.turn.reading(false)
	return nil
}

// open asks for the rest of the range, and makes an answer that begins with it the current one.
func (t *transfer) open(ctx context.Context, answered func()) error {
	ranged := t.pos > 0 || !t.whole
	var h http.Header
	if ranged {
		h = http.Header{"Range": {"bytes=" + t.span()}}
	}
	a, err := t.call.Get(ctx, h, !t.cur.opened.IsZero())
	answered()
	if err != nil {
		return err
	}
	t.cur.step, t.cur.opened = a.Step, time.Now()
	t.host.Store(&a.Host)
	if err := t.accept(a, ranged); err != nil {
		a.Body.Close()
		t.cur.body = nil
		return err
	}
	return nil
}

// span is the rest of the range as a Range header has it: FIRST-LAST.
func (t *transfer) span() string {
	if t.end < 0 {
		return fmt.Sprintf("%d-", t.pos)
	}
	return fmt.Sprintf("%d-%d", t.pos, t.end-1)
}

// accept checks an answer against what was asked.
func (t *transfer) accept(a *endpoint.Answer, ranged bool) error {
	if header.Coding(a.Header) != "" {
		if err := t.acceptCoded(a); err != nil {
			return err
		}
	}
	if a.StatusCode == http.StatusPartialContent {
		return t.acceptPart(a, ranged)
	}
	total := a.ContentLength
	if header.IsHTML(a.Header) && (total < 0 || total != t.end) &&
		a.Header.Get("Docker-Content-Digest") != t.digest.String() {
		return t.wrong(fault.ContentNotRegistry, "a blob", "a web page")
	}
	if t.applicant.extra && t.pos > 0 {
		return t.wrong(fault.ContentRange, "bytes "+t.span(), "the whole blob")
	}
	if err := t.learnSize(total); err != nil {
		return err
	}
	t.all, t.cur.unsized = ranged && t.pos == 0, total < 0
	if t.end < 0 {
		t.end = t.size
	}
	t.cur.body = a.Body
	return t.skip(t.pos)
}

func (t *transfer) acceptPart(a *endpoint.Answer, ranged bool) error {
	got := a.Header.Get("Content-Range")
	r, ok := header.ParseRange(got)
	if ok && t.claim.size > 0 && r.From == t.pos && r.End == r.Size && r.Size < t.end {
		return t.learnSize(r.Size) // to the end of the blob: its size is another
	}
	length := a.ContentLength
	right := ok && r.From == t.pos && (t.end >= 0 && r.End == t.end || t.end < 0 && r.Size == r.End) &&
		(length < 0 || length == r.End-r.From)
	switch {
	case !ranged:
		return t.wrong(fault.ContentRange, "the whole blob", "a part of it")
	case guard.ContentRange && !right:
		return t.wrong(fault.ContentRange, "bytes "+t.span(), fmt.Sprintf("%q with %d bytes", text.Line(got, 80), length))
	}
	if err := t.learnSize(r.Size); err != nil {
		return err
	}
	t.end, t.cur.unsized = r.End, false
	t.cur.body = a.Body
	return nil
}

// coding is the Content-Encoding that an answer claims. Many such answers have the right bytes all the same.
type coding struct {
	name  string
	bytes digest.Verifier // of an answer that is the whole blob; nil: it claims none, or is not the whole blob
}

// wrong reports, at the end of the blob, that its bytes do not have its digest: they are in the coding.
func (c *coding) wrong() bool { return c.bytes != nil && !c.bytes.Verified() }

// acceptCoded checks an answer that claims a coding. An answer of the right size passes, and one that comes whole has to have
// the right digest at its end, so that the error names the cause.
func (t *transfer) acceptCoded(a *endpoint.Answer) error {
	total := a.ContentLength
	if a.StatusCode == http.StatusPartialContent {
		r, _ := header.ParseRange(a.Header.Get("Content-Range"))
		total = r.Size
	}
	want := t.claim.size
	if want == 0 && t.whole {
		want = t.end
	}
	name := text.Line(a.Header.Get("Content-Encoding"), 80)
	if want > 0 && total >= 0 && total != want {
		return t.denyAs(&fault.ContentError{ // the coding explains it better than a wrong claim does
			Kind: fault.ContentEncoding, Want: "identity", Got: name, Claimed: t.claimed(),
		}, total)
	}
	if a.StatusCode == http.StatusOK && t.pos == 0 {
		t.cur.coding = coding{name: name, bytes: t.digest.Verifier()}
	}
	return nil
}

// skip reads past bytes that have come before: a registry without ranges sends the blob from its beginning.
func (t *transfer) skip(n int64) error {
	m, err := io.CopyN(io.Discard, t.cur.body, n)
	if err == nil {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	step := t.cur.step
	step.Name, step.Took = fault.StepBody, time.Since(t.cur.opened)
	step.Err = fmt.Errorf("after %d bytes of %d to skip: %w", m, n, err)
	t.call.Trace().Add(step)
	return &fault.Failure{Err: step.Err, Step: step}
}

// wrong is the failure of an answer that is not what was asked for.
func (t *transfer) wrong(kind fault.ContentKind, want, got string) *fault.Failure {
	return t.wrongContent(&fault.ContentError{Kind: kind, Want: want, Got: got})
}

func (t *transfer) wrongContent(err *fault.ContentError) *fault.Failure {
	step := t.cur.step
	step.Err = err
	if last := t.call.Trace().Last(); last != nil {
		last.Err = err
	}
	return &fault.Failure{Err: err, Step: step}
}
