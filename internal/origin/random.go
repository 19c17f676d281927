package origin

import (
	"archive/tar"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// random is bytes out of a key stream, at any offset and in no memory.
type random struct {
	block cipher.Block
	size  int64
}

func newRandom(seed, size int64) *random {
	var key [16]byte
	binary.BigEndian.PutUint64(key[:], uint64(seed))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // 16 bytes are a key
	}
	return &random{block: block, size: size}
}

func (r *random) Size() int64 { return r.size }

// ReadAt implements io.ReaderAt.
func (r *random) ReadAt(p []byte, off int64) (int, error) {
	if off >= r.size {
		return 0, io.EOF
	}
	n := int(min(int64(len(p)), r.size-off))
	var iv [aes.BlockSize]byte
	binary.BigEndian.PutUint64(iv[8:], uint64(off/aes.BlockSize))
	stream := cipher.NewCTR(r.block, iv[:])
	var skip [aes.BlockSize]byte
	stream.XORKeyStream(skip[:off%aes.BlockSize], skip[:off%aes.BlockSize])
	clear(p[:n])
	stream.XORKeyStream(p[:n], p[:n])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Layers below this size are plain bytes: a tar of one file does not fit.
const smallestTar = 2048

// layer is an uncompressed tar of one file of random bytes, so that container runtimes can unpack it.
type layer struct {
	head []byte
	file *random
	size int64
}

func newLayer(seed, size int64) content {
	if size < smallestTar {
		return newRandom(seed, size)
	}
	file := (size - 3*512) / 512 * 512 // a header before it, two empty blocks or a little more after it
	var head bytes.Buffer
	err := tar.NewWriter(&head).WriteHeader(&tar.Header{
		Name: fmt.Sprintf("layer-%x", uint64(seed)), Mode: 0o644,
		Typeflag: tar.TypeReg, Size: file, ModTime: time.Unix(0, 0), Format: tar.FormatGNU,
	})
	if err != nil || head.Len() != 512 {
		panic(fmt.Sprintf("origin: tar header of %d bytes: %v", head.Len(), err))
	}
	return &layer{head: head.Bytes(), file: newRandom(seed, file), size: size}
}

func (l *layer) Size() int64 { return l.size }

// ReadAt implements io.ReaderAt.
func (l *layer) ReadAt(p []byte, off int64) (int, error) {
	if off >= l.size {
		return 0, io.EOF
	}
	want := p[:min(int64(len(p)), l.size-off)]
	rest := want
	if h := int64(len(l.head)); off < h {
		n := copy(rest, l.head[off:])
		rest, off = rest[n:], off+int64(n)
	}
	if at := off - int64(len(l.head)); len(rest) > 0 && at < l.file.size {
		n, _ := l.file.ReadAt(rest, at) // short only at its end
		rest = rest[n:]
	}
	clear(rest)
	if len(want) < len(p) {
		return len(want), io.EOF
	}
	return len(want), nil
}

// sums are digests of layers by seed and size. Hashing hundreds of MiB for each test would take seconds.
var sums sync.Map

func layerSum(seed int64, c content) oci.Digest {
	key := [2]int64{seed, c.Size()}
	if d, ok := sums.Load(key); ok {
		return d.(oci.Digest)
	}
	d := sum(c)
	sums.Store(key, d)
	return d
}
