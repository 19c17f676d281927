package flight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
)

// stream is what a reader has opened for itself: [pos, end) of the blob, from its own source. Of the whole blob, the
// last 64 KiB are held back until the digest is right. A range is as right as its source.
//
//	0 ........... pos ........ tailAt ........ end
//	 had already      passed on      held back
//
// The body may begin before pos: then what the reader had already is only hashed.
type stream struct {
	r      *Reader
	body   Body  // nil: there is nothing to fetch
	at     int64 // of the body's next byte
	pos    int64 // of the next byte to pass on
	tailAt int64 // where what is held back begins; end for a range
	end    int64
	hash   hash.Hash // of [0, at); nil for a range
	mark   int64     // up to here the hasher had seen what was sent,
	sum    []byte    // and that was its hash; nil: nothing to compare
	tail   []byte    // [tailAt, at)
	right  bool      // the digest is
	err    error     // the body's, which came with its last bytes
}

// read passes on at least one byte, or an error. Never io.EOF: nobody reads on at the end.
func (s *stream) read(ctx context.Context, p []byte) (int, error) {
	if s.at < s.pos {
		if err := s.skip(ctx); err != nil {
			return 0, err
		}
	}
	if s.pos < s.tailAt {
		n, err := s.more(ctx, p, s.tailAt)
		s.pos += int64(n)
		return n, err
	}
	if !s.right {
		if err := s.verify(ctx); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.tail[s.pos-s.tailAt:])
	s.pos += int64(n)
	return n, nil
}

// skip hashes what the reader had already.
func (s *stream) skip(ctx context.Context) error {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for s.at < s.pos {
		if _, err := s.more(ctx, *buf, s.pos); err != nil {
			return err
		}
	}
	return nil
}

// verify reads what is held back, and has it passed on if the digest is right.
func (s *stream) verify(ctx context.Context) error {
	if s.tail == nil {
		s.tail = make([]byte, 0, s.end-s.tailAt)
	}
	for s.at < s.end {
		free := s.tail[len(s.tail):cap(s.tail)]
		n, err := s.more(ctx, free, s.end)
		s.tail = s.tail[:len(s.tail)+n]
		if err != nil {
			return err
		}
	}
	f := s.r.f
	if got := newDigest(f.digest.Algorithm(), fmt.Sprintf("%x", s.hash.Sum(nil))); got != f.digest {
		wrong := &MismatchError{Digest: f.digest, Got: got, Size: s.end, GotSize: s.end, Verified: s.end}
		if s.body != nil {
			wrong.Host = s.body.Host()
		}
		if s.r.took {
			wrong.by = f.broughtTo(s.r.src.Key)
		}
		return wrong
	}
	s.right = true
	return nil
}

// errDiffers says that a source sent other bytes than were sent to the client before.
var errDiffers = errors.New("it is not what was sent before")

// more reads from the body, up to end.
func (s *stream) more(ctx context.Context, p []byte, end int64) (int, error) {
	if s.at < s.mark {
		end = min(end, s.mark)
	}
	n, err := 0, s.err
	if err == nil {
		n, err = s.readBody(ctx, p[:min(int64(len(p)), end-s.at)])
		s.at, s.err = s.at+int64(n), err
	}
	if n == 0 {
		if errors.Is(err, io.EOF) {
			err = fmt.Errorf("ended at byte %d of %d: %w", s.at, s.end, io.ErrUnexpectedEOF)
		}
		return 0, fmt.Errorf("read %s from %s: %w", s.r.f.digest, s.body.Host(), s.r.why(ctx, err))
	}
	if s.hash == nil {
		return n, nil
	}
	s.hash.Write(p[:n])
	if s.at == s.mark && !bytes.Equal(s.hash.Sum(nil), s.sum) {
		return 0, fmt.Errorf("read %s again from %s: %w", s.r.f.digest, s.body.Host(), errDiffers)
	}
	return n, nil
}

// readBody reads at least one byte of the body, or its error. The context ends with it.
func (s *stream) readBody(ctx context.Context, p []byte) (int, error) {
	if owned, ok := s.body.(*ownedBody); ok {
		defer context.AfterFunc(ctx, owned.end)()
	}
	if err := s.r.why(ctx, nil); err != nil {
		return 0, err
	}
	return readFrom(s.body, p)
}

// count reads a body of unknown length to its end, for its length.
func (s *stream) count(ctx context.Context) (int64, error) {
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for {
		n, err := s.readBody(ctx, *buf)
		s.hash.Write((*buf)[:n])
		s.at += int64(n)
		switch {
		case errors.Is(err, io.EOF):
			s.end, s.tailAt = s.at, s.at
			return s.at, s.verify(ctx)
		case err != nil:
			return 0, fmt.Errorf("read %s from %s: %w", s.r.f.digest, s.body.Host(), s.r.why(ctx, err))
		}
	}
}
