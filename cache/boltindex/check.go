package boltindex

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"io/fs"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// The file format of bbolt, version 2: pages of one size, numbered from 0. Pages 0 and 1 are metas, of which the valid
// one with the higher transaction counts. Numbers have the machine's byte order.
const (
	magic      = 0xED0CDAED
	version    = 2
	pageHeader = 16 // id 8, flags 2, count 2, overflow 4
	// magic 4, version 4, page size 4, flags 4, root 8, sequence 8, freelist 8, high water 8, transaction 8, sum 8
	metaLen      = 64
	branchFlag   = 0x01
	leafFlag     = 0x02
	freelistFlag = 0x10
	elementLen   = 16 // branch: pos 4, key 4, page 8; leaf: flags 4, pos 4, key 4, value 4
	bucketFlag   = 0x01
	bucketLen    = 16 // root 8, sequence 8
	noFreelist   = math.MaxUint64
)

var order = binary.NativeEndian

type meta struct {
	pageSize                   int64
	root, freelist, high, txid uint64
}

// checkFile reads the whole file and reports as damage whatever would make bbolt panic, fault or walk in circles. A
// file that is not there, or empty, is fine. It takes a tenth of a second for a hundred megabytes.
func checkFile(path string) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return &damage{errors.New("not a regular file")}
	}
	if fi.Size() == 0 {
		return nil
	}
	// A file that somebody writes to looks damaged. bbolt takes the same lock.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
		return errLocked
	}
	if err := check(f, fi.Size()); err != nil {
		return &damage{err}
	}
	return nil
}

// checker walks the tree of one file.
type checker struct {
	r    io.ReaderAt
	m    meta
	seen []bool // by page
	todo []subtree
}

// subtree is a page to look at, whose keys begin with min and lie below max. Nil: no bound.
type subtree struct {
	page     uint64
	min, max []byte
}

func check(r io.ReaderAt, size int64) error {
	m, err := findMeta(r, size)
	if err != nil {
		return err
	}
	if m.high < 3 || m.high > uint64(size/m.pageSize) {
		return fmt.Errorf("%d bytes are too few for %d pages", size, m.high)
	}
	c := &checker{r: r, m: m, seen: make([]bool, m.high)}
	c.todo = append(c.todo, subtree{page: m.root})
	for len(c.todo) > 0 {
		next := c.todo[len(c.todo)-1]
		c.todo = c.todo[:len(c.todo)-1]
		p, err := c.read(next.page)
		if err != nil {
			return err
		}
		if err := c.node(p, next); err != nil {
			return fmt.Errorf("page %d: %w", next.page, err)
		}
	}
	if m.freelist == noFreelist {
		return nil
	}
	p, err := c.read(m.freelist)
	if err != nil {
		return err
	}
	if err := c.free(p); err != nil {
		return fmt.Errorf("page %d: %w", m.freelist, err)
	}
	return nil
}

// findMeta returns the meta that bbolt will use.
func findMeta(r io.ReaderAt, size int64) (meta, error) {
	first, ok := readMeta(r, 0)
	if !ok {
		// The page size is in the metas: where the first is torn, the second lies at one of these.
		for at := int64(1 << 10); at <= 1<<25 && !ok; at <<= 1 {
			if first, ok = readMeta(r, at); ok && first.pageSize != at {
				ok = false
			}
		}
		if !ok {
			return meta{}, errors.New("not an index: no valid meta page")
		}
	}
	if ps := first.pageSize; ps < 1<<10 || ps > 1<<25 || ps&(ps-1) != 0 || size < 2*ps {
		return meta{}, fmt.Errorf("page size %d in a file of %d bytes", ps, size)
	}
	best := first
	for _, at := range []int64{0, first.pageSize} {
		if m, ok := readMeta(r, at); ok && m.txid > best.txid && m.pageSize == first.pageSize {
			best = m
		}
	}
	return best, nil
}

func readMeta(r io.ReaderAt, at int64) (meta, bool) {
	var b [pageHeader + metaLen]byte
	if _, err := r.ReadAt(b[:], at); err != nil {
		return meta{}, false
	}
	d := b[pageHeader:]
	sum := fnv.New64a()
	_, _ = sum.Write(d[:56])
	if order.Uint32(d) != magic || order.Uint32(d[4:]) != version || order.Uint64(d[56:]) != sum.Sum64() {
		return meta{}, false
	}
	return meta{
		pageSize: int64(order.Uint32(d[8:])),
		root:     order.Uint64(d[16:]), freelist: order.Uint64(d[32:]),
		high: order.Uint64(d[40:]), txid: order.Uint64(d[48:]),
	}, true
}

