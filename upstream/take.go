package upstream

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// How a transfer checks an answer against what was asked.

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
	t.all, t.unsized = ranged && t.pos == 0, total < 0
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
	if ok && t.claim > 0 && r.from == t.pos && r.end == r.size && r.size < t.end {
		return t.learnSize(r.size) // all that there is: it is the size that is another
	}
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
	t.end, t.unsized = r.end, false
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
	step.Name, step.Took, step.Err = StepBody, time.Since(t.opened), fmt.Errorf("after %d bytes of %d to skip: %w", m, n,
		err)
	t.c.trace(step)
	return &fault{err: step.Err, step: step}
}

// wrong is an answer that is not what was asked for.
func (t *transfer) wrong(kind ContentKind, want, got string) *fault {
	return t.wrongBy(&ContentError{Kind: kind, Want: want, Got: got})
}

func (t *transfer) wrongBy(err *ContentError) *fault {
	step := t.step
	step.Err = err
	if n := len(t.c.steps); n > 0 {
		t.c.steps[n-1].Err = err
	}
	return &fault{err: err, step: step}
}
