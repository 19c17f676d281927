package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// spool is a Spool in memory. It refuses what a flight must never do: write a byte twice, or touch it after Discard.
type spool struct {
	mu        sync.Mutex
	b         []byte
	written   [][2]int64
	faults    *faults
	twice     bool
	late      bool
	discarded bool
	done      func(*spool, oci.Digest)
	commit    func() error         // before a commit; nil: nothing
	reading   func(off, end int64) // before a ReadAt, which is the hasher's; nil: nothing
}

var errDisk = errors.New("no space left on device")

// op is a call that a disk fails at.
type op string

const (
	opWrite  op = "write"
	opRead   op = "read"   // through ReadAt
	opOwn    op = "own"    // through a file position of a reader's own
	opSeek   op = "seek"   // of that position
	opShort  op = "short"  // a read of that ends early, as of a file that was cut
	opOpen   op = "open"   // of that
	opCommit op = "commit" //
)

// faults fail the k-th call of an op, from 1, and unless once is set those after it.
type faults struct {
	op   op
	k    int
	once bool

	mu      sync.Mutex
	calls   int
	tripped bool
}

func (f *faults) String() string {
	if f == nil {
		return "sound"
	}
	return fmt.Sprintf("%s %d once %t", f.op, f.k, f.once)
}

func (f *faults) fails(o op) bool {
	if f == nil || f.op != o {
		return false
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls++
	bad := f.calls == f.k || f.calls > f.k && f.k > 0 && !f.once
	f.tripped = f.tripped || bad
	return bad
}

func (s *spool) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.late || s.discarded
	full := s.faults.fails(opWrite)
	if full {
		p = p[:len(p)/2] // a part of it is written
	}
	if need := int(off) + len(p); need > len(s.b) {
		s.b = append(s.b, make([]byte, need-len(s.b))...)
	}
	end := off + int64(len(p))
	grown := false
	for i, w := range s.written {
		s.twice = s.twice || off < w[1] && w[0] < end
		if w[1] == off {
			s.written[i][1], grown = end, true
		}
	}
	if !grown {
		s.written = append(s.written, [2]int64{off, end})
	}
	n := copy(s.b[off:], p)
	if full {
		return n, errDisk
	}
	return n, nil
}

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
	if s.faults.fails(opRead) {
		return 0, errDisk
	}
	if s.reading != nil {
		s.reading(off, off+int64(len(p)))
	}
	return s.readAt(p, off)
}

func (s *spool) readAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.late || s.discarded
	if off >= int64(len(s.b)) {
		return 0, io.EOF
	}
	n := copy(p, s.b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Open gives no file position.
func (s *spool) Open() (flight.Object, error) { return nil, errors.ErrUnsupported }

// Park does nothing.
func (s *spool) Park() {}

// Keep keeps nothing.
func (s *spool) Keep(flight.Rest) error { return errors.ErrUnsupported }

// opener is a spool that gives file positions.
type opener struct{ *spool }

func (s opener) Open() (flight.Object, error) {
	if s.faults.fails(opOpen) {
		return nil, errDisk
	}
	return &position{s: s.spool}, nil
}

type position struct {
	s      *spool
	off    int64
	closed bool
}

func (p *position) Read(b []byte) (int, error) {
	if p.s.faults.fails(opShort) {
		return 0, io.EOF
	}
	n, err := p.ReadAt(b, p.off)
	p.off += int64(n)
	return n, err
}

func (p *position) ReadAt(b []byte, off int64) (int, error) {
	if p.closed || p.s.faults.fails(opOwn) {
		return 0, &fs.PathError{Op: "read", Path: "spool", Err: syscall.EIO}
	}
	return p.s.readAt(b, off)
}

func (p *position) Seek(off int64, _ int) (int64, error) {
	if p.closed || p.s.faults.fails(opSeek) {
		return 0, errDisk
	}
	p.off = off
	return off, nil
}

func (p *position) Size() int64  { return int64(len(p.s.b)) }
func (p *position) Close() error { p.closed = true; return nil }

func (s *spool) Commit(d oci.Digest, size int64) error {
	if s.faults.fails(opCommit) {
		return errDisk
	}
	if s.commit != nil {
		if err := s.commit(); err != nil {
			return err
		}
	}
	if int64(len(s.b)) != size {
		return fmt.Errorf("commit of %d bytes, spool has %d", size, len(s.b))
	}
	s.done(s, d)
	return nil
}

func (s *spool) Discard() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.discarded = true
	return nil
}

// store is what a group writes into.
type store struct {
	mu        sync.Mutex
	committed map[oci.Digest][]byte
	spools    []*spool
	failAt    int     // the write with this number fails, once; 0: none
	faults    *faults // of all spools; nil: none
	positions bool    // spools give file positions
	noSpool   error
	commit    func() error
	reading   func(off, end int64)
}

func (s *store) options() flight.Options {
	return flight.Options{
		Open: func(d oci.Digest) (flight.Object, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if b, ok := s.committed[d]; ok {
				return object{bytes.NewReader(b)}, nil
			}
			return nil, errors.New("not there")
		},
		Create: func(oci.Digest, int64) (flight.Spool, error) {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.noSpool != nil {
				return nil, s.noSpool
			}
			ft := s.faults
			if s.failAt > 0 {
				ft = &faults{op: opWrite, k: s.failAt, once: true}
			}
			sp := &spool{faults: ft, commit: s.commit, reading: s.reading, done: func(sp *spool, d oci.Digest) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.committed == nil {
					s.committed = make(map[oci.Digest][]byte)
				}
				s.committed[d] = sp.b
			}}
			s.spools = append(s.spools, sp)
			if s.positions {
				return opener{sp}, nil
			}
			return sp, nil
		},
	}
}

