package boltindex_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/boltindex"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, path string) *boltindex.Index {
	t.Helper()
	x, err := boltindex.Open(path, nil)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return x
}

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

func access(seed int) cache.Access {
	return cache.Access{Digest: digest.FromString(fmt.Sprint(seed)), Size: int64(seed), Used: noon}
}

func accesses(n int) []cache.Access {
	list := make([]cache.Access, n)
	for i := range list {
		list[i] = access(i)
	}
	return list
}

// memDir is a folder in memory where there is one: hundreds of files that are synced several times each take a disk a
// minute.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "boltindex-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func recorded(t testing.TB, x *boltindex.Index) map[oci.Digest]cache.Access {
	t.Helper()
	all := make(map[oci.Digest]cache.Access)
	for a, err := range x.All() {
		if err != nil {
			t.Fatalf("list: %v", err)
		}
		all[a.Digest] = a
	}
	return all
}

func aside(t testing.TB, path string) []string {
	t.Helper()
	list, err := filepath.Glob(path + ".bad-*")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestIndex(t *testing.T) {
	t.Parallel()
	cachetest.TestIndex(t, func(t *testing.T) cache.Index { return open(t, filepath.Join(t.TempDir(), "index.db")) })
}

func TestRestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	x := open(t, path)
	if err := x.Write(accesses(5000), nil); err != nil {
		t.Fatal(err)
	}
	want := recorded(t, x)
	if len(want) != 5000 {
		t.Fatalf("recorded %d", len(want))
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if err := x.Write(accesses(1), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after close: %v", err)
	}
	if diff := cmp.Diff(want, recorded(t, open(t, path))); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if bad := aside(t, path); len(bad) > 0 {
		t.Errorf("a good file was set aside: %v", bad)
	}
}

func TestNoDigest(t *testing.T) {
	t.Parallel()
	x := open(t, filepath.Join(t.TempDir(), "index.db"))
	for _, d := range []oci.Digest{
		"", "sha256:abc", "md5:d41d8cd98f00b204e9800998ecf8427e",
		digest.SHA384.FromString("x"),
	} {
		if err := x.Write([]cache.Access{{Digest: d}}, nil); err == nil {
			t.Errorf("%q was recorded", d)
		}
		if err := x.Write(nil, []oci.Digest{d}); err == nil {
			t.Errorf("%q was removed", d)
		}
	}
}

func TestLocked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	x := open(t, path)
	if err := x.Write(accesses(100), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := boltindex.Open(path, nil); err == nil || !strings.Contains(err.Error(), "cache.dir of its own") {
		t.Errorf("second open: %v", err)
	}
	if bad := aside(t, path); len(bad) > 0 {
		t.Errorf("a file in use was set aside: %v", bad)
	}
	if got := len(recorded(t, x)); got != 100 {
		t.Errorf("recorded %d", got)
	}
}

func TestNoWriteToDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gone")
	path := filepath.Join(dir, "index.db")
	x := open(t, path) // there is no such folder
	if err := x.Write(accesses(1), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("write: %v, want what is wrong", err)
	}
	if got := recorded(t, x); len(got) != 0 {
		t.Errorf("recorded %v", got)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := x.Write(accesses(5), nil); err != nil {
		t.Errorf("write when the disk is back: %v", err)
	}
	if got := len(recorded(t, x)); got != 5 {
		t.Errorf("recorded %d, want 5", got)
	}
}

// healthy is the content of a file with branches, leaves and free pages.
func healthy(t testing.TB, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "index.db")
	x, err := boltindex.Open(path, nil)
	if err != nil {
		t.Fatal(err)
	}
	var gone []oci.Digest
	for _, a := range accesses(n / 3) {
		gone = append(gone, a.Digest)
	}
	if err := errors.Join(x.Write(accesses(n), nil), x.Write(nil, gone), x.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// works opens the file whatever it holds, and uses it: no panic, no error but a reset, and what is written then stays.
func works(t testing.TB, path string) {
	t.Helper()
	x, err := boltindex.Open(path, nil)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	for e, err := range x.All() { // what there is, or an error
		if err != nil && e.Digest != "" {
			t.Errorf("both %+v and %v", e, err)
		}
	}
	batch := accesses(200)
	if err := x.Write(batch, nil); err != nil && !errors.Is(err, cache.ErrReset) {
		t.Fatalf("write: %v", err)
	}
	if err := x.Write(batch, []oci.Digest{access(1000).Digest}); err != nil {
		t.Fatalf("second write: %v", err)
	}
	got := recorded(t, x)
	for _, a := range batch {
		if got[a.Digest] != a {
			t.Fatalf("recorded %v, want %v", got[a.Digest], a)
		}
	}
	if err := x.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
}

func TestDamage(t *testing.T) {
	t.Parallel()
	good := healthy(t, 400)
	size := os.Getpagesize()
	pages := len(good) / size
	branch, leaf := -1, -1
	for i := 2; i < pages; i++ {
		switch good[i*size+8] {
		case 1:
			branch = i
		case 2:
			leaf = i
		}
	}
	if branch < 0 || leaf < 0 {
		t.Fatalf("a file of %d pages has no branch", pages)
	}
	random := rand.NewChaCha8([32]byte{1})
	over := func(b []byte, at int, with []byte) []byte {
		copy(b[at:], with)
		return b
	}
	garbage := func(n int) []byte {
		b := make([]byte, n)
		_, _ = random.Read(b)
		return b
	}
	cases := map[string][]byte{
		"empty":              {},
		"one byte":           {1},
		"text":               []byte(strings.Repeat("this is not a database\n", 1000)),
		"zeros":              make([]byte, 64<<10),
		"garbage":            garbage(64 << 10),
		"both metas zero":    over(bytes.Clone(good), 0, make([]byte, 2*size)),
		"both metas garbage": over(bytes.Clone(good), 0, garbage(2*size)),
		"another program's":  foreign(t),
		"a bucket in itself": circle(t, good),
		// The first child of a branch is the branch itself.
		"pages in a circle": over(bytes.Clone(good), branch*size+16+8, good[branch*size:branch*size+8]),
	}
	for name, at := range map[string]int{"root": 16, "freelist": 32, "high water": 40} {
		for _, v := range []uint64{0, 1, 2, 1 << 33, 1 << 62, 1<<64 - 1} {
			b := bytes.Clone(good)
			for meta := range 2 {
				binary.NativeEndian.PutUint64(b[meta*size+16+at:], v)
			}
			cases[fmt.Sprintf("%s is %d", name, v)] = reseal(b)
		}
	}
	for _, v := range []uint32{0, 1, 1 << 10, 1 << 11, 1 << 20, 1<<32 - 1} {
		b := bytes.Clone(good)
		for meta := range 2 {
			binary.NativeEndian.PutUint32(b[meta*size+16+8:], v)
		}
		cases[fmt.Sprintf("page size is %d", v)] = reseal(b)
	}
	for i := range pages {
		cases[fmt.Sprintf("page %d zero", i)] = over(bytes.Clone(good), i*size, make([]byte, size))
		cases[fmt.Sprintf("page %d garbage", i)] = over(bytes.Clone(good), i*size, garbage(size))
		cases[fmt.Sprintf("cut before page %d", i)] = good[:i*size]
		cases[fmt.Sprintf("cut within page %d", i)] = good[:i*size+size/2]
		cases[fmt.Sprintf("page %d is the next", i)] = over(bytes.Clone(good), i*size, good[min(i+1, pages-1)*size:][:size])
		cases[fmt.Sprintf("header of page %d garbage", i)] = over(bytes.Clone(good), i*size, garbage(16))
		cases[fmt.Sprintf("elements of page %d garbage", i)] = over(bytes.Clone(good), i*size+16, garbage(160))
	}
	for seed := range uint64(300) {
		cases[fmt.Sprintf("changes where it hurts %d", seed)] = hurt(bytes.Clone(good), rand.New(rand.NewPCG(seed, 1)))
	}
	for name, content := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(memDir(t), "index.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			works(t, path)
			for _, name := range aside(t, path) {
				if b, err := os.ReadFile(name); err != nil || len(b) < len(content) {
					t.Errorf("set aside are %d bytes of %d, %v", len(b), len(content), err)
				}
			}
		})
	}
}

