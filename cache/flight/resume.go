package flight

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
)

// How a reader continues by its own source when the spool is broken, or where there never was one.

// sizeDirect learns the size of the blob from the reader's own source.
func (r *Reader) sizeDirect(ctx context.Context) error {
	n, host, err := r.direct.size(ctx)
	if err != nil {
		return r.attribute(err)
	}
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.plan.prefix(); f.plan.size >= 0 && f.plan.size != n || n < p {
		return &MismatchError{Digest: f.digest, Size: max(f.plan.size, p), GotSize: n, Host: host}
	}
	f.plan.size = n
	return nil
}

// attribute notes in an error about a wrong digest by which Keys the bytes came to the reader.
func (r *Reader) attribute(err error) error {
	if wrong, ok := errors.AsType[*MismatchError](err); ok && wrong.Got != "" && r.view.used {
		wrong.by = r.f.keysWith(r.src.Key)
	}
	return err
}

// openDirect has the reader's own source serve a span.
func (r *Reader) openDirect(ctx context.Context, q span) error {
	if r.view.used && r.f.isDamaged() {
		return fmt.Errorf("read %s: %w", r.f.digest, errDamaged)
	}
	if r.direct.standsAt(q) {
		return nil
	}
	r.direct.close()
	s := &stream{at: q.off, tailAt: q.end}
	if q.whole {
		var err error
		if s, err = r.resume(ctx, q); err != nil {
			return err
		}
	}
	return r.direct.open(ctx, s, q, r.Size())
}

// readDirect reads some of a span from the reader's own source.
func (r *Reader) readDirect(ctx context.Context, p []byte, q span) (int, error) {
	if err := r.openDirect(ctx, q); err != nil {
		return 0, err
	}
	n, err := r.direct.read(ctx, p)
	return n, r.attribute(err)
}

// copyDirect sends a span from the reader's own source.
func (r *Reader) copyDirect(ctx context.Context, w io.Writer, q span) (sent int64, err error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for q.off < q.end {
		n, err := r.readDirect(ctx, (*buf)[:min(int64(len(*buf)), q.end-q.off)], q)
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

// resume is the stream of a reader that has [0, q.off) and whose end waits for the digest, so that the bytes it has must
// be hashed. There are three ways, the cheapest first: the hasher's state, where that is the hash of exactly these bytes;
// reading the spool back; and if that fails, fetching all of it again, which must have the hash that the hasher has seen.
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
	h := f.digest.Algorithm().Hash()
	back, err := r.readBack(ctx, h, q.off)
	if err == nil {
		return &stream{at: q.off, tailAt: tailAt, hash: h}, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	lost := r.unreadable(back, err)
	if seen, err = r.hashed(ctx); err != nil {
		return nil, err
	}
	if seen.to < q.off {
		return nil, fmt.Errorf("%s can't be verified any more: %w", f.digest, lost)
	}
	return &stream{tailAt: tailAt, hash: f.digest.Algorithm().Hash(), mark: seen.to, sum: seen.sum}, nil
}

// seen is the hash of [0, to) that the hasher has left.
type seen struct {
	to    int64
	sum   []byte
	state hash.Hash // to continue with; nil: it can't be continued
}

// hashed waits until the hasher of a broken spool has ended. Before the spool breaks nothing is seen.
func (r *Reader) hashed(ctx context.Context) (seen, error) {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch h := &f.hasher; {
		case f.failed != nil:
			return seen{}, f.failed
		case h.verified:
			sum, err := hex.DecodeString(f.digest.Encoded())
			return seen{to: f.plan.size, sum: sum}, err
		case f.broken == nil || !h.runs && h.state == nil:
			return seen{}, nil
		case !h.runs:
			s := seen{to: h.at, sum: h.state.Sum(nil)}
			if c, ok := h.state.(hash.Cloner); ok {
				if c, err := c.Clone(); err == nil {
					s.state = c
				}
			}
			return s, nil
		}
		news := f.hashed.news()
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
