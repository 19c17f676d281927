package state_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	"github.com/registrymirror/mirror/internal/state"
)

func TestWritersShareTransactions(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	tb := db.Table("t")
	if _, err := tb.Swap("first", 0, []byte("x")); err != nil {
		t.Fatal(err)
	}
	one := db.PageWrites()
	if err := tb.Write([]state.Item{{Key: "second", Value: []byte("x")}}); err != nil {
		t.Fatal(err)
	}
	one = db.PageWrites() - one // pages written by one transaction
	before := db.PageWrites()
	const n = 2000
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			<-start
			if _, err := tb.Swap(fmt.Sprint(i), 0, []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	close(start)
	wg.Wait()
	if wrote := db.PageWrites() - before; wrote > one*n/4 {
		t.Errorf("%d page writes for %d swaps, one alone takes %d", wrote, n, one)
	}
	for i := range n {
		if it, err := tb.Get(fmt.Sprint(i)); err != nil || it.Version != 1 {
			t.Fatalf("%d: %+v, %v", i, it, err)
		}
	}
}

// A write that can't be made is its own failure, not that of those in the same transaction.
func TestAWriteThatFailsFailsAlone(t *testing.T) {
	t.Parallel()
	tb := open(t, filepath.Join(t.TempDir(), "state.db")).Table("t")
	long := strings.Repeat("k", bbolt.MaxKeySize+1)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			if i%10 == 0 {
				err := tb.Write([]state.Item{
					{Key: fmt.Sprint("with", i), Value: []byte("x")}, {Key: long, Value: []byte("x")},
				})
				if !errors.Is(err, berrors.ErrKeyTooLarge) {
					t.Errorf("a key of %d bytes: %v", len(long), err)
				}
				return
			}
			if _, err := tb.Swap(fmt.Sprint(i), 0, []byte("x")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	n := 0
	for it, err := range tb.Scan("") {
		if n++; err != nil || strings.HasPrefix(it.Key, "with") {
			t.Errorf("%s, %v", it.Key, err)
		}
	}
	if n != 270 {
		t.Errorf("%d items, want 270", n)
	}
}

func TestAfterClose(t *testing.T) {
	t.Parallel()
	db := open(t, filepath.Join(t.TempDir(), "state.db"))
	tb := db.Table("t")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := tb.Get("k"); err == nil || errors.Is(err, state.ErrNotFound) {
		t.Errorf("Get: %v", err)
	}
	if _, err := tb.Swap("k", 0, []byte("x")); err == nil || errors.Is(err, state.ErrConflict) {
		t.Errorf("Swap: %v", err)
	}
}

func TestRunCopies(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state.db")
	synctest.Test(t, func(t *testing.T) {
		db := open(t, path)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- db.Run(ctx) }()
		in := func(want string) {
			t.Helper()
			b, err := os.ReadFile(path + ".good")
			if err != nil {
				t.Fatal(err)
			}
			at := filepath.Join(t.TempDir(), "copy.db")
			if err := os.WriteFile(at, b, 0o600); err != nil {
				t.Fatal(err)
			}
			if it, err := open(t, at).Table("t").Get("k"); err != nil || string(it.Value) != want {
				t.Errorf("the copy has %q, want %q (%v)", it.Value, want, err)
			}
		}
		v, err := db.Table("t").Swap("k", 0, []byte("first"))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(59 * time.Second)
		synctest.Wait()
		if _, err := os.Stat(path + ".good"); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a copy in the first minute: %v", err)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		in("first")
		if _, err := db.Table("t").Swap("k", v, []byte("second")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(23 * time.Hour)
		synctest.Wait()
		in("first")
		time.Sleep(time.Hour)
		synctest.Wait()
		in("second")
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// What a write returned is there after a kill at any instant, and nothing has to be repaired. The test runs itself as
// the process that is killed.
func TestKill(t *testing.T) {
	t.Parallel()
	const env = "STATE_TEST_WRITER"
	if path := os.Getenv(env); path != "" {
		tb := open(t, path).Table("t")
		for w := range 8 {
			go func() {
				for i := 0; ; i++ {
					k := fmt.Sprintf("%d/%d/%d", os.Getpid(), w, i)
					if _, err := tb.Swap(k, 0, make([]byte, i%500)); err != nil {
						fmt.Println("error", err)
					}
					fmt.Println("wrote", k, i%500)
				}
			}()
		}
		<-t.Context().Done()
		return
	}
	path := filepath.Join(t.TempDir(), "state.db")
	wrote := make(map[string]int)
	for round := range 6 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKill$")
		cmd.Env = append(os.Environ(), env+"="+path)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for n := 0; lines.Scan(); {
			var k string
			var size int
			if _, err := fmt.Sscanf(lines.Text(), "wrote %s %d", &k, &size); err != nil {
				if strings.HasPrefix(lines.Text(), "error") {
					t.Error(lines.Text())
				}
				continue // the last line may be cut
			}
			wrote[k] = size
			if n++; n == 40+37*round {
				_ = cmd.Process.Kill()
			}
		}
		_ = cmd.Wait() // killed
		db := open(t, path)
		for k, size := range wrote {
			if it, err := db.Table("t").Get(k); err != nil || len(it.Value) != size {
				t.Errorf("round %d: %s: %d bytes, %v; want %d", round, k, len(it.Value), err, size)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if aside, _ := filepath.Glob(path + ".bad-*"); len(aside) != 0 {
			t.Errorf("round %d: set aside: %v", round, aside)
		}
	}
	if len(wrote) < 200 {
		t.Errorf("only %d writes in all rounds", len(wrote))
	}
}
