package disk_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// memDir is a folder in memory where there is one: the tests here make thousands of files.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "disk-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// world is a store on a shaky disk, and what is known of its content.
type world struct {
	t      testing.TB
	about  string // which run this is, for messages of failures
	strict bool
	dir    string
	c      *shaky
	s      *disk.Store
	boots  int
	ops    *rand.Rand

	blobs map[oci.Digest][]byte
	list  []oci.Digest
	// acked was committed and not removed since; safe is the part of it that must outlive a power loss.
	acked, safe map[oci.Digest]bool
	onTheirWay  []way
	resumed     int
	quiet       bool   // no syncs of our own
	next        uint64 // seed of the next blob
}

// way is a download that has 5000 bytes of b.
type way struct {
	p cache.Spool
	b []byte
}

func newWorld(t testing.TB, about string, strict bool, seed uint64) *world {
	w := &world{
		t: t, about: about, strict: strict, dir: memDir(t), boots: 1, ops: rand.New(rand.NewPCG(seed, 2)),
		blobs: make(map[oci.Digest][]byte), acked: make(map[oci.Digest]bool), safe: make(map[oci.Digest]bool),
	}
	w.c = newShaky(t, w.dir, seed)
	return w
}

func (w *world) errorf(format string, args ...any) {
	w.t.Helper()
	w.t.Errorf("%s: %s (faults: %v)", w.about, fmt.Sprintf(format, args...), w.c.faults())
}

// past gives the folder a history, of which there are two, and restarts the count of calls.
func (w *world) past(k int) {
	w.open()
	w.play(8)
	w.stop(k%2 == 0)
	w.c.calls = 0
}

// open opens the store. Where the disk's faults keep it from that, it must open when they are over.
func (w *world) open() {
	w.t.Helper()
	o := disk.Options{Strict: w.strict, Wait: 10 * time.Second}
	boot := fmt.Sprint("boot ", w.boots)
	s, err := disk.OpenOn(w.dir, o, w.c.on, boot)
	if errors.Is(err, errPower) {
		return
	}
	if err != nil {
		w.c.endFaults()
		if s, err = disk.OpenOn(w.dir, o, w.c.on, boot); err != nil {
			w.t.Fatalf("%s: open after the faults: %v", w.about, err)
		}
	}
	w.s = s
	s.WaitChecked()
	w.resume()
}

// resume continues the downloads that the process before has kept: it is what was written, or not there.
func (w *world) resume() {
	w.t.Helper()
	for _, u := range w.s.Resume() {
		w.resumed++
		want := w.blobs[u.Digest]
		got := make([]byte, u.Have[0].To)
		if n, err := u.Spool.ReadAt(got, 0); n > 0 && !bytes.HasPrefix(want, got[:n]) || err == nil && n < len(got) {
			w.errorf("%d bytes, which are wrong, of a download of the process before: %v", n, err)
		}
		if w.ops.IntN(2) == 0 {
			_ = u.Spool.Discard()
			continue
		}
		_, err := u.Spool.WriteAt(want[len(got):], int64(len(got)))
		if err == nil && u.Spool.Commit(u.Digest, int64(len(want))) == nil {
			w.acked[u.Digest], w.safe[u.Digest] = true, w.strict
		}
		_ = u.Spool.Discard()
	}
}

// keep leaves what is on its way to the next process.
func (w *world) keep() {
	for _, x := range w.onTheirWay {
		d := digest.FromBytes(x.b)
		if _, ok := w.blobs[d]; !ok {
			w.blobs[d] = x.b
			w.list = append(w.list, d)
		}
		_ = x.p.Keep(flight.Rest{
			Digest: d, Size: -1, Have: []flight.Extent{{From: 0, To: 5000}}, Until: time.Now().Add(time.Hour),
		})
	}
}

// fill commits content. It reports whether the store said that it has it.
func (w *world) fill(b []byte, d oci.Digest) bool {
	if _, ok := w.blobs[d]; !ok {
		w.blobs[d] = b
		w.list = append(w.list, d)
	}
	p, err := w.s.Create(int64(len(b)))
	if err != nil {
		return false
	}
	defer func() { _ = p.Discard() }()
	for half := range 2 {
		off := half * len(b) / 2
		if _, err := p.WriteAt(b[off:(half+1)*len(b)/2], int64(off)); err != nil {
			return false
		}
		if !w.quiet && w.ops.IntN(8) == 0 {
			w.sync()
		}
	}
	if err := p.Commit(d, int64(len(b))); err != nil {
		return false
	}
	w.acked[d] = true
	if w.strict {
		w.safe[d] = true
	}
	return true
}

func (w *world) sync() {
	before := make([]oci.Digest, 0, len(w.acked))
	for d := range w.acked {
		before = append(before, d)
	}
	if w.s.Sync() != nil {
		return
	}
	for _, d := range before { // a failed sync before has taken the rest
		if w.check(d) {
			w.safe[d] = true
		}
	}
}

func (w *world) remove(d oci.Digest) {
	delete(w.acked, d)
	delete(w.safe, d)
	_ = w.s.Remove(d)
}

