package flight

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/oci"
)

func newDigest(a digest.Algorithm, hex string) oci.Digest { return digest.NewDigestFromEncoded(a, hex) }

// Reader is one client's view of a blob on its way. It is an Object: reads wait for the bytes they want. One goroutine
// at a time may use it; Close may be called from any, and ends what another one waits for.
type Reader struct {
	f     *Flight
	src   Source
	waits needing
	first bool  // started the flight
	err   error // its source failed; guarded by the flight's mutex
	left  bool  // closed; guarded by the flight's mutex
	done  chan struct{}
	sent  atomic.Int64 // bytes it has had

	mu     sync.Mutex // guards what follows, between the reads and Close; no other lock is taken while holding it
	busy   int        // reads that run
	closed bool
	cancel context.CancelFunc // of the stream

	// Of the reading goroutine.
	pos    int64  // for Read
	run    int64  // how far Read has come from the start without a gap
	file   Object // a file position of its own, where the spool gives one
	filed  bool   // asked the spool for one
	spoilt bool   // could not read the spool
	took   bool   // has read from the spool
	stream *stream
}

// needing is whether a reader waits for bytes. The flight's mutex guards it.
type needing struct {
	now  bool
	last time.Time // when it has last done so
}

// span is what a call wants: [off, end) of the blob. whole says that its caller gets all that comes before off, too,
// and takes end for the end of a response: then wrong content must not get that far.
type span struct {
	off, end int64
	whole    bool
}

// errBroken sends a reader on to its own source. It never leaves this package.
var errBroken = errors.New("the spool is broken")

// errLeft is what a closed reader's waits return.
var errLeft = errors.New("the reader is closed")

// Size is the blob's size in bytes.
func (r *Reader) Size() int64 {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.size
}

// ErrRange says that bytes were asked for that the blob doesn't have.
var ErrRange = errors.New("not within the blob")

// within checks that the blob has n bytes at off, and returns its size. Of an empty blob that is all there is to check,
// so that is where its digest is.
func (r *Reader) within(off, n int64) (size int64, err error) {
	size = r.Size()
	if off < 0 || n < 0 || n > size-off {
		return size, fmt.Errorf("%d bytes of %s at %d, of %d: %w", n, r.f.digest, off, size, ErrRange)
	}
	if size == 0 {
		if got := r.f.digest.Algorithm().FromBytes(nil); got != r.f.digest {
			return size, &MismatchError{Digest: r.f.digest, Got: got}
		}
	}
	return size, nil
}

// sized waits until the size is known.
func (r *Reader) sized(ctx context.Context) error {
	_, err := r.await(ctx, span{off: firstMissing}, func() bool { return r.f.size >= 0 })
	if errors.Is(err, errBroken) {
		return r.sizeDirect(ctx)
	}
	return err
}

// Ready waits until it is certain that n bytes at off can begin: the first of them is there, or the source has agreed to
// send them. A small blob is verified first, if that doesn't take long. Its error is the one to answer with.
func (r *Reader) Ready(ctx context.Context, off, n int64) error {
	if err := r.enter(); err != nil {
		return err
	}
	defer r.exit()
	size, err := r.within(off, n)
	if err != nil || n == 0 {
		return err
	}
	if size <= r.f.g.sizes.verify {
		ctx, cancel := context.WithTimeoutCause(ctx, verifyWait, errSlow)
		_, err := r.await(ctx, span{off: firstMissing}, func() bool { return r.f.verified })
		cancel()
		if !errors.Is(err, errSlow) && !errors.Is(err, errBroken) {
			return err
		}
	}
	q := span{off, off + n, off == 0 && n == size}
	_, err = r.await(ctx, q, func() bool {
		ft := r.f.covered(r.f.have.run(off)) // the byte may be there and held back
		return r.f.readable(off) > off || ft != nil && ft.open && !ft.stopped && r.f.broken == nil
	})
	if errors.Is(err, errBroken) {
		return r.openStream(ctx, q)
	}
	return err
}

