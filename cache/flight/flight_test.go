package flight_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// spool is a Spool in memory. It refuses what a flight must never do: write a byte twice, or touch it after Discard.
type spool struct {
	mu        sync.Mutex
	b         []byte
	written   [][2]int64
	failAt    int // fail the write with this number, from 1; 0: never
	writes    int
	twice     bool
	late      bool
	discarded bool
	done      func(*spool, oci.Digest)
}

var errDisk = errors.New("no space left on device")

func (s *spool) WriteAt(p []byte, off int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.late = s.late || s.discarded
	if s.writes++; s.writes == s.failAt {
		return 0, errDisk
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
	return copy(s.b[off:], p), nil
}

func (s *spool) ReadAt(p []byte, off int64) (int, error) {
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

func (s *spool) Commit(d oci.Digest, size int64) error {
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
	failAt    int
	noSpool   error
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
			sp := &spool{failAt: s.failAt, done: func(sp *spool, d oci.Digest) {
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.committed == nil {
					s.committed = make(map[oci.Digest][]byte)
				}
				s.committed[d] = sp.b
			}}
			s.spools = append(s.spools, sp)
			return sp, nil
		},
	}
}

// check holds what is true of every flight that is over.
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
}

func (o *origin) source(key string, f fault) flight.Source {
	return flight.Source{Key: key, Live: true, Fetch: func(ctx context.Context, w flight.Want) (flight.Body, error) {
		o.mu.Lock()
		o.fetches = append(o.fetches, w)
		o.mu.Unlock()
		if f.deny != nil {
			return nil, f.deny
		}
		to := w.To
		if to < 0 {
			to = int64(len(o.content))
		}
		o.mu.Lock()
		o.open++
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
	if b.pos >= b.to {
		return 0, io.EOF
	}
	to := b.to
	if b.f.cutAt > 0 {
		if b.pos >= b.f.cutAt {
			return 0, errCut
		}
		to = min(to, b.f.cutAt)
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
func (b *body) Size() int64  { return b.o.size }
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

func TestOneDownloadForAll(t *testing.T) {
	t.Parallel()
	for _, size := range []int{1, 511, 64 << 10, 64<<10 + 1, 1 << 20, 5<<20 + 17} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(1, size)
			o.chunk = 100 << 10
			st := &store{}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for range 50 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source("a", fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, int64(size))
					if err != nil || !bytes.Equal(b, o.content) {
						t.Errorf("got %d bytes, %v; want the %d of the blob", len(b), err, size)
					}
				})
			}
			wg.Wait()
			g.Close()
			if n := o.count(); n != 1 {
				t.Errorf("%d fetches, want 1", n)
			}
			if n := o.total(); n != int64(size) {
				t.Errorf("%d bytes fetched, want %d", n, size)
			}
			if w := o.fetches[0]; w.From != 0 || w.To != int64(size) || w.Size != int64(size) {
				t.Errorf("asked for [%d, %d), want the whole blob", w.From, w.To)
			}
			if _, ok := st.committed[o.digest()]; !ok {
				t.Error("not committed")
			}
			st.check(t)
		})
	}
}

func TestAStuckReaderHoldsNobody(t *testing.T) {
	t.Parallel()
	o := newOrigin(2, 6<<20)
	st := &store{}
	g := flight.New(st.options())
	stuck, _ := join(t, g, o, o.source("a", fault{})) // never reads
	fast, joined := join(t, g, o, o.source("b", fault{}))
	if !joined {
		t.Error("the second reader did not join the first one's flight")
	}
	if b, err := copyAll(t.Context(), fast, 0, int64(len(o.content))); err != nil || !bytes.Equal(b, o.content) {
		t.Fatalf("fast reader: %d bytes, %v", len(b), err)
	}
	_ = fast.Close()
	// The stuck one gets its bytes whenever it likes, the commit long past.
	if b, err := copyAll(t.Context(), stuck, 0, int64(len(o.content))); err != nil || !bytes.Equal(b, o.content) {
		t.Fatalf("stuck reader: %d bytes, %v", len(b), err)
	}
	_ = stuck.Close()
	g.Close()
	if n := o.count(); n != 1 {
		t.Errorf("%d fetches, want 1", n)
	}
	st.check(t)
}