// read reads a page with its overflow, once.
func (c *checker) read(id uint64) ([]byte, error) {
	if id < 2 || id >= c.m.high {
		return nil, fmt.Errorf("page %d is not among the %d of the file", id, c.m.high)
	}
	var h [pageHeader]byte
	if _, err := c.r.ReadAt(h[:], int64(id)*c.m.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	n := uint64(order.Uint32(h[12:])) + 1
	if order.Uint64(h[:]) != id || n > c.m.high-id {
		return nil, fmt.Errorf("page %d is another one", id)
	}
	for i := id; i < id+n; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("page %d is in use twice", i)
		}
		c.seen[i] = true
	}
	p := make([]byte, int64(n)*c.m.pageSize)
	if _, err := c.r.ReadAt(p, int64(id)*c.m.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	return p, nil
}

// node looks at a branch or leaf.
func (c *checker) node(p []byte, s subtree) error {
	flags, count := order.Uint16(p[8:]), int(order.Uint16(p[10:]))
	if flags != branchFlag && flags != leafFlag {
		return fmt.Errorf("flags %#x", flags)
	}
	if count == 0 && (flags == branchFlag || s.min != nil) {
		return errors.New("a page without elements") // only the root may be an empty leaf
	}
	if pageHeader+count*elementLen > len(p) {
		return fmt.Errorf("%d elements", count)
	}
	prev := s.min
	var above *subtree // whose keys end where the next one's begin
	for i := range count {
		at := pageHeader + i*elementLen
		e := p[at : at+elementLen]
		var key, value []byte
		var err error
		if flags == branchFlag {
			key, _, err = slots(p, at, order.Uint32(e), order.Uint32(e[4:]), 0)
		} else {
			key, value, err = slots(p, at, order.Uint32(e[4:]), order.Uint32(e[8:]), order.Uint32(e[12:]))
		}
		if err != nil {
			return err
		}
		// bbolt finds a page in the one above by its first key, and adds it once more if that is another.
		if o := bytes.Compare(prev, key); i > 0 && o >= 0 || i == 0 && s.min != nil && o != 0 ||
			s.max != nil && bytes.Compare(key, s.max) >= 0 {
			return fmt.Errorf("key %d is out of order", i)
		}
		prev = key
		switch {
		case flags == branchFlag:
			if above != nil {
				above.max = key
			}
			c.todo = append(c.todo, subtree{page: order.Uint64(e[8:]), min: key, max: s.max})
			above = &c.todo[len(c.todo)-1]
		case order.Uint32(e)&bucketFlag != 0:
			if err := c.bucket(value); err != nil {
				return err
			}
		}
	}
	return nil
}

// slots cuts an element's key and value out of its page.
func slots(p []byte, at int, pos, keyLen, valueLen uint32) (key, value []byte, err error) {
	from := uint64(at) + uint64(pos)
	mid := from + uint64(keyLen)
	to := mid + uint64(valueLen)
	if to > uint64(len(p)) {
		return nil, nil, errors.New("an element lies outside")
	}
	if keyLen == 0 {
		return nil, nil, errors.New("an element without a key")
	}
	return p[from:mid], p[mid:to], nil
}

// bucket looks at the head of a bucket: it has a page, or is a page of its own.
func (c *checker) bucket(v []byte) error {
	if len(v) < bucketLen {
		return errors.New("a bucket is cut off")
	}
	if root := order.Uint64(v); root != 0 {
		c.todo = append(c.todo, subtree{page: root})
		return nil
	}
	if p := v[bucketLen:]; len(p) < pageHeader || order.Uint16(p[8:]) != leafFlag {
		return errors.New("a bucket is no leaf")
	}
	return c.node(v[bucketLen:], subtree{})
}

// free looks at the list of free pages: they are free, and there once.
func (c *checker) free(p []byte) error {
	if flags := order.Uint16(p[8:]); flags != freelistFlag {
		return fmt.Errorf("flags %#x", flags)
	}
	ids := p[pageHeader:]
	count := uint64(order.Uint16(p[10:]))
	if count == 0xffff {
		count, ids = order.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids)/8) {
		return fmt.Errorf("%d free pages", count)
	}
	for i := range count {
		id := order.Uint64(ids[i*8:])
		if id < 2 || id >= c.m.high || c.seen[id] {
			return fmt.Errorf("page %d can't be free", id)
		}
		c.seen[id] = true
	}
	return nil
}
