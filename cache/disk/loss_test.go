package disk_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

// What a search at random finds rarely, each on its own.

// only fails calls of some kinds.
func only(errno syscall.Errno, ops ...string) func(string, string, int) error {
	return func(op, _ string, _ int) error {
		if slices.Contains(ops, op) {
			return errno
		}
		return nil
	}
}

// once fails the first call of a kind.
func once(errno syscall.Errno, kind string) func(string, string, int) error {
	done := false
	return func(op, _ string, _ int) error {
		if op != kind || done {
			return nil
		}
		done = true
		return errno
	}
}

func opened(t *testing.T, strict bool) *world {
	t.Helper()
	w := newWorld(t, t.Name(), strict, 1)
	t.Cleanup(func() {
		if w.s != nil {
			w.stop(false)
		}
		w.end()
	})
	w.open()
	return w
}

// must commits a blob of many pages.
func (w *world) must(seed uint64) oci.Digest {
	w.t.Helper()
	b, d := cachetest.Bytes(seed, 200_000)
	w.quiet = true
	if !w.fill(b, d) {
		w.t.Fatalf("%s: can't commit", w.about)
	}
	return d
}

// Content that is committed again while a sync runs is not covered by it.
func TestCommitDuringSync(t *testing.T) {
	t.Parallel()
	w := opened(t, false)
	d := w.must(1)
	w.c.behind = func() {
		w.c.behind = nil
		w.remove(d)
		w.must(1)
	}
	if err := w.s.Sync(); err != nil {
		t.Fatal(err)
	}
	w.powerLoss(loseData)
	w.open()
	w.check(d)
}

// A failed sync may have lost bytes of what came while it ran, and of what is still on its way.
func TestCommitDuringFailedSync(t *testing.T) {
	t.Parallel()
	w := opened(t, false)
	w.must(1)
	b, late := cachetest.Bytes(2, 200_000)
	w.blobs[late] = b
	p, err := w.s.Create(200_000)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Discard()
	if _, err := p.WriteAt(b, 0); err != nil {
		t.Fatal(err)
	}
	w.c.fail = once(syscall.EIO, "syncfs")
	var during oci.Digest
	w.c.before = func(string) {
		w.c.before = nil
		during = w.must(3)
	}
	if err := w.s.Sync(); err == nil {
		t.Fatal("no fault")
	}
	if err := p.Commit(late, 200_000); err == nil {
		t.Error("committed what the disk may have lost")
	}
	w.works()
	w.c.dropCaches()
	w.check(late)
	if w.check(during) {
		t.Error("what came during the sync that failed is still there")
	}
	w.stop(true)
	w.open()
	w.works()
}

// Content that can't be looked at after a crash stays in doubt.
func TestUnreadableSuspects(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"stat", "open", "readdir", "read", "marked"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := opened(t, false)
			d := w.must(1)
			w.powerLoss(loseData)
			w.c.fail = func(op, name string, _ int) error {
				if op == kind && strings.HasPrefix(name, "blobs/sha256") {
					return syscall.EMFILE
				}
				return nil
			}
			w.open()
			if len(w.c.faults()) == 0 {
				t.Error("no fault")
			}
			w.check(d)
			w.c.endFaults()
			w.check(d)
			w.works()
			w.stop(true)
			w.open()
			w.check(d)
		})
	}
}

// The note that all is well does not outlive a start at which it can't be replaced.
func TestNoteCantBeWritten(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"create", "write", "sync", "rename"} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			w := opened(t, false)
			w.stop(true)
			locked, fail := kind != "create", only(syscall.ENOSPC, kind)
			w.c.fail = func(op, name string, call int) error {
				if !locked && op == "create" { // that of the lock, without which nothing opens
					locked = true
					return nil
				}
				return fail(op, name, call)
			}
			w.open()
			w.next++
			if b, d := cachetest.Bytes(w.next, 5000); w.fill(b, d) {
				t.Error("committed while the note says that all is well")
			}
			w.c.endFaults()
			d := w.must(100)
			w.powerLoss(loseSome)
			w.open()
			w.check(d)
			w.works()
		})
	}
}

// A note of a stop in peace is gone from the disk before anything is committed, whatever a crash makes of the folder.
func TestNoteIsOnDisk(t *testing.T) {
	t.Parallel()
	lost := 0
	for seed := range uint64(60) {
		w := newWorld(t, fmt.Sprint("seed ", seed), false, seed)
		w.open()
		w.stop(true)
		w.c.flush()
		w.open()
		b, d := cachetest.Bytes(1, 20_000)
		w.quiet = true
		if !w.fill(b, d) {
			t.Fatal("can't commit")
		}
		w.powerLoss(loseSome)
		if _, err := os.Stat(blobFile(w.dir, d)); err == nil {
			lost++
		}
		w.open()
		w.check(d)
		w.stop(true)
		w.end()
	}
	if lost == 0 {
		t.Error("it was never there: the test proves nothing")
	}
}