// hurt changes a few bytes, mostly of headers and elements, and makes the metas' sums right.
func hurt(b []byte, r *rand.Rand) []byte {
	size := os.Getpagesize()
	some := func() int { return r.IntN(len(b)/size) * size }
	for range 1 + r.IntN(6) {
		p, off := some(), r.IntN(16+12*16)
		switch r.IntN(5) {
		case 0:
			b[p+off] ^= 1 << r.IntN(8)
		case 1:
			b[p+off] = byte(r.Uint32())
		case 2:
			copy(b[p:p+16+160], b[some():])
		case 3:
			binary.NativeEndian.PutUint64(b[p+off:], uint64(r.IntN(len(b)/size))) // a page's number
		case 4:
			b[p+r.IntN(size)] ^= 0x10
		}
	}
	if r.IntN(8) == 0 {
		b = b[:r.IntN(len(b))]
	}
	return reseal(b)
}

// reseal makes the sums of both metas right again.
func reseal(b []byte) []byte {
	for at := 0; at <= os.Getpagesize(); at += os.Getpagesize() {
		if len(b) < at+80 {
			break
		}
		sum := fnv.New64a()
		_, _ = sum.Write(b[at+16 : at+16+56])
		binary.NativeEndian.PutUint64(b[at+16+56:], sum.Sum64())
	}
	return b
}

