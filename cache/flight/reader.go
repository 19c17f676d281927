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
// at a time may use it; Close may be called from any, and ends a wait of another one.
type Reader struct {
	f     *Flight
	src   Source
	life  context.Context // ends with Close
	end   context.CancelFunc
	sent  atomic.Int64 // bytes that were read
	waits needing      // the flight's mutex guards it
	err   error        // of its source; nil: none. The flight's mutex guards it

	mu     sync.Mutex // guards busy and closed; no other lock is taken while it is held
	busy   int        // reads that run
	closed bool

	// Only the reading goroutine uses the fields below.
	pos    int64 // of Read
	run    int64 // how far Read has come from the start without a gap
	view   view
	direct direct
}

// needing is whether a reader waits for bytes.
type needing struct {
	now  bool
	last time.Time // when it last did
}

// view is how a reader reads the spool.
type view struct {
	file   Object // a file position of its own; nil: the spool gives none
	asked  bool   // for the file position
	used   bool   // bytes were read from the spool
	failed bool   // the spool can't be read
}

// span is the range that a call wants: [off, end) of the blob. whole says that its caller gets all bytes before off, too,
// and takes end for the end of a response, so that wrong content must not get that far.
type span struct {
	off, end int64
	whole    bool
}

// errBroken sends a reader to its own source. It never leaves this package.
var errBroken = errors.New("the spool is broken")

// errLeft is the error of waits of a closed reader.
var errLeft = errors.New("the reader is closed")

func newReader(f *Flight, s Source) *Reader {
	r := &Reader{f: f, src: s, waits: needing{last: time.Now()}}
	// The reader's own: it ends with Close, and not with a request.
	r.life, r.end = context.WithCancel(context.Background())
	r.direct = direct{group: f.g, digest: f.digest, src: s, life: r.life}
	return r
}

// Size is the blob's size in bytes.
func (r *Reader) Size() int64 {
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	return r.f.plan.size
}

// ErrRange says that bytes were asked for that the blob does not have.
var ErrRange = errors.New("not within the blob")

// within checks that the blob has n bytes at off, and returns its size. It also checks the digest of an empty blob, of
// which no byte is ever read.
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

// sized waits until the size is known. Else the reader is closed.
func (r *Reader) sized(ctx context.Context) (err error) {
	known := false
	defer func() {
		if !known { // a panic included: the reader would hold the spool for good
			_ = r.Close()
		}
	}()
	_, err = r.await(ctx, span{off: firstMissing}, func() bool { return r.f.plan.size >= 0 })
	switch {
	case errors.Is(err, errBroken) && r.src.Background:
		err = r.unstored()
	case errors.Is(err, errBroken):
		err = r.sizeDirect(ctx)
	}
	known = err == nil
	return err
}

// Ready waits until n bytes at off can be answered: the first of them is there, or the source has agreed to send them. A
// small blob is verified first, if that does not take long. Its error is the one to answer with.
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
		_, err := r.await(ctx, span{off: firstMissing}, func() bool { return r.f.hasher.verified })
		cancel()
		if !errors.Is(err, errSlow) && !errors.Is(err, errBroken) {
			return err
		}
	}
	q := span{off, off + n, off == 0 && n == size}
	_, err = r.await(ctx, q, func() bool {
		c := r.f.plan.covered(r.f.plan.have.run(off)) // the byte may be there and held back
		return r.f.readable(off) > off || c != nil && c.open && !c.stopped && r.f.broken == nil
	})
	if errors.Is(err, errBroken) {
		return r.openDirect(ctx, q)
	}
	return err
}

var errSlow = errors.New("verification takes long")

// await waits until ok, which is called with the lock held, and has the span fetched meanwhile, or all the rest where its
// offset is firstMissing. It returns the end of the bytes of the span that can be read.
func (r *Reader) await(ctx context.Context, q span, ok func() bool) (to int64, err error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case r.life.Err() != nil:
			return 0, errLeft
		case r.err != nil:
			return 0, r.err
		case f.failed != nil:
			return 0, f.failed
		case r.view.failed:
			return 0, errBroken
		case ok():
			return r.readable(q), nil
		case f.broken != nil && (!q.whole || !f.hasher.runs):
			return 0, errBroken
		}
		f.demand(r, q.off, q.end)
		news := f.data.news()
		if q.whole {
			news = f.hashed.news()
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
	case <-r.life.Done():
		return errLeft
	}
}