// check checks what must hold once every flight has ended.
func (s *store) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for d, b := range s.committed {
		if got := d.Algorithm().FromBytes(b); got != d {
			t.Errorf("committed %s, whose bytes have digest %s", d, got)
		}
	}
	for i, sp := range s.spools {
		if sp.twice {
			t.Errorf("spool %d: a byte was written twice", i)
		}
		if sp.late {
			t.Errorf("spool %d: touched after Discard", i)
		}
		if !sp.discarded {
			t.Errorf("spool %d was never discarded", i)
		}
	}
}

type object struct{ *bytes.Reader }

func (o object) Close() error { return nil }

// origin is where sources get a blob from. It counts what it gave.
type origin struct {
	content []byte
	chunk   int // most bytes a read; 0: all
	size    int64
	flip    int64 // this byte comes out wrong; -1: none

	mu      sync.Mutex
	fetches []flight.Want
	given   map[string]int64
	open    int
	peak    int // of open
}

func newOrigin(seed uint64, n int) *origin {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = r.Read(b)
	return &origin{content: b, size: int64(n), flip: -1, given: make(map[string]int64)}
}

func (o *origin) digest() oci.Digest { return digest.FromBytes(o.content) }

// fault describes one source's misbehaviour.
type fault struct {
	deny  error         // Fetch fails
	cutAt int64         // bodies break at this offset; 0: never
	gate  chan struct{} // each read waits for a value; nil: none
	wait  time.Duration // before each read, in a bubble
	says  int64         // size of the blob that bodies tell; 0: the origin's
	late  time.Duration // before Fetch answers, in a bubble
}

func (o *origin) source(key string, f fault) flight.Source {
	return flight.Source{Key: key, Fetch: func(ctx context.Context, w flight.Want) (flight.Body, error) {
		o.mu.Lock()
		o.fetches = append(o.fetches, w)
		o.mu.Unlock()
		if f.late > 0 {
			select {
			case <-time.After(f.late):
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		if f.deny != nil {
			return nil, f.deny
		}
		to := w.To
		if to < 0 {
			to = int64(len(o.content))
		}
		o.mu.Lock()
		o.open++
		o.peak = max(o.peak, o.open)
		o.mu.Unlock()
		return &body{o: o, ctx: ctx, key: key, f: f, pos: w.From, to: to}, nil
	}}
}

func (o *origin) total() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	var n int64
	for _, v := range o.given {
		n += v
	}
	return n
}

func (o *origin) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.fetches)
}

// most is how many bodies were open at once.
func (o *origin) most() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.peak
}

type body struct {
	o       *origin
	ctx     context.Context
	key     string
	f       fault
	pos, to int64
}

var errCut = errors.New("connection reset by peer")

func (b *body) Read(p []byte) (int, error) {
	if b.f.gate != nil {
		select {
		case <-b.f.gate:
		case <-b.ctx.Done():
			return 0, context.Cause(b.ctx)
		}
	}
	if b.f.wait > 0 {
		select {
		case <-time.After(b.f.wait):
		case <-b.ctx.Done():
			return 0, context.Cause(b.ctx)
		}
	}
	if b.ctx.Err() != nil {
		return 0, context.Cause(b.ctx)
	}
	to := b.to
	if b.f.cutAt > 0 {
		if b.pos >= b.f.cutAt {
			return 0, errCut
		}
		to = min(to, b.f.cutAt)
	}
	if b.pos >= b.to {
		return 0, io.EOF
	}
	if b.o.chunk > 0 {
		to = min(to, b.pos+int64(b.o.chunk))
	}
	n := copy(p, b.o.content[b.pos:to])
	if i := b.o.flip - b.pos; b.o.flip >= 0 && i >= 0 && i < int64(n) {
		p[i] ^= 1
	}
	b.pos += int64(n)
	b.o.mu.Lock()
	b.o.given[b.key] += int64(n)
	b.o.mu.Unlock()
	return n, nil
}

func (b *body) Close() error {
	b.o.mu.Lock()
	defer b.o.mu.Unlock()
	b.o.open--
	return nil
}

func (b *body) Size() int64 {
	if b.f.says != 0 {
		return b.f.says
	}
	return b.o.size
}

func (b *body) Host() string { return "cdn.example:443" }

// copyAll reads the whole object the way a server does.
func copyAll(ctx context.Context, o flight.Object, off, n int64) ([]byte, error) {
	var buf bytes.Buffer
	buf.Grow(int(n))
	r, ok := o.(*flight.Reader)
	if !ok {
		_, err := io.Copy(&buf, io.NewSectionReader(o, off, n))
		return buf.Bytes(), err
	}
	if err := r.Ready(ctx, off, n); err != nil {
		return nil, err
	}
	_, err := r.CopyTo(ctx, &buf, off, n)
	return buf.Bytes(), err
}

func join(t *testing.T, g *flight.Group, o *origin, s flight.Source) (flight.Object, bool) {
	t.Helper()
	obj, joined, err := g.Join(t.Context(), o.digest(), int64(len(o.content)), s)
	if err != nil {
		t.Fatal(err)
	}
	return obj, joined
}

// leaver is a client that hangs up after so many bytes.
type leaver struct{ left int64 }

var errGone = errors.New("broken pipe")

func (l *leaver) Write(p []byte) (int, error) {
	if l.left -= int64(len(p)); l.left <= 0 {
		return 0, errGone
	}
	return len(p), nil
}
