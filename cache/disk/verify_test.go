package disk_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/oci"
)

// A folder is verified beside the store that uses it.
func TestVerify(t *testing.T) {
	t.Parallel()
	for _, remove := range []bool{false, true} {
		dir := t.TempDir()
		s := open(t, dir, disk.Options{})
		var list []oci.Digest
		for i := range 6 {
			b, _ := cachetest.Bytes(uint64(i+1), 100_000*(i+1))
			list = append(list, cachetest.Fill(t, s, b))
		}
		empty := cachetest.Fill(t, s, nil)
		tear(t, blobFile(dir, list[2]))
		if err := os.Truncate(blobFile(dir, list[4]), 0); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "blobs", "README"), []byte("not ours"), 0o600); err != nil {
			t.Fatal(err)
		}
		found := make(map[oci.Digest]disk.Damage)
		var last, all disk.Amount
		v, err := disk.Verify(t.Context(), dir, disk.VerifyOptions{
			Remove: remove, Damaged: func(d disk.Damage) { found[d.Digest] = d },
			Progress: func(done, of disk.Amount) {
				if done.Bytes <= last.Bytes {
					t.Errorf("progress from %+v to %+v", last, done)
				}
				last, all = done, of
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := disk.Verified{Amount: disk.Amount{Blobs: 7, Bytes: 1_600_000}, Damaged: 2}
		if remove {
			want.Removed = 2
		}
		if v != want || all.Blobs != 7 || all.Bytes != last.Bytes {
			t.Errorf("verified %+v, want %+v; the last progress was %+v of %+v", v, want, last, all)
		}
		hash, size := found[list[2]], found[list[4]]
		if !strings.HasPrefix(hash.Why, "hash: its bytes are sha256:") || hash.Size != 300_000 || hash.Removed != remove {
			t.Errorf("wrong bytes: %+v", hash)
		}
		if size.Why != "size: the file is empty" || size.Size != 0 || size.Removed != remove {
			t.Errorf("an empty file: %+v", size)
		}
		for i, d := range append(list, empty) {
			o, err := s.Open(d)
			if err == nil {
				_ = o.Close()
			}
			if gone := errors.Is(err, cache.ErrNotFound); gone != (remove && (i == 2 || i == 4)) {
				t.Errorf("blob %d, remove %t: %v", i, remove, err)
			}
		}
	}
}

func TestVerifyStops(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fillDir(t, dir, 10, 300_000)
	ctx, cancel := context.WithCancel(t.Context())
	v, err := disk.Verify(ctx, dir, disk.VerifyOptions{Progress: func(done, _ disk.Amount) {
		if done.Blobs == 3 {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) || v.Blobs != 3 {
		t.Errorf("%+v, %v", v, err)
	}
}

// What goes while it is looked at is passed over.
func TestVerifyWhileItChanges(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	list := fillDir(t, dir, 10, 300_000)
	tear(t, blobFile(dir, list[9]))
	first := true
	v, err := disk.Verify(t.Context(), dir, disk.VerifyOptions{Remove: true, Progress: func(disk.Amount, disk.Amount) {
		if !first {
			return
		}
		first = false
		for _, d := range list {
			if err := os.Remove(blobFile(dir, d)); err != nil {
				t.Error(err)
			}
		}
		// What comes in the place of something damaged is not that.
		if err := os.WriteFile(blobFile(dir, list[9]), []byte("new"), 0o600); err != nil {
			t.Error(err)
		}
	}})
	if err != nil || v.Blobs > 2 {
		t.Errorf("%+v, %v", v, err)
	}
}

func TestVerifyNothing(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"nothing": filepath.Join(t.TempDir(), "nothing"), "another folder": t.TempDir(),
	} {
		if v, err := disk.Verify(t.Context(), dir, disk.VerifyOptions{}); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
}
