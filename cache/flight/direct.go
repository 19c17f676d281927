package flight

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/registrymirror/mirror/oci"
)

// ErrUncached is the state of a flight that never had a spool.
var ErrUncached = errors.New("not cached: no room or no disk")

// Direct returns a reader that goes straight to its source and keeps nothing: for what is larger than the cache, and
// for a cache without a disk. size is -1 where it is not known; then Direct asks the source.
func (g *Group) Direct(ctx context.Context, d oci.Digest, size int64, s Source) (*Reader, error) {
	f := newFlight(g, d, size)
	f.broken, f.ended = ErrUncached, true
	r := &Reader{f: f, src: s, done: make(chan struct{})}
	f.users++
	if size < 0 {
		if err := r.sizeDirect(ctx); err != nil {
			_ = r.Close()
			return nil, err
		}
	}
	return r, nil
}

// direct is a body that a reader has opened for itself.
type direct struct {
	body Body
	pos  int64 // of its next byte
	end  int64
}

// open makes the reader's own body stand at off.
func (r *Reader) open(ctx context.Context, off, end int64) error {
	if d := r.direct; d != nil {
		if d.pos == off && d.end >= end {
			return nil
		}
		_ = d.body.Close()
		r.direct = nil
	}
	// The body may serve several reads, each with a context of its own: it ends with the reader.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(r.f.g.ctx, cancel)
	body, err := r.src.Fetch(ctx, Want{From: off, To: end, Size: max(0, r.Size()), Live: func() bool { return r.src.Live }})
	if err != nil {
		stop()
		cancel()
		return err
	}
	r.direct = &direct{body: &ownedBody{Body: body, end: func() { stop(); cancel() }}, pos: off, end: end}
	return nil
}

// ownedBody ends its context with itself.
type ownedBody struct {
	Body
	end func()
}

func (b *ownedBody) Close() error {
	defer b.end()
	return b.Body.Close()
}

// sizeDirect learns the size from the reader's own source.
func (r *Reader) sizeDirect(ctx context.Context) error {
	if err := r.open(ctx, 0, -1); err != nil {
		return err
	}
	n := r.direct.body.Size()
	if n < 0 {
		return fmt.Errorf("%s does not say how large %s is, and there is no room to find out; "+
			"free the disk of cache.dir or raise cache.size", r.direct.body.Host(), r.f.digest)
	}
	r.f.mu.Lock()
	r.f.size = n
	r.f.mu.Unlock()
	r.direct.end = n
	return nil
}

// readyDirect makes sure that the reader's own source sends [off, end).
func (r *Reader) readyDirect(ctx context.Context, off, end int64) error {
	if err := r.open(ctx, off, end); err != nil {
		return err
	}
	if n := r.direct.body.Size(); n >= 0 && n != r.Size() {
		return &MismatchError{Digest: r.f.digest, Size: r.Size(), GotSize: n, Host: r.direct.body.Host()}
	}
	return nil
}

func (r *Reader) readDirect(ctx context.Context, p []byte, off int64) (int, error) {
	if err := r.open(ctx, off, r.Size()); err != nil {
		return 0, err
	}
	n, err := r.direct.body.Read(p)
	r.direct.pos += int64(n)
	if n > 0 {
		return n, nil
	}
	if errors.Is(err, io.EOF) && r.direct.pos < r.Size() {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// copyDirect sends [off, end) of a response that began at start, from the reader's own source. A response of the whole
// blob is hashed, what was sent from the spool included, and its last 64 KiB wait for the digest.
func (r *Reader) copyDirect(ctx context.Context, w io.Writer, start, off, end int64) (int64, error) {
	size := r.Size()
	verifier := r.f.digest.Algorithm().Hash()
	whole := start == 0 && end == size
	if whole && off > 0 {
		// What has been sent came out of the spool. If that can't be read back, the client resumes from where it is.
		if _, err := io.Copy(verifier, io.NewSectionReader(r.f.spool, 0, off)); err != nil {
			return 0, fmt.Errorf("read back spool of %s: %w", r.f.digest, err)
		}
	}
	if err := r.readyDirect(ctx, off, end); err != nil {
		return 0, err
	}
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	tail := make([]byte, 0, r.f.g.sizes.holdBack)
	var sent int64
	for pos := off; pos < end; {
		select {
		case <-ctx.Done():
			return sent, context.Cause(ctx)
		case <-r.done:
			return sent, errLeft
		default:
		}
		n, err := readFrom(r.direct.body, (*buf)[:min(int64(len(*buf)), end-pos)])
		p := (*buf)[:n]
		pos += int64(n)
		r.direct.pos = pos
		if whole {
			verifier.Write(p)
			if keep := size - r.f.g.sizes.holdBack; pos > keep {
				cut := max(0, int64(n)-(pos-keep))
				tail = append(tail, p[cut:]...)
				p = p[:cut]
			}
		}
		m, werr := w.Write(p)
		sent += int64(m)
		if werr != nil {
			return sent, werr
		}
		if err != nil && pos < end {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return sent, fmt.Errorf("read %s from %s: %w", r.f.digest, r.direct.body.Host(), err)
		}
	}
	if !whole {
		return sent, nil
	}
	if got := newDigest(r.f.digest.Algorithm(), fmt.Sprintf("%x", verifier.Sum(nil))); got != r.f.digest {
		return sent, &MismatchError{
			Digest: r.f.digest, Got: got, Size: size, GotSize: size,
			Host: r.direct.body.Host(), Verified: size,
		}
	}
	m, err := w.Write(tail)
	return sent + int64(m), err
}
