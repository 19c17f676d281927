package boltfile

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/fnv"
	"io"
	"os"

	"github.com/registrymirror/mirror/internal/regular"
)

// MaxChecked is the size in bytes up to which a file is checked: 400 MiB, a million keys, take half a second.
const MaxChecked = 1 << 30

// The file format of bbolt, version 2, in the byte order of the machine.
const (
	pageHead = 16 // id, flags, count, overflow
	elemSize = 16 // of a branch: position, key size, page; of a leaf: flags, position, key size, value size

	flagBranch   = 0x01
	flagLeaf     = 0x02
	flagFreelist = 0x10

	metaSize    = 64
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	noFreelist  = ^uint64(0)
)

var native = binary.NativeEndian

// meta is the newest root of the file.
type meta struct {
	pageSize             int64
	root, freelist, high uint64
	txid                 uint64
}

// checker walks the pages of one file.
type checker struct {
	f     *os.File
	size  int64
	m     meta
	used  []bool // by page: it was read, or is free
	metas int    // how many are whole
}

// subtree is a page to be read, with the keys that its own must be within.
type subtree struct {
	id     uint64
	lo, hi []byte // lo is its first key, all are below hi; nil: no bound
}

// Check reads a file that no other process may be writing to and says what is wrong with it: a *DamageError, or the
// disk's error. An empty file is sound.
func Check(path string) error {
	f, err := regular.Open(path)
	if regular.Unfit(err) {
		return Damaged("not a regular file")
	}
	if err != nil {
		return err
	}
	defer f.Close()
	if err := lock(f); err != nil {
		return err
	}
	_, err = check(f)
	return err
}

// check is Check of an open file that is locked. oneRoot says that one of the two metas is not whole: the other is in use,
// which may be the older one, without the last write.
func check(f *os.File) (oneRoot bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if !info.Mode().IsRegular() {
		return false, Damaged("not a regular file")
	}
	c := &checker{f: f, size: info.Size()}
	if c.size == 0 || c.size > MaxChecked {
		return false, nil
	}
	err = c.run()
	return c.metas == 1, err
}

func (c *checker) run() error {
	if err := c.findMeta(); err != nil {
		return err
	}
	c.used = make([]bool, c.m.high)
	c.used[0], c.used[1] = true, true
	for todo := []subtree{{id: c.m.root}}; len(todo) > 0; {
		next := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		more, err := c.tree(next)
		if err != nil {
			return err
		}
		todo = append(todo, more...)
	}
	return c.freelist()
}

// findMeta reads the newer of the two metas that are whole. The page size is in them, and so is where the second one
// is.
func (c *checker) findMeta() error {
	var found bool
	for i := -1; i <= 14; i++ {
		at := int64(0)
		if i >= 0 {
			at = 1024 << i
		}
		m, ok, err := c.meta(at)
		if err != nil {
			return err
		}
		if !ok || at != 0 && at != m.pageSize { // an old copy of a meta may lie anywhere
			continue
		}
		c.metas++
		if !found || m.txid > c.m.txid {
			c.m, found = m, true
		}
	}
	if !found {
		return Damaged("neither of its two meta pages is whole")
	}
	if c.m.high < 2 || c.m.high > uint64(c.size/c.m.pageSize) {
		return Damaged("the file has %d bytes, its pages need %d of %d bytes", c.size, c.m.high, c.m.pageSize)
	}
	return nil
}

func (c *checker) meta(at int64) (m meta, ok bool, err error) {
	b := make([]byte, pageHead+metaSize)
	if _, err := c.f.ReadAt(b, at); errors.Is(err, io.EOF) {
		return m, false, nil
	} else if err != nil {
		return m, false, err
	}
	b = b[pageHead:]
	h := fnv.New64a()
	_, _ = h.Write(b[:metaSize-8])
	m = meta{
		pageSize: int64(native.Uint32(b[8:])), root: native.Uint64(b[16:]), freelist: native.Uint64(b[32:]),
		high: native.Uint64(b[40:]), txid: native.Uint64(b[48:]),
	}
	ok = native.Uint32(b) == metaMagic && native.Uint32(b[4:]) == metaVersion &&
		native.Uint64(b[metaSize-8:]) == h.Sum64() && m.pageSize >= 1024 && m.pageSize&(m.pageSize-1) == 0
	return m, ok, nil
}

// page reads a page with its overflow, which nothing else may refer to.
func (c *checker) page(id uint64) ([]byte, error) {
	b, err := c.m.read(c.f, id)
	if err != nil {
		return nil, err
	}
	for i := id; i < id+uint64(len(b))/uint64(c.m.pageSize); i++ {
		if c.used[i] {
			return nil, Damaged("page %d is referred to twice", i)
		}
		c.used[i] = true
	}
	return b, nil
}