// A Close before all content was looked at does not record that all is on disk.
func TestCloseBeforeSettled(t *testing.T) {
	t.Parallel()
	for _, noMarks := range []bool{false, true} {
		w := opened(t, false)
		w.c.noMarks = noMarks
		d := w.must(1)
		w.stop(false)
		w.c.fail = only(syscall.EIO, "readdir")
		w.open()
		w.c.endFaults()
		w.stop(true)
		w.powerLoss(loseData)
		w.open()
		w.check(d)
		w.works()
	}
}

// Content that could neither be synced nor removed is hashed, as the disk has it, by the process that starts after a kill.
func TestKilledOnAFailingDisk(t *testing.T) {
	t.Parallel()
	w := opened(t, false)
	d := w.must(1)
	w.c.fail = only(syscall.EIO, "syncfs", "remove", "create")
	if err := w.s.Sync(); err == nil {
		t.Fatal("no fault")
	}
	if w.check(d) {
		t.Error("what may be lost is served")
	}
	w.stop(false)
	w.open()
	w.check(d)
	w.c.dropCaches()
	if w.check(d) {
		t.Error("what is lost is still there")
	}
	w.works()
}

// Of two commits of the same content at once, each returns only when it is on disk, whatever happens to the other.
func TestStrictCommitOfTheSame(t *testing.T) {
	t.Parallel()
	w := opened(t, true)
	var syncs int
	var d oci.Digest
	w.c.before = func(string) {
		if syncs++; syncs != 2 { // the folder, which has the name by now
			return
		}
		w.c.before = nil
		d = w.must(1)
		w.c.powerOff()
	}
	b, same := cachetest.Bytes(1, 200_000)
	if w.fill(b, same); d != same {
		t.Fatal("no commit came in between")
	}
	w.powerLoss(loseAll)
	w.safe[d] = true
	w.open()
	w.survived()
}

// Folders that a failed commit made, or one under relaxed durability, are brought to the disk by the next commit below them.
func TestStrictBelowFoldersOfOthers(t *testing.T) {
	t.Parallel()
	w := opened(t, true)
	other := w.sameFolder(1)
	w.c.fail = once(syscall.EIO, "sync")
	if b, d := cachetest.Bytes(1, 200_000); w.fill(b, d) {
		t.Fatal("no fault")
	}
	if !w.fill(w.blobs[other], other) {
		t.Fatal("can't commit")
	}
	w.powerLoss(loseAll)
	w.open()
	if w.survived(); !w.check(other) {
		t.Error("what was acknowledged is gone")
	}
}

// sameFolder finds a blob whose folder is that of another.
func (w *world) sameFolder(seed uint64) oci.Digest {
	_, d := cachetest.Bytes(seed, 200_000)
	for i := uint64(1000); ; i++ {
		if b, o := cachetest.Bytes(i, 1000); o.Encoded()[:2] == d.Encoded()[:2] {
			w.blobs[o] = b
			w.list = append(w.list, o)
			return o
		}
	}
}

// Without marks, content from before a crash stays in doubt until all of it was looked at, over another stop too.
func TestDoubtOutlivesAStop(t *testing.T) {
	t.Parallel()
	w := opened(t, false)
	w.c.noMarks = true
	d := w.must(1)
	w.powerLoss(loseData)
	w.c.fail = only(syscall.EIO, "readdir")
	w.open()
	w.stop(false)
	w.open()
	if w.check(d) {
		t.Error("what is lost is still there")
	}
	w.works()
}

// A commit while the store is closed may come too late to be synced.
func TestCommitDuringClose(t *testing.T) {
	t.Parallel()
	w := opened(t, false)
	w.quiet = true
	w.c.behind = func() {
		w.c.behind = nil
		if b, d := cachetest.Bytes(1, 200_000); w.fill(b, d) {
			t.Error("committed while the store is closed")
		}
	}
	w.stop(true)
	w.powerLoss(loseData)
	w.open()
	for _, d := range w.list {
		w.check(d)
	}
}

// What can't be removed after a failed sync is not vouched for, by a stop in peace or by the boot of the machine.
func TestDeadContentOverRestarts(t *testing.T) {
	t.Parallel()
	for _, noMarks := range []bool{false, true} {
		for _, peace := range []bool{false, true} {
			w := opened(t, false)
			w.c.noMarks = noMarks
			d := w.must(1)
			sync := once(syscall.EIO, "syncfs")
			w.c.fail = func(op, name string, call int) error {
				if op == "remove" {
					return syscall.EIO
				}
				return sync(op, name, call)
			}
			if err := w.s.Sync(); err == nil {
				t.Fatal("no fault")
			}
			w.stop(peace)
			w.open()
			w.c.dropCaches()
			if w.check(d) {
				t.Errorf("marks %t, closed in peace %t: what is lost is still there", !noMarks, peace)
			}
			w.works()
		}
	}
}