// play uses the store for a while, whatever it answers; but what it gives out must be right.
func (w *world) play(steps int) {
	w.t.Helper()
	for range steps {
		some := func() oci.Digest { return w.list[w.ops.IntN(len(w.list))] }
		switch what := w.ops.IntN(12); {
		case what < 5 || len(w.list) == 0:
			w.next++
			w.fill(cachetest.Bytes(w.next, []int{1, 3000, 4096, 9000, 20_000}[w.ops.IntN(5)]))
		case what < 6:
			d := some()
			w.fill(w.blobs[d], d)
		case what < 7:
			w.remove(some())
		case what < 8: // a download that is given up
			if p, err := w.s.Create(5000); err == nil {
				_, _ = p.WriteAt(make([]byte, 1000), 100)
				_ = p.Discard()
			}
		case what < 9: // one that is on its way to the end
			if p, err := w.s.Create(-1); err == nil {
				w.next++
				b, _ := cachetest.Bytes(w.next, 6000)
				if _, err := p.WriteAt(b[:5000], 0); err == nil {
					w.onTheirWay = append(w.onTheirWay, way{p, b})
				} else {
					_ = p.Discard()
				}
			}
		case what < 10:
			w.sync()
		case what < 11:
			w.check(some())
		default:
			for e, err := range w.s.All() {
				if b, ok := w.blobs[e.Digest]; err == nil && !ok {
					w.errorf("lists %s, which was not committed, of %d bytes", e.Digest, len(b))
				}
			}
		}
	}
}

// check opens content: it is right, or not there. It reports which.
func (w *world) check(d oci.Digest) bool {
	w.t.Helper()
	o, err := w.s.Open(d)
	if err != nil {
		return false
	}
	defer o.Close()
	want := w.blobs[d]
	if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, want) || o.Size() != int64(len(want)) {
		w.errorf("%.15s holds %d bytes, which are wrong, want %d: %v", d, len(got), len(want), err)
	}
	return true
}

// checkAll looks at all content, while nothing fails.
func (w *world) checkAll() {
	w.t.Helper()
	for _, d := range w.list {
		o, err := w.s.Open(d)
		if err == nil {
			_ = o.Close()
		} else if !errors.Is(err, cache.ErrNotFound) {
			w.errorf("open: %v", err)
		}
		w.check(d)
	}
}

// works has the store do all it can, without help, now that nothing fails.
func (w *world) works() {
	w.t.Helper()
	w.discard()
	w.checkAll()
	w.next++
	b, d := cachetest.Bytes(w.next, 10_000)
	if !w.fill(b, d) || !w.check(d) {
		w.errorf("nothing can be committed any more")
	}
	if err := w.s.Sync(); err != nil {
		w.errorf("sync: %v", err)
	}
	w.checkAll()
	w.spoolEmpty()
}

// spoolEmpty holds after an open, and after a sync while nothing is on its way.
func (w *world) spoolEmpty() {
	w.t.Helper()
	if left, err := os.ReadDir(filepath.Join(w.dir, "spool")); err != nil || len(left) > 0 {
		w.errorf("left in the spool: %v, %v", left, err)
	}
}

// stop ends what is on its way, and the process: in peace, or so that nothing it does reaches the disk any more.
func (w *world) stop(peace bool) {
	w.t.Helper()
	if !peace {
		w.c.powerOff()
	}
	w.keep()
	w.discard()
	if w.s != nil {
		if err := w.s.Close(); peace && err != nil {
			w.errorf("close: %v", err)
		}
	}
	w.s = nil
	if peace {
		w.about += ", closed"
	} else {
		w.about += ", died"
	}
	if f := w.c.faults(); len(f) > 0 {
		w.about += fmt.Sprintf(" (faults %v)", f)
	}
	w.c.restart()
}

func (w *world) discard() {
	for _, x := range w.onTheirWay {
		_ = x.p.Discard()
	}
	w.onTheirWay = nil
}

// powerLoss ends the machine, and has another one begin with what is left.
func (w *world) powerLoss(l loss) {
	w.t.Helper()
	if w.s != nil && !w.c.off {
		for d := range w.safe { // a failed sync may have taken some
			if !w.check(d) {
				delete(w.safe, d)
			}
		}
	}
	if w.s != nil && w.ops.IntN(2) == 0 {
		w.keep() // on the way to a clean stop
	}
	w.stop(false)
	w.about += fmt.Sprintf(" by power loss of %s", l)
	dir := memDir(w.t)
	w.c.after(dir, l)
	w.end()
	w.dir, w.boots = dir, w.boots+1
	none := w.c.noMarks
	w.c = newShaky(w.t, dir, uint64(w.boots))
	w.c.noMarks = none
	w.c.load()
	for d := range w.acked {
		if !w.safe[d] {
			delete(w.acked, d)
		}
	}
}

// survived holds after a power loss.
func (w *world) survived() {
	w.t.Helper()
	for d := range w.safe {
		if !w.check(d) {
			w.errorf("%.15s was known to be on disk and is gone", d)
		}
	}
}

// end gives back what a run has used.
func (w *world) end() {
	w.c.forget()
	_ = os.RemoveAll(w.dir)
}
