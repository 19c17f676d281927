package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/internal/text"
)

// minDiskFree is how many bytes a disk must have free for any content to fit.
const minDiskFree = 64 << 10

// DiskState is the state of the store's disk.
type DiskState string

// The states of a disk. In each but DiskOK new content is served and not cached.
const (
	DiskOK       DiskState = "ok"
	DiskFull     DiskState = "full"      // less is free than MinFree, and nothing may be evicted; or a write says so
	DiskReadOnly DiskState = "read-only" // as after an error of the file system, or a remount
	DiskGone     DiskState = "gone"      // the folder was removed, or its disk
	DiskFailing  DiskState = "failing"   // any other error
)

// Disk is the state of the store's disk, with the space at the last look.
type Disk struct {
	State DiskState
	Since time.Time // of the state
	Dir   string    // of the store; empty: not known
	Space Space     // Total 0: not known
	// Floor and FloorInodes are what MinFree wants to be free, in bytes and files. 0: nothing.
	Floor, FloorInodes int64
	MinFree            MinFree
	Err                error // of a call; nil where only Space shows the state
}

// exhausted reports whether so little is free that no content fits, whatever MinFree is.
func (d Disk) exhausted() bool { return d.Space.Total > 0 && d.Space.Free < minDiskFree }

// String describes the state of the disk, and what to do about it.
func (d Disk) String() string {
	disk, dir := "the cache's disk", "the cache's folder"
	if d.Dir != "" {
		disk, dir = "the disk of "+d.Dir, "the folder "+d.Dir
	}
	switch d.State {
	case DiskFull:
		return disk + " is full: " + d.shortage()
	case DiskReadOnly:
		return disk + " is read-only; mount it for writing (the kernel's log may say why it is)"
	case DiskGone:
		return dir + " is gone; bring it back and start the mirror again"
	case DiskFailing:
		return fmt.Sprintf("%s fails: %v; look at it, and at the kernel's log", disk, plain(d.Err))
	}
	if d.Space.Total > 0 {
		return fmt.Sprintf("%s has %s of %s free", disk, text.Size(d.Space.Free), text.Size(d.Space.Total))
	}
	return disk + " works"
}

// shortage says what a full disk lacks.
func (d Disk) shortage() string {
	switch {
	case errors.Is(d.Err, syscall.EDQUOT):
		return "the quota is used up; raise it, or lower cache.size"
	case d.Space.Total == 0:
		return "no space left; free some"
	case d.Space.AllInodes > 0 && d.Space.FreeInodes <= d.FloorInodes && d.Space.Free > d.Floor:
		return fmt.Sprintf("%d files can still be made, %s; remove files there, or lower cache.minFree", d.Space.FreeInodes,
			d.wants(strconv.FormatInt(d.FloorInodes, 10)))
	case d.Floor > 0 && d.Space.Free < d.Floor:
		return fmt.Sprintf("%s free, %s; free space, or lower cache.minFree", bytesFree(d.Space.Free),
			d.wants(text.Size(d.Floor)))
	}
	return bytesFree(d.Space.Free) + " free; free space, or lower cache.size"
}

// wants names MinFree, as it was configured and as it is here.
func (d Disk) wants(here string) string {
	if p := d.MinFree.Percent; p > 0 {
		return fmt.Sprintf("cache.minFree wants %s%% (%s)", strconv.FormatFloat(p, 'g', 4, 64), here)
	}
	return "cache.minFree wants " + here
}

// plain returns the system's error, without the names of calls and files around it.
func plain(err error) error {
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		return n
	}
	return err
}

func bytesFree(n int64) string {
	if n == 0 {
		return "0 bytes"
	}
	return text.Size(n)
}

// DiskError says that the disk is not used: it failed, and does not work again yet.
type DiskError struct{ Disk Disk }

func (e *DiskError) Error() string { return e.Disk.String() }
func (e *DiskError) Unwrap() error { return e.Disk.Err }

// ErrNoRoom says that content can't be stored. The error that matches it is a *NoRoomError.
var ErrNoRoom = errors.New("no room in the cache")

// Shortage says why there is no room.
type Shortage string

// Why there is no room.
const (
	TooLarge  Shortage = "too large"  // for cache.size
	InUse     Shortage = "in use"     // all that is stored is kept, open, or on its way
	DiskLacks Shortage = "disk lacks" // the disk has not that much, beside MinFree
)

// NoRoomError says why content can't be stored, in numbers. It is ErrNoRoom.
type NoRoomError struct {
	Need int64 // bytes
	Why  Shortage
	Size int64 // of the budget, in bytes
	Disk Disk
	Err  error // of the disk; nil: it was not asked
}

func (e *NoRoomError) Error() string {
	switch e.Why {
	case TooLarge:
		return fmt.Sprintf("%s are more than cache.size, which is %s; raise it to cache them", text.Size(e.Need), text.Size(e.Size))
	case DiskLacks:
		if e.Disk.State == DiskFull {
			return e.Disk.String()
		}
		return fmt.Sprintf("%s are needed, and %s; free space there", text.Size(e.Need), e.Disk)
	}
	return fmt.Sprintf("everything cached is in use, and %s are needed; raise cache.size, which is %s", text.Size(e.Need),
		text.Size(e.Size))
}

