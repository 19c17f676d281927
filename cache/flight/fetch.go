package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/point"
)

// fetch is one running transfer from a source into the spool. Its region of the blob is its alone until its goroutine
// is over, so no byte is written twice and what the hasher has read back never changes.
type fetch struct {
	src    Source
	sizes  sizes
	ctx    context.Context
	cancel context.CancelFunc

	// Guarded by the flight's mutex.
	fill    bool   // extends the prefix to the end; others may cut its region short behind claimed()
	lane    bool   // goes beside the fill, and may be cut like it; see lanes
	trial   bool   // a part that another source is tried with; see relay
	came    int64  // bytes it has brought
	host    string // of a lane
	pos, to int64  // what is still to come: [pos, to); to is -1 where the size is not known
	writing int64  // end of the write that is under way
	open    bool   // the source has agreed
	stopped bool
}

// claimed is the end of the region that no other fetch may enter. The lock is held.
func (ft *fetch) claimed() int64 {
	if !ft.fill && !ft.lane {
		return ft.to
	}
	end := max(ft.sizes.up(ft.pos+1), ft.writing)
	if ft.to >= 0 {
		end = min(end, ft.to)
	}
	return end
}

// stop cancels the fetch. Its region stays its own until its goroutine is over. The lock is held.
func (ft *fetch) stop() {
	ft.stopped = true
	ft.cancel()
}

// down and up are the nearest borders of the grid.
func (s sizes) down(n int64) int64 { return n - n%s.extent }
func (s sizes) up(n int64) int64   { return s.down(n + s.extent - 1) }

// covered reports whether a running fetch is about to bring the byte at off. The lock is held.
func (f *Flight) covered(off int64) *fetch {
	for _, ft := range f.fetches {
		if off >= ft.pos && off < ft.claimed() {
			return ft
		}
	}
	return nil
}

// firstMissing stands for the first byte that is not there yet, wherever that is: for who waits for the blob's end.
const firstMissing = -1

// demand sees to it that the byte at off comes, for a reader that wants [off, end). The lock is held.
func (f *Flight) demand(r *Reader, off, end int64) {
	if f.spool == nil || f.ended || off >= 0 && f.readable(off) > off {
		return
	}
	if to := f.have.run(max(0, off)); off == firstMissing || to > off {
		off, end = to, 1<<62 // or held back: what it waits for is the rest of the blob, and the digest
	}
	if f.size >= 0 && off >= f.size || f.covered(off) != nil {
		return
	}
	toEnd := f.size < 0 || end >= f.size
	if f.size >= 0 {
		end = min(end, f.size)
	}
	if off == f.prefix() && toEnd && !slices.ContainsFunc(f.fetches, func(ft *fetch) bool { return ft.fill }) {
		f.start(&fetch{src: f.sourceFor(r), fill: true, pos: off, to: f.partEnd(off)})
		return
	}
	s := f.g.sizes
	most := s.most
	if toEnd { // an open-ended range is a client that may hang up after its chunk
		most = s.extent
	}
	from := max(s.down(off), f.have.prev(off))
	to := min(s.up(min(end, from+most)), f.gapEnd(off))
	for _, ft := range f.fetches {
		if e := ft.claimed(); e <= off {
			from = max(from, e)
		}
	}
	for _, ft := range f.fetches {
		if (ft.fill || ft.lane) && ft.pos <= off && (ft.to < 0 || ft.to > from) {
			ft.to = from // it goes on behind this extent
		}
	}
	f.start(&fetch{src: f.sourceFor(r), pos: from, to: to})
}

// gapEnd is where the bytes that nobody has or brings end, seen from off. -1: the size is not known and nothing lies
// ahead. The lock is held.
func (f *Flight) gapEnd(off int64) int64 {
	const far = 1<<63 - 1
	end := int64(far)
	if f.size >= 0 {
		end = f.size
	}
	end = f.have.next(off, end)
	for _, ft := range f.fetches {
		if ft.pos > off {
			end = min(end, ft.pos)
		}
	}
	if end == far {
		return -1
	}
	return end
}

// start runs a fetch. The lock is held.
func (f *Flight) start(ft *fetch) {
	ft.sizes = f.g.sizes
	ft.ctx, ft.cancel = context.WithCancel(f.ctx)
	f.fetches = append(f.fetches, ft)
	if !slices.ContainsFunc(f.sources, func(s Source) bool { return s.Key == ft.src.Key }) {
		f.sources = append(f.sources, ft.src)
	}
	f.users++
	f.g.wg.Go(func() { f.run(ft) })
}

// over takes a fetch that has ended off.
func (f *Flight) over(ft *fetch) {
	ft.cancel()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fetches = slices.DeleteFunc(f.fetches, func(x *fetch) bool { return x == ft })
	f.users--
	if ft.lane {
		f.g.hosts.give(ft.host)
	}
	if tr := f.relay.trial; tr != nil && tr.ft == ft && tr.ended.IsZero() { // stopped, or its spool has failed
		tr.ended, tr.failed = time.Now(), true
	}
	f.tell() // readers that counted on it ask again
	f.release()
	f.settle()
	f.rested()
}