// A denied source ends its own readers; the others get every byte, and none twice.
func TestDeniedAlone(t *testing.T) {
	t.Parallel()
	denied := errors.New("403 from the registry")
	for _, tt := range []struct {
		name  string
		alice fault
		want  error
	}{
		{"at once", fault{deny: denied}, denied},
		{"in the middle", fault{cutAt: 3<<20 + 5}, errCut},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(3, 8<<20)
			o.chunk = 64 << 10
			st := &store{}
			g := flight.New(st.options())
			alice, _ := join(t, g, o, o.source("alice", tt.alice))
			bob, joined := join(t, g, o, o.source("bob", fault{}))
			if !joined {
				t.Fatal("bob did not join")
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				defer alice.Close()
				_, err := alice.(*flight.Reader).CopyTo(t.Context(), io.Discard, 0, alice.Size())
				if !errors.Is(err, tt.want) {
					t.Errorf("alice: %v, want %v", err, tt.want)
				}
				// Bob comes only now, so that it was Alice's source that began.
				b, err := copyAll(t.Context(), bob, 0, bob.Size())
				if err != nil || !bytes.Equal(b, o.content) {
					t.Errorf("bob: %d bytes, %v", len(b), err)
				}
				_ = bob.Close()
			})
			wg.Wait()
			g.Close()
			if n := o.total(); n != int64(len(o.content)) {
				t.Errorf("%d bytes fetched, want %d: none twice", n, len(o.content))
			}
			st.check(t)
		})
	}
}

func TestWrongContentReachesNobody(t *testing.T) {
	t.Parallel()
	const size = 6 << 20
	for _, at := range []int64{0, size / 2, size - 1} {
		t.Run(fmt.Sprint(at), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(4, size)
			o.flip = at
			st := &store{}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for i := range 5 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source(fmt.Sprint(i), fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, size)
					var wrong *flight.MismatchError
					if !errors.As(err, &wrong) {
						t.Errorf("err = %v, want a mismatch", err)
						return
					}
					if wrong.Host != "cdn.example:443" {
						t.Errorf("evidence names host %q", wrong.Host)
					}
					if len(b) > size-64<<10 {
						t.Errorf("%d bytes left, the last 64 KiB were to be held back", len(b))
					}
				})
			}
			wg.Wait()
			g.Close()
			if len(st.committed) != 0 {
				t.Error("wrong content was committed")
			}
			st.check(t)
		})
	}
}

