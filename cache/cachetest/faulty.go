package cachetest

import (
	"fmt"
	"io/fs"
	"iter"
	"sync"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// Op is a call that can be made to fail.
type Op string

// The calls of a store and of its spools.
const (
	Open    Op = "open"
	Create  Op = "create"
	Remove  Op = "remove"
	WriteAt Op = "write"
	ReadAt  Op = "read" // of a spool
	Commit  Op = "commit"
)

// Faulty is a store whose calls fail on demand, as a disk's do.
type Faulty struct {
	cache.Store

	mu    sync.Mutex // guards the fields below
	calls map[Op]int
	fault map[Op]fault
}

type fault struct {
	from, to int // calls, from 1; to 0: for good
	err      error
}

// NewFaulty wraps a store. It fails nothing until told to.
func NewFaulty(s cache.Store) *Faulty {
	return &Faulty{Store: s, calls: make(map[Op]int), fault: make(map[Op]fault)}
}

// Fail has the k-th call of op from now on, and all after it, fail with err (an errno, best). k counts from 1.
func (f *Faulty) Fail(op Op, k int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault[op] = fault{from: f.calls[op] + k, err: err}
}

// FailOnce has only the k-th call of op from now on fail.
func (f *Faulty) FailOnce(op Op, k int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.calls[op] + k
	f.fault[op] = fault{from: n, to: n, err: err}
}

// EndFaults ends all faults.
func (f *Faulty) EndFaults() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.fault)
}

// Calls is how often op was called.
func (f *Faulty) Calls(op Op) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[op]
}

// call counts a call and returns its fault.
func (f *Faulty) call(op Op) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[op]++
	n, x := f.calls[op], f.fault[op]
	if x.err == nil || n < x.from || x.to > 0 && n > x.to {
		return nil
	}
	return &fs.PathError{Op: string(op), Path: fmt.Sprintf("faulty call %d", n), Err: x.err}
}

// Open opens, or fails.
func (f *Faulty) Open(d oci.Digest) (cache.Object, error) {
	if err := f.call(Open); err != nil {
		return nil, err
	}
	return f.Store.Open(d)
}

// Create makes a spool whose calls may fail, too.
func (f *Faulty) Create(size int64) (cache.Spool, error) {
	if err := f.call(Create); err != nil {
		return nil, err
	}
	p, err := f.Store.Create(size)
	if err != nil {
		return nil, err
	}
	return &faultySpool{Spool: p, f: f}, nil
}

// Remove removes, or fails.
func (f *Faulty) Remove(d oci.Digest) error {
	if err := f.call(Remove); err != nil {
		return err
	}
	return f.Store.Remove(d)
}

// All is never made to fail.
func (f *Faulty) All() iter.Seq2[cache.Entry, error] { return f.Store.All() }

type faultySpool struct {
	cache.Spool
	f *Faulty
}

// WriteAt writes half before it fails, as a disk does that fills up.
func (p *faultySpool) WriteAt(b []byte, off int64) (int, error) {
	if err := p.f.call(WriteAt); err != nil {
		n, werr := p.Spool.WriteAt(b[:len(b)/2], off)
		if werr != nil {
			return n, werr
		}
		return n, err
	}
	return p.Spool.WriteAt(b, off)
}

func (p *faultySpool) ReadAt(b []byte, off int64) (int, error) {
	if err := p.f.call(ReadAt); err != nil {
		return 0, err
	}
	return p.Spool.ReadAt(b, off)
}

func (p *faultySpool) Commit(d oci.Digest, size int64) error {
	if err := p.f.call(Commit); err != nil {
		return err
	}
	return p.Spool.Commit(d, size)
}
