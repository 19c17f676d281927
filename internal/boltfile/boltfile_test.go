package boltfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/boltfile"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var bucket = []byte("bucket")

// memDir is a folder in memory where there is one: hundreds of files that are synced several times each take a disk a
// minute.
func memDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "boltfile-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func key(i int) []byte { return fmt.Appendf(nil, "%032d", i*7919) }

// put writes keys in one transaction, with values of 12 bytes.
func put(db *boltfile.DB, from, to int) error {
	return db.Update(func(tx *bbolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists(bucket)
		if err != nil {
			return err
		}
		for i := from; i < to; i++ {
			if err := b.Put(key(i), make([]byte, 12)); err != nil {
				return err
			}
		}
		return nil
	})
}

// sound is the content of a file with branches, leaves and free pages.
func sound(t testing.TB, n int) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.db")
	db, err := boltfile.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(put(db, 0, n), db.Update(func(tx *bbolt.Tx) error {
		for i := range n / 3 {
			if err := tx.Bucket(bucket).Delete(key(i)); err != nil {
				return err
			}
		}
		return nil
	}), db.Close())
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// works opens a file whatever it holds. It is refused as damaged, or can be read and written.
func works(t testing.TB, path string) (opened bool) {
	t.Helper()
	db, err := boltfile.Open(path)
	if boltfile.IsDamage(err) {
		return false
	}
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	n := 0
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			if b == nil { // a key of the damage
				return nil
			}
			c := b.Cursor()
			for k, _ := c.First(); k != nil && n < 1_000_000; k, _ = c.Next() {
				n++
			}
			return nil
		})
	})
	if err != nil || n == 1_000_000 {
		t.Errorf("read: %d keys, %v", n, err)
	}
	for range 2 {
		err := put(db, 0, 200)
		if errors.Is(err, berrors.ErrIncompatibleValue) { // the damage made the bucket a key
			return db.Close() == nil
		}
		if err != nil {
			t.Fatalf("write: %v", err)
		}
	}
	err = db.View(func(tx *bbolt.Tx) error {
		for i := range 200 {
			if len(tx.Bucket(bucket).Get(key(i))) != 12 {
				return fmt.Errorf("key %d is not there", i)
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return true
}

func TestDamage(t *testing.T) {
	t.Parallel()
	good := sound(t, 400)
	size := os.Getpagesize()
	pages := len(good) / size
	branch := -1
	for i := 2; i < pages; i++ {
		if good[i*size+8] == 1 {
			branch = i
		}
	}
	if branch < 0 {
		t.Fatalf("a file of %d pages has no branch", pages)
	}
	random := rand.NewChaCha8([32]byte{1})
	over := func(at int, with []byte) []byte {
		b := bytes.Clone(good)
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
		"both metas zero":    over(0, make([]byte, 2*size)),
		"both metas garbage": over(0, garbage(2*size)),
		"another program's":  foreign(t),
		"a bucket in itself": circle(t, good),
		// The first child of a branch is the branch itself.
		"pages in a circle": over(branch*size+16+8, good[branch*size:branch*size+8]),
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
		cases[fmt.Sprintf("page %d zero", i)] = over(i*size, make([]byte, size))
		cases[fmt.Sprintf("page %d garbage", i)] = over(i*size, garbage(size))
		cases[fmt.Sprintf("cut before page %d", i)] = good[:i*size]
		cases[fmt.Sprintf("cut within page %d", i)] = good[:i*size+size/2]
		cases[fmt.Sprintf("page %d is the next", i)] = over(i*size, good[min(i+1, pages-1)*size:][:size])
		cases[fmt.Sprintf("header of page %d garbage", i)] = over(i*size, garbage(16))
		cases[fmt.Sprintf("elements of page %d garbage", i)] = over(i*size+16, garbage(160))
	}
	for seed := range uint64(300) {
		cases[fmt.Sprintf("changes in headers %d", seed)] = harmed(bytes.Clone(good), rand.New(rand.NewPCG(seed, 1)))
	}
	refused := 0
	for name, content := range cases {
		path := filepath.Join(memDir(t), "a.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Run(name, func(t *testing.T) {
			if !works(t, path) {
				refused++
			}
		})
	}
	if t.Logf("%d files, %d refused", len(cases), refused); refused == 0 || refused == len(cases) {
		t.Error("the test proves little")
	}
}

// harmed changes a few bytes, mostly of headers and elements, and makes the metas' sums right.
func harmed(b []byte, r *rand.Rand) []byte {
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

// foreign is a sound file of another program, with buckets in buckets.
func foreign(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "other.db")
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
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

// A sound file is never taken for a damaged one: another program's, and one that has been opened and written many times.
func TestSoundFiles(t *testing.T) {
	t.Parallel()
	path := filepath.Join(memDir(t), "a.db")
	if err := os.WriteFile(path, foreign(t), 0o600); err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 20 {
		if !works(t, path) {
			t.Fatalf("opening %d: taken for damaged", i)
		}
		db, err := boltfile.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		if db.Created || db.OneRoot {
			t.Errorf("opening %d: %+v", i, db)
		}
		from := r.IntN(2000)
		if err := errors.Join(put(db, from, from+r.IntN(1000)), db.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	good := sound(f, 300)
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
		path := filepath.Join(memDir(t), "a.db")
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		works(t, path)
	})
}
