package state_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/state"
)

// moment is the file after a write, and what it then holds.
type moment struct {
	file []byte
	want map[string]string
}

// moments is the life of a file, write by write. The good copy is made at the tenth.
func moments(t *testing.T, dir string, n int) (all []moment, good []byte) {
	t.Helper()
	path := filepath.Join(dir, "life.db")
	db := open(t, path)
	r := rand.New(rand.NewPCG(7, 8))
	for i := range n {
		items := make([]state.Item, 0, 100)
		for range 1 + r.IntN(100) {
			it := state.Item{Key: fmt.Sprint("key", r.IntN(1000))}
			if r.IntN(4) > 0 {
				it.Value = bytes.Repeat(fmt.Append(nil, i, " "), r.IntN(60))
			}
			items = append(items, it)
		}
		if err := db.Table([]string{"tags", "refs"}[r.IntN(2)]).Write(items); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, moment{b, read(t, db)})
		if i == 10 {
			if err := db.Copy(); err != nil {
				t.Fatal(err)
			}
			if good, err = os.ReadFile(path + ".good"); err != nil {
				t.Fatal(err)
			}
		}
	}
	return all, good
}

// The power goes during a write. Where the disk keeps the order of syncs, the state is that of before or after, whatever
// pages of the write were on disk already. Where it doesn't, and the file is damaged, it is that of the last good copy.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	all, good := moments(t, t.TempDir(), 30)
	copied := all[10].want
	ever := make(map[string][]string)
	for _, m := range all {
		for k, v := range m.want {
			ever[k] = append(ever[k], v)
		}
	}
	dir, err := os.MkdirTemp("/dev/shm", "state-test-") // each is synced several times
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	count := make(map[string]int)
	for i := 11; i < len(all); i++ {
		for seed := range uint64(12) {
			ordered := seed%2 == 0
			name := fmt.Sprintf("write %d, seed %d", i, seed)
			path := filepath.Join(dir, name, "state.db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			file := torn(all[i-1].file, all[i].file, rand.New(rand.NewPCG(uint64(i), seed)), ordered)
			for name, b := range map[string][]byte{path: file, path + ".good": good} {
				if err := os.WriteFile(name, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			db, err := state.Open(path, state.Options{})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := read(t, db)
			aside, _ := filepath.Glob(path + ".bad-*")
			switch {
			case len(aside) > 0 && ordered:
				t.Errorf("%s: set aside", name)
			case len(aside) > 0:
				count["good copy"]++
				if diff := cmp.Diff(copied, got); diff != "" {
					t.Errorf("%s: not the good copy (-want +got):\n%s", name, diff)
				}
			case cmp.Equal(got, all[i-1].want):
				count["before"]++
			case cmp.Equal(got, all[i].want):
				count["after"]++
			case ordered:
				t.Errorf("%s: neither that of before nor that of after", name)
			default: // items that are rotten are the copy's, or missing
				count["in part"]++
				for k, v := range got {
					if !slices.Contains(ever[k], v) {
						t.Errorf("%s: %s is %q, which was never written", name, k, v)
					}
				}
			}
			if err := db.Table("tags").Write([]state.Item{{Key: "new", Value: []byte("x")}}); err != nil {
				t.Errorf("%s: write: %v", name, err)
			}
			if err := db.Close(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if got := read(t, open(t, path)); got["tags/new"] != "x" {
				t.Errorf("%s: what was written since is gone", name)
			}
			_ = os.RemoveAll(filepath.Dir(path))
		}
	}
	t.Logf("%d files: %v", 12*(len(all)-11), count)
	if count["before"] == 0 || count["after"] == 0 || count["good copy"] == 0 {
		t.Errorf("the test proves little: %v", count)
	}
}

// torn is what may be on disk when the power goes between two moments: of the pages that were written, those of before,
// of after, or zeros. Where the order is kept, a meta (pages 0 and 1) is only new when all the others are.
func torn(old, now []byte, r *rand.Rand, ordered bool) []byte {
	size := os.Getpagesize()
	whole, meta := ordered && r.IntN(2) == 0, false
	if whole {
		meta = r.IntN(2) == 0
	}
	out := make([]byte, len(now))
	for at := 0; at < len(now); at += size {
		var before []byte
		if at < len(old) {
			before = old[at : at+size]
		}
		after := now[at : at+size]
		from := [][]byte{before, after, nil}[r.IntN(3)]
		switch {
		case bytes.Equal(before, after), ordered && at < 2*size && !meta:
			from = before
		case whole:
			from = after
		}
		copy(out[at:at+size], from)
	}
	return out
}
