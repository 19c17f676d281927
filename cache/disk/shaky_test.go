package disk_test

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/cache/disk"
)

// shaky is a file system in pure Go over a real folder. It counts calls; any of them can be made to fail, or to be the
// one at which the power goes. It keeps account of what has been synced, as weakly as POSIX allows: what a file holds,
// its mark and the names in each folder are kept by a sync of just that, and nothing is kept in order.
//
//	live    what the process sees: the files of the real folder
//	durable what was there at the last sync; a power loss leaves this, or live, or zeros, page by page and name by name
//	lost    pages that a failed sync gave up: the kernel holds them for clean, no later sync writes them
type shaky struct {
	t   testing.TB
	dir string // the real folder

	mu      sync.Mutex // guards the fields below
	calls   int
	fail    func(op, name string, call int) error // nil: nothing fails
	hits    []string                              // the calls that did
	cut     int                                   // the call at which the power goes; 0: never
	off     bool                                  // it has gone
	noMarks bool                                  // there are no extended attributes
	// Not nil: called as a sync begins, and when a SyncFS is over.
	before func(op string)
	behind func()

	rand  *rand.Rand
	root  *node
	all   []*node
	files map[*os.File]*node
}

// node is a file or folder, with or without a name.
type node struct {
	// Of a folder.
	names, durableNames map[string]*node

	// Of a file.
	file       *os.File // our own, which lives as long as the test
	durable    []byte   // nil: never synced
	lost       map[int64]bool
	mark, kept bool // the mark, live and durable
}

const shakyPage = 4096

var errPower = errors.New("the power is off")

func newShaky(t testing.TB, dir string, seed uint64) *shaky {
	c := &shaky{
		t: t, dir: dir, root: newFolder(), files: make(map[*os.File]*node), rand: rand.New(rand.NewPCG(seed, 1)),
	}
	c.all = []*node{c.root}
	t.Cleanup(c.forget)
	return c
}

func newFolder() *node {
	return &node{names: make(map[string]*node), durableNames: make(map[string]*node)}
}

// load takes what is in the folder for what is on disk.
func (c *shaky) load() {
	err := filepath.WalkDir(c.dir, func(path string, e fs.DirEntry, err error) error {
		rel, rerr := filepath.Rel(c.dir, path)
		if err := errors.Join(err, rerr); err != nil || rel == "." {
			return err
		}
		if e.IsDir() {
			c.made(rel)
			return nil
		}
		n, err := c.add(rel)
		if err == nil {
			v, verr := disk.System(filepath.Dir(path))
			if verr != nil {
				return verr
			}
			defer v.Close()
			n.mark = v.Marked(n.file)
		}
		return err
	})
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range c.all {
		c.persist(n)
	}
}

// add notes a file. The lock is held.
func (c *shaky) add(name string) (*node, error) {
	file, err := os.OpenFile(filepath.Join(c.dir, name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	n := &node{file: file, lost: make(map[int64]bool)}
	dir, base := c.parent(name)
	dir.names[base] = n
	c.all = append(c.all, n)
	return n, nil
}

// restart has the process die and another one begin: what the kernel holds stays.
func (c *shaky) restart() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off, c.cut, c.fail = false, 0, nil
}

// powerOff has every call fail from now on.
func (c *shaky) powerOff() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
}

// forget closes what it holds.
func (c *shaky) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		if n.file != nil {
			_ = n.file.Close()
		}
	}
	c.all = nil
}

// on opens the volume, for disk.OpenOn.
func (c *shaky) on(dir string) (disk.Volume, error) {
	v, err := disk.System(dir)
	if err != nil {
		return nil, err
	}
	return &shakyVolume{Volume: v, c: c}, nil
}

// endFaults ends all faults.
func (c *shaky) endFaults() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fail = nil
}

// faults are the calls that failed so far.
func (c *shaky) faults() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hits
}

// call counts a call. At the cut it reports so, with errPower: the call may or may not happen. The lock is held.
func (c *shaky) call(op, name string) (cut bool, err error) {
	if c.off {
		return false, errPower
	}
	if c.calls++; c.calls == c.cut {
		c.off = true
		return true, errPower
	}
	if c.fail != nil {
		if err := c.fail(op, name, c.calls); err != nil {
			c.hits = append(c.hits, op)
			return false, &fs.PathError{Op: op, Path: "shaky", Err: err}
		}
	}
	return false, nil
}

