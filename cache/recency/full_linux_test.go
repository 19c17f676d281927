package recency_test

import (
	"errors"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// The disk is full for any write of a life: that batch is refused, what was there stays, and the next works.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	dir := memDir(t)
	x := open(t, dir)
	if err := x.Write(nil, nil); err != nil {
		t.Fatal(err)
	}
	want := make(map[oci.Digest]cache.Access)
	refused := 0
	for i := range 60 {
		batch := accesses(1 + i*i)
		if i%3 != 2 {
			if err := x.Write(batch, nil); err != nil {
				t.Fatalf("write %d: %v", i, err)
			}
			for _, a := range batch {
				want[a.Digest] = a
			}
			continue
		}
		// The file that is written to becomes one that is full.
		f := x.File()
		fd, err := unix.Dup(int(f.Fd()))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Dup3(int(full.Fd()), int(f.Fd()), unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		err = x.Write(batch, nil)
		if rerr := unix.Dup3(fd, int(f.Fd()), unix.O_CLOEXEC); rerr != nil {
			t.Fatal(rerr)
		}
		_ = unix.Close(fd)
		if err == nil || errors.Is(err, cache.ErrReset) {
			t.Fatalf("write %d to a full disk: %v", i, err)
		}
		refused++
		if diff := cmp.Diff(len(want), len(recorded(t, x))); diff != "" {
			t.Fatalf("write %d: records (-want +got):\n%s", i, diff)
		}
	}
	if diff := cmp.Diff(want, recorded(t, x)); diff != "" {
		t.Errorf("records (-want +got):\n%s", diff)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, recorded(t, open(t, dir))); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if bad := aside(t, dir); len(bad) > 0 {
		t.Errorf("set aside: %v", bad)
	}
	if refused != 20 {
		t.Errorf("%d writes were refused", refused)
	}
}
