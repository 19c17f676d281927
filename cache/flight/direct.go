package flight

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"sync"

	"github.com/registrymirror/mirror/oci"
)

// ErrUncached is the state of a flight that never had a spool.
var ErrUncached = errors.New("not cached: no room or no disk")

// Direct returns a reader that goes straight to its source and keeps nothing: for what is larger than the cache, and
// for a cache without a disk. size is -1 where it is not known; then Direct asks the source.
func (g *Group) Direct(ctx context.Context, d oci.Digest, size int64, s Source) (*Reader, error) {
	if g.ctx.Err() != nil {
		return nil, ErrClosed
	}
	f := newFlight(g, place{digest: d}, size)
	f.broken, f.ended = ErrUncached, true
	r := &Reader{f: f, src: s, done: make(chan struct{})}
	f.users++
	if size >= 0 {
		return r, nil
	}
	sized := false
	defer func() {
		if !sized {
			_ = r.Close()
		}
	}()
	if err := r.sizeDirect(ctx); err != nil {
		return nil, err
	}
	sized = true
	return r, nil
}

// fetch asks the reader's own source. The body serves several reads, each with a context of its own, so it lives until
// it is closed, or the reader or the group is.
func (r *Reader) fetch(ctx context.Context, from, to int64) (Body, error) {
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(r.f.g.ctx, cancel)
	end := func() { stop(); cancel() }
	opened := false
	defer func() {
		if !opened { // a panic of the source included, which is the caller's
			end()
		}
	}()
	r.mu.Lock()
	closed := r.closed
	r.cancel = cancel
	r.mu.Unlock()
	if closed {
		return nil, errLeft
	}
	unwatch := context.AfterFunc(ctx, cancel)
	body, err := r.src.Fetch(own, Want{
		From: from, To: to, Size: max(0, r.Size()), Client: r.src.Client, Live: func() bool { return r.src.Live },
	})
	if !unwatch() && err == nil {
		_ = body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, r.why(ctx, err)
	}
	opened = true
	return &ownedBody{Body: body, end: end}, nil
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

// why is what an error of the reader's own source comes from, where that is us.
func (r *Reader) why(ctx context.Context, err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return errLeft
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case r.f.g.ctx.Err() != nil:
		return ErrClosed
	}
	return err
}

// sizeDirect learns the size from the reader's own source: if it doesn't say, by reading it all, once.
func (r *Reader) sizeDirect(ctx context.Context) error {
	body, err := r.fetch(ctx, 0, -1)
	if err != nil {
		return err
	}
	n, host := body.Size(), body.Host()
	s := &stream{r: r, body: body, hash: r.f.digest.Algorithm().Hash()}
	if n < 0 {
		n, err = s.count(ctx)
		_ = body.Close()
		if err != nil {
			return err
		}
	} else {
		s.end, s.tailAt = n, max(0, n-r.f.g.sizes.holdBack)
		r.stream = s
	}
	r.f.mu.Lock()
	defer r.f.mu.Unlock()
	if p := r.f.prefix(); r.f.size >= 0 && r.f.size != n || n < p {
		return &MismatchError{Digest: r.f.digest, Size: max(r.f.size, p), GotSize: n, Host: host}
	}
	r.f.size = n
	return nil
}

// openStream makes the reader's own stream stand at q.off.
func (r *Reader) openStream(ctx context.Context, q span) error {
	if r.took && r.f.isDamaged() {
		return fmt.Errorf("read %s: %w", r.f.digest, errDamaged)
	}
	if s := r.stream; s != nil {
		if s.pos == q.off && s.end >= q.end && (s.hash != nil) == q.whole {
			return nil
		}
		r.endStream()
	}
	var s *stream
	if q.whole {
		var err error
		if s, err = r.resume(ctx, q); err != nil {
			return err
		}
	} else {
		s = &stream{at: q.off, tailAt: q.end}
	}
	s.r, s.pos, s.end = r, q.off, q.end
	if s.at == s.end { // the last of it was held back, and is here
		r.stream = s
		return nil
	}
	body, err := r.fetch(ctx, s.at, s.end)
	if err != nil {
		return err
	}
	if n, size := body.Size(), r.Size(); n >= 0 && n != size {
		_ = body.Close()
		return &MismatchError{Digest: r.f.digest, Size: size, GotSize: n, Host: body.Host()}
	}
	s.body = body
	r.stream = s
	return nil
}

