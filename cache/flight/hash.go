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

// hash is the goroutine that follows the prefix, and ends the flight: by a commit, or for wrong content. Of a broken
// spool it hashes what is there, and leaves the hash to the readers, who go on by themselves.
func (f *Flight) hash() {
	verifier := f.digest.Algorithm().Hash()
	var buf *[]byte // none while there is nothing to hash: a parked flight may wait for an hour
	drop := func() {
		if buf != nil {
			buffers.Put(buf)
			buf = nil
		}
	}
	defer drop()
	defer f.hashOver(verifier)
	var done int64
	for {
		f.mu.Lock()
		to, size := f.toHash(done), f.size
		broken, over := f.broken != nil, f.failed != nil || f.ended && f.broken == nil
		f.mu.Unlock()
		switch {
		case over || f.g.ctx.Err() != nil:
			return
		case done < to:
		case done == size:
			f.finish(verifier.Sum(nil), size)
			return
		case broken:
			return
		default:
			drop()
			select {
			case <-f.more:
			case <-f.ctx.Done():
				f.mu.Lock()
				broken := f.broken != nil
				f.mu.Unlock()
				if !broken {
					return
				}
			}
			continue
		}
		if buf == nil {
			buf = buffers.Get().(*[]byte)
		}
		// Read back from the page cache: a copy of a tenth of the hash's cost, for extents in any order.
		n, err := f.spool.ReadAt((*buf)[:min(int64(len(*buf)), to-done)], done)
		if n == 0 && err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			f.breakSpool(fmt.Errorf("read spool of %s at %d: %w", f.digest, done, err))
			return
		}
		verifier.Write((*buf)[:n])
		done += int64(n)
		f.mu.Lock()
		f.hashed = done
		f.sure.progress(int64(n))
		f.mu.Unlock()
		point.Hit("flight/hashing")
		if !f.agrees(done, verifier) {
			return
		}
	}
}

// hashOver takes the hasher off, and leaves its state.
func (f *Flight) hashOver(state hash.Hash) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hashing, f.state = false, state
	f.sure.ring()
	f.users--
	f.release()
}

// finish ends the flight with the digest that its bytes turned out to have.
func (f *Flight) finish(sum []byte, size int64) {
	point.Hit("flight/hashed")
	if got := fmt.Sprintf("%x", sum); guard.Digest && got != f.digest.Encoded() {
		if f.left != nil { // perhaps not what the upstream sent; whoever goes on from his own source will see
			f.damage()
			return
		}
		f.mu.Lock()
		host, sources := f.host, f.sources
		err := &MismatchError{
			Digest: f.digest, Got: newDigest(f.digest.Algorithm(), got), Size: size, GotSize: size, Host: host,
			Verified: size, by: slices.Clone(f.brought),
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
		return
	}
	f.mu.Lock()
	f.verified = true
	broken := f.broken != nil
	f.tell() // readers need not wait for the disk
	f.mu.Unlock()
	if broken { // what a reader could not read is nothing to keep
		return
	}
	point.Hit("flight/right")
	f.whole(size)
	err := f.spool.Commit(f.digest, size)
	if err != nil {
		f.g.o.Log.WarnContext(f.ctx, "a blob was served and could not be kept; check the disk of cache.dir",
			"digest", f.digest, "size", size, "err", err)
	}
	point.Hit("flight/committed")
	// From here on the store has it. Readers on this flight stay on its spool.
	f.g.forget(f)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = true
	if f.idle != nil {
		f.idle.Stop()
	}
}

// whole tells the sources that the blob is about to be kept.
func (f *Flight) whole(size int64) {
	f.mu.Lock()
	sources, open := f.sources, f.left == nil // of what a former process left, it is not known where it came from
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
