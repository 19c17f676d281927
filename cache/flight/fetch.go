package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"

	"github.com/registrymirror/mirror/internal/point"
)

// fetch is one running transfer from a source into the spool. Its claim stays its own until its goroutine has ended, so
// no byte is written twice, and the bytes that the hasher has read back never change.
type fetch struct {
	f      *Flight
	*claim // the flight's mutex guards it
	src    Source
	ctx    context.Context
	cancel context.CancelFunc
	host   string // of a lane
}

// stop cancels the fetch. The lock is held.
func (ft *fetch) stop() {
	ft.stopped = true
	ft.cancel()
}

// stopAll cancels fetches. The lock is held.
func stopAll(fetches []*fetch) {
	for _, ft := range fetches {
		ft.stop()
	}
}

// demand has the byte at off fetched, for a reader that wants [off, end). The lock is held.
func (f *Flight) demand(r *Reader, off, end int64) {
	if f.spool == nil || f.life.ended || off >= 0 && f.readable(off) > off {
		return
	}
	src := f.relay.sourceFor(r)
	f.parallel.recall(src)
	if c := f.plan.next(off, end); c != nil {
		f.start(c, src)
	}
}

// start runs a fetch. The lock is held.
func (f *Flight) start(c *claim, src Source) *fetch {
	ft := &fetch{f: f, claim: c, src: src}
	ft.ctx, ft.cancel = context.WithCancel(f.ctx)
	if c.kind == laneKind {
		ft.host = f.origins.host
	}
	f.fetches = append(f.fetches, ft)
	f.origins.asked(src)
	f.life.users++
	f.g.wg.Go(ft.run)
	return ft
}

// filling is the running fill, or nil. The lock is held.
func (f *Flight) filling() *fetch {
	c := f.plan.filling()
	for _, ft := range f.fetches {
		if ft.claim == c {
			return ft
		}
	}
	return nil
}

// remove takes the fetch, which has ended, out of the flight.
func (ft *fetch) remove() {
	f := ft.f
	ft.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetches = slices.DeleteFunc(f.fetches, func(x *fetch) bool { return x == ft })
	f.plan.drop(ft.claim)
	f.life.users--
	if ft.kind == laneKind {
		f.g.hosts.give(ft.host)
	}
	f.relay.ended(ft, true) // unless its end is known, it was stopped, or the spool has failed
	f.tell()                // readers that counted on it ask again
	f.release()
	f.settle()
	f.rested()
}

// run is the goroutine of a fetch: one body, and for the fill and its lanes one for each part until the blob is whole.
func (ft *fetch) run() {
	f := ft.f
	defer ft.remove()
	for {
		err := ft.guarded()
		var disk *spoolError
		switch {
		case ft.ctx.Err() != nil:
			return
		case errors.As(err, &disk):
			f.breakSpool(disk.err)
			return
		case ft.kind == probeKind:
			f.mu.Lock()
			f.relay.ended(ft, err != nil)
			f.mu.Unlock()
			return
		case err != nil && ft.kind == laneKind:
			f.mu.Lock()
			f.parallel.failed(ft, err)
			f.mu.Unlock()
			return
		case err != nil:
			f.sourceFailed(ft.src.Key, err)
			return
		case !ft.advance():
			point.Hit("flight/fetched")
			return
		}
	}
}

// advance gives the fetch its next part, and waits for it while other fetches bring all that is missing. It returns false
// where nothing is left for it.
func (ft *fetch) advance() bool {
	f := ft.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch f.plan.advance(ft.claim) {
		case turnFetch:
			return true
		case turnEnd:
			return false
		}
		news := f.data.news()
		f.mu.Unlock()
		select {
		case <-news:
		case <-ft.ctx.Done():
		}
		f.mu.Lock()
		if ft.ctx.Err() != nil {
			return false
		}
	}
}

// spoolError marks an error as the disk's, not the source's.
type spoolError struct{ err error }

func (e *spoolError) Error() string { return e.err.Error() }

// buffers hold one read from a source: large enough that system calls don't show, small enough for the CPU's cache.
var buffers = sync.Pool{New: func() any { b := make([]byte, 256<<10); return &b }}

