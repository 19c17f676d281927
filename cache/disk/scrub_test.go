package disk_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/oci"
)

// scrubber is a store that is being scrubbed, in a bubble.
type scrubber struct {
	*disk.Store
	t    *testing.T
	stop func()
	log  bytes.Buffer
}

func scrub(t *testing.T, dir string, o disk.ScrubOptions) *scrubber {
	t.Helper()
	x := &scrubber{t: t}
	x.Store = open(t, dir, disk.Options{Log: slog.New(slog.NewTextHandler(&x.log, nil))})
	x.run(o)
	return x
}

func (x *scrubber) run(o disk.ScrubOptions) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- x.Scrub(ctx, o) }()
	x.stop = func() {
		cancel()
		if err := <-done; err != nil {
			x.t.Errorf("scrub: %v", err)
		}
	}
}

// fillDir commits n blobs of size bytes each, and closes.
func fillDir(t *testing.T, dir string, n, size int) (list []oci.Digest) {
	t.Helper()
	s, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		b, _ := cachetest.Bytes(uint64(i+1), size)
		list = append(list, cachetest.Fill(t, s, b))
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return list
}

func TestScrubFindsDamage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		list := fillDir(t, dir, 10, 100_000)
		tear(t, blobFile(dir, list[3]))
		for name, size := range map[int]int64{5: 0, 7: 99_999} {
			if err := os.Truncate(blobFile(dir, list[name]), size); err != nil {
				t.Fatal(err)
			}
		}
		begin := time.Now()
		x := scrub(t, dir, disk.ScrubOptions{Rate: 10_000})
		time.Sleep(10 * time.Minute)
		x.stop()
		damaged := map[int]string{3: "hash: its bytes are sha256:", 5: "the file is empty", 7: "size=99999"}
		for i, d := range list {
			o, err := x.Open(d)
			if err == nil {
				_ = o.Close()
			}
			if why, ok := damaged[i]; ok != errors.Is(err, cache.ErrNotFound) {
				t.Errorf("blob %d: %v, damaged: %t", i, err, ok)
			} else if ok {
				line := lineOf(x.log.String(), string(d))
				if !strings.Contains(line, "check the disk of cache.dir") || !strings.Contains(line, why) {
					t.Errorf("log of blob %d: %q, want %q", i, line, why)
				}
			} else if strings.Contains(x.log.String(), string(d)) {
				t.Errorf("blob %d is right, and logged", i)
			}
		}
		want := disk.ScrubStats{Blobs: 10, Bytes: 8*100_000 + 99_999, Damaged: 3}
		if got := x.Scrubbed(); got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
		if took := time.Since(begin); took < 90*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// lineOf is the only line that holds s.
func lineOf(text, s string) string {
	var found []string
	for line := range strings.Lines(text) {
		if strings.Contains(line, s) {
			found = append(found, line)
		}
	}
	if len(found) != 1 {
		return strings.Join(found, "|")
	}
	return found[0]
}

func TestScrubKeepsToItsRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		fillDir(t, dir, 20, 100_000)
		x := scrub(t, dir, disk.ScrubOptions{Rate: 100_000})
		for i := range int64(19) {
			time.Sleep(time.Second)
			if got := x.Scrubbed().Blobs; got < i || got > i+2 {
				t.Errorf("after %d s it has read %d", i+1, got)
			}
		}
		x.stop()
	})
}

// A restart goes on where the last process was, and a round is not begun before its time.
func TestScrubGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		list := fillDir(t, dir, 20, 100_000)
		var read int64
		for range 4 {
			x := scrub(t, dir, disk.ScrubOptions{Rate: 100_000})
			time.Sleep(6 * time.Second)
			x.stop()
			read += x.Scrubbed().Blobs
			if err := x.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if read < 20 || read > 24 { // what it stopped in is read again
			t.Errorf("a round of 20 read %d", read)
		}
		tear(t, blobFile(dir, list[0]))
		x := scrub(t, dir, disk.ScrubOptions{Rate: 100_000})
		time.Sleep(23 * time.Hour)
		if got := x.Scrubbed(); got != (disk.ScrubStats{}) {
			t.Errorf("the next round came before its time: %+v", got)
		}
		time.Sleep(time.Hour)
		if got := x.Scrubbed(); got.Damaged != 1 || got.Blobs != 20 {
			t.Errorf("the next round found %+v", got)
		}
		x.stop()
	})
}

