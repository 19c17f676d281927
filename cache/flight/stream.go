package flight

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
)

// stream is [pos, end) of the blob, from a reader's own source. Of the whole blob, the last 64 KiB are held back until
// the digest is known to be right. A range is as right as its source.
//
//	0 .............. pos ........ tailAt ........ end
//	 the reader has      passed on      held back
//
// The body may begin before pos: then the bytes that the reader has are only hashed.
type stream struct {
	d      *direct
	body   Body  // nil: there is nothing to fetch
	at     int64 // of the body's next byte
	pos    int64 // of the next byte to pass on
	tailAt int64 // where the bytes begin that are held back; end for a range
	end    int64
	hash   hash.Hash // of [0, at); nil for a range
	mark   int64     // the bytes that were sent had the hash sum up to here, as the hasher saw them
	sum    []byte    // nil: nothing to compare
	tail   []byte    // [tailAt, at)
	right  bool      // the digest is right
	err    error     // of the body, which came with its last bytes
}

// read passes on at least one byte, or an error, which is never io.EOF: no call follows at the end.
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

// skip hashes the bytes that the reader has.
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

// verify reads the bytes that are held back, and releases them if the digest is right.
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
	d := s.d.digest
	if got := newDigest(d.Algorithm(), fmt.Sprintf("%x", s.hash.Sum(nil))); got != d {
		wrong := &MismatchError{Digest: d, Got: got, Size: s.end, GotSize: s.end}
		if s.body != nil {
			wrong.Host = s.body.Host()
		}
		return wrong
	}
	s.right = true
	return nil
}

// errDiffers says that a source sent other bytes than were sent to the client before.
var errDiffers = errors.New("its bytes differ from those that were sent before")

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
		return 0, fmt.Errorf("read %s from %s: %w", s.d.digest, s.body.Host(), s.d.cause(ctx, err))
	}
	if s.hash == nil {
		return n, nil
	}
	s.hash.Write(p[:n])
	if s.at == s.mark && !bytes.Equal(s.hash.Sum(nil), s.sum) {
		return 0, fmt.Errorf("read %s again from %s: %w", s.d.digest, s.body.Host(), errDiffers)
	}
	return n, nil
}

// readBody reads at least one byte of the body, or its error. The context ends with it.
func (s *stream) readBody(ctx context.Context, p []byte) (int, error) {
	if owned, ok := s.body.(*ownedBody); ok {
		defer context.AfterFunc(ctx, owned.end)()
	}
	if err := s.d.cause(ctx, nil); err != nil {
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
			return 0, fmt.Errorf("read %s from %s: %w", s.d.digest, s.body.Host(), s.d.cause(ctx, err))
		}
	}
}