var errSlow = errors.New("verification takes long")

// await waits until ok, called with the lock held, and has the span fetched meanwhile, or from firstMissing on all the
// rest. It returns the end of what can be read of the span.
func (r *Reader) await(ctx context.Context, q span, ok func() bool) (to int64, err error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case r.left:
			return 0, errLeft
		case r.err != nil:
			return 0, r.err
		case f.failed != nil:
			return 0, f.failed
		case r.spoilt:
			return 0, errBroken
		case ok():
			return r.readable(q), nil
		case f.broken != nil && (!q.whole || !f.hashing):
			return 0, errBroken
		}
		f.demand(r, q.off, q.end)
		news := f.came.news()
		if q.whole {
			news = f.sure.news()
		}
		r.waits.now = true
		f.mu.Unlock()
		err := r.sleep(ctx, news)
		f.mu.Lock()
		r.waits = needing{last: time.Now()}
		if err != nil {
			return 0, err
		}
	}
}

// sleep waits for news.
func (r *Reader) sleep(ctx context.Context, news <-chan struct{}) error {
	select {
	case <-news:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-r.done:
		return errLeft
	}
}

// readable returns the end of what may be read at q.off now. The flight's lock is held.
func (r *Reader) readable(q span) int64 {
	if q.whole {
		return r.f.sound(q.off)
	}
	return r.f.readable(q.off)
}

// wait returns the end of the bytes that can be read at q.off now, at least one.
func (r *Reader) wait(ctx context.Context, q span) (int64, error) {
	return r.await(ctx, q, func() bool { return r.readable(q) > q.off })
}

// enter and exit surround what uses the spool or the reader's own source. The last one to exit after a Close gives back
// what the reader holds.
func (r *Reader) enter() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return errLeft
	}
	r.busy++
	return nil
}

func (r *Reader) exit() {
	r.mu.Lock()
	r.busy--
	last := r.closed && r.busy == 0
	r.mu.Unlock()
	if last {
		r.giveBack()
	}
}

func (r *Reader) giveBack() {
	if r.file != nil {
		_ = r.file.Close()
	}
	r.endStream()
	r.f.done()
}

// CopyTo writes n bytes from off to w as they arrive: by sendfile, where w and the spool allow it.
func (r *Reader) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	defer r.exit()
	size, err := r.within(off, n)
	if err != nil {
		return 0, err
	}
	q := span{off, off + n, off == 0 && n == size}
	for q.off < q.end {
		to, err := r.wait(ctx, q)
		if errors.Is(err, errBroken) {
			m, err := r.copyStream(ctx, w, q)
			return q.off - off + m, err
		}
		if err != nil {
			return q.off - off, err
		}
		m, err := r.send(ctx, w, q.off, min(to, q.end)-q.off)
		q.off += m
		r.sent.Add(m)
		if _, spool := errors.AsType[*spoolError](err); spool {
			r.spoilt = true
			continue
		}
		if err != nil {
			return q.off - off, err
		}
	}
	return n, nil
}

// send copies n bytes that are in the spool. Its error is a *spoolError where that could not be read; else it is w's.
func (r *Reader) send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	r.took = true
	f := r.own()
	if f == nil {
		src := &watched{Reader: io.NewSectionReader(r.f.spool, off, n)}
		m, err := copyTo(w, src)
		if m < n && m == src.n && (err == nil || src.err != nil) {
			return m, r.spool(off+m, src.err)
		}
		return m, err
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, r.spool(off, err)
	}
	m, err := copyTo(w, &io.LimitedReader{R: f, N: n}) // not watched, for the sake of sendfile
	if m >= n || ctx.Err() != nil {
		return m, err
	}
	_, perr := f.ReadAt(make([]byte, 1), off+m)
	if err != nil && !ofFile(err, perr != nil) {
		return m, err
	}
	if err == nil || perr != nil {
		return m, r.spool(off+m, cmp.Or(perr, err))
	}
	return m, &spoolError{err} // it only failed once: nobody else has to go for that
}

