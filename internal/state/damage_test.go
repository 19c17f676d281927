package state_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"github.com/registrymirror/mirror/internal/boltfile"
	"github.com/registrymirror/mirror/internal/state"
)

// grown makes a file with two tables, branch pages, overflow pages and free pages. It returns what is in it, and what
// was ever written under each key.
func grown(t *testing.T, path string) (want map[string]string, ever map[string][]string) {
	t.Helper()
	db := open(t, path)
	want, ever = make(map[string]string), make(map[string][]string)
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 4 {
		for _, name := range []string{"tags", "refs"} {
			var items []state.Item
			for range 60 {
				k, v := fmt.Sprint("key", r.IntN(300)), bytes.Repeat([]byte{byte(round)}, r.IntN(120))
				if r.IntN(100) == 0 {
					v = bytes.Repeat([]byte("large"), 3000)
				}
				if full := name + "/" + k; r.IntN(4) == 0 {
					v = nil
					delete(want, full)
				} else {
					want[full] = string(v)
					ever[full] = append(ever[full], string(v))
				}
				items = append(items, state.Item{Key: k, Value: v})
			}
			if err := db.Table(name).Write(items); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	return want, ever
}

// read is everything in a file.
func read(t *testing.T, db *state.DB) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for _, name := range []string{"tags", "refs"} {
		for it, err := range db.Table(name).Scan("") {
			if err != nil {
				t.Fatal(err)
			}
			got[name+"/"+it.Key] = string(it.Value)
		}
	}
	return got
}

// The check finds nothing wrong with what bbolt wrote.
func TestCheckBelievesWhatIsSound(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	want, _ := grown(t, path)
	if err := boltfile.Check(path); err != nil {
		t.Errorf("a sound file: %v", err)
	}
	b, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Deep trees, buckets within pages and buckets in buckets: more than tables need.
	for range 30 {
		err := b.Update(func(tx *bbolt.Tx) error {
			for i := range 300 {
				outer, err := tx.CreateBucketIfNotExists(fmt.Append(nil, "outer", rand.IntN(4)))
				if err != nil {
					return err
				}
				inner, err := outer.CreateBucketIfNotExists(fmt.Append(nil, "inner", rand.IntN(3)))
				if err != nil {
					return err
				}
				k := bytes.Repeat(fmt.Append(nil, rand.IntN(5000)), 8)
				if i%3 == 0 {
					err = inner.Delete(k)
				} else {
					err = inner.Put(k, make([]byte, rand.IntN(300)))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copied := path + ".now"
		if err := os.WriteFile(copied, whole, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := boltfile.Check(copied); err != nil {
			t.Fatalf("a sound file of %d bytes: %v", len(whole), err)
		}
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, open(t, path)); len(got) != len(want) {
		t.Errorf("%d items, want %d", len(got), len(want))
	}
}

// Wherever the file is damaged, it opens, what it says is what was written at some time, and it can be written.
func TestDamageAnywhere(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "state.db")
	_, ever := grown(t, base)
	whole, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	all := damages(whole)
	dir, kept := t.TempDir(), 0
	for i, d := range all {
		path := filepath.Join(dir, fmt.Sprint(i, ".db"))
		if err := os.WriteFile(path, d.b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := state.Open(path, state.Options{})
		if err != nil {
			t.Fatalf("%s: %v", d.name, err)
		}
		got := read(t, db)
		for k, v := range got {
			if !slices.Contains(ever[k], v) {
				t.Errorf("%s: %s is %q, which was never written", d.name, k, v)
			}
		}
		if len(got) > 0 {
			kept++
		}
		if err := db.Table("tags").Write([]state.Item{{Key: "new", Value: make([]byte, 5000)}, {Key: "key1"}}); err != nil {
			t.Errorf("%s: write: %v", d.name, err)
		}
		if it, err := db.Table("tags").Get("new"); err != nil || len(it.Value) != 5000 {
			t.Errorf("%s: read back: %v", d.name, err)
		}
		if err := db.Close(); err != nil {
			t.Errorf("%s: %v", d.name, err)
		}
	}
	t.Logf("%d kinds of damage; what was hit did not matter in %d", len(all), kept)
	if kept == 0 || kept == len(all) {
		t.Errorf("%d of %d files were believed", kept, len(all))
	}
}

// damage is a file that is not what was written.
type damage struct {
	name string
	b    []byte
}

// damages are a file with damage of each kind in each page.
func damages(whole []byte) (all []damage) {
	page := os.Getpagesize()
	pages := len(whole) / page
	r := rand.New(rand.NewPCG(3, 4))
	add := func(name string, f func(b []byte) []byte) { all = append(all, damage{name, f(bytes.Clone(whole))}) }
	for p := range pages {
		add(fmt.Sprint("cut before page ", p), func(b []byte) []byte { return b[:p*page] })
		add(fmt.Sprint("zeroed page ", p), func(b []byte) []byte { clear(b[p*page : (p+1)*page]); return b })
		add(fmt.Sprint("garbage in page ", p), func(b []byte) []byte {
			for i := p * page; i < (p+1)*page; i++ {
				b[i] = byte(r.Uint32())
			}
			return b
		})
		add(fmt.Sprint("another page in place of page ", p), func(b []byte) []byte {
			q := (p + 1 + r.IntN(pages-1)) % pages
			copy(b[p*page:(p+1)*page], whole[q*page:(q+1)*page])
			return b
		})
		for range 3 { // heads of pages and of their elements are where a bit does the most
			at := p*page + r.IntN(160)
			add(fmt.Sprint("a bit of byte ", at), func(b []byte) []byte { b[at] ^= 1 << r.IntN(8); return b })
		}
		at := p*page + 8
		add(fmt.Sprint("large numbers in the head of page ", p), func(b []byte) []byte {
			copy(b[at+2:at+8], "\xff\xff\xff\xff\xff\x7f")
			return b
		})
	}
	return all
}

// Damage under way ends no process, and never reaches the last good copy.
func TestDamageWhileOpen(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, path string)
	}{
		{"garbage", func(t *testing.T, path string) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteAt(bytes.Repeat([]byte("garbage "), int(info.Size()-8192)/8), 8192); err != nil {
				t.Fatal(err)
			}
			_ = f.Close()
		}},
		{"cut", func(t *testing.T, path string) {
			if err := os.Truncate(path, 8192); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state.db")
			want, _ := grown(t, path)
			db := open(t, path)
			if err := db.Copy(); err != nil {
				t.Fatal(err)
			}
			tt.damage(t, path)
			for i := range 3 {
				if _, err := db.Table("tags").Get("key1"); err == nil {
					t.Errorf("read %d of damage: no error", i)
				}
				if err := db.Table("tags").Write([]state.Item{{Key: "key1", Value: []byte("x")}}); err == nil {
					t.Errorf("write %d into damage: no error", i)
				}
			}
			if err := db.Copy(); err == nil {
				t.Error("damage was copied")
			}
			_ = db.Close()
			// A restart: nothing is held that keeps the next from opening the file.
			if got := read(t, open(t, path)); len(got) != len(want) {
				t.Errorf("%d items in the last good copy, want %d", len(got), len(want))
			}
		})
	}
}

func TestWhatACrashLeftIsRemoved(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a[b*")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "state.db")
	for _, f := range []string{"state.db.good.tmp-1", "state.db.tmp-22", "other.tmp-3"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	open(t, path)
	left, err := os.ReadDir(dir)
	if err != nil || len(left) != 2 || left[0].Name() != "other.tmp-3" {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A file that another database has open is not damaged, and stays where it is.
func TestInUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	if _, err := db.Table("t").Swap("k", 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if _, err := state.Open(path, state.Options{}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
	if took := time.Since(start); took > time.Minute {
		t.Errorf("it took %v to say so", took)
	}
	if aside, _ := filepath.Glob(path + ".bad-*"); len(aside) != 0 {
		t.Errorf("set aside: %v", aside)
	}
}

// Where there is no space for a copy of the copy, the copy itself takes the place.
func TestGoodCopyIsNeverLost(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	want, _ := grown(t, path)
	db := open(t, path)
	if err := db.Copy(); err != nil {
		t.Fatal(err)
	}
	_ = db.Close()
	for range 3 { // damage after damage
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, strings.Repeat("x", 3*os.Getpagesize())); err != nil {
			t.Fatal(err)
		}
		_ = f.Close()
		db := open(t, path)
		if got := read(t, db); len(got) != len(want) {
			t.Errorf("%d items, want %d", len(got), len(want))
		}
		_ = db.Close()
	}
	// A copy that is damaged itself is no use, and no harm.
	for _, f := range []string{path, path + ".good"} {
		if err := os.WriteFile(f, bytes.Repeat([]byte("y"), 20_000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := read(t, open(t, path)); len(got) != 0 {
		t.Errorf("%d items out of nothing", len(got))
	}
}

// A page that is listed as free while it is in use would be written over.
func TestCheckFindsFreePagesInUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	grown(t, path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	page := os.Getpagesize()
	for _, meta := range []int{16, page + 16} { // each of the two, behind its page's head
		root := binary.NativeEndian.Uint64(b[meta+16:])
		free := int(binary.NativeEndian.Uint64(b[meta+32:])) * page
		if binary.NativeEndian.Uint16(b[free+10:]) == 0 {
			t.Fatal("no page is free")
		}
		binary.NativeEndian.PutUint64(b[free+16:], root)
	}
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := boltfile.Check(path); !boltfile.IsDamage(err) {
		t.Errorf("err = %v", err)
	}
}
