package recency_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/cache/recency"
	"github.com/registrymirror/mirror/oci"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, dir string) *recency.Index {
	t.Helper()
	x := recency.Open(dir, nil)
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
	dir, err := os.MkdirTemp("/dev/shm", "recency-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func recorded(t testing.TB, x *recency.Index) map[oci.Digest]cache.Access {
	t.Helper()
	all, err := x.Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	return all
}

// file is the index in a folder.
func file(dir string) string { return filepath.Join(dir, "recency.bin") }

func aside(t testing.TB, dir string) []string {
	t.Helper()
	list, err := filepath.Glob(file(dir) + ".bad-*")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestIndex(t *testing.T) {
	t.Parallel()
	cachetest.TestIndex(t, func(t *testing.T) cache.Index { return open(t, t.TempDir()) })
}

func TestRestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	x := open(t, dir)
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
	if diff := cmp.Diff(want, recorded(t, open(t, dir))); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
	if bad := aside(t, dir); len(bad) > 0 {
		t.Errorf("a good file was set aside: %v", bad)
	}
}

func TestNoDigest(t *testing.T) {
	t.Parallel()
	x := open(t, t.TempDir())
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

func TestNoWriteToDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "gone")
	x := open(t, dir) // there is no such folder
	if err := x.Write(accesses(1), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("write: %v, want what is wrong", err)
	}
	if _, err := x.Load(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("load: %v, want what is wrong", err)
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

// TestFormerIndex: the index of an earlier version is removed, and nothing else.
func TestFormerIndex(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a[b*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"index.db", "index.db.bad-20260101T000000.000000000", "state.db", "recency.bin.tmp"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var log bytes.Buffer
	x := recency.Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
	if err := errors.Join(x.Write(accesses(1), nil), x.Close()); err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 2 || list[0].Name() != "recency.bin" || list[1].Name() != "state.db" {
		t.Errorf("left: %v, %v", list, err)
	}
	if !strings.Contains(log.String(), "earlier version") {
		t.Errorf("log: %s", &log)
	}
}

// batch is what one Write appends.
type batch struct {
	used    []cache.Access
	removed []oci.Digest
}

// batches are some writes, each with a change of content that an earlier one recorded.
func batches(n int) (list []batch) {
	r := rand.New(rand.NewPCG(5, 6))
	for range n {
		var b batch
		for range 1 + r.IntN(100) {
			if a := access(r.IntN(1000)); r.IntN(4) == 0 {
				b.removed = append(b.removed, a.Digest)
			} else {
				b.used = append(b.used, a)
			}
		}
		list = append(list, b)
	}
	return list
}

// apply does to a map what the batch does to an index.
func (b batch) apply(all map[oci.Digest]cache.Access) {
	for _, d := range b.removed {
		delete(all, d)
	}
	for _, a := range b.used {
		all[a.Digest] = a
	}
}

// moment is the file after a write, and what it then holds.
type moment struct {
	file []byte
	want map[oci.Digest]cache.Access
}

// moments is the life of a file, write by write, from an empty one on.
func moments(t testing.TB, n int) []moment {
	t.Helper()
	dir := memDir(t)
	x := open(t, dir)
	want := recorded(t, x)
	all := []moment{{file: content(t, dir), want: maps.Clone(want)}}
	for _, b := range batches(n) {
		if err := x.Write(b.used, b.removed); err != nil {
			t.Fatal(err)
		}
		b.apply(want)
		all = append(all, moment{file: content(t, dir), want: maps.Clone(want)})
	}
	return all
}

func content(t testing.TB, dir string) []byte {
	t.Helper()
	b, err := os.ReadFile(file(dir))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// works uses an index whatever its file holds: no error but a reset, what is there is that of some moment, and what is
// written then stays. It returns what there was at first.
func works(t testing.TB, dir string, ever []moment) map[oci.Digest]cache.Access {
	t.Helper()
	x := recency.Open(dir, nil)
	first, err := x.Load()
	if err != nil {
		t.Fatalf("load: %v", err)
	}
	if !slices.ContainsFunc(ever, func(m moment) bool { return maps.Equal(m.want, first) }) {
		t.Errorf("%d records, which never were all there was", len(first))
	}
	for i := range 2 { // also after the next start
		some := accesses(200)
		if err := x.Write(some, []oci.Digest{access(1000).Digest}); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		got := recorded(t, x)
		for _, a := range some {
			if got[a.Digest] != a {
				t.Fatalf("recorded %v, want %v", got[a.Digest], a)
			}
		}
		if err := x.Close(); err != nil {
			t.Fatalf("close: %v", err)
		}
		x = open(t, dir)
	}
	return first
}

func TestDamage(t *testing.T) {
	t.Parallel()
	ever := moments(t, 12)
	good := ever[len(ever)-1].file
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
		"empty":                {},
		"one byte":             {1},
		"text":                 []byte(strings.Repeat("this is not an index\n", 1000)),
		"zeros":                make([]byte, 64<<10),
		"garbage":              garbage(64 << 10),
		"of another version":   over(15, []byte{'2'}),
		"longer":               append(bytes.Clone(good), garbage(5000)...),
		"longer by zeros":      append(bytes.Clone(good), make([]byte, 5000)...),
		"longer by one byte":   append(bytes.Clone(good), 0),
		"a batch twice":        append(bytes.Clone(good), good[len(ever[11].file):]...),
		"a length of 4 GiB":    over(16, []byte{0xff, 0xff, 0xff, 0xff}),
		"a length of all":      over(16, binary.BigEndian.AppendUint32(nil, uint32(len(good)))),
		"an unknown algorithm": sealed([]byte{9, 1, 2, 3}),
		"a size below zero":    sealed(append(append([]byte{1}, make([]byte, 32+4)...), bytes.Repeat([]byte{0xff}, 8)...)),
		"a record cut off":     sealed([]byte{1, 2, 3}),
	}
	const piece = 64
	for at := 0; at+piece < len(good); at += piece {
		cases[fmt.Sprintf("zeros at %d", at)] = over(at, make([]byte, piece))
		cases[fmt.Sprintf("garbage at %d", at)] = over(at, garbage(piece))
		cases[fmt.Sprintf("cut at %d", at)] = good[:at]
		cases[fmt.Sprintf("what follows in place of %d", at)] = over(at, good[at+piece:min(at+2*piece, len(good))])
		bit := over(at, nil)
		bit[at+int(random.Uint64()%piece)] ^= 1 << (random.Uint64() % 8)
		cases[fmt.Sprintf("a bit at %d", at)] = bit
	}
	for name, damaged := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := memDir(t)
			if err := os.WriteFile(file(dir), damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			works(t, dir, ever)
			for _, name := range aside(t, dir) {
				if b, err := os.ReadFile(name); err != nil || !bytes.Equal(b, damaged) {
					t.Errorf("set aside are %d bytes of %d, %v", len(b), len(damaged), err)
				}
			}
		})
	}
}

// sealed is a file with one batch that has these bytes, and the right sum.
func sealed(records []byte) []byte {
	length := binary.BigEndian.AppendUint32(nil, uint32(len(records)))
	sum := crc32.Checksum(append(bytes.Clone(length), records...), crc32.MakeTable(crc32.Castagnoli))
	return append(binary.BigEndian.AppendUint32(append([]byte("mirror-recency 1"), length...), sum), records...)
}

// What stands in the place of the file and is not one is set aside, and not removed.
func TestNotAFile(t *testing.T) {
	t.Parallel()
	for name, put := range map[string]func(path string) error{
		"a folder":         func(path string) error { return os.MkdirAll(filepath.Join(path, "in it"), 0o700) },
		"a link":           func(path string) error { return os.Symlink("elsewhere", path) },
		"a link to a file": func(path string) error { return os.Symlink("/dev/null", path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			if err := put(file(dir)); err != nil {
				t.Fatal(err)
			}
			works(t, dir, []moment{{}})
			if bad := aside(t, dir); len(bad) != 1 {
				t.Errorf("set aside: %v", bad)
			}
		})
	}
}

// A sound file is never taken for a damaged one, whatever its history.
func TestSoundFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var log bytes.Buffer
	want := make(map[oci.Digest]cache.Access)
	for _, b := range batches(10) {
		x := recency.Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
		if diff := cmp.Diff(want, recorded(t, x)); diff != "" {
			t.Fatalf("after a restart (-want +got):\n%s", diff)
		}
		b.apply(want)
		if err := errors.Join(x.Write(b.used, b.removed), x.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if log.Len() > 0 {
		t.Errorf("log: %s", &log)
	}
}

// Damage that comes while the index is in use is found by the next Write, which begins a new file.
func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(path string) error{
		"cut":      func(path string) error { return os.Truncate(path, 1000) },
		"removed":  os.Remove,
		"replaced": func(path string) error { return errors.Join(os.Remove(path), os.WriteFile(path, []byte("x"), 0o600)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			var log bytes.Buffer
			x := recency.Open(dir, slog.New(slog.NewTextHandler(&log, nil)))
			if err := x.Write(accesses(3000), nil); err != nil {
				t.Fatal(err)
			}
			if err := harm(file(dir)); err != nil {
				t.Fatal(err)
			}
			if _, err := x.Load(); err == nil && name == "cut" {
				t.Error("read what is gone")
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
			bad := aside(t, dir)
			if gone := name == "removed"; (len(bad) == 0) != gone || !gone && !strings.Contains(log.String(), bad[0]) {
				t.Errorf("set aside: %v; log: %s", bad, &log)
			}
			if got := len(recorded(t, open(t, dir))); got != 20 {
				t.Errorf("recorded %d, want 20", got)
			}
		})
	}
}

func TestFewAreKeptAside(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 6 {
		if err := os.WriteFile(file(dir), fmt.Appendf(nil, "damage %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		x := open(t, dir)
		if got := recorded(t, x); len(got) > 0 {
			t.Errorf("recorded %v", got)
		}
		if err := x.Close(); err != nil {
			t.Fatal(err)
		}
	}
	bad := aside(t, dir)
	if len(bad) != 3 {
		t.Fatalf("kept %v, want 3", bad)
	}
	for i, name := range bad {
		if b, _ := os.ReadFile(name); string(b) != fmt.Sprintf("damage %d", i+3) {
			t.Errorf("%s holds %q, want the last ones", name, b)
		}
	}
}

// The same content used again and again does not make the file grow, and nothing is lost when it is written again.
func TestFileStaysSmall(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	x := open(t, dir)
	const maxReplaced = 4000
	x.SetMaxReplaced(maxReplaced)
	list := accesses(1000)
	want := make(map[oci.Digest]cache.Access)
	largest := 0
	for i := range 12 {
		for n := range list {
			list[n].Used = noon.Add(time.Duration(i) * time.Minute)
			want[list[n].Digest] = list[n]
		}
		if err := x.Write(list, nil); err != nil {
			t.Fatal(err)
		}
		largest = max(largest, len(content(t, dir)))
	}
	if diff := cmp.Diff(want, recorded(t, x)); diff != "" {
		t.Errorf("recorded (-want +got):\n%s", diff)
	}
	const record = 45
	if most := record * (maxReplaced + 4*len(list)); largest > most {
		t.Errorf("the file had %d bytes, want at most %d", largest, most)
	}
	if got := len(content(t, dir)); got >= largest {
		t.Errorf("the file has %d bytes and was never written again", got)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, recorded(t, open(t, dir))); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}

// Where the file is found damaged when it is written again, all is recorded again.
func TestDamageIsFoundWhenWrittenAgain(t *testing.T) {
	t.Parallel()
	dir := memDir(t)
	x := open(t, dir)
	x.SetMaxReplaced(1000)
	if err := x.Write(accesses(1000), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := x.File().WriteAt([]byte("damage"), 100); err != nil {
		t.Fatal(err)
	}
	if err := x.Write(accesses(10), nil); !errors.Is(err, cache.ErrReset) {
		t.Errorf("write: %v, want ErrReset", err)
	}
	if got := len(recorded(t, x)); got != 10 {
		t.Errorf("recorded %d, want the last batch", got)
	}
}

func FuzzLoad(f *testing.F) {
	ever := moments(f, 3)
	good := ever[len(ever)-1].file
	f.Add([]byte{})
	f.Add([]byte("text"))
	f.Add(good)
	f.Add(good[:len(good)/2])
	for at := 0; at < len(good); at += 100 {
		b := bytes.Clone(good)
		b[at] ^= 1
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		dir := memDir(t)
		if err := os.WriteFile(file(dir), content, 0o600); err != nil {
			t.Fatal(err)
		}
		x := open(t, dir)
		before := recorded(t, x)
		a := access(1)
		if err := x.Write([]cache.Access{a}, nil); err != nil {
			t.Fatal(err)
		}
		before[a.Digest] = a
		if diff := cmp.Diff(before, recorded(t, x)); diff != "" {
			t.Errorf("after a write (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	if err := errors.Join(open(b, dir).Write(accesses(1_000_000), nil)); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		x := recency.Open(dir, nil)
		if all, err := x.Load(); err != nil || len(all) != 1_000_000 {
			b.Fatalf("%d, %v", len(all), err)
		}
		_ = x.Close()
	}
}

// BenchmarkWrite records a thousand uses beside a million records.
func BenchmarkWrite(b *testing.B) {
	x := open(b, b.TempDir())
	list := accesses(1_000_000)
	if err := x.Write(list, nil); err != nil {
		b.Fatal(err)
	}
	recorded(b, x)
	r := rand.New(rand.NewPCG(1, 2))
	for b.Loop() {
		from := r.IntN(len(list) - 1000)
		if err := x.Write(list[from:from+1000], nil); err != nil {
			b.Fatal(err)
		}
	}
}