// A note that makes no sense costs no more than a round.
func TestScrubNote(t *testing.T) {
	t.Parallel()
	for name, note := range map[string]string{
		"damaged": "{", "another's": `{"next": 3}`, "of the future": `{"began": "2999-01-01T00:00:00Z", "next": ""}`,
		"behind all": `{"began": "2000-01-01T00:00:00Z", "next": "sha256:ff"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				fillDir(t, dir, 5, 100)
				if err := os.WriteFile(filepath.Join(dir, "scrub.json"), []byte(note), 0o600); err != nil {
					t.Fatal(err)
				}
				x := scrub(t, dir, disk.ScrubOptions{})
				time.Sleep(25 * time.Hour)
				if got := x.Scrubbed().Blobs; got < 5 {
					t.Errorf("read %d", got)
				}
				x.stop()
			})
		})
	}
}

// What the disk can't read is damaged; what this process can't is not.
func TestScrubReadErrors(t *testing.T) {
	t.Parallel()
	for errno, damaged := range map[syscall.Errno]int64{syscall.EIO: 3, syscall.EMFILE: 0, syscall.ENOMEM: 0} {
		for _, op := range []string{"read", "open", "readdir"} {
			t.Run(errno.Error()+" at "+op, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					w := newWorld(t, t.Name(), false, 1)
					w.open()
					for i := range uint64(3) {
						w.must(i + 1)
					}
					w.sync()
					x := &scrubber{t: t, Store: w.s}
					w.c.fail = only(errno, op)
					x.run(disk.ScrubOptions{Every: time.Hour})
					time.Sleep(30 * time.Minute)
					w.c.endFaults()
					want := damaged
					if op != "read" {
						want = 0
					}
					if got := x.Scrubbed().Damaged; got != want {
						t.Errorf("%d are damaged, want %d", got, want)
					}
					time.Sleep(time.Hour)
					x.stop()
					if got := x.Scrubbed(); got.Damaged != want || want == 0 && got.Blobs < 3 {
						t.Errorf("in the next round: %+v", got)
					}
					w.works()
					w.stop(true)
					w.end()
				})
			})
		}
	}
}

// Damaged content is removed by ScrubOptions.Remove.
func TestScrubRemovesThrough(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		list := fillDir(t, dir, 2, 100_000)
		tear(t, blobFile(dir, list[1]))
		var asked []oci.Digest
		x := scrub(t, dir, disk.ScrubOptions{Remove: func(d oci.Digest) error {
			asked = append(asked, d)
			return syscall.EROFS
		}})
		time.Sleep(time.Hour)
		x.stop()
		if len(asked) != 1 || asked[0] != list[1] || !strings.Contains(x.log.String(), "can't be removed") {
			t.Errorf("asked to remove %v; log: %s", asked, &x.log)
		}
	})
}

// The slower the reads are, the longer it rests after them.
func TestScrubGivesWay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			n          int
			took, want time.Duration
		}{
			{n: 1 << 20, took: time.Millisecond, want: 999 * time.Millisecond}, // the rate of 1 MiB/s
			{n: 1 << 20, took: time.Second, want: 9 * time.Second},             // a tenth of the time
			{n: 0, took: 100 * time.Microsecond, want: 0},                      // too short to rest for
			{n: 0, took: 10 * time.Millisecond, want: 90 * time.Millisecond},
		} {
			begin := time.Now()
			if err := disk.Rest(t.Context(), 1<<20, tt.n, tt.took); err != nil {
				t.Error(err)
			}
			if got := time.Since(begin); got != tt.want {
				t.Errorf("%d bytes in %v: rests %v, want %v", tt.n, tt.took, got, tt.want)
			}
		}
	})
}

// What is read once leaves memory as it was.
func TestReadCold(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, d := cachetest.Bytes(1, 1<<20)
	s := open(t, dir, disk.Options{Strict: true}) // on disk: dirty pages stay in memory
	cachetest.Fill(t, s, b)
	f, err := os.Open(blobFile(dir, d))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	whole := func() {
		got := make([]byte, 256<<10)
		for off := 0; off < len(b); off += len(got) {
			if n, err := disk.ReadCold(f, got, int64(off)); n != len(got) || err != nil ||
				!bytes.Equal(got, b[off:off+n]) {
				t.Fatalf("read at %d: %d, %v", off, n, err)
			}
		}
	}
	if _, err := f.ReadAt(make([]byte, len(b)), 0); err != nil {
		t.Fatal(err)
	}
	before := disk.InMemory(f, len(b))
	whole()
	if got := disk.InMemory(f, len(b)); got < before {
		t.Errorf("%d bytes of it are in memory, were %d", got, before)
	}
	disk.Uncache(f)
	before = disk.InMemory(f, len(b))
	if before > 0 {
		t.Logf("this file system keeps %d bytes in memory", before)
	}
	whole()
	if got := disk.InMemory(f, len(b)); got > before {
		t.Errorf("%d bytes of it are in memory, were %d", got, before)
	}
}
