package transfer

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	flightExtent = 4 << 20  // a flight asks for parts in multiples of this,
	flightPart   = 16 << 20 // up to this
)

// transfer yields a range of a blob through breaks. Each time it asks the registry anew: signed URLs that it had redirected to
// may have expired, and another one may lead to a host that works. Where that does not help, the next endpoint sends the
// rest.
//
//	begin ──► seek ──► Read ... Read ──► EOF, once the range is complete
//	                     │   ▲
//	                break│   │seek, for the rest: the same endpoint, then the others, then after a pause all again
//	                     └───┘ ──► *fault.Error, after 8 rounds without a byte
type transfer struct {
	ctx  context.Context // of the whole transfer, which is its life
	pool *Pool
	call Call
	ep   *endpoint.Endpoint // that is being asked; nil: none yet

	digest oci.Digest
	pos    int64     // of the next byte to yield
	end    int64     // exclusive; negative: not known yet
	whole  bool      // the range is the whole blob, as far as is known
	all    bool      // the whole blob comes, though a part of it was asked for
	size   int64     // of the blob, as an endpoint has said it; -1: none has
	by     time.Time // when the caller gives up; zero: not known
	host   atomic.Pointer[string]

	cur       current
	claim     claim
	retry     retry
	rate      rate
	turn      *turn     // at the endpoint; nil: none yet
	applicant applicant // that waits for turns
	rested    bool      // it was paused for long, and no byte has come since
	err       error     // how it ended
}

// current is the answer that bytes are read from.
type current struct {
	body    io.ReadCloser      // nil: to be opened
	release context.CancelFunc // of what body holds
	step    fault.Step         // how it came
	opened  time.Time          // zero: no answer has been opened yet
	unsized bool               // it came without a length: its end alone tells the size
	coding  coding
}

func newTransfer(ctx context.Context, p *Pool, c Call, repo string, d oci.Digest, w flight.Want) *transfer {
	t := &transfer{
		ctx: ctx, pool: p, call: c, digest: d, pos: w.From, end: w.To, size: -1, by: w.By, whole: isWhole(w),
		claim: claim{size: max(0, w.Size)},
		retry: retry{done: make(map[*endpoint.Endpoint]bool)},
		applicant: applicant{
			client: w.Client, repo: repo, blob: d, extra: w.Part, waiters: w.Needs, live: w.Live, joined: w.Joined,
		},
	}
	t.host.Store(new(string))
	for _, e := range p.endpoints {
		if !c.Asks(e) {
			t.retry.done[e] = true
		}
	}
	return t
}

// isWhole reports whether a range is the whole blob. That is not asked for as a range, which not every registry supports.
// Where the size is not known, a range that does not look like a part of a flight is the whole blob.
func isWhole(w flight.Want) bool {
	switch {
	case w.From != 0:
		return false
	case w.To <= 0:
		return true
	case w.Size > 0:
		return w.To == w.Size
	}
	return w.To%flightExtent != 0 || w.To > flightPart
}

// Read yields the next bytes of the range. Its error, EOF apart, is that of the call with all that was tried.
func (t *transfer) Read(p []byte) (int, error) {
	for t.err == nil {
		switch {
		case t.end >= 0 && t.pos >= t.end:
			t.finish(io.EOF)
			return 0, t.err
		case len(p) == 0:
			return 0, nil
		}
		if err := t.awaitTurn(); err != nil {
			t.fail(err)
			return 0, t.err
		}
		begun := time.Now()
		if t.cur.body == nil {
			if err := t.reopen(); err != nil {
				t.fail(err)
				return 0, t.err
			}
		}
		n, err := t.readSome(p)
		slow := t.rate.add(n, time.Since(begun))
		n = t.proceed(n, err, slow)
		if n > 0 || t.err != nil {
			return n, t.err
		}
	}
	return 0, t.err
}

// readSome reads from the current answer, not beyond the range.
func (t *transfer) readSome(p []byte) (int, error) {
	if t.end >= 0 {
		p = p[:min(int64(len(p)), t.end-t.pos)]
	}
	t.turn.reading(true)
	n, err := t.cur.body.Read(p)
	t.turn.reading(false)
	if v := t.cur.coding.bytes; v != nil {
		_, _ = v.Write(p[:n])
	}
	t.advance(n)
	return n, err
}

