package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// upstream is what the network would be: it serves blobs and counts.
type upstream struct {
	mu      sync.Mutex // guards the fields below
	blobs   map[oci.Digest][]byte
	fetches map[oci.Digest]int
	sent    int64

	gate   chan struct{} // not nil: every fetch waits for it to be closed
	unsure bool          // it doesn't say how large a blob is
}

func newUpstream() *upstream {
	return &upstream{blobs: make(map[oci.Digest][]byte), fetches: make(map[oci.Digest]int)}
}

// add makes a blob of n bytes.
func (u *upstream) add(seed uint64, n int) (oci.Digest, []byte) {
	b, d := cachetest.Bytes(seed, n)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.blobs[d] = b
	return d, b
}

func (u *upstream) count(d oci.Digest) int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.fetches[d]
}

func (u *upstream) source(d oci.Digest) cache.Source {
	return cache.Source{Key: "key", Fetch: func(ctx context.Context, w flight.Want) (flight.Body, error) {
		u.mu.Lock()
		b, ok := u.blobs[d]
		u.fetches[d]++
		gate := u.gate
		u.mu.Unlock()
		if !ok {
			return nil, errors.New("upstream has no such blob")
		}
		if gate != nil {
			select {
			case <-gate:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
		}
		size := int64(len(b))
		if w.To < 0 {
			w.To = size
		}
		if u.unsure {
			size = -1
		}
		return &body{u: u, r: bytes.NewReader(b[w.From:w.To]), size: size}, nil
	}}
}

// stall is a fetch that sends n bytes and then waits for the gate.
func (u *upstream) stall(d oci.Digest, n int) func(context.Context, flight.Want) (flight.Body, error) {
	return func(ctx context.Context, w flight.Want) (flight.Body, error) {
		u.mu.Lock()
		defer u.mu.Unlock()
		b := u.blobs[d]
		u.fetches[d]++
		wait := readerFunc(func([]byte) (int, error) {
			select {
			case <-u.gate:
				return 0, io.EOF
			case <-ctx.Done():
				return 0, context.Cause(ctx)
			}
		})
		r := io.MultiReader(bytes.NewReader(b[w.From:n]), wait, bytes.NewReader(b[n:]))
		return &body{u: u, r: r, size: int64(len(b))}, nil
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

type body struct {
	u    *upstream
	r    io.Reader
	size int64
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.r.Read(p[:min(len(p), 16<<10)])
	b.u.mu.Lock()
	defer b.u.mu.Unlock()
	b.u.sent += int64(n)
	return n, err
}

func (b *body) Close() error { return nil }
func (b *body) Size() int64  { return b.size }
func (b *body) Host() string { return "upstream.test" }

// bench is a cache with its surroundings, in a bubble.
type bench struct {
	*cache.Cache
	t     *testing.T
	store *cachetest.Faulty
	index *cachetest.Index
	up    *upstream
	stop  func()
}

// start has a cache run. change, if not nil, changes its options.
func start(t *testing.T, size int64, change func(*cache.Options)) *bench {
	t.Helper()
	b := &bench{t: t, store: cachetest.NewFaulty(cachetest.NewStore()), index: cachetest.NewIndex(), up: newUpstream()}
	b.run(size, change)
	return b
}

func (b *bench) run(size int64, change func(*cache.Options)) {
	o := cache.Options{Store: b.store, Index: b.index, Size: size}
	if change != nil {
		change(&o)
	}
	b.Cache = cache.New(o)
	ctx, cancel := context.WithCancel(context.WithoutCancel(b.t.Context()))
	done := make(chan error, 1)
	c := b.Cache
	go func() { done <- c.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			b.t.Errorf("run: %v", err)
		}
	})
	b.t.Cleanup(b.stop)
	synctest.Wait()
}

// restart stops the cache and has another one run on the same store and index.
func (b *bench) restart(size int64, change func(*cache.Options)) {
	b.stop()
	b.run(size, change)
}

// get opens a blob with the right size and reads it to its end.
func (b *bench) get(d oci.Digest) cache.Outcome {
	b.t.Helper()
	b.up.mu.Lock()
	want := b.up.blobs[d]
	b.up.mu.Unlock()
	return b.getAs(d, int64(len(want)))
}

func (b *bench) getAs(d oci.Digest, size int64) cache.Outcome {
	b.t.Helper()
	o, outcome, err := b.Open(b.t.Context(), d, size, b.up.source(d))
	if err != nil {
		b.t.Fatalf("open: %v", err)
	}
	b.read(o, d)
	synctest.Wait() // until what it set off is over
	return outcome
}

// read reads an object to its end, and closes it.
func (b *bench) read(o cache.Object, d oci.Digest) {
	b.t.Helper()
	b.up.mu.Lock()
	want := b.up.blobs[d]
	b.up.mu.Unlock()
	got, err := io.ReadAll(o)
	if err != nil || !bytes.Equal(got, want) {
		b.t.Errorf("read %d bytes of %d, %v", len(got), len(want), err)
	}
	if o.Size() != int64(len(want)) {
		b.t.Errorf("size is %d, want %d", o.Size(), len(want))
	}
	if err := o.Close(); err != nil {
		b.t.Errorf("close: %v", err)
	}
}

func (b *bench) put(content []byte) oci.Digest {
	b.t.Helper()
	d := digest.FromBytes(content)
	if err := b.Put(b.t.Context(), d, content); err != nil {
		b.t.Fatalf("put: %v", err)
	}
	synctest.Wait()
	return d
}

func (b *bench) want(d oci.Digest, want, got cache.Outcome) {
	b.t.Helper()
	if got != want {
		b.t.Errorf("%.15s: %s, want %s", d, got, want)
	}
}

// there reports which of the digests are stored.
func (b *bench) there(list ...oci.Digest) []bool {
	b.t.Helper()
	var there []bool
	for _, d := range list {
		_, ok := b.Stat(d)
		there = append(there, ok)
	}
	return there
}

func (b *bench) check() {
	b.t.Helper()
	synctest.Wait()
	cachetest.Check(b.t, b.Cache, b.store)
}