// read reads a page with its overflow.
func (m *meta) read(f io.ReaderAt, id uint64) ([]byte, error) {
	if id < 2 || id >= m.high {
		return nil, Damaged("page %d is outside of the file", id)
	}
	head := make([]byte, pageHead)
	if _, err := f.ReadAt(head, int64(id)*m.pageSize); err != nil {
		return nil, err
	}
	n := uint64(native.Uint32(head[12:])) + 1
	if got := native.Uint64(head); got != id || n > m.high-id {
		return nil, Damaged("page %d has the number %d and %d pages", id, got, n)
	}
	b := make([]byte, int64(n)*m.pageSize)
	_, err := f.ReadAt(b, int64(id)*m.pageSize)
	return b, err
}

// tree checks a page of a tree and returns what it refers to.
func (c *checker) tree(t subtree) ([]subtree, error) {
	b, err := c.page(t.id)
	if err != nil {
		return nil, err
	}
	return c.elements(t, b)
}

// elements checks what is in a page, or in a bucket that is small enough to be within its parent's.
func (c *checker) elements(t subtree, b []byte) (below []subtree, err error) {
	var buckets []subtree
	below, err = parse(t, b, func(key, value []byte, bucket bool) error {
		if !bucket {
			return nil
		}
		in, err := bucketOf(t.id, value)
		if err != nil {
			return err
		}
		more := []subtree{{id: in.root}}
		if in.root == 0 {
			more, err = c.elements(subtree{id: t.id}, in.page)
		}
		buckets = append(buckets, more...)
		return err
	})
	return append(below, buckets...), err
}

// parse checks what is in a page: it calls item for what a leaf has, in order, and returns what a branch refers to.
func parse(t subtree, b []byte, item func(key, value []byte, bucket bool) error) (below []subtree, err error) {
	flags, count := native.Uint16(b[8:]), int(native.Uint16(b[10:]))
	if flags != flagBranch && flags != flagLeaf || flags == flagBranch && count == 0 ||
		pageHead+count*elemSize > len(b) {
		return nil, Damaged("page %d: flags %#x, %d elements in %d bytes", t.id, flags, count, len(b))
	}
	if count == 0 && t.lo != nil { // only a root may be empty
		return nil, Damaged("page %d: no elements", t.id)
	}
	last := t.lo
	for i := range count {
		at := pageHead + i*elemSize
		e := b[at:]
		pos, keySize, valueSize := native.Uint32(e), native.Uint32(e[4:]), uint32(0)
		if flags == flagLeaf {
			pos, keySize, valueSize = native.Uint32(e[4:]), native.Uint32(e[8:]), native.Uint32(e[12:])
		}
		from := uint64(at) + uint64(pos)
		end := from + uint64(keySize) + uint64(valueSize)
		if end > uint64(len(b)) {
			return nil, Damaged("page %d: element %d ends at %d of %d bytes", t.id, i, end, len(b))
		}
		key := b[from : from+uint64(keySize)]
		// bbolt finds a page in the one above by its first key, and adds it once more if that is another.
		order := bytes.Compare(last, key)
		if keySize == 0 || i > 0 && order >= 0 || i == 0 && last != nil && order != 0 ||
			t.hi != nil && bytes.Compare(key, t.hi) >= 0 {
			return nil, Damaged("page %d: key %d is out of order", t.id, i)
		}
		last = key
		if flags == flagBranch {
			if i > 0 {
				below[i-1].hi = key
			}
			below = append(below, subtree{id: native.Uint64(e[8:]), lo: key, hi: t.hi})
			continue
		}
		if err := item(key, b[from+uint64(keySize):end], native.Uint32(e)&1 != 0); err != nil {
			return nil, err
		}
	}
	return below, nil
}

// inBucket is where the tree of a bucket is.
type inBucket struct {
	root     uint64 // its page; 0: page has all of it
	page     []byte
	sequence uint64
}

// bucketOf reads the value that is a bucket: its root page and sequence, and behind them all of it where it has no page.
func bucketOf(page uint64, v []byte) (in inBucket, err error) {
	if len(v) < 16 {
		return in, Damaged("page %d: a bucket of %d bytes", page, len(v))
	}
	in = inBucket{root: native.Uint64(v), sequence: native.Uint64(v[8:])}
	if in.root == 0 {
		if len(v) < 16+pageHead {
			return in, Damaged("page %d: a bucket of %d bytes", page, len(v))
		}
		in.page = v[16:]
	}
	return in, nil
}

// freelist checks that what bbolt would write over is in no tree.
func (c *checker) freelist() error {
	if c.m.freelist == noFreelist {
		return nil
	}
	b, err := c.page(c.m.freelist)
	if err != nil {
		return err
	}
	count, ids := uint64(native.Uint16(b[10:])), b[pageHead:]
	if count == 0xFFFF {
		count, ids = native.Uint64(ids), ids[8:]
	}
	if native.Uint16(b[8:]) != flagFreelist || count > uint64(len(ids)/8) {
		return Damaged("page %d is not a list of %d free pages", c.m.freelist, count)
	}
	for i := range count {
		id := native.Uint64(ids[i*8:])
		if id < 2 || id >= c.m.high || c.used[id] {
			return Damaged("page %d is free and in use", id)
		}
		c.used[id] = true
	}
	return nil
}