// ofFile reports whether an error of a copy from a file to a connection is the file's. Where the kernel copies, its
// number tells, or that the file can't be read now. In doubt it is the connection's, which is no place to go on writing.
func ofFile(err error, unreadable bool) bool {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Op != "write"
	}
	call, ok := errors.AsType[*os.SyscallError](err)
	return ok && call.Syscall == "sendfile" && (unreadable || errors.Is(err, syscall.EIO))
}

// spool tells the flight that its spool could not be read at off.
func (r *Reader) spool(off int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // somebody has cut the file
	}
	err = fmt.Errorf("read spool of %s at %d: %w", r.f.digest, off, err)
	r.f.breakSpool(err)
	return &spoolError{err}
}

// watched knows whether it was the reader that failed, and not the writer.
type watched struct {
	io.Reader
	n   int64
	err error
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	w.n += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}

func copyTo(w io.Writer, r io.Reader) (int64, error) {
	if rf, ok := w.(io.ReaderFrom); ok { // explicitly: io.Copy would ask the source first
		return rf.ReadFrom(r)
	}
	return io.Copy(w, r)
}

// own opens a file position of the reader's own, once.
func (r *Reader) own() Object {
	if r.filed {
		return r.file
	}
	r.filed = true
	if o, ok := r.f.spool.(Opener); ok {
		if f, err := o.Open(); err == nil {
			r.file = f
		}
	}
	return r.file
}

// Read waits for at least one byte at the reader's position. Who reads from the start to the end has the right bytes
// when that comes without an error.
func (r *Reader) Read(p []byte) (int, error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	defer r.exit()
	size, err := r.within(0, 0)
	if err != nil {
		return 0, err
	}
	if r.pos >= size {
		return 0, io.EOF
	}
	if len(p) == 0 {
		return 0, nil
	}
	if r.pos == 0 {
		r.run = 0
	}
	whole := r.pos == r.run
	n, err := r.readSome(p, span{r.pos, size, whole})
	r.pos += int64(n)
	r.sent.Add(int64(n))
	if whole {
		r.run = r.pos
	}
	return n, err
}

// ReadAt waits for all of p, or the blob's end.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	if err := r.enter(); err != nil {
		return 0, err
	}
	defer r.exit()
	size, err := r.within(0, 0)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s: negative offset %d", r.f.digest, off)
	}
	q := span{off: off, end: off + min(int64(len(p)), max(0, size-off))}
	for q.off < q.end {
		m, err := r.readSome(p[n:], q)
		n += m
		q.off += int64(m)
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readSome reads what there is at q.off, waiting for the first byte.
func (r *Reader) readSome(p []byte, q span) (int, error) {
	ctx := context.Background() // io.Reader has none; Close ends the wait
	p = p[:min(int64(len(p)), q.end-q.off)]
	to, err := r.wait(ctx, q)
	if err == nil {
		r.took = true
		n, err := r.f.spool.ReadAt(p[:min(int64(len(p)), to-q.off)], q.off)
		if n > 0 {
			return n, nil
		}
		_ = r.spool(q.off, err)
		r.spoilt = true
	} else if !errors.Is(err, errBroken) {
		return 0, err
	}
	return r.readStream(ctx, p, q)
}

// Seek moves the position for Read.
func (r *Reader) Seek(offset int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		offset += r.pos
	case io.SeekEnd:
		offset += r.Size()
	}
	if offset < 0 {
		return 0, fmt.Errorf("seek in %s: negative offset %d", r.f.digest, offset)
	}
	r.pos = offset
	return offset, nil
}

// Close leaves the flight. The download's fate is the flight's to decide.
func (r *Reader) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	idle := r.busy == 0
	if r.cancel != nil {
		r.cancel()
	}
	r.mu.Unlock()
	close(r.done)
	r.f.leave(r)
	if idle {
		r.giveBack()
	}
	return nil
}