// Is makes it ErrNoRoom.
func (e *NoRoomError) Is(target error) bool { return target == ErrNoRoom }
func (e *NoRoomError) Unwrap() error        { return e.Err }

// health is the state of the disk, as calls and looks at it show.
type health struct {
	store   Store
	dir     string
	minFree MinFree
	free    func() (Space, error) // nil: not known
	log     *slog.Logger
	broken  atomic.Bool // a call failed, and no look has found the disk working since

	mu    sync.Mutex // guards the fields below; a leaf
	state DiskState
	since time.Time
	space Space
	err   error
}

func newHealth(o Options) *health {
	return &health{
		store: o.Store, dir: o.Dir, minFree: o.MinFree, free: o.Free, log: o.Log, state: DiskOK, since: time.Now(),
	}
}

// refresh asks the disk for its space.
func (h *health) refresh() (s Space, ok bool) {
	if h.free == nil {
		return s, false
	}
	s, err := h.free()
	if err != nil {
		return s, false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.space = s
	return s, s.Total > 0
}

// floors are MinFree on a disk: bytes, and files where their number is limited.
func (m MinFree) floors(s Space) (bytes, files int64) {
	if m.Percent > 0 {
		return int64(float64(s.Total) / 100 * m.Percent), int64(float64(s.AllInodes) / 100 * m.Percent)
	}
	return m.Bytes, 0
}

// lacks is what the disk lacks to have MinFree free.
func (h *health) lacks() shortfall {
	s, ok := h.refresh()
	if !ok {
		return shortfall{bytes: -1 << 62} // writes will tell
	}
	bytes, files := h.minFree.floors(s)
	if s.AllInodes == 0 || h.minFree.Percent <= 0 {
		files = s.FreeInodes // without a total there is no floor
	}
	return shortfall{bytes: bytes - s.Free, files: files - s.FreeInodes}
}

func (h *health) now() Disk {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.disk()
}

// disk is now with the lock held.
func (h *health) disk() Disk {
	d := Disk{State: h.state, Since: h.since, Dir: h.dir, Space: h.space, MinFree: h.minFree, Err: h.err}
	d.Floor, d.FloorInodes = h.minFree.floors(h.space)
	return d
}

// change changes the state, and logs that once.
func (h *health) change(to DiskState, err error) {
	h.mu.Lock()
	if h.state == to {
		h.mu.Unlock()
		return
	}
	h.state, h.since, h.err = to, time.Now(), err
	d := h.disk()
	h.mu.Unlock()
	if to == DiskOK {
		h.log.Info("the cache's disk works again: new content is cached", "cache_dir", d.Dir, "free_bytes", d.Space.Free)
		return
	}
	attrs := []any{"state", string(to), "cache_dir", d.Dir}
	if err != nil {
		attrs = append(attrs, "error", err)
	}
	h.log.Error(d.String()+"; until then cached content is served, and the rest comes from the upstreams uncached", attrs...)
}

// stateOf is the state of a disk that returned an error.
func stateOf(err error) DiskState {
	switch {
	case noSpace(err):
		return DiskFull
	case errors.Is(err, syscall.EROFS):
		return DiskReadOnly
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.ESTALE),
		errors.Is(err, syscall.ENODEV), errors.Is(err, syscall.ENXIO):
		return DiskGone
	}
	return DiskFailing
}

// fail has misses served uncached until a probe succeeds. Errors that are not the disk's do nothing.
func (h *health) fail(err error) {
	if errors.Is(err, fs.ErrClosed) || errors.Is(err, ErrNoRoom) {
		return
	}
	h.broken.Store(true)
	h.refresh()
	h.change(stateOf(err), err)
}

// look judges the disk again.
func (h *health) look() {
	err := h.store.Check()
	if err == nil && h.broken.Load() {
		err = h.probe()
	}
	if err != nil {
		h.fail(err)
		return
	}
	h.broken.Store(false)
	if h.hasRoom() {
		h.change(DiskOK, nil)
	} else {
		h.change(DiskFull, nil)
	}
}

// stored ends the state of a full disk as soon as something was stored and more fits, instead of at the next look.
func (h *health) stored() {
	if h.now().State == DiskFull && !h.broken.Load() && h.hasRoom() {
		h.change(DiskOK, nil)
	}
}

// hasRoom asks the disk whether MinFree is free, and whether any content fits.
func (h *health) hasRoom() bool {
	return h.lacks().none() && !h.now().exhausted()
}

// probe finds out whether the disk works, by a small write.
func (h *health) probe() error {
	s, err := h.store.Create(probeSize)
	if err != nil {
		return err
	}
	_, err = s.WriteAt(make([]byte, probeSize), 0)
	return errors.Join(err, s.Discard())
}
