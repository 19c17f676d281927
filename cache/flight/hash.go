package flight

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"

	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/point"
)

// hasher is what is known of the hash of the prefix. The flight's lock guards it.
type hasher struct {
	runs     bool
	at       int64         // the hash is that of [0, at)
	state    hash.Hash     // once the hasher has ended; nil: it never ran
	verified bool          // the digest is right: no bytes are held back any more
	wake     chan struct{} // has the hasher look for more; capacity 1
}

// startHasher starts the goroutine. The lock is held.
func (f *Flight) startHasher() {
	f.hasher.runs = true
	f.life.users++
	f.g.wg.Go(f.hash)
}

// look has the goroutine look for more bytes.
func (h *hasher) look() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// hash is the goroutine that follows the prefix and ends the flight: by a commit, or because the content is wrong. When
// the spool breaks it hashes the bytes that are there, and leaves the hash to the readers, which continue by themselves.
func (f *Flight) hash() {
	h := f.digest.Algorithm().Hash()
	var buf *[]byte // nil while there is nothing to hash: a flight may be parked for an hour
	drop := func() {
		if buf != nil {
			buffers.Put(buf)
			buf = nil
		}
	}
	defer drop()
	defer f.hasherEnds(h)
	var at int64
	for {
		f.mu.Lock()
		to, size := f.former.toHash(at, f.plan.prefix()), f.plan.size
		broken, over := f.broken != nil, f.failed != nil || f.life.ended && f.broken == nil
		f.mu.Unlock()
		switch {
		case over || f.g.ctx.Err() != nil:
			return
		case at < to:
		case at == size:
			f.finish(h.Sum(nil), size)
			return
		case broken:
			return
		default:
			drop()
			if !f.awaitBytes() {
				return
			}
			continue
		}
		if buf == nil {
			buf = buffers.Get().(*[]byte)
		}
		n, err := f.readSpool((*buf)[:min(int64(len(*buf)), to-at)], at)
		if err != nil {
			f.breakSpool(err)
			return
		}
		h.Write((*buf)[:n])
		at += int64(n)
		f.mu.Lock()
		f.hasher.at = at
		f.hashed.progress(int64(n))
		f.mu.Unlock()
		point.Hit("flight/hashing")
		if !f.former.agrees(at, h) {
			f.damage()
			return
		}
	}
}

// awaitBytes waits until there may be more to hash. It returns false where the flight has ended and its spool is sound.
func (f *Flight) awaitBytes() bool {
	select {
	case <-f.hasher.wake:
		return true
	case <-f.ctx.Done():
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.broken != nil
	}
}

// readSpool reads at least one byte back from the spool, or returns an error. The bytes are in the page cache: that costs
// a tenth of the hash, and extents may arrive in any order.
func (f *Flight) readSpool(p []byte, off int64) (int, error) {
	n, err := f.spool.ReadAt(p, off)
	if n > 0 || err == nil {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return 0, fmt.Errorf("read spool of %s at %d: %w", f.digest, off, err)
}

// hasherEnds notes that the hasher has ended, and keeps its state.
func (f *Flight) hasherEnds(state hash.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hasher.runs, f.hasher.state = false, state
	f.hashed.ring()
	f.life.users--
	f.release()
}

// finish ends the flight, whose bytes have that hash.
func (f *Flight) finish(sum []byte, size int64) {
	point.Hit("flight/hashed")
	if got := fmt.Sprintf("%x", sum); guard.Digest && got != f.digest.Encoded() {
		f.wrong(got, size)
		return
	}
	f.mu.Lock()
	f.hasher.verified = true
	broken := f.broken != nil
	f.tell() // readers need not wait for the disk
	f.mu.Unlock()
	if broken { // the disk may not give back what it was given
		return
	}
	point.Hit("flight/right")
	f.announce(size)
	err := f.spool.Commit(f.digest, size)
	if err != nil {
		f.g.o.Log.WarnContext(f.ctx, "a blob was served and could not be kept; check the disk of cache.dir",
			"digest", f.digest, "size", size, "error", err)
	}
	point.Hit("flight/committed")
	// From here on the store has the blob. Readers of this flight stay on its spool.
	f.g.forget(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.life.ended = true
	f.life.commit = &commit{err}
	f.idle.stop()
	f.tell()
}

// wrong ends the flight, whose bytes have another digest.
func (f *Flight) wrong(got string, size int64) {
	if f.former.rest != nil { // perhaps the upstream is not at fault: readers that continue by themselves will find out
		f.damage()
		return
	}
	f.mu.Lock()
	sources := f.origins.sources
	err := &MismatchError{
		Digest: f.digest, Got: newDigest(f.digest.Algorithm(), got), Size: size, GotSize: size, Host: f.origins.host,
		by: slices.Clone(f.origins.keys),
	}
	mixed := slices.ContainsFunc(f.readers, func(r *Reader) bool { return !err.FaultOf(r.src.Key) })
	f.mu.Unlock()
	if mixed || len(err.by) > 1 {
		f.g.spoil(f.digest)
	}
	for _, s := range sources {
		if s.Wrong != nil && err.FaultOf(s.Key) {
			s.Wrong(err)
		}
	}
	f.end(err)
}

// announce tells the sources that the blob is about to be kept.
func (f *Flight) announce(size int64) {
	f.mu.Lock()
	sources, open := f.origins.sources, f.former.rest == nil // the origin of bytes of a former process is not known
	f.mu.Unlock()
	for _, s := range sources {
		open = open && s.Open
	}
	for _, s := range sources {
		if s.Whole != nil {
			s.Whole(size, open)
		}
	}
}
