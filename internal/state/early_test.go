package state_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/state"
)

// early are options with which each file is a large one: only the table "pins" is checked before Open returns.
func early() state.Options {
	return state.Options{AtOnce: 1, Expendable: map[string]int64{"tags": 64 << 20, "refs": 64 << 20}}
}

// readEarly is what can be read of a file that may be damaged.
func readEarly(db *state.DB, names ...string) map[string]string {
	got := make(map[string]string)
	for _, name := range names {
		for it, err := range db.Table(name).Scan("") {
			if err == nil {
				got[name+"/"+it.Key] = string(it.Value)
			}
		}
	}
	return got
}

// Before a file is checked, all of it can be read, one by one and in order, and is what is read after.
func TestReadsBeforeTheCheck(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	want, _ := grown(t, path)
	db := openWith(t, path, early())
	if diff := cmp.Diff(want, readEarly(db, "tags", "refs")); diff != "" {
		t.Errorf("before the check (-want +got):\n%s", diff)
	}
	for key, v := range want {
		name, key, _ := strings.Cut(key, "/")
		if it, err := db.Table(name).Get(key); err != nil || string(it.Value) != v {
			t.Errorf("%s: %d bytes, %v", key, len(it.Value), err)
		}
	}
	for _, key := range []string{"a", "key", "zzz", ""} {
		if _, err := db.Table("tags").Get(key); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("%q: %v", key, err)
		}
	}
	if _, err := db.Table("other").Get("x"); !errors.Is(err, state.ErrNotFound) {
		t.Errorf("a table that is not there: %v", err)
	}
	n := 0
	for it, err := range db.Table("tags").Scan("key1") {
		if n++; err != nil || !strings.HasPrefix(it.Key, "key1") {
			t.Errorf("%q, %v", it.Key, err)
		}
	}
	if n == 0 || state.Checked(db) {
		t.Errorf("%d items; checked: %v", n, state.Checked(db))
	}
	one := slices.Sorted(maps.Keys(want))[len(want)-1] // in "tags", which is behind "refs"
	key := strings.TrimPrefix(one, "tags/")
	it, err := db.Table("tags").Get(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Table("tags").Swap(key, it.Version, []byte("new")); err != nil || !state.Checked(db) {
		t.Errorf("a write with a version from before the check: %v, checked: %v", err, state.Checked(db))
	}
	want[one] = "new"
	if diff := cmp.Diff(want, read(t, db)); diff != "" {
		t.Errorf("after the check (-want +got):\n%s", diff)
	}
}

