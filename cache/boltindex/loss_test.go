package boltindex_test

import (
	"bytes"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/boltindex"
	"github.com/registrymirror/mirror/oci"
)

// moment is the file after a write, and what it then holds.
type moment struct {
	file []byte
	want map[oci.Digest]cache.Access
}

// moments is the life of a file, write by write.
func moments(t *testing.T, n int) (all []moment) {
	t.Helper()
	path := filepath.Join(memDir(t), "index.db")
	x := open(t, path)
	r := rand.New(rand.NewPCG(5, 6))
	want := make(map[oci.Digest]cache.Access)
	for range n {
		var used []cache.Access
		var gone []oci.Digest
		for range 1 + r.IntN(300) {
			if a := access(r.IntN(3000)); r.IntN(4) == 0 {
				gone = append(gone, a.Digest)
			} else {
				used = append(used, a)
			}
		}
		if err := x.Write(used, gone); err != nil {
			t.Fatal(err)
		}
		for _, d := range gone {
			delete(want, d)
		}
		for _, a := range used { // the last word
			want[a.Digest] = a
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, moment{file: b, want: maps.Clone(want)})
	}
	return all
}

// mix is what may be on disk after the power went between two moments: each page of the one, of the other, or zeros
// where there was none before. pick chooses page by page; metas are pages 0 and 1.
func mix(old, now []byte, pick func(page int) []byte) []byte {
	size := os.Getpagesize()
	out := make([]byte, 0, len(now))
	for p := 0; p*size < len(now); p++ {
		from := pick(p)
		switch {
		case p*size < len(from):
			out = append(out, from[p*size:(p+1)*size]...)
		default:
			out = append(out, make([]byte, size)...)
		}
	}
	return out
}

// The power goes during a write. Where the disk keeps the order of syncs, the file is that of before or after, whatever
// pages of the write were on disk already. Where it doesn't, the file is sound or set aside, and the index works.
func TestPowerLoss(t *testing.T) {
	t.Parallel()
	all := moments(t, 25)
	dir := memDir(t)
	sound, fresh := 0, 0
	for i := 1; i < len(all); i++ {
		old, now := all[i-1], all[i]
		for seed := range uint64(8) {
			r := rand.New(rand.NewPCG(uint64(i), seed))
			some := func(int) []byte { return [][]byte{old.file, now.file, nil}[r.IntN(3)] }
			ordered := seed%2 == 0
			file := mix(old.file, now.file, func(p int) []byte {
				switch {
				case ordered && p < 2, p*os.Getpagesize() < len(old.file) && samePage(old.file, now.file, p):
					return old.file // the meta is written when all else is on disk; what was not written stays
				case ordered && seed%4 == 0:
					return now.file // all but the meta
				}
				return some(p)
			})
			if ordered && seed%3 == 0 { // the file did not grow either
				file = file[:len(old.file)]
			}
			name := fmt.Sprintf("write %d, seed %d", i, seed)
			path := filepath.Join(dir, "index.db")
			if err := os.WriteFile(path, file, 0o600); err != nil {
				t.Fatal(err)
			}
			x, err := boltindex.Open(path, nil)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			got := make(map[oci.Digest]cache.Access)
			for a, err := range x.All() {
				if err != nil {
					t.Errorf("%s: list: %v", name, err)
					break
				}
				got[a.Digest] = a
			}
			switch {
			case cmp.Equal(got, old.want), cmp.Equal(got, now.want):
				sound++
			case ordered:
				t.Errorf("%s: %d records, want the %d of before or the %d of after", name, len(got), len(old.want),
					len(now.want))
			case len(got) == 0:
				fresh++
			}
			if err := x.Close(); err != nil {
				t.Errorf("%s: close: %v", name, err)
			}
			works(t, path)
			left, err := filepath.Glob(path + "*")
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range left {
				if err := os.Remove(f); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("%d files: %d as of before or after, %d set aside", 8*(len(all)-1), sound, fresh)
	if sound == 0 || fresh == 0 {
		t.Error("the test proves little")
	}
}

func samePage(a, b []byte, p int) bool {
	size := os.Getpagesize()
	return bytes.Equal(a[p*size:(p+1)*size], b[p*size:(p+1)*size])
}