func TestSmallBlobIsVerifiedBeforeItsHeaders(t *testing.T) {
	t.Parallel()
	o := newOrigin(5, 1<<20)
	o.flip = 7
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	var wrong *flight.MismatchError
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, obj.Size()); !errors.As(err, &wrong) {
		t.Errorf("Ready: %v, want the mismatch", err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

// A range far ahead is fetched as aligned extents, and the fill does not fetch them again.
func TestRangeAhead(t *testing.T) {
	t.Parallel()
	const size, mib = 40 << 20, 1 << 20
	o := newOrigin(6, size)
	o.chunk = 256 << 10
	st := &store{}
	g := flight.New(st.options())
	gate := make(chan struct{})
	whole, _ := join(t, g, o, o.source("a", fault{gate: gate}))
	defer whole.Close()
	started := make(chan error, 1)
	go func() { started <- whole.(*flight.Reader).Ready(t.Context(), 0, size) }()
	if err := <-started; err != nil { // the source agreed; the fill stands at byte 0, since nobody opens its gate
		t.Fatal(err)
	}
	probe, joined := join(t, g, o, o.source("b", fault{}))
	if !joined {
		t.Fatal("the probe did not join")
	}
	for _, r := range []struct{ off, n int64 }{{size - 2, 2}, {13 * mib, 2}, {13*mib + 500, 1000}, {20 * mib, 9 * mib}} {
		b, err := copyAll(t.Context(), probe, r.off, r.n)
		if err != nil || !bytes.Equal(b, o.content[r.off:r.off+r.n]) {
			t.Fatalf("range %d+%d: %d bytes, %v", r.off, r.n, len(b), err)
		}
	}
	_ = probe.Close()
	o.mu.Lock()
	got := slices.Clone(o.fetches[1:])
	o.mu.Unlock()
	want := [][2]int64{{36 * mib, 40 * mib}, {12 * mib, 16 * mib}, {20 * mib, 32 * mib}}
	for i, w := range got {
		if i >= len(want) || w.From != want[i][0] || w.To != want[i][1] {
			t.Errorf("fetch %d asked for [%d, %d), want %v", i, w.From, w.To, want)
		}
	}
	close(gate)
	b, err := copyAll(t.Context(), whole, 0, size)
	if err != nil || !bytes.Equal(b, o.content) {
		t.Fatalf("the whole: %d bytes, %v", len(b), err)
	}
	_ = whole.Close()
	g.Close()
	if n := o.total(); n > size+256<<10 { // what was in transit when the fill was cut short
		t.Errorf("%d bytes fetched of %d", n, size)
	}
	st.check(t)
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

func TestWithoutReaders(t *testing.T) {
	t.Parallel()
	const size, kib = 2000 << 10, 1 << 10
	tests := []struct {
		name    string
		missing int64 // when the last reader leaves
		away    time.Duration
		fetches int // in all, after a reader came back and read everything
	}{
		{"little missing: goes on", 600 * kib, time.Minute, 1},
		{"half there: goes on", 990 * kib, time.Minute, 1},
		{"much missing, back within 10 s", 1500 * kib, 9 * time.Second, 1},
		{"much missing: parked, resumed", 1500 * kib, time.Minute, 2},
		{"parked too long: from the start", 1500 * kib, 2 * time.Hour, 2},
	}
	o := newOrigin(7, size)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				o := &origin{content: o.content, size: size, flip: -1, chunk: 2500, given: make(map[string]int64)}
				st := &store{}
				opts := st.options()
				opts.GoOn = 640 * kib
				g := flight.New(opts)
				obj, _ := join(t, g, o, o.source("a", fault{wait: 200 * time.Millisecond})) // 800 reads: 160 s
				w := &leaver{left: size - tt.missing}
				if _, err := obj.(*flight.Reader).CopyTo(t.Context(), w, 0, size); !errors.Is(err, errGone) {
					t.Fatal(err)
				}
				_ = obj.Close()
				time.Sleep(tt.away)
				synctest.Wait()
				before := o.total()
				obj, joined := join(t, g, o, o.source("a", fault{}))
				b, err := copyAll(t.Context(), obj, 0, size)
				if err != nil || !bytes.Equal(b, o.content) {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
				_ = obj.Close()
				g.Close()
				if o.count() != tt.fetches {
					t.Errorf("%d fetches, want %d", o.count(), tt.fetches)
				}
				switch {
				case tt.away > time.Hour:
					if joined {
						t.Error("joined a flight that should have expired")
					}
				case o.total() != size:
					t.Errorf("%d bytes fetched, want each of %d once (%d before)", o.total(), size, before)
				}
				st.check(t)
			})
		})
	}
}

// Whatever write fails, every reader gets the right bytes.
func TestSpoolBreaks(t *testing.T) {
	t.Parallel()
	const size = 5<<20 + 123
	for k := range 25 {
		t.Run(fmt.Sprint(k), func(t *testing.T) {
			t.Parallel()
			o := newOrigin(8, size)
			o.chunk = 256 << 10
			st := &store{failAt: k}
			if k == 0 {
				st = &store{noSpool: errDisk}
			}
			g := flight.New(st.options())
			var wg sync.WaitGroup
			for i := range 4 {
				wg.Go(func() {
					obj, _ := join(t, g, o, o.source(fmt.Sprint(i), fault{}))
					defer obj.Close()
					b, err := copyAll(t.Context(), obj, 0, size)
					if err != nil || !bytes.Equal(b, o.content) {
						t.Errorf("reader %d: %d bytes, %v", i, len(b), err)
					}
				})
			}
			wg.Wait()
			g.Close()
			st.check(t)
		})
	}
}

func TestDirect(t *testing.T) {
	t.Parallel()
	const size = 3<<20 + 1
	for _, tt := range []struct {
		name string
		size int64
		flip int64
		n    int64
	}{
		{"right", size, -1, size},
		{"size not known", -1, -1, size},
		{"a range", size, -1, 1000},
		{"wrong", size, size - 5, size},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := newOrigin(9, size)
			o.flip = tt.flip
			g := flight.New(flight.Options{})
			defer g.Close()
			r, err := g.Direct(t.Context(), o.digest(), tt.size, o.source("a", fault{}))
			if err != nil {
				t.Fatal(err)
			}
			b, err := copyAll(t.Context(), r, 0, tt.n)
			if tt.flip >= 0 {
				var wrong *flight.MismatchError
				if !errors.As(err, &wrong) || len(b) > size-64<<10 {
					t.Errorf("wrong content: %d bytes, %v", len(b), err)
				}
			} else if err != nil || !bytes.Equal(b, o.content[:tt.n]) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
			_ = r.Close()
			if o.open != 0 {
				t.Errorf("%d bodies left open", o.open)
			}
		})
	}
}

