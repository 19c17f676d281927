package state_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t *testing.T, path string) *state.DB {
	t.Helper()
	db, err := state.Open(path, state.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func TestTables(t *testing.T) {
	t.Parallel()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		statetest.TestTable(t, func(*testing.T) state.Table { return statetest.NewTable() })
	})
	t.Run("file", func(t *testing.T) {
		t.Parallel()
		statetest.TestTable(t, func(t *testing.T) state.Table {
			return open(t, filepath.Join(t.TempDir(), "state.db")).Table("t")
		})
	})
}

func TestTablesAreApartAndOutliveARestart(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := open(t, path)
	for _, name := range []string{"tags", "refs"} {
		if _, err := db.Table(name).Swap("k", 0, []byte(name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	db = open(t, path)
	for _, name := range []string{"tags", "refs"} {
		if it, err := db.Table(name).Get("k"); err != nil || string(it.Value) != name {
			t.Errorf("%s: %+v, %v", name, it, err)
		}
	}
}

// Whatever is done to the file, opening it succeeds: with the last good copy, or empty.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		damage func([]byte) []byte
	}{
		{"garbage", func([]byte) []byte { return []byte(strings.Repeat("no database ", 1000)) }},
		{"both meta pages zeroed", func(b []byte) []byte { clear(b[:2*os.Getpagesize()]); return b }},
		{"cut in half", func(b []byte) []byte { return b[:len(b)/2] }},
		{"a data page of garbage", func(b []byte) []byte {
			for i := 3 * os.Getpagesize(); i < len(b); i++ {
				b[i] = byte(i * 7)
			}
			return b
		}},
	} {
		for _, copied := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, copy %t", tt.name, copied), func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "state.db")
				db := open(t, path)
				if _, err := db.Table("t").Swap("old", 0, []byte("x")); err != nil {
					t.Fatal(err)
				}
				if copied {
					if err := db.Copy(); err != nil {
						t.Fatal(err)
					}
				}
				var items []state.Item
				for i := range 500 {
					items = append(items, state.Item{Key: fmt.Sprint("new", i), Value: make([]byte, 100)})
				}
				if err := db.Table("t").Write(items); err != nil {
					t.Fatal(err)
				}
				_ = db.Close()
				b, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, tt.damage(b), 0o600); err != nil {
					t.Fatal(err)
				}
				db = open(t, path)
				_, err = db.Table("t").Get("old")
				if copied && err != nil || !copied && !errors.Is(err, state.ErrNotFound) {
					t.Errorf("after the damage: %v", err)
				}
				if _, err := db.Table("t").Swap("more", 0, []byte("x")); err != nil {
					t.Errorf("write after the damage: %v", err)
				}
				aside, _ := filepath.Glob(path + ".bad-*")
				if len(aside) != 1 {
					t.Errorf("set aside: %v", aside)
				}
			})
		}
	}
}

func TestOpenSaysWhatTheDiskSaid(t *testing.T) {
	t.Parallel()
	_, err := state.Open(filepath.Join(t.TempDir(), "no", "such", "folder", "state.db"), state.Options{})
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "state.db") {
		t.Errorf("err = %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	f.Add([]byte(""))
	f.Add([]byte(strings.Repeat("x", 5000)))
	f.Fuzz(func(t *testing.T, b []byte) {
		path := filepath.Join(t.TempDir(), "state.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		db, err := state.Open(path, state.Options{})
		if err != nil {
			t.Fatalf("a file of %d bytes: %v", len(b), err)
		}
		if _, err := db.Table("t").Swap("k", 0, []byte("x")); err != nil {
			t.Error(err)
		}
		_ = db.Close()
	})
}
