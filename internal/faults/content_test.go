package faults_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"sync"

	"github.com/registrymirror/mirror/oci"
)

// content is the right bytes of a blob, with which all answers are compared.
type content struct {
	digest oci.Digest
	size   int64
	bytes  []byte // nil: too large, made again where they are needed
	seed   uint64
}

// contents are made once, since many trials use the same.
var contents sync.Map

type contentKey struct {
	size int64
	seed uint64
}

const largest = 16 << 20 // content that is kept in memory

func newContent(size int64, seed uint64) *content {
	key := contentKey{size, seed}
	if c, ok := contents.Load(key); ok {
		return c.(*content)
	}
	c := &content{size: size, seed: seed}
	h := sha256.New()
	if size <= largest {
		c.bytes = make([]byte, size)
		r := rand.NewChaCha8(chachaSeed(seed))
		_, _ = r.Read(c.bytes)
		h.Write(c.bytes)
	} else {
		_, _ = io.Copy(h, io.NewSectionReader(c, 0, size))
	}
	c.digest = oci.Digest("sha256:" + hex.EncodeToString(h.Sum(nil)))
	contents.Store(key, c)
	return c
}

func chachaSeed(seed uint64) (s [32]byte) {
	for i := range 8 {
		s[i] = byte(seed >> (8 * i))
	}
	return s
}

func (c *content) Size() int64 { return c.size }

// block is the unit in which larger content is made: each from a seed of its own, out of a pool of a few.
const block = 1 << 20

var pool = sync.OnceValue(func() []byte {
	b := make([]byte, 4*block)
	r := rand.NewChaCha8(chachaSeed(99))
	_, _ = r.Read(b)
	return b
})

// ReadAt implements io.ReaderAt. Blocks of large content differ by where in the pool they begin.
func (c *content) ReadAt(p []byte, off int64) (int, error) {
	if off >= c.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), c.size-off)]
	if c.bytes != nil {
		copy(want, c.bytes[off:])
	} else {
		for rest := want; len(rest) > 0; {
			n := copy(rest, c.at(off))
			rest, off = rest[n:], off+int64(n)
		}
	}
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// at is some right bytes from an offset on.
func (c *content) at(off int64) []byte {
	if c.bytes != nil {
		return c.bytes[off:]
	}
	i := off / block
	start := int64((uint64(i+1)*0x9E3779B97F4A7C15 + c.seed*0xBF58476D1CE4E5B9) % (3 * block))
	end := min((i+1)*block, c.size)
	return pool()[start+off-i*block : start+end-i*block]
}

// differs is the offset of the first byte of p that is not that of the content at off, -1 where all are right.
func (c *content) differs(p []byte, off int64) int64 {
	for len(p) > 0 {
		if off >= c.size {
			return off
		}
		have := c.at(off)
		n := min(len(have), len(p))
		if !bytes.Equal(have[:n], p[:n]) {
			for i := range n {
				if have[i] != p[i] {
					return off + int64(i)
				}
			}
		}
		p, off = p[n:], off+int64(n)
	}
	return -1
}