// half is what happens of a call during which the power goes, or the disk fails: all or nothing.
func (c *shaky) half(cut bool) bool { return cut && c.rand.IntN(2) == 0 }

// at finds a node by its path. The lock is held.
func (c *shaky) at(name string) *node {
	n := c.root
	for part := range strings.SplitSeq(filepath.Clean(name), "/") {
		if part != "." && n != nil {
			n = n.names[part]
		}
	}
	return n
}

func (c *shaky) parent(name string) (*node, string) {
	name = filepath.Clean(name)
	return c.at(filepath.Dir(name)), filepath.Base(name)
}

// content is what a file holds now.
func (n *node) content(t testing.TB) []byte {
	fi, err := n.file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, fi.Size())
	if _, err := n.file.ReadAt(b, 0); err != nil && len(b) > 0 {
		t.Fatal(err)
	}
	return b
}

// page is one page of b, zeros where b ends.
func page(b []byte, i int64) []byte {
	p := make([]byte, shakyPage)
	if off := i * shakyPage; off < int64(len(b)) {
		copy(p, b[off:])
	}
	return p
}

func pages(size int) int64 { return int64(size+shakyPage-1) / shakyPage }

// persist is a sync that went well.
func (c *shaky) persist(n *node) {
	if n.names != nil {
		n.durableNames = maps.Clone(n.names)
		return
	}
	live := n.content(c.t)
	for i := range n.lost {
		if off := i * shakyPage; off < int64(len(live)) {
			copy(live[off:min(off+shakyPage, int64(len(live)))], page(n.durable, i))
		}
	}
	n.durable, n.kept = live, n.mark
}

// flush is the kernel's own sync, after a while.
func (c *shaky) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		c.persist(n)
	}
}

// giveUp is a sync that failed: bytes that were not on disk may never be, and no later call says so again.
func (c *shaky) giveUp(n *node) {
	if n.names != nil {
		return // names are tried again
	}
	live := n.content(c.t)
	for i := range pages(len(live)) {
		if !bytes.Equal(page(live, i), page(n.durable, i)) && c.rand.IntN(4) > 0 {
			n.lost[i] = true
		}
	}
}

// dropCaches has the kernel forget clean pages: what was lost reads as it is on disk.
func (c *shaky) dropCaches() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.all {
		c.drop(n)
	}
}

func (c *shaky) drop(n *node) {
	if n == nil || n.file == nil {
		return
	}
	live := n.content(c.t)
	for i := range n.lost {
		off := i * shakyPage
		if off >= int64(len(live)) {
			continue
		}
		p := page(n.durable, i)[:min(shakyPage, int64(len(live))-off)]
		if _, err := n.file.WriteAt(p, off); err != nil {
			c.t.Error(err)
		}
	}
}

// loss is how much a power loss takes of what was not synced.
type loss string

const (
	loseAll   loss = "all"        // only what was synced is left
	loseData  loss = "data"       // names, sizes and marks are as they were, the bytes are zeros: renames came first
	loseNames loss = "names"      // the bytes are there, the names are not
	loseSome  loss = "some of it" // each page, size, mark and name on its own
)

// after makes dir what is found when the power is back.
func (c *shaky) after(dir string, l loss) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off = true
	c.folderAfter(c.root, dir, l)
}

func (c *shaky) folderAfter(n *node, dir string, l loss) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	all := maps.Clone(n.names)
	maps.Copy(all, n.durableNames)
	for name := range all {
		child := n.durableNames[name]
		if l == loseData || l == loseSome && c.rand.IntN(2) == 0 {
			child = n.names[name]
		}
		path := filepath.Join(dir, name)
		switch {
		case child == nil:
		case child.names != nil:
			c.folderAfter(child, path, l)
		default:
			c.fileAfter(child, path, l)
		}
	}
}