// guarded is transfer, with a panic of the source made its error: no HTTP server recovers it in this goroutine.
func (ft *fetch) guarded() (err error) {
	f := ft.f
	defer func() {
		if p := recover(); p != nil {
			f.g.o.Log.ErrorContext(ft.ctx, "panic in a source", "digest", f.digest, "error", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			err = fmt.Errorf("fetch %s: panic: %v", f.digest, p)
		}
	}()
	return ft.transfer()
}

// transfer brings the claim into the spool.
func (ft *fetch) transfer() error {
	f := ft.f
	f.mu.Lock()
	w := Want{
		From: ft.pos, To: ft.to, Size: max(0, f.plan.size), Part: ft.kind == laneKind || ft.kind == probeKind,
		Client: ft.src.Client, Needs: f.needs, Joined: f.joined,
		Live: func() bool {
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.idle.isLive(f.readers)
		},
	}
	if c := f.readers.client(); ft.src.Background && c != nil {
		w.Client = c.src.Client
	}
	f.mu.Unlock()
	body, err := ft.src.Fetch(ft.ctx, w)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := ft.opened(body); err != nil {
		return err
	}
	point.Hit("flight/opened")
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		p := (*buf)[:ft.room(len(*buf))]
		if len(p) == 0 {
			return nil
		}
		n, rerr := readFrom(body, p)
		if n > 0 {
			if err := ft.write(p[:n]); err != nil {
				return err
			}
		}
		switch {
		case rerr == nil:
		case errors.Is(rerr, io.EOF):
			return ft.eof(body.Host())
		case ft.room(len(*buf)) > 0: // else the whole claim has arrived
			return fmt.Errorf("read %s from %s: %w", f.digest, body.Host(), rerr)
		}
	}
}

// emptyReads is how many reads of a body in a row may yield neither bytes nor an error.
const emptyReads = 100

// readFrom reads at least one byte of a body, or its error. A body that claims more than len(p) bytes is not believed.
func readFrom(body io.Reader, p []byte) (int, error) {
	for range emptyReads {
		n, err := body.Read(p)
		switch {
		case n < 0 || n > len(p):
			return 0, fmt.Errorf("%d bytes read into %d", n, len(p))
		case n > 0 || err != nil:
			return n, err
		}
	}
	return 0, io.ErrNoProgress
}

// room is how many of n bytes the fetch may still bring.
func (ft *fetch) room(n int) int {
	ft.f.mu.Lock()
	defer ft.f.mu.Unlock()
	return ft.f.plan.room(ft.claim, n)
}

// opened notes what the source has said as it agreed to send the bytes.
func (ft *fetch) opened(body Body) error {
	f := ft.f
	n, host := body.Size(), body.Host() // without the lock, under which no foreign code is called
	toEnd := false
	if x, ok := body.(Extender); ok && ft.kind == fillKind {
		toEnd = x.Extend()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.origins.host = host
	if !f.plan.agree(ft.claim, n, toEnd) {
		f.origins.disputed = true // and it is not known which size is right
		return &MismatchError{Digest: f.digest, Size: max(f.plan.size, f.plan.prefix()), GotSize: n, Host: host}
	}
	if n >= 0 {
		f.hasher.look() // the size may be all that it lacked
	}
	if ft.kind == fillKind {
		f.parallel.begun(ft)
	}
	f.tell()
	return nil
}

// write puts bytes into the spool and publishes them. Bytes behind a cut of the claim are dropped.
func (ft *fetch) write(p []byte) error {
	f := ft.f
	f.mu.Lock()
	pos := ft.pos
	p = p[:f.plan.reserve(ft.claim, len(p))]
	f.mu.Unlock()
	if _, err := f.spool.WriteAt(p, pos); err != nil {
		return &spoolError{fmt.Errorf("write spool of %s at %d: %w", f.digest, pos, err)}
	}
	f.mu.Lock()
	if ft.brought == 0 {
		f.origins.brings(ft.src.Key)
	}
	f.plan.deliver(ft.claim, len(p))
	f.arrived(int64(len(p)))
	f.mu.Unlock()
	point.Hit("flight/wrote")
	return nil
}

// eof returns an error where a body has ended too early.
func (ft *fetch) eof(host string) error {
	f := ft.f
	f.mu.Lock()
	defer f.mu.Unlock()
	known := f.plan.size >= 0
	if !f.plan.end(ft.claim) {
		return fmt.Errorf("read %s from %s: ended at byte %d of %d: %w", f.digest, host, ft.pos, ft.to,
			io.ErrUnexpectedEOF)
	}
	if !known { // this was the end of the blob
		f.hasher.look()
		f.tell()
	}
	return nil
}