// resume makes the stream of a reader who has [0, q.off), and whose end waits for the digest, so what he has must be
// hashed. There are three ways to that, from the cheapest: the hasher's state, where it came exactly that far; reading
// the spool back; and if that fails, fetching it all again, which must be the same as the hasher had seen.
func (r *Reader) resume(ctx context.Context, q span) (*stream, error) {
	f, tailAt := r.f, max(q.off, q.end-r.f.g.sizes.holdBack)
	if q.off == 0 {
		return &stream{tailAt: tailAt, hash: f.digest.Algorithm().Hash()}, nil
	}
	seen, err := r.hashed(ctx)
	if err != nil {
		return nil, err
	}
	if held := seen.to - q.off; seen.state != nil && (held == 0 || held > 0 && tailAt == q.off) {
		tail := make([]byte, held, q.end-tailAt)
		if n, _ := f.spool.ReadAt(tail, q.off); int64(n) == held {
			return &stream{at: seen.to, tailAt: tailAt, tail: tail, hash: seen.state}, nil
		}
	}
	verifier := f.digest.Algorithm().Hash()
	back, err := r.readBack(ctx, verifier, q.off)
	if err == nil {
		return &stream{at: q.off, tailAt: tailAt, hash: verifier}, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	lost := r.spool(back, err)
	if seen, err = r.hashed(ctx); err != nil {
		return nil, err
	}
	if seen.to < q.off {
		return nil, fmt.Errorf("%s can't be verified any more: %w", f.digest, lost)
	}
	return &stream{tailAt: tailAt, hash: f.digest.Algorithm().Hash(), mark: seen.to, sum: seen.sum}, nil
}

// seen is what the hasher has left: the hash of [0, to).
type seen struct {
	to    int64
	sum   []byte
	state hash.Hash // to go on with; nil where it can't be
}

// hashed waits until the hasher of a broken spool has come to its end. Before that nothing is seen.
func (r *Reader) hashed(ctx context.Context) (seen, error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.failed != nil:
			return seen{}, f.failed
		case f.verified:
			sum, err := hex.DecodeString(f.digest.Encoded())
			return seen{to: f.size, sum: sum}, err
		case f.broken == nil || !f.hashing && f.state == nil:
			return seen{}, nil
		case !f.hashing:
			s := seen{to: f.hashed, sum: f.state.Sum(nil)}
			if c, ok := f.state.(hash.Cloner); ok {
				if c, err := c.Clone(); err == nil {
					s.state = c
				}
			}
			return s, nil
		}
		news := f.sure.news()
		f.mu.Unlock()
		err := r.sleep(ctx, news)
		f.mu.Lock()
		if err != nil {
			return seen{}, err
		}
	}
}

// readBack hashes [0, n) of the spool. It returns how far it came.
func (r *Reader) readBack(ctx context.Context, w io.Writer, n int64) (off int64, err error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for off < n {
		if ctx.Err() != nil {
			return off, context.Cause(ctx)
		}
		m, err := r.f.spool.ReadAt((*buf)[:min(int64(len(*buf)), n-off)], off)
		if m == 0 {
			return off, err
		}
		_, _ = w.Write((*buf)[:m])
		off += int64(m)
	}
	return off, nil
}

// copyStream sends a span from the reader's own source.
func (r *Reader) copyStream(ctx context.Context, w io.Writer, q span) (sent int64, err error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for q.off < q.end {
		n, err := r.readStream(ctx, (*buf)[:min(int64(len(*buf)), q.end-q.off)], q)
		if err != nil {
			return sent, err
		}
		m, err := w.Write((*buf)[:n])
		sent += int64(m)
		q.off += int64(m)
		if err == nil && m < n {
			err = io.ErrShortWrite
		}
		if err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// readStream reads some of a span from the reader's own source.
func (r *Reader) readStream(ctx context.Context, p []byte, q span) (int, error) {
	if err := r.openStream(ctx, q); err != nil {
		return 0, err
	}
	n, err := r.stream.read(ctx, p)
	if err != nil {
		r.endStream()
	}
	return n, err
}

func (r *Reader) endStream() {
	if r.stream != nil && r.stream.body != nil {
		_ = r.stream.body.Close()
	}
	r.stream = nil
}

// pieces are what readers copy by themselves, of which there may be thousands.
var pieces = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
