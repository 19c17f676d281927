package state_test

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/boltfile"
	"github.com/registrymirror/mirror/internal/state"
)

// An item that is not what was written is not believed, though the file around it is sound: that of the last good copy
// takes its place, and without one it is missing. What is sound stays as it is.
func TestDamagedItem(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		from, to string // what changes in the file
		copied   bool
		want     map[string]string
		log      string // of the key
	}{
		{"value", "precious", "presious", true, map[string]string{"a": "0", "pin": "precious", "z": "1"}, "key=pin"},
		{"value, no copy", "precious", "presious", false, map[string]string{"a": "0", "z": "1"}, "key=pin"},
		{"key", "pin", "pie", true, map[string]string{"a": "0", "pin": "precious", "z": "1"}, "key=pie"},
		{"key, no copy", "pin", "pie", false, map[string]string{"a": "0", "z": "1"}, "key=pie"},
		{
			"value that the copy has not", "young", "yonng", true,
			map[string]string{"a": "0", "pin": "precious", "z": "1"},
			"key=new",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state.db")
			db := open(t, path)
			write(t, db, "a", "0", "pin", "precious", "z", "0")
			if tt.copied {
				if err := db.Copy(); err != nil {
					t.Fatal(err)
				}
			}
			write(t, db, "z", "1", "new", "young")
			if !strings.Contains(tt.from, "young") {
				write(t, db, "new", "")
			}
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte(tt.from), []byte(tt.to)), 0o600); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			db, err = state.Open(path, state.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // also after the next start
				if diff := cmp.Diff(tt.want, all(t, db)); diff != "" {
					t.Errorf("items (-want +got):\n%s", diff)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
				db = open(t, path)
			}
			if !strings.Contains(log.String(), tt.log) {
				t.Errorf("log: %s", log.String())
			}
			if v, err := db.Table("tags").Swap("more", 0, []byte("x")); v == 0 || err != nil {
				t.Errorf("a write: %d, %v", v, err)
			}
		})
	}
}

// A file that is gone, or has nothing in it, is not a first start where there is a copy of it.
func TestFileIsGone(t *testing.T) {
	t.Parallel()
	for name, harm := range map[string]func(path string) error{
		"deleted": os.Remove,
		"emptied": func(path string) error { return os.Truncate(path, 0) },
		"deleted, and the copy is damaged": func(path string) error {
			return errors.Join(os.Remove(path), os.WriteFile(path+".good", []byte("damage"), 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state.db")
			db := open(t, path)
			write(t, db, "pin", "precious")
			if err := errors.Join(db.Copy(), db.Close(), harm(path)); err != nil {
				t.Fatal(err)
			}
			want := map[string]string{"pin": "precious"}
			if strings.Contains(name, "copy") {
				clear(want)
			}
			for range 2 {
				db = open(t, path)
				if diff := cmp.Diff(want, all(t, db)); diff != "" {
					t.Errorf("items (-want +got):\n%s", diff)
				}
				if err := db.Close(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// Of two metas one may be damaged. The other is used, without the last write perhaps, and that is said, once.
func TestHalfTheMetas(t *testing.T) {
	t.Parallel()
	for meta := range 2 {
		path := filepath.Join(t.TempDir(), "state.db")
		db := open(t, path)
		write(t, db, "a", "0")
		write(t, db, "a", "1")
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		clear(b[meta*os.Getpagesize():][:os.Getpagesize()])
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		for start := range 2 {
			var log bytes.Buffer
			if db, err = state.Open(path, state.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}); err != nil {
				t.Fatal(err)
			}
			if got := all(t, db)["a"]; got != "0" && got != "1" {
				t.Errorf("meta %d: %q", meta, got)
			}
			if said := strings.Contains(log.String(), "level=ERROR"); said != (start == 0) {
				t.Errorf("meta %d, start %d: %s", meta, start, &log)
			}
			write(t, db, "b", "x") // twice, since each goes to one of them
			write(t, db, "b", "y")
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// A page of one table that a disk brings back in the place of another's makes no item of it.
func TestItemOfAnotherTable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	if err := db.Table("refs").Write([]state.Item{{Key: "key", Value: []byte("v")}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, bytes.ReplaceAll(b, []byte("refs"), []byte("tags")), 0o600); err != nil {
		t.Fatal(err)
	}
	if bad, _ := filepath.Glob(path + ".bad-*"); len(bad) > 0 {
		t.Fatalf("the file is not sound any more: %v", bad)
	}
	if got := read(t, open(t, path)); len(got) > 0 {
		t.Errorf("believed: %v", got)
	}
}

// A state with a damaged item is not copied: it would take the place of the one that has it right.
func TestDamagedItemIsNotCopied(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	write(t, db, "pin", "precious")
	if err := db.Copy(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := bytes.Index(b, []byte("precious"))
	for ; at >= 0; at = bytes.Index(b, []byte("precious")) { // wherever it is, an old page included
		if _, err := f.WriteAt([]byte("presious"), int64(at)); err != nil {
			t.Fatal(err)
		}
		copy(b[at:], "presious")
	}
	if err := db.Copy(); !boltfile.IsDamage(err) {
		t.Errorf("copy of a damaged item: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if got := all(t, open(t, path))["pin"]; got != "precious" {
		t.Errorf("pin is %q", got)
	}
}

// write writes keys and values, in turn; an empty value removes the key.
func write(t *testing.T, db *state.DB, kv ...string) {
	t.Helper()
	var items []state.Item
	for i := 0; i < len(kv); i += 2 {
		it := state.Item{Key: kv[i]}
		if kv[i+1] != "" {
			it.Value = []byte(kv[i+1])
		}
		items = append(items, it)
	}
	if err := db.Table("tags").Write(items); err != nil {
		t.Fatal(err)
	}
}

// all is what the table "tags" has.
func all(t *testing.T, db *state.DB) map[string]string {
	t.Helper()
	got := make(map[string]string)
	for k, v := range read(t, db) {
		got[strings.TrimPrefix(k, "tags/")] = v
	}
	return got
}