// Wherever a large file is damaged, it opens; what is read before the check and after it was written at some time; and then it is
// what a small file would be. With a good copy, nothing of a table that is not expendable is lost.
func TestDamageAnywhereOfALargeFile(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "state.db")
	_, ever := grown(t, base)
	db := open(t, base)
	pins := []state.Item{{Key: "a", Value: []byte("old")}, {Key: "b", Value: []byte("old")}}
	if err := db.Table("pins").Write(pins); err != nil {
		t.Fatal(err)
	}
	if err := db.Copy(); err != nil {
		t.Fatal(err)
	}
	pins[0].Value = []byte("new")
	if err := db.Table("pins").Write(pins[:1]); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	ever["pins/a"], ever["pins/b"] = []string{"old", "new"}, []string{"old"}
	whole, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(base + ".good")
	if err != nil {
		t.Fatal(err)
	}
	wrong := func(got map[string]string) (bad []string) {
		for k, v := range got {
			if !slices.Contains(ever[k], v) {
				bad = append(bad, k)
			}
		}
		return bad
	}
	dir, waited, aside := t.TempDir(), 0, 0
	for i, d := range damages(whole) {
		path := filepath.Join(dir, fmt.Sprint(i), "state.db")
		if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{path: d.b, path + ".good": good} {
			if err := os.WriteFile(name, b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		db, err := state.Open(path, early())
		if err != nil {
			t.Fatalf("%s: %v", d.name, err)
		}
		later := !state.Checked(db)
		before := readEarly(db, "pins", "tags", "refs")
		if bad := wrong(before); len(bad) > 0 {
			t.Errorf("%s: before the check %q was never written", d.name, bad)
		}
		if err := db.Table("tags").Write([]state.Item{{Key: "key1", Value: []byte("x")}}); err != nil {
			t.Errorf("%s: write: %v", d.name, err)
		}
		after := readEarly(db, "pins", "tags", "refs")
		delete(after, "tags/key1")
		if bad := wrong(after); len(bad) > 0 {
			t.Errorf("%s: after the check %q was never written", d.name, bad)
		}
		for _, pin := range []string{"pins/a", "pins/b"} {
			if after[pin] == "" || later && after[pin] != before[pin] {
				t.Errorf("%s: %s is %q, and was %q before the check", d.name, pin, after[pin], before[pin])
			}
		}
		if err := db.Close(); err != nil {
			t.Errorf("%s: %v", d.name, err)
		}
		bad, _ := filepath.Glob(path + ".bad-*")
		if later {
			waited++
			aside += len(bad)
		}
		if again := readEarly(openWith(t, path, early()), "pins"); again["pins/a"] != after["pins/a"] {
			t.Errorf("%s: after a restart the pin is %q, it was %q", d.name, again["pins/a"], after["pins/a"])
		}
		_ = os.RemoveAll(filepath.Dir(path))
	}
	t.Logf("%d files were read before their check, %d of these set aside then", waited, aside)
	if waited == 0 || aside == 0 || aside == waited {
		t.Error("the test proves little")
	}
}

// A bit of the page that has the names of tables can hide one of them: it is that of the copy before Open returns.
func TestHiddenTableOfALargeFile(t *testing.T) {
	t.Parallel()
	base := filepath.Join(t.TempDir(), "state.db")
	grown(t, base)
	db := open(t, base)
	if err := db.Table("pins").Write([]state.Item{{Key: "a", Value: []byte("old")}}); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(db.Copy(), db.Close()); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(base)
	if err != nil {
		t.Fatal(err)
	}
	page, opened := os.Getpagesize(), 0
	for root := 0; root < len(whole); root += page {
		const names, most = 16, 80 // where the list of the tables begins, and what is damaged of it
		if !bytes.Contains(whole[root:root+400], []byte("pins")) {
			continue
		}
		for at := root + names; at < root+most; at++ {
			for bit := range 8 {
				damaged := bytes.Clone(whole)
				damaged[at] ^= 1 << bit
				if err := os.WriteFile(base, damaged, 0o600); err != nil {
					t.Fatal(err)
				}
				good, err := os.ReadFile(base + ".good")
				if err != nil {
					t.Fatal(err)
				}
				db, err := state.Open(base, early())
				if err != nil {
					t.Fatal(err)
				}
				if got := readEarly(db, "pins")["pins/a"]; got != "old" {
					t.Errorf("bit %d of byte %d: the pin is %q; checked: %v", bit, at-root, got, state.Checked(db))
				}
				opened++
				if err := errors.Join(db.Close(), os.WriteFile(base+".good", good, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if opened == 0 {
		t.Error("no page has the names")
	}
}

// A damaged item that is not expendable is that of the copy before Open returns: its owner reads it then, once.
func TestDamagedPinOfALargeFile(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	for _, name := range []string{"pins", "tags"} {
		if err := db.Table(name).Write([]state.Item{{Key: "k", Value: []byte("precious " + name)}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Copy(); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, before string }{{"pins", "precious pins"}, {"tags", ""}} {
		b := bytes.ReplaceAll(whole, []byte("precious "+tt.name), []byte("presious "+tt.name))
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		o := early()
		o.Log = slog.New(slog.NewTextHandler(&log, nil))
		db := openWith(t, path, o)
		if got := readEarly(db, tt.name)[tt.name+"/k"]; got != tt.before || state.Checked(db) != (tt.name == "pins") {
			t.Errorf("%s: %q before the first write; checked: %v", tt.name, got, state.Checked(db))
		}
		if err := db.Table("refs").Write([]state.Item{{Key: "x", Value: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		if got := readEarly(db, tt.name)[tt.name+"/k"]; got != "precious "+tt.name {
			t.Errorf("%s: %q after the check", tt.name, got)
		}
		if !strings.Contains(log.String(), "the one of the last good copy is in use") {
			t.Errorf("%s: log: %s", tt.name, &log)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Readers and writers at once, before and during the check, with and without Run: none sees anything but what was written, and
// every write is there at the end.
func TestCheckAmidReadsAndWrites(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	want, ever := grown(t, path)
	db := openWith(t, path, early())
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = db.Run(ctx) })
	for w := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			if w == 0 {
				for k, v := range readEarly(db, "tags", "refs") {
					if !slices.Contains(ever[k], v) && !strings.Contains(k, "/new") {
						t.Errorf("%s is %q", k, v)
					}
				}
			}
			for i := range 50 {
				key := fmt.Sprint("key", r.IntN(300))
				it, err := db.Table("tags").Get(key)
				if v, ok := want["tags/"+key]; ok && (err != nil || string(it.Value) != v) {
					t.Errorf("%s: %v", key, err)
				}
				if w%2 == 0 && i%10 == 0 {
					if err := db.Table("tags").Write([]state.Item{{Key: fmt.Sprint("new", w, "-", i), Value: []byte("n")}}); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	cancel()
	wg.Wait()
	for w := range 4 {
		for i := range 5 {
			want[fmt.Sprint("tags/new", w*2, "-", i*10)] = "n"
		}
	}
	if diff := cmp.Diff(want, read(t, db)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A file that is closed before it was checked stays as it is, and is given back.
func TestCloseBeforeTheCheck(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	want, _ := grown(t, path)
	db := openWith(t, path, early())
	if _, err := state.Open(path, early()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("opened twice: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if err := db.Table("tags").Write([]state.Item{{Key: "k", Value: []byte("v")}}); err == nil {
		t.Error("a closed state takes a write")
	}
	if _, err := db.Table("tags").Get("key1"); err == nil || errors.Is(err, state.ErrNotFound) {
		t.Errorf("a read of a closed state: %v", err)
	}
	if err := db.Copy(); err == nil {
		t.Error("a closed state was copied")
	}
	if diff := cmp.Diff(want, read(t, open(t, path))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
