package faults_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing/synctest"

	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/upstream"
)

// The rows of the disk. The upstream is well, so no client notices any of them.

// disk plans a store whose calls fail.
func (tr *trial) disk(script func(w *world)) {
	tr.wiring.shaky = true
	tr.wiring.strict = tr.r.IntN(4) == 0
	tr.resumable = true
	tr.breaks, tr.repeats = -1, 60*tr.size // each client continues by itself
	// So fifty clients, slow ones among them, need as many transfers at once. With those of the default, the last of them are
	// told after 24 s that all transfers are in use, which is a limit of its own and not a fault of the disk.
	tr.wiring.adapt = func(o *upstream.Options, _ *world) { o.MaxTransfers = 256 }
	tr.script = script
}

// failingCalls plans calls that fail with an errno from the k-th on, for good or once.
func failingCalls(errno syscall.Errno, ops ...cachetest.Op) func(tr *trial) {
	return func(tr *trial) {
		op, k, lasting := pick(tr, ops...), 1+tr.r.IntN(40), tr.r.IntN(3) > 0
		if tr.size < 1<<20 {
			k = 1 + tr.r.IntN(4)
		}
		tr.disk(func(w *world) {
			if lasting {
				w.store.Fail(op, k, errno)
			} else {
				w.store.FailOnce(op, k, errno)
			}
		})
	}
}

// planReadOnly remounts the file system read-only at some moment.
func planReadOnly(tr *trial) {
	k := 1 + tr.r.IntN(3)
	tr.disk(func(w *world) {
		for _, op := range []cachetest.Op{cachetest.Create, cachetest.WriteAt, cachetest.Commit, cachetest.Remove} {
			w.store.Fail(op, k, syscall.EROFS)
		}
	})
}

func planSlowDisk(tr *trial) {
	rate := pick(tr, int64(1<<20), 4<<20, 64<<10)
	if tr.size > 1<<20 {
		rate = max(rate, 1<<20)
	}
	tr.disk(func(w *world) { w.store.rate.Store(rate) })
	tr.repeats = 0
	tr.breaks = 1
}

// planDamage damages content on the disk once it is stored.
func planDamage(tr *trial) {
	kind := pick(tr, "truncated", "longer", "gone", "empty", "a bit", "zeros")
	tr.wiring.shaky = false
	tr.resumable = true
	tr.breaks, tr.repeats = 1, tr.size // it is fetched once more
	tr.script = func(w *world) {
		c := newContent(tr.size, tr.seed%3)
		if err := w.get(blobURL(c.digest)); err != nil {
			w.errorf("pull before the damage: %v", err)
			return
		}
		synctest.Wait() // the last byte is sent before the file has its name
		d := c.digest.Encoded()
		name, err := findFile(filepath.Join(w.dir, "blobs"), d)
		if err != nil {
			w.errorf("nothing to damage: %v", err)
			return
		}
		if err := damage(name, kind, c.size); err != nil {
			w.errorf("%v", err)
		}
		if kind != "a bit" && kind != "zeros" {
			return
		}
		// The bytes of a hit are not checked. The scrubber and mirror cache verify check all that is stored.
		v, err := disk.Verify(context.Background(), w.dir, disk.VerifyOptions{Remove: true})
		if err != nil || v.Damaged == 0 {
			w.errorf("damage by %s is not found: %+v, %v", kind, v, err)
		}
	}
}

func findFile(dir, name string) (found string, err error) {
	err = filepath.WalkDir(dir, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() && filepath.Base(path) == name {
			found = path
		}
		return err
	})
	if err == nil && found == "" {
		err = os.ErrNotExist
	}
	return found, err
}

func damage(name, kind string, size int64) error {
	if kind == "gone" {
		return os.Remove(name)
	}
	if err := os.Chmod(name, 0o600); err != nil {
		return err
	}
	switch kind {
	case "truncated":
		return os.Truncate(name, size-1)
	case "longer":
		return os.Truncate(name, size+1)
	case "empty":
		return os.Truncate(name, 0)
	}
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, size/2); err != nil {
		return err
	}
	b[0] ^= 4
	if kind == "zeros" {
		b = make([]byte, min(4096, size-size/2))
	}
	_, err = f.WriteAt(b, size/2)
	return err
}

// planSecond starts a second process on the folder, which must refuse to run.
func planSecond(tr *trial) {
	tr.resumable = true
	tr.during = func(_ context.Context, w *world) {
		s, err := disk.Open(w.dir, disk.Options{Wait: -1})
		if err == nil {
			_ = s.Close()
		}
		if _, ok := errors.AsType[*disk.LockedError](err); !ok {
			w.errorf("a second store on the folder: %v", err)
		}
	}
}