// circle has the bucket begin at the page that it is listed in.
func circle(t *testing.T, good []byte) []byte {
	t.Helper()
	b := bytes.Clone(good)
	found := false
	for at := 2 * os.Getpagesize(); at < len(b); at += os.Getpagesize() {
		u32 := func(i int) int { return int(binary.NativeEndian.Uint32(b[at+i:])) }
		if b[at+8] != 2 || b[at+10] != 1 || u32(16) != 1 {
			continue
		}
		found = true
		value := at + 16 + u32(20) + u32(24)
		copy(b[value:value+8], b[at:at+8])
	}
	if !found {
		t.Fatal("no page lists a bucket")
	}
	return b
}

// foreign is a bbolt file of somebody else's: sound, with other buckets.
func foreign(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("other"))
		if err != nil {
			return err
		}
		in, err := b.CreateBucket([]byte("nested"))
		if err != nil {
			return err
		}
		for i := range 500 {
			if err := in.Put(fmt.Appendf(nil, "key %d", i), make([]byte, i*10)); err != nil {
				return err
			}
		}
		small, err := b.CreateBucket([]byte("small"))
		if err != nil {
			return err
		}
		return small.Put([]byte("k"), []byte("v"))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A sound file is never taken for a damaged one, whatever its history.
func TestSoundFilesPassTheCheck(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	random := rand.New(rand.NewPCG(1, 2))
	want := make(map[oci.Digest]cache.Access)
	for range 10 {
		x := open(t, path)
		if diff := cmp.Diff(want, recorded(t, x)); diff != "" {
			t.Fatalf("after a restart (-want +got):\n%s", diff)
		}
		var used []cache.Access
		var gone []oci.Digest
		for _, i := range random.Perm(2000)[:random.IntN(1000)] {
			if a := access(i); random.IntN(3) == 0 {
				gone = append(gone, a.Digest)
				delete(want, a.Digest)
			} else {
				used = append(used, a)
				want[a.Digest] = a
			}
		}
		if err := errors.Join(x.Write(used, gone), x.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if bad := aside(t, path); len(bad) > 0 {
		t.Errorf("a sound file was set aside: %v", bad)
	}
	if err := os.WriteFile(path, foreign(t), 0o600); err != nil {
		t.Fatal(err)
	}
	works(t, path)
	if bad := aside(t, path); len(bad) > 0 {
		t.Errorf("a sound file of another program was set aside: %v", bad)
	}
}

func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	var log bytes.Buffer
	x, err := boltindex.Open(path, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Write(accesses(3000), nil); err != nil {
		t.Fatal(err)
	}
	// The file loses its end: what bbolt has mapped is not there any more.
	if err := os.Truncate(path, int64(2*os.Getpagesize())); err != nil {
		t.Fatal(err)
	}
	for _, err := range x.All() {
		if err == nil {
			t.Error("read from pages that are gone")
		}
	}
	if err := x.Write(accesses(10), nil); !errors.Is(err, cache.ErrReset) {
		t.Errorf("write: %v, want ErrReset", err)
	}
	if got := len(recorded(t, x)); got != 10 {
		t.Errorf("recorded %d, want the last batch", got)
	}
	if err := x.Write(accesses(20), nil); err != nil {
		t.Errorf("next write: %v", err)
	}
	if err := x.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
	if bad := aside(t, path); len(bad) != 1 || !strings.Contains(log.String(), bad[0]) {
		t.Errorf("set aside: %v; log: %s", bad, &log)
	}
}

func TestFewAreKeptAside(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "index.db")
	for i := range 6 {
		if err := os.WriteFile(path, fmt.Appendf(nil, "damage %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := open(t, path).Close(); err != nil {
			t.Fatal(err)
		}
	}
	bad := aside(t, path)
	if len(bad) != 3 {
		t.Fatalf("kept %v, want 3", bad)
	}
	for i, name := range bad {
		if b, _ := os.ReadFile(name); string(b) != fmt.Sprintf("damage %d", i+3) {
			t.Errorf("%s holds %q, want the last ones", name, b)
		}
	}
}

func FuzzOpen(f *testing.F) {
	good := healthy(f, 300)
	size := os.Getpagesize()
	f.Add([]byte{}, false)
	f.Add([]byte("text"), false)
	f.Add(good, false)
	f.Add(good[:len(good)/2], false)
	for at := 0; at < len(good); at += size {
		b := bytes.Clone(good)
		b[at+8] ^= 1
		f.Add(b, true)
		b = bytes.Clone(good)
		b[at+20] ^= 0x10
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, content []byte, seal bool) {
		if seal { // lets changes of the metas come through
			content = reseal(bytes.Clone(content))
		}
		path := filepath.Join(memDir(t), "index.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		works(t, path)
	})
}