// readable is the end of the bytes at q.off that may be read now. The flight's lock is held.
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

// enter and exit surround each use of the spool and of the reader's own source. The last exit after a Close releases
// them.
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
		r.release()
	}
}

func (r *Reader) release() {
	if r.view.file != nil {
		_ = r.view.file.Close()
	}
	r.direct.close()
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
			m, err := r.copyDirect(ctx, w, q)
			return q.off - off + m, err
		}
		if err != nil {
			return q.off - off, err
		}
		m, err := r.send(ctx, w, q.off, min(to, q.end)-q.off)
		q.off += m
		r.sent.Add(m)
		if _, spool := errors.AsType[*spoolError](err); spool {
			r.view.failed = true
			continue
		}
		if err != nil {
			return q.off - off, err
		}
	}
	return n, nil
}

// send copies n bytes of the spool. Its error is a *spoolError where they could not be read; else it is that of w.
func (r *Reader) send(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	r.view.used = true
	f := r.file()
	if f == nil {
		src := &watched{Reader: io.NewSectionReader(r.f.spool, off, n)}
		m, err := copyTo(w, src)
		if src.err != nil || err == nil && m < n {
			return m, r.unreadable(off+src.n, src.err)
		}
		return m, err
	}
	if _, err := f.Seek(off, io.SeekStart); err != nil {
		return 0, r.unreadable(off, err)
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
		return m, r.unreadable(off+m, cmp.Or(perr, err))
	}
	return m, &spoolError{err} // it failed only once: other readers can stay
}

// ofFile reports whether an error of a copy from a file to a connection is the file's. Where the kernel copies, the error
// number tells, or that the file can't be read now. In doubt it is the connection's, to which nothing more is written.
func ofFile(err error, unreadable bool) bool {
	if path, ok := errors.AsType[*fs.PathError](err); ok {
		return path.Op != "write"
	}
	call, ok := errors.AsType[*os.SyscallError](err)
	return ok && call.Syscall == "sendfile" && (unreadable || errors.Is(err, syscall.EIO))
}

// unreadable breaks the flight's spool, which could not be read at off.
func (r *Reader) unreadable(off int64, err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // the file was cut
	}
	err = fmt.Errorf("read spool of %s at %d: %w", r.f.digest, off, err)
	r.f.breakSpool(err)
	return &spoolError{err}
}

// watched keeps the reader's error, which tells it from the writer's.
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

// file opens a file position of the reader's own, once.
func (r *Reader) file() Object {
	if !r.view.asked {
		r.view.asked = true
		if o, err := r.f.spool.Open(); err == nil {
			r.view.file = o
		}
	}
	return r.view.file
}

// Read waits for at least one byte at the reader's position. A caller that reads from the start to the end without an
// error has the right bytes.
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

// readSome reads the bytes that are there at q.off, and waits for the first.
func (r *Reader) readSome(p []byte, q span) (int, error) {
	ctx := context.Background() // io.Reader has none; Close ends the wait
	p = p[:min(int64(len(p)), q.end-q.off)]
	to, err := r.wait(ctx, q)
	if err == nil {
		r.view.used = true
		n, err := r.f.spool.ReadAt(p[:min(int64(len(p)), to-q.off)], q.off)
		if n > 0 {
			return n, nil
		}
		_ = r.unreadable(q.off, err)
		r.view.failed = true
	} else if !errors.Is(err, errBroken) {
		return 0, err
	}
	return r.readDirect(ctx, p, q)
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

// Close leaves the flight, which decides whether the download continues.
func (r *Reader) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil
	}
	r.closed = true
	unused := r.busy == 0
	r.mu.Unlock()
	r.end()
	r.f.leave(r)
	if unused {
		r.release()
	}
	return nil
}
