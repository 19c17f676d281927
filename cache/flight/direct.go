package flight

import (
	"context"
	"errors"
	"sync"

	"github.com/registrymirror/mirror/oci"
)

// ErrUncached is the state of a flight that never had a spool.
var ErrUncached = errors.New("not cached: no room or no disk")

// Direct returns a reader that reads straight from its source and keeps nothing: for a blob that is larger than the cache,
// and for a cache without a disk. size is -1 where it is not known; then Direct asks the source.
func (g *Group) Direct(ctx context.Context, d oci.Digest, size int64, s Source) (*Reader, error) {
	if g.ctx.Err() != nil {
		return nil, ErrClosed
	}
	f := newFlight(g, place{digest: d}, size)
	f.broken = ErrUncached
	f.life = life{ended: true, users: 1}
	r := newReader(f, s)
	if err := r.sized(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

// direct is a reader's way past the spool: the bytes come straight from its own source. It knows neither the flight nor its
// other readers. One goroutine at a time uses it.
type direct struct {
	group  *Group
	digest oci.Digest
	src    Source
	life   context.Context // of the reader
	stream *stream         // that is open; nil: none
}

// fetch asks the source. The body serves several reads, each with a context of its own, so it lives until it is closed, or
// the reader or the group is. size is that of the blob; -1: not known.
func (d *direct) fetch(ctx context.Context, from, to, size int64) (Body, error) {
	if d.life.Err() != nil {
		return nil, errLeft
	}
	own, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unwatchGroup := context.AfterFunc(d.group.ctx, cancel)
	unwatchReader := context.AfterFunc(d.life, cancel)
	end := func() { unwatchGroup(); unwatchReader(); cancel() }
	opened := false
	defer func() {
		if !opened { // also after a panic of the source, which the caller handles
			end()
		}
	}()
	unwatch := context.AfterFunc(ctx, cancel)
	body, err := d.src.Fetch(own, Want{From: from, To: to, Size: max(0, size), Client: d.src.Client})
	if !unwatch() && err == nil {
		_ = body.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, d.cause(ctx, err)
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

// cause is the reason for an error of the source: that the reader, the caller or the group has ended, or else the error.
func (d *direct) cause(ctx context.Context, err error) error {
	switch {
	case d.life.Err() != nil:
		return errLeft
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case d.group.ctx.Err() != nil:
		return ErrClosed
	}
	return err
}

// size asks the source for the size of the blob, and leaves the stream open at its start. A source that does not say the
// size has the blob read to its end.
func (d *direct) size(ctx context.Context) (n int64, host string, err error) {
	body, err := d.fetch(ctx, 0, -1, -1)
	if err != nil {
		return 0, "", err
	}
	n, host = body.Size(), body.Host()
	s := &stream{d: d, body: body, hash: d.digest.Algorithm().Hash()}
	if n < 0 {
		defer body.Close()
		n, err = s.count(ctx)
		return n, host, err
	}
	s.end, s.tailAt = n, max(0, n-d.group.sizes.holdBack)
	d.stream = s
	return n, host, nil
}

// standsAt reports whether the open stream serves a span from its offset on.
func (d *direct) standsAt(q span) bool {
	s := d.stream
	return s != nil && s.pos == q.off && s.end >= q.end && (s.hash != nil) == q.whole
}

// open has a stream serve a span of a blob of size bytes: it asks the source for the bytes that the stream lacks.
func (d *direct) open(ctx context.Context, s *stream, q span, size int64) error {
	d.close()
	s.d, s.pos, s.end = d, q.off, q.end
	if s.at == s.end { // the stream has the rest: it was held back
		d.stream = s
		return nil
	}
	body, err := d.fetch(ctx, s.at, s.end, size)
	if err != nil {
		return err
	}
	if n := body.Size(); n >= 0 && n != size {
		_ = body.Close()
		return &MismatchError{Digest: d.digest, Size: size, GotSize: n, Host: body.Host()}
	}
	s.body = body
	d.stream = s
	return nil
}

// read reads at least one byte of the open stream, or ends it with an error.
func (d *direct) read(ctx context.Context, p []byte) (int, error) {
	n, err := d.stream.read(ctx, p)
	if err != nil {
		d.close()
	}
	return n, err
}

// close ends the open stream.
func (d *direct) close() {
	if d.stream != nil && d.stream.body != nil {
		_ = d.stream.body.Close()
	}
	d.stream = nil
}

// pieces are the buffers of readers that copy by themselves, of which there may be thousands.
var pieces = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}