func TestUnknownSize(t *testing.T) {
	t.Parallel()
	o := newOrigin(10, 300<<10)
	o.size = -1
	st := &store{}
	g := flight.New(st.options())
	obj, _, err := g.Join(t.Context(), o.digest(), -1, o.source("a", fault{}))
	if err != nil {
		t.Fatal(err)
	}
	if obj.Size() != 300<<10 {
		t.Errorf("size %d", obj.Size())
	}
	if b, err := copyAll(t.Context(), obj, 0, obj.Size()); err != nil || !bytes.Equal(b, o.content) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

func TestSourceThatSaysAnotherSize(t *testing.T) {
	t.Parallel()
	o := newOrigin(11, 100<<10)
	o.size++
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	var wrong *flight.MismatchError
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, 1); !errors.As(err, &wrong) || wrong.GotSize != 100<<10+1 {
		t.Errorf("Ready: %v, want a mismatch of sizes", err)
	}
	_ = obj.Close()
	g.Close()
	st.check(t)
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	o := newOrigin(12, 0)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	if err := obj.(*flight.Reader).Ready(t.Context(), 0, 0); err != nil {
		t.Error(err)
	}
	_ = obj.Close()
	lie, _, err := g.Join(t.Context(), digest.FromString("not empty"), 0, o.source("a", fault{}))
	if err != nil {
		t.Fatal(err)
	}
	var wrong *flight.MismatchError
	if err := lie.(*flight.Reader).Ready(t.Context(), 0, 0); !errors.As(err, &wrong) {
		t.Errorf("a blob that is said to be empty and isn't: %v", err)
	}
	_ = lie.Close()
	g.Close()
	st.check(t)
}

func TestObjectReads(t *testing.T) {
	t.Parallel()
	o := newOrigin(13, 5<<20)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{}))
	if _, err := obj.Seek(-10, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(obj); err != nil || !bytes.Equal(b, o.content[len(o.content)-10:]) {
		t.Errorf("the last ten: %q, %v", b, err)
	}
	p := make([]byte, 100)
	if n, err := obj.ReadAt(p, 4<<20); n != 100 || err != nil || !bytes.Equal(p, o.content[4<<20:4<<20+100]) {
		t.Errorf("ReadAt: %d, %v", n, err)
	}
	if n, err := obj.ReadAt(p, int64(len(o.content))-50); n != 50 || !errors.Is(err, io.EOF) {
		t.Errorf("ReadAt over the end: %d, %v", n, err)
	}
	_, _ = obj.Seek(0, io.SeekStart)
	if b, err := io.ReadAll(obj); err != nil || !bytes.Equal(b, o.content) {
		t.Errorf("ReadAll: %d bytes, %v", len(b), err)
	}
	_ = obj.Close()
	if _, err := obj.ReadAt(p, 0); err == nil {
		t.Error("a closed reader still reads")
	}
	g.Close()
	st.check(t)
}

func TestCloseEndsReaders(t *testing.T) {
	t.Parallel()
	o := newOrigin(14, 5<<20)
	st := &store{}
	g := flight.New(st.options())
	obj, _ := join(t, g, o, o.source("a", fault{gate: make(chan struct{})}))
	res := make(chan error, 1)
	go func() {
		_, err := obj.(*flight.Reader).CopyTo(t.Context(), io.Discard, 0, obj.Size())
		res <- err
	}()
	g.Close()
	if err := <-res; !errors.Is(err, flight.ErrClosed) {
		t.Errorf("reader: %v, want ErrClosed", err)
	}
	_ = obj.Close()
	if _, _, err := g.Join(t.Context(), o.digest(), 1, o.source("a", fault{})); !errors.Is(err, flight.ErrClosed) {
		t.Errorf("Join after Close: %v", err)
	}
	st.check(t)
}