// proceed decides what follows a read of n bytes that ended with err. Slow is the error of a rate that is too low; nil: it is
// not. It returns how many of the bytes are good.
func (t *transfer) proceed(n int, err, slow error) int {
	ended := errors.Is(err, io.EOF)
	switch {
	case (ended || t.end >= 0 && t.pos == t.end) && t.cur.coding.wrong(): // at its end, or at a clean one before that
		t.fail(t.wrong(fault.ContentEncoding, "identity", t.cur.coding.name))
		return 0
	case t.end >= 0 && t.pos == t.end, t.end < 0 && ended:
		t.ep.Health.Delivered()
		t.finish(io.EOF)
	case slow != nil && t.rate.slow >= max(2, len(t.pool.endpoints)):
		t.broke(slow)
		t.fail(t.call.Decide())
	case slow != nil: // perhaps another host is faster
		t.broke(slow)
	case err != nil && t.rested: // not a fault of the endpoint: nothing was read
		t.hangUp()
	case err != nil:
		t.broke(err)
	}
	return n
}

func (t *transfer) advance(n int) {
	if n <= 0 {
		return
	}
	if t.retry.advance(int64(n)) {
		t.ep.Health.Delivered()
	}
	t.pos += int64(n)
	t.rested = false
	t.blameEarly() // there was more to come
}

var errClosed = errors.New("read after Close")

// Close ends the transfer.
func (t *transfer) Close() error {
	t.finish(errClosed)
	return nil
}

// fail ends the transfer with an error, as the call reports it.
func (t *transfer) fail(err error) { t.finish(t.call.Wrap(err)) }

func (t *transfer) finish(err error) {
	if t.err == nil {
		t.err = err
	}
	t.blameEarly()
	t.blameDenials()
	t.closeCurrent()
	// The next part of the blob will be asked for in a moment.
	t.leaveQueue(errors.Is(err, io.EOF) && !t.applicant.extra && t.pos < t.size)
}

func (t *transfer) closeCurrent() {
	if t.cur.body != nil {
		t.cur.body.Close()
		t.cur.release()
		t.cur.body = nil
	}
}

// broke records that the current answer ended too early.
func (t *transfer) broke(err error) {
	// An end before the first byte says nothing of the size: the digest of a blob with bytes is not that of an empty one.
	some := t.pos > 0 || oci.VerifyDigest(t.digest, nil)
	clean := errors.Is(err, io.EOF) && t.cur.unsized && some && t.claimed()
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // an end before that of the range
	}
	t.cur.coding.bytes = nil // the rest comes by another answer
	t.cur.step.Name, t.cur.step.Took, t.cur.step.Err = fault.StepBody, time.Since(t.cur.opened), err
	t.call.Trace().Add(t.cur.step)
	t.closeCurrent()
	f := &fault.Failure{Err: err, Step: t.cur.step, Stage: fault.StepBody}
	switch {
	case clean && t.claim.early.ep == t.ep && t.claim.endedAt == t.pos: // twice at the same byte: there are no more
		f = t.deny(t.pos)
		t.retry.done[t.ep], t.retry.leave, t.claim.early = true, true, denial{}
	case clean:
		t.blameEarly()
		t.claim.early, t.claim.endedAt = denial{t.ep, f, -1}, t.pos
		t.call.Failed(f)
		return
	}
	t.blameEarly()
	t.call.Failed(f)
	t.record(f)
	if fault.Is[*fault.ContentError](err) {
		t.retry.leave = true
	}
}

// record takes in how a request to the endpoint ended. An answer that contradicts a claimed size is recorded later, once it
// is known which of the two is right.
func (t *transfer) record(err error) {
	if e, ok := errors.AsType[*fault.ContentError](err); !ok || !e.Claimed {
		t.ep.Health.Record(t.ctx, endpoint.Blobs, err)
	}
}

// gone is the error of a transfer whose context has ended.
func (t *transfer) gone() error {
	cause := context.Cause(t.ctx)
	return &fault.Failure{Err: cause, Step: fault.Step{Name: fault.StepBody, Host: *t.host.Load(), Err: cause}}
}
