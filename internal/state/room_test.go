package state_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/testlog"
)

// openWith is open with options.
func openWith(t testing.TB, path string, o state.Options) *state.DB {
	t.Helper()
	db, err := state.Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func sized(name string, n, size int) []state.Item {
	items := make([]state.Item, n)
	for i := range items {
		items[i] = state.Item{Key: fmt.Sprintf("%s/%08d", name, i), Value: bytes.Repeat([]byte{'v'}, size)}
	}
	return items
}

// What strangers make the mirror learn fills the state to its budget and no further; what can't be learnt again stays, and
// so do many small items beside few large ones.
func TestStateStaysWithinItsBudget(t *testing.T) {
	t.Parallel()
	const most = 8 << 20
	log := new(testlog.Log)
	path := filepath.Join(t.TempDir(), "state.db")
	db := openWith(t, path, state.Options{
		Expendable: map[string]int64{"refs": most - most/8}, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	tags, refs := db.Table("tags"), db.Table("refs")
	if err := tags.Write(sized("tag", 2000, 300)); err != nil {
		t.Fatal(err)
	}
	if err := refs.Write(sized("honest", 2000, 100)); err != nil {
		t.Fatal(err)
	}
	for i := range 100 { // 50 MB of large ones
		if err := refs.Write(sized(fmt.Sprint("large", i), 5, 100<<10)); err != nil {
			t.Fatal(err)
		}
		if used := db.Used(); used > most+most/8 {
			t.Fatalf("after %d: %d bytes are in use of %d", i, used, most)
		}
	}
	count := func(tb state.Table, prefix string) (n int) {
		for _, err := range tb.Scan(prefix) {
			if n++; err != nil {
				t.Fatal(err)
			}
		}
		return n
	}
	if n := count(tags, "tag"); n != 2000 {
		t.Errorf("%d tags are left of 2000", n)
	}
	if n := count(refs, "honest"); n < 1500 {
		t.Errorf("%d small references are left of 2000", n)
	}
	for i := range 12 { // 24 MB of small ones
		if err := refs.Write(sized(fmt.Sprint("small", i), 10_000, 120)); err != nil {
			t.Fatal(err)
		}
		if used := db.Used(); used > most+most/8 {
			t.Fatalf("small ones, after %d: %d bytes are in use of %d", i, used, most)
		}
	}
	if n := count(tags, "tag"); n != 2000 {
		t.Errorf("%d tags are left of 2000", n)
	}
	if n := strings.Count(log.String(), "has reached its budget"); n != 1 {
		t.Errorf("the log says %d times that it makes room:\n%s", n, log)
	}
	if info, err := os.Stat(path); err != nil || info.Size() > 3*most {
		t.Errorf("the file has %d bytes (%v)", info.Size(), err)
	}
}

// A file that is mostly free pages is small again after a start, with all that was in it; its copy is at once. A crash in
// between leaves one of both.
func TestCompaction(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	db := openWith(t, path, state.Options{})
	tb := db.Table("t")
	items := sized("k", 4000, 10<<10)
	if err := tb.Write(items); err != nil {
		t.Fatal(err)
	}
	v, err := tb.Swap("version", 0, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if v, err = tb.Swap("version", v, []byte("y")); err != nil {
		t.Fatal(err)
	}
	gone, err := tb.Swap("gone", 0, []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tb.Swap("gone", gone, nil); err != nil {
		t.Fatal(err)
	}
	for i := range items[100:] {
		items[100+i].Value = nil
	}
	if err := tb.Write(items[100:]); err != nil {
		t.Fatal(err)
	}
	before := fileSize(t, path)
	if err := db.Copy(); err != nil {
		t.Fatal(err)
	}
	if n := fileSize(t, path+".good"); n > before/4 {
		t.Errorf("the copy has %d bytes of %d", n, before)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	left := path + ".tmp-compact" // of a start that was killed
	if err := os.WriteFile(left, []byte("half of a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and it stays as it is
		db = openWith(t, path, state.Options{})
		if n := fileSize(t, path); n > before/4 {
			t.Errorf("%d bytes after the start, %d before", n, before)
		}
		if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("what was left is there: %v", err)
		}
		tb = db.Table("t")
		n := 0
		for it, err := range tb.Scan("k/") {
			if n++; err != nil || len(it.Value) != 10<<10 {
				t.Errorf("%s: %d bytes, %v", it.Key, len(it.Value), err)
			}
		}
		it, err := tb.Get("version")
		if n != 100 || err != nil || it.Version != v || string(it.Value) != "y" {
			t.Errorf("%d items; %+v, %v", n, it, err)
		}
		again, err := tb.Swap("gone", 0, []byte("x"))
		if err != nil || again <= gone {
			t.Errorf("a key that was removed comes back with version %d after %d (%v)", again, gone, err)
		}
		if _, err := tb.Swap("gone", again, nil); err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func fileSize(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// hold keeps the one transaction that there can be open, until release is called, and returns its number.
func hold(t *testing.T, db *state.DB) (transaction int, release func()) {
	t.Helper()
	began, end, ended := make(chan int), make(chan struct{}), make(chan error, 1)
	go func() {
		ended <- db.Update(1, 1, func(n int) {
			began <- n
			<-end
		})
	}()
	return <-began, func() {
		close(end)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// queued returns when so many small writes wait, and so many large ones at least.
func queued(t *testing.T, db *state.DB, small, large int) {
	t.Helper()
	for {
		if s, l := db.Queued(); s == small && l >= large {
			return
		}
		if t.Failed() {
			t.FailNow()
		}
		runtime.Gosched()
	}
}

// While 40 writers have 4,000 items each to write, one that has a single item waits for no more than what is being
// written at that moment: it is in the next transaction.
func TestSmallWritesGoFirst(t *testing.T) {
	t.Parallel()
	db := openWith(t, filepath.Join(t.TempDir(), "state.db"), state.Options{})
	refs, tags := db.Table("refs"), db.Table("tags")
	var wg sync.WaitGroup
	const writers, each = 40, 4_000
	_, release := hold(t, db)
	for i := range writers {
		items := sized(fmt.Sprint("w", i), each, 60)
		wg.Go(func() {
			if err := refs.Write(items); err != nil {
				t.Error(err)
			}
		})
	}
	queued(t, db, 0, writers)
	release()
	for i := range 20 {
		held, release := hold(t, db)
		wg.Go(func() {
			if _, err := tags.Swap(fmt.Sprint("small", i), 0, []byte("x")); err != nil {
				t.Error(err)
			}
		})
		queued(t, db, 1, 1)
		at := make(chan int, 1)
		wg.Go(func() {
			if err := db.Update(1, 1, func(n int) { at <- n }); err != nil { // behind the one before
				t.Error(err)
			}
		})
		queued(t, db, 2, 1)
		release()
		if n := <-at; n != held+1 {
			t.Errorf("small write %d is in transaction %d, %d was under way", i, n, held)
		}
	}
	wg.Wait()
	n := 0
	for _, err := range refs.Scan("") {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	if n != writers*each {
		t.Errorf("%d items, want %d", n, writers*each)
	}
}

// Writers of large things take turns: a writer with one piece does not wait for all pieces of another writer.
func TestLargeWritesTakeTurns(t *testing.T) {
	t.Parallel()
	db := openWith(t, filepath.Join(t.TempDir(), "state.db"), state.Options{})
	held, release := hold(t, db)
	done := make(chan error, 1)
	go func() { done <- db.Table("t").Write(sized("huge", 40_000, 60)) }()
	queued(t, db, 0, 1)
	var at int
	ended := make(chan error, 1)
	go func() { ended <- db.Update(400, 400*60, func(n int) { at = n }) }()
	queued(t, db, 0, 2)
	release()
	if err := errors.Join(<-ended, <-done); err != nil {
		t.Fatal(err)
	}
	if at > held+2 || db.Transactions() < held+40 {
		t.Errorf("it waited for %d transactions of %d", at-held, db.Transactions()-held)
	}
}

// BenchmarkOpen is a start with what 100 manifests of 10,000 entries leave, each entry an item, and each manifest.
func BenchmarkOpen(b *testing.B) {
	for name, shape := range map[string][3]int{"a million small": {100, 10_000, 120}, "a hundred large": {100, 1, 1 << 20}} {
		b.Run(name, func(b *testing.B) {
			path := filepath.Join(b.TempDir(), "state.db")
			db := openWith(b, path, state.Options{})
			for i := range shape[0] {
				if err := db.Table("refs").Write(sized(fmt.Sprintf("docker.io/acme/app%d@sha256:%064d", i, i), shape[1], shape[2])); err != nil {
					b.Fatal(err)
				}
			}
			if err := db.Close(); err != nil {
				b.Fatal(err)
			}
			info, _ := os.Stat(path)
			b.SetBytes(info.Size())
			for b.Loop() {
				db, err := state.Open(path, state.Options{})
				if err != nil {
					b.Fatal(err)
				}
				_ = db.Close()
			}
		})
	}
}

// owned is a flood, or what an honest repository has: n keys of one repository, from one number on.
func owned(repo string, from, n int) []state.Item {
	items := make([]state.Item, n)
	for i := range items {
		items[i] = state.Item{Key: fmt.Sprintf("%s/%08d", repo, from+i), Value: fmt.Appendf(nil, "%09d", from+i)}
		items[i].Value = append(items[i].Value, bytes.Repeat([]byte{'v'}, 200)...)
	}
	return items
}

func count(t *testing.T, tb state.Table, prefix string) (n int) {
	t.Helper()
	for _, err := range tb.Scan(prefix) {
		if n++; err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// A flood in one repository, or in many of one upstream, with keys shorter or longer than those of others, takes the room of
// the repository or upstream that it comes from: what others have, in that table and in any other, stays. Of the flood itself
// the newest stay.
func TestFloodPaysForItself(t *testing.T) {
	t.Parallel()
	const most, honest = 8 << 20, 1000
	for name, repo := range map[string]func(i int) string{
		"short keys": func(int) string { return "e.io/a" },
		"long keys":  func(int) string { return "e.io/" + strings.Repeat("a", 200) },
		"many":       func(i int) string { return fmt.Sprintf("e.io/%d", i) },
		"neighbour":  func(int) string { return "honest.example/other" },
	} {
		for _, flooded := range []string{"tags", "refs"} {
			t.Run(name+"/"+flooded, func(t *testing.T) {
				t.Parallel()
				db := openWith(t, filepath.Join(t.TempDir(), "state.db"), state.Options{
					Expendable: map[string]int64{"refs": most * 7 / 16, "tags": most * 7 / 16},
					Age: func(_ string, v []byte) int64 {
						n, _ := strconv.ParseInt(string(v[:9]), 10, 64)
						return n
					},
				})
				tables := []state.Table{db.Table("tags"), db.Table("refs")}
				for _, tb := range tables {
					if err := tb.Write(owned("honest.example/team/app", 0, honest)); err != nil {
						t.Fatal(err)
					}
				}
				tb, last := db.Table(flooded), ""
				for i := range 600 { // 60,000 items
					items := owned("x", i*100, 100)
					for j := range items {
						last = repo(i*100+j) + "/" + items[j].Key
						items[j].Key = last
					}
					if err := tb.Write(items); err != nil {
						t.Fatal(err)
					}
					if used := db.Used(); used > most {
						t.Fatalf("after %d: %d bytes are in use of %d", i, used, most)
					}
				}
				for i, tb := range tables {
					if n := count(t, tb, "honest.example/team/app"); n != honest {
						t.Errorf("table %d: %d honest items are left of %d", i, n, honest)
					}
				}
				if _, err := tb.Get(last); err != nil {
					t.Errorf("the newest of the flood: %v", err)
				}
			})
		}
	}
}