func (c *shaky) fileAfter(n *node, path string, l loss) {
	live := n.content(c.t)
	size, mark := len(n.durable), n.kept
	if l == loseData || l == loseNames || l == loseSome && c.rand.IntN(2) == 0 {
		size = len(live)
	}
	if l == loseData || l == loseSome && c.rand.IntN(2) == 0 {
		mark = n.mark
	}
	b := make([]byte, 0, size)
	for i := range pages(size) {
		old, now := page(n.durable, i), page(live, i)
		p := old
		switch {
		case bytes.Equal(old, now) || n.lost[i]:
		case l == loseNames:
			p = now
		case l == loseSome:
			p = [][]byte{old, now, make([]byte, shakyPage)}[c.rand.IntN(3)]
		case l == loseData:
			p = make([]byte, shakyPage)
		}
		b = append(b, p...)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(b[:size]); err != nil {
		c.t.Fatal(err)
	}
	if mark {
		v, err := disk.System(filepath.Dir(path))
		if err != nil {
			c.t.Fatal(err)
		}
		defer v.Close()
		_ = v.Mark(f) // where there are no marks, all is suspect
	}
}

// shakyVolume is a folder of a shaky file system.
type shakyVolume struct {
	disk.Volume
	c    *shaky
	base string // in the root
}

func (v *shakyVolume) name(name string) string { return filepath.Join(v.base, name) }

// file is the name that a file was opened by, for faults of that one.
func (v *shakyVolume) file(f *os.File) string {
	rel, err := filepath.Rel(filepath.Join(v.c.dir, v.base), f.Name())
	if err != nil {
		return f.Name()
	}
	return rel
}

// simple is a call that changes nothing.
func (v *shakyVolume) simple(op, name string) error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	_, err := v.c.call(op, v.name(name))
	return err
}

// change runs f, which changes the folder and then the account of it. At the cut it may happen and may not.
func (v *shakyVolume) change(op, name string, f func() error) error {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	cut, err := v.c.call(op, v.name(name))
	if v.c.half(cut) {
		_ = f()
	}
	if err != nil {
		return err
	}
	return f()
}

func (v *shakyVolume) Open(name string) (*os.File, error) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	if _, err := v.c.call("open", v.name(name)); err != nil {
		return nil, err
	}
	f, err := v.Volume.Open(name)
	if err == nil {
		v.c.files[f] = v.c.at(v.name(name))
	}
	return f, err
}

func (v *shakyVolume) OpenFile(name string, flag int, perm fs.FileMode) (f *os.File, err error) {
	err = v.change("create", name, func() error {
		if f, err = v.Volume.OpenFile(name, flag, perm); err != nil {
			return err
		}
		dir, base := v.c.parent(v.name(name))
		n := dir.names[base]
		if n == nil {
			if n, err = v.c.add(v.name(name)); err != nil {
				return err
			}
		}
		v.c.files[f] = n
		return nil
	})
	if err != nil && f != nil { // during which the power went
		_ = f.Close()
		f = nil
	}
	return f, err
}

func (v *shakyVolume) Lstat(name string) (fs.FileInfo, error) {
	if err := v.simple("stat", name); err != nil {
		return nil, err
	}
	return v.Volume.Lstat(name)
}

func (v *shakyVolume) Mkdir(name string, perm fs.FileMode) error {
	return v.change("mkdir", name, func() error {
		err := v.Volume.Mkdir(name, perm)
		if err == nil {
			v.c.made(v.name(name))
		}
		return err
	})
}

func (v *shakyVolume) MkdirAll(name string, perm fs.FileMode) error {
	return v.change("mkdir", name, func() error {
		err := v.Volume.MkdirAll(name, perm)
		if err == nil {
			v.c.made(v.name(name))
		}
		return err
	})
}

// made notes a folder and those above it. The lock is held.
func (c *shaky) made(name string) {
	n := c.root
	for part := range strings.SplitSeq(filepath.Clean(name), "/") {
		if n.names[part] == nil {
			n.names[part] = newFolder()
			c.all = append(c.all, n.names[part])
		}
		n = n.names[part]
	}
}

func (v *shakyVolume) Rename(from, to string) error {
	return v.change("rename", to, func() error {
		err := v.Volume.Rename(from, to)
		if err == nil {
			a, x := v.c.parent(v.name(from))
			b, y := v.c.parent(v.name(to))
			b.names[y] = a.names[x]
			delete(a.names, x)
		}
		return err
	})
}

func (v *shakyVolume) Remove(name string) error {
	return v.change("remove", name, func() error {
		err := v.Volume.Remove(name)
		if err == nil {
			dir, base := v.c.parent(v.name(name))
			delete(dir.names, base)
		}
		return err
	})
}

