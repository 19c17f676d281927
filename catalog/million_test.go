package catalog

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// manyTag is one of many tags.
func manyTag(i int) oci.Ref {
	return oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: fmt.Sprintf("library/app-%d", i/1000)}, Tag: fmt.Sprintf("1.%d.0", i%1000)}
}

// manyTags writes a state.db with so many tags, each of one image with two platforms, in the order in which they come in life.
func manyTags(b *testing.B, path string, n int) {
	db, err := state.Open(path, state.Options{Expendable: Tables(), Owner: Owner, Age: Age})
	if err != nil {
		b.Fatal(err)
	}
	now := time.Now()
	var items []state.Item
	for k, i := range rand.New(rand.NewPCG(1, 2)).Perm(n) {
		d := digest.FromString(fmt.Sprint(i))
		at := now.Add(-time.Duration(i) * time.Second)
		t := Tag{Digest: d, Checked: at.Add(time.Hour), History: begin(nil, d, at, ByCheck, false)}
		t.History, _ = describe(t.History, d, 77_000_000, []string{"linux/amd64", "linux/arm64"})
		items = append(items, state.Item{Key: tagKey(manyTag(i)), Value: encodeTag(t)})
		if len(items) == 5000 || k == n-1 {
			if err := db.Table("tags").Write(items); err != nil {
				b.Fatal(err)
			}
			items = items[:0]
		}
	}
	if err := db.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkMillionTags compares a ledger of 1,000,000 tags with one of 1,000, in one run: the start, until a tag in use was read;
// that tag again, from memory; and others, from disk, before the file is checked and after. Its metrics are the times of the large
// one, and how many times as long they are as those of the small one.
func BenchmarkMillionTags(b *testing.B) {
	dir, err := os.MkdirTemp("/dev/shm", "catalog-bench-") // it is synced thousands of times
	if err != nil {
		dir = b.TempDir()
	}
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	took := make(map[string][2]time.Duration)
	var size int64
	b.ResetTimer()
	for i, n := range []int{1000, 1_000_000} {
		path := filepath.Join(dir, fmt.Sprint(n, ".db"))
		manyTags(b, path, n)
		info, err := os.Stat(path)
		if err != nil {
			b.Fatal(err)
		}
		size = info.Size()
		for name, d := range timeTags(b, path, n) {
			both := took[name]
			both[i] = d
			took[name] = both
		}
	}
	for name, both := range took {
		b.ReportMetric(float64(both[1].Nanoseconds())/1000, name+"-us")
		b.ReportMetric(float64(both[1])/float64(both[0]), name+"-ratio")
	}
	b.ReportMetric(float64(size)/1e6, "MB")
	b.ReportMetric(0, "ns/op")
}

// timeTags is the least time of each of several tries.
func timeTags(b *testing.B, path string, n int) map[string]time.Duration {
	took := make(map[string]time.Duration)
	least := func(name string, f func()) {
		start := time.Now()
		f()
		if d := time.Since(start); took[name] == 0 || d < took[name] {
			took[name] = d
		}
	}
	r := rand.New(rand.NewPCG(3, 4))
	used := manyTag(n / 2)
	for range 5 {
		var (
			db  *state.DB
			c   *Catalog
			err error
		)
		read := func(ref oci.Ref) {
			if _, err := c.Tag(ref); err != nil {
				b.Fatal(ref, err)
			}
		}
		hundred := func() {
			for range 100 {
				read(manyTag(r.IntN(n)))
			}
		}
		least("start", func() {
			if db, err = state.Open(path, state.Options{Expendable: Tables(), Owner: Owner, Age: Age}); err != nil {
				b.Fatal(err)
			}
			c = New(db.Table("tags"), db.Table("refs"), Options{Clients: db.Table("clients"), Pins: db.Table("pins")})
			read(used)
		})
		least("hit", func() {
			for range 100_000 {
				read(used)
			}
		})
		least("hundred-others", hundred)
		least("checked", func() {
			ctx, cancel := context.WithCancel(context.Background())
			cancel()
			_ = db.Run(ctx)
		})
		least("hundred-others-checked", hundred)
		if err := db.Close(); err != nil {
			b.Fatal(err)
		}
	}
	return took
}
