package cache_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/disk"
)

// A folder that vanishes is reported as gone before a client asks for content, pulls go on, and when the folder is back so is
// the cache.
func TestFolderThatVanishes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "cache")
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	synctest.Test(t, func(t *testing.T) {
		b := start(t, 1<<20, func(o *cache.Options) { o.Store, o.Dir, o.Free = s, dir, s.Free })
		one, _ := b.up.add(1, 5000)
		b.want(one, cache.Miss, b.get(one))
		away := dir + "-away"
		if err := os.Rename(dir, away); err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(dir, 0o700); err != nil { // as a mount point whose disk has gone
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		got := b.Stats()
		if !got.Degraded || got.Disk.State != cache.DiskGone || !strings.Contains(got.Disk.String(), dir+" is gone") {
			t.Errorf("%s: %s", got.Disk.State, got.Disk)
		}
		two, _ := b.up.add(2, 5000)
		b.want(two, cache.Uncached, b.get(two))
		b.want(one, cache.Hit, b.get(one)) // which is open still
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(away, dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(6 * time.Second)
		if got := b.Stats(); got.Degraded {
			t.Errorf("it is back, and %s", got.Disk)
		}
		b.want(two, cache.Miss, b.get(two))
		b.want(two, cache.Hit, b.get(two))

		err := os.RemoveAll(dir)
		for i := 0; i < 1000 && errors.Is(err, syscall.ENOTEMPTY); i++ { // the store may write its record of this start meanwhile
			err = os.RemoveAll(dir)
		}
		if err != nil {
			t.Fatal(err)
		}
		three, _ := b.up.add(3, 5000)
		b.get(three) // finds out, at once
		if got := b.Stats(); got.Disk.State != cache.DiskGone {
			t.Errorf("%s: %s", got.Disk.State, got.Disk)
		}
		b.want(three, cache.Uncached, b.get(three))
		b.want(two, cache.Uncached, b.get(two))
		b.stop()
	})
}