func (v *shakyVolume) RemoveAll(name string) error {
	return v.change("remove", name, func() error {
		err := v.Volume.RemoveAll(name)
		if dir, base := v.c.parent(v.name(name)); err == nil && dir != nil {
			delete(dir.names, base)
		}
		return err
	})
}

func (v *shakyVolume) ReadFile(name string) ([]byte, error) {
	if err := v.simple("read", name); err != nil {
		return nil, err
	}
	return v.Volume.ReadFile(name)
}

func (v *shakyVolume) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := v.simple("readdir", name); err != nil {
		return nil, err
	}
	return v.Volume.ReadDir(name)
}

func (v *shakyVolume) Sub(name string) (disk.Volume, error) {
	if err := v.simple("open", name); err != nil {
		return nil, err
	}
	sub, err := v.Volume.Sub(name)
	if err != nil {
		return nil, err
	}
	return &shakyVolume{Volume: sub, c: v.c, base: v.name(name)}, nil
}

func (v *shakyVolume) ReadAt(f *os.File, p []byte, off int64) (int, error) {
	if err := v.simple("read", v.file(f)); err != nil {
		return 0, err
	}
	return v.Volume.ReadAt(f, p, off)
}

func (v *shakyVolume) ReadCold(f *os.File, p []byte, off int64) (int, error) {
	if err := v.simple("read", v.file(f)); err != nil {
		return 0, err
	}
	return v.Volume.ReadCold(f, p, off)
}

// WriteAt writes half before it fails, as a disk does that fills up.
func (v *shakyVolume) WriteAt(f *os.File, p []byte, off int64) (int, error) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	_, fault := v.c.call("write", v.file(f))
	if fault != nil {
		p = p[:len(p)/2]
	}
	if v.c.off && v.c.calls != v.c.cut {
		return 0, fault
	}
	n, err := v.Volume.WriteAt(f, p, off)
	if to := v.c.files[f]; to != nil {
		for i := off / shakyPage; i <= (off+int64(n))/shakyPage; i++ {
			delete(to.lost, i)
		}
	}
	if err == nil {
		err = fault
	}
	return n, err
}

func (v *shakyVolume) Truncate(f *os.File, size int64) error {
	return v.change("truncate", v.file(f), func() error { return v.Volume.Truncate(f, size) })
}

func (v *shakyVolume) Allocate(f *os.File, off, n int64) error {
	return v.change("allocate", v.file(f), func() error { return v.Volume.Allocate(f, off, n) })
}

func (v *shakyVolume) Uncache(f *os.File) {
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	v.c.drop(v.c.files[f])
}

func (v *shakyVolume) Mark(f *os.File) error {
	return v.change("mark", v.file(f), func() error {
		if v.c.noMarks {
			return syscall.ENOTSUP
		}
		if n := v.c.files[f]; n != nil {
			n.mark = true
		}
		return v.Volume.Mark(f)
	})
}

func (v *shakyVolume) Marked(f *os.File) bool {
	return v.simple("marked", v.file(f)) == nil && v.Volume.Marked(f)
}

// Sync of the real file is left out: what is on disk is what the account says.
func (v *shakyVolume) Sync(f *os.File) error {
	if v.c.before != nil {
		v.c.before("sync")
	}
	v.c.mu.Lock()
	defer v.c.mu.Unlock()
	n := v.c.files[f]
	if n == nil {
		v.c.t.Errorf("sync of %s, which was not opened", f.Name())
		return syscall.EBADF
	}
	return v.sync("sync", v.file(f), n)
}

func (v *shakyVolume) SyncFS(*os.File) error {
	if v.c.before != nil {
		v.c.before("syncfs")
	}
	v.c.mu.Lock()
	err := v.sync("syncfs", ".", v.c.all...)
	v.c.mu.Unlock()
	if v.c.behind != nil {
		v.c.behind()
	}
	return err
}

func (v *shakyVolume) sync(op, name string, list ...*node) error {
	cut, err := v.c.call(op, name)
	for _, n := range list {
		switch {
		case err == nil || v.c.half(cut):
			v.c.persist(n)
		case !errors.Is(err, errPower):
			v.c.giveUp(n)
		}
	}
	return err
}
