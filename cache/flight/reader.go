package flight

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/oci"
)

func newDigest(a digest.Algorithm, hex string) oci.Digest { return digest.NewDigestFromEncoded(a, hex) }

// Reader is one client's view of a blob on its way. It is an Object: reads wait for the bytes they want. One goroutine
// at a time may use it; Close may be called from any.
type Reader struct {
	f     *Flight
	src   Source
	first bool  // started the flight
	err   error // its source failed; guarded by the flight's mutex
	left  bool  // closed; guarded by the flight's mutex

	close sync.Once
	done  chan struct{} // closed by Close

	pos    int64
	file   Object // a file position of its own, where the spool gives one
	filed  bool   // asked the spool for one
	direct *direct
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
	_, err := r.await(ctx, firstMissing, 0, func() bool { return r.f.size >= 0 })
	if errors.Is(err, errBroken) {
		return r.sizeDirect(ctx)
	}
	return err
}

// Ready waits until it is certain that n bytes at off can begin: the first of them is there, or the source has agreed to
// send them. A small blob is verified first, if that doesn't take long. Its error is the one to answer with.
func (r *Reader) Ready(ctx context.Context, off, n int64) error {
	size, err := r.within(off, n)
	if err != nil || n == 0 {
		return err
	}
	if size <= r.f.g.sizes.verify {
		ctx, cancel := context.WithTimeoutCause(ctx, verifyWait, errSlow)
		_, err := r.await(ctx, firstMissing, 0, func() bool { return r.f.verified })
		cancel()
		if !errors.Is(err, errSlow) && !errors.Is(err, errBroken) {
			return err
		}
	}
	_, err = r.await(ctx, off, off+n, func() bool {
		ft := r.f.covered(off)
		return r.f.readable(off) > off || ft != nil && ft.open
	})
	if errors.Is(err, errBroken) {
		return r.readyDirect(ctx, off, off+n)
	}
	return err
}

var errSlow = errors.New("verification takes long")

// await waits until ok, called with the lock held, and has [off, end) fetched meanwhile, or from firstMissing on all
// the rest.
func (r *Reader) await(ctx context.Context, off, end int64, ok func() bool) (to int64, err error) {
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
		case ok():
			return f.readable(off), nil
		case f.broken != nil:
			return 0, errBroken
		}
		f.demand(r, off, end)
		news := f.news()
		f.mu.Unlock()
		select {
		case <-news:
			err = nil
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-r.done:
			err = errLeft
		}
		f.mu.Lock()
		if err != nil {
			return 0, err
		}
	}
}

// wait returns the end of the bytes that can be read from off now, at least one.
func (r *Reader) wait(ctx context.Context, off, end int64) (int64, error) {
	return r.await(ctx, off, end, func() bool { return r.f.readable(off) > off })
}

// CopyTo writes n bytes from off to w as they arrive: by sendfile, where w and the spool allow it.
func (r *Reader) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	if _, err := r.within(off, n); err != nil {
		return 0, err
	}
	start, end := off, off+n
	for off < end {
		to, err := r.wait(ctx, off, end)
		if errors.Is(err, errBroken) {
			m, err := r.copyDirect(ctx, w, start, off, end)
			return off - start + m, err
		}
		if err != nil {
			return off - start, err
		}
		m, err := r.send(w, off, min(to, end)-off)
		off += m
		if err != nil {
			return off - start, err
		}
	}
	return n, nil
}

// send copies n bytes that are in the spool.
func (r *Reader) send(w io.Writer, off, n int64) (int64, error) {
	src := io.Reader(io.NewSectionReader(r.f.spool, off, n))
	if f := r.own(); f != nil {
		if _, err := f.Seek(off, io.SeekStart); err != nil {
			return 0, fmt.Errorf("seek in spool of %s: %w", r.f.digest, err)
		}
		src = &io.LimitedReader{R: f, N: n}
	}
	var m int64
	var err error
	if rf, ok := w.(io.ReaderFrom); ok { // explicitly: io.Copy would ask the source first
		m, err = rf.ReadFrom(src)
	} else {
		m, err = io.Copy(w, src)
	}
	if err == nil && m < n {
		err = fmt.Errorf("spool of %s ends at byte %d: %w", r.f.digest, off+m, io.ErrUnexpectedEOF)
	}
	return m, err
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

// Read waits for at least one byte at the reader's position.
func (r *Reader) Read(p []byte) (int, error) {
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
	n, err := r.readSome(p[:min(int64(len(p)), size-r.pos)], r.pos, size)
	r.pos += int64(n)
	return n, err
}

// ReadAt waits for all of p, or the blob's end.
func (r *Reader) ReadAt(p []byte, off int64) (n int, err error) {
	size, err := r.within(0, 0)
	if err != nil {
		return 0, err
	}
	if off < 0 {
		return 0, fmt.Errorf("read %s: negative offset %d", r.f.digest, off)
	}
	want := min(int64(len(p)), max(0, size-off))
	for int64(n) < want {
		m, err := r.readSome(p[n:want], off+int64(n), off+want)
		n += m
		if err != nil {
			return n, err
		}
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// readSome reads what there is at off, waiting for the first byte; end is how far the caller will go.
func (r *Reader) readSome(p []byte, off, end int64) (int, error) {
	ctx := context.Background() // io.Reader has none; Close ends the wait
	to, err := r.wait(ctx, off, end)
	if errors.Is(err, errBroken) {
		return r.readDirect(ctx, p, off)
	}
	if err != nil {
		return 0, err
	}
	n, err := r.f.spool.ReadAt(p[:min(int64(len(p)), to-off)], off)
	if n > 0 {
		err = nil
	}
	return n, err
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
	r.close.Do(func() {
		close(r.done)
		if r.file != nil {
			_ = r.file.Close()
		}
		if r.direct != nil {
			_ = r.direct.body.Close()
		}
		r.f.leave(r)
	})
	return nil
}