// run is the goroutine of a fetch: one body, and for the fill and its lanes one for each part until the blob is whole.
func (f *Flight) run(ft *fetch) {
	defer f.over(ft)
	for {
		err := f.guarded(ft)
		var disk *spoolError
		switch {
		case ft.ctx.Err() != nil:
			return
		case errors.As(err, &disk):
			f.breakSpool(disk.err)
			return
		case ft.trial:
			f.tried(ft, err)
			return
		case err != nil && ft.lane:
			f.laneFailed(ft, err)
			return
		case err != nil:
			f.sourceFailed(ft.src.Key, err)
			return
		case ft.lane && f.nextLane(ft), ft.fill && f.nextGap(ft):
		default:
			point.Hit("flight/fetched")
			return
		}
	}
}

// nextGap moves the fill to the next gap of the prefix, or beside lanes to the next part, waiting for what others bring.
// False: nothing is left.
func (f *Flight) nextGap(ft *fetch) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		p := f.prefix()
		if ft.stopped || f.size >= 0 && p >= f.size {
			return false
		}
		ft.pos, ft.to, ft.open = p, p, false // claims nothing while it looks
		if f.lanes.want > 1 {
			if from, to, ok := f.nextPart(); ok {
				ft.pos, ft.to = from, to
				return true
			}
		} else if f.covered(p) == nil {
			ft.to = f.partEnd(p)
			return true
		}
		news := f.came.news()
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

// guarded is transfer, with a panic of the source made its error: this is nobody's request, in which one would be caught.
func (f *Flight) guarded(ft *fetch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			f.g.o.Log.ErrorContext(ft.ctx, "panic in a source", "digest", f.digest, "panic", fmt.Sprint(p),
				"stack", string(debug.Stack()))
			err = fmt.Errorf("fetch %s: panic: %v", f.digest, p)
		}
	}()
	return f.transfer(ft)
}

// transfer brings [pos, to) of one fetch into the spool.
func (f *Flight) transfer(ft *fetch) error {
	f.mu.Lock()
	w := Want{From: ft.pos, To: ft.to, Size: max(0, f.size), Part: ft.lane || ft.trial, Client: ft.src.Client, Live: f.live}
	f.mu.Unlock()
	w.Client, w.Needs = ft.src.Client, f.needs
	body, err := ft.src.Fetch(ft.ctx, w)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := f.opened(ft, body); err != nil {
		return err
	}
	point.Hit("flight/opened")
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		p := f.room(ft, *buf)
		if len(p) == 0 {
			return nil
		}
		n, rerr := readFrom(body, p)
		if n > 0 {
			if err := f.write(ft, p[:n]); err != nil {
				return err
			}
		}
		switch {
		case rerr == nil:
		case errors.Is(rerr, io.EOF):
			return f.eof(ft, body.Host())
		case len(f.room(ft, *buf)) > 0: // else all of it has come
			return fmt.Errorf("read %s from %s: %w", f.digest, body.Host(), rerr)
		}
	}
}

// emptyReads is how often a body may yield nothing and no error before it is given up.
const emptyReads = 100

// readFrom reads at least one byte of a body, or its error. No more than p are believed.
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

// room is the part of buf that the fetch may still fill.
func (f *Flight) room(ft *fetch, buf []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if ft.to < 0 {
		return buf
	}
	return buf[:max(0, min(int64(len(buf)), ft.to-ft.pos))]
}

// opened takes in what the source's agreement tells.
func (f *Flight) opened(ft *fetch, body Body) error {
	n, host := body.Size(), body.Host() // without the lock, under which nothing foreign is called
	whole := false
	if x, ok := body.(Extender); ok && ft.fill {
		whole = x.Extend()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host = host
	if n >= 0 {
		if p := f.prefix(); guard.Size && (f.size >= 0 && n != f.size || n < p) {
			f.disputed = true // and who is right, nobody knows
			return &MismatchError{Digest: f.digest, Size: max(f.size, p), GotSize: n, Host: host}
		}
		f.size = n
		if ft.to < 0 {
			ft.to = f.gapEnd(ft.pos)
		}
		f.poke() // the size may be all that was missing
	}
	if whole {
		f.lanes.settled = true
		if f.size >= 0 {
			ft.to = f.gapEnd(ft.pos)
		}
	}
	ft.open = true
	if ft.fill {
		f.pacing()
	}
	f.tell()
	return nil
}

// write puts bytes into the spool and publishes them. What lies behind a cut is dropped.
func (f *Flight) write(ft *fetch, p []byte) error {
	f.mu.Lock()
	pos := ft.pos
	if ft.to >= 0 {
		p = p[:max(0, min(int64(len(p)), ft.to-pos))]
	}
	ft.writing = pos + int64(len(p))
	f.mu.Unlock()
	if _, err := f.spool.WriteAt(p, pos); err != nil {
		return &spoolError{fmt.Errorf("write spool of %s at %d: %w", f.digest, pos, err)}
	}
	f.mu.Lock()
	ft.pos = pos + int64(len(p))
	if ft.came == 0 && !slices.Contains(f.brought, ft.src.Key) {
		f.brought = append(f.brought, ft.src.Key)
	}
	ft.came += ft.pos - pos
	f.wrote(pos, ft.pos)
	f.mu.Unlock()
	point.Hit("flight/wrote")
	return nil
}

// eof says whether a body that has ended had a right to.
func (f *Flight) eof(ft *fetch, host string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.size < 0 && ft.fill:
		f.size, ft.to = ft.pos, ft.pos
		f.wrote(ft.pos, ft.pos)
		f.tell()
		return nil
	case ft.pos < ft.to:
		return fmt.Errorf("read %s from %s: ended at byte %d of %d: %w", f.digest, host, ft.pos, ft.to,
			io.ErrUnexpectedEOF)
	}
	return nil
}
