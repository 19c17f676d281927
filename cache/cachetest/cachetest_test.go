package cachetest_test

import (
	"errors"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestMemoryStore(t *testing.T) {
	t.Parallel()
	cachetest.TestStore(t, func(*testing.T) cache.Store { return cachetest.NewStore() })
}

func TestMemoryIndex(t *testing.T) {
	t.Parallel()
	cachetest.TestIndex(t, func(*testing.T) cache.Index { return cachetest.NewIndex() })
}

// A wrapper that fails nothing is as good as what it wraps.
func TestFaultyStorePasses(t *testing.T) {
	t.Parallel()
	cachetest.TestStore(t, func(*testing.T) cache.Store { return cachetest.NewFaulty(cachetest.NewStore()) })
}

func TestFaultyFails(t *testing.T) {
	t.Parallel()
	f := cachetest.NewFaulty(cachetest.NewStore())
	f.FailOnce(cachetest.Create, 2, syscall.ENOSPC)
	p, err := f.Create(4)
	if err != nil {
		t.Fatalf("first create: %v", err)
	}
	defer p.Discard()
	if o, err := p.Open(); err != nil || o.Close() != nil {
		t.Errorf("open spool: %v", err)
	}
	if _, err := f.Create(4); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("second create: %v, want ENOSPC", err)
	}
	q, err := f.Create(4)
	if err != nil {
		t.Fatalf("third create: %v", err)
	}
	defer q.Discard()

	f.Fail(cachetest.WriteAt, 1, syscall.EIO)
	for range 2 {
		if n, err := p.WriteAt([]byte("abcd"), 0); n != 2 || !errors.Is(err, syscall.EIO) {
			t.Fatalf("write: %d, %v, want 2, EIO", n, err)
		}
	}
	f.EndFaults()
	b, d := cachetest.Bytes(1, 4)
	if _, err := p.WriteAt(b, 0); err != nil {
		t.Fatalf("write after the faults: %v", err)
	}
	f.FailOnce(cachetest.Commit, 1, syscall.EIO)
	if err := p.Commit(d, 4); !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit: %v, want EIO", err)
	}
	f.FailOnce(cachetest.Remove, 1, syscall.EROFS)
	if err := f.Remove(d); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("remove: %v, want EROFS", err)
	}
	f.FailOnce(cachetest.Open, 1, syscall.EMFILE)
	if _, err := f.Open(d); !errors.Is(err, syscall.EMFILE) {
		t.Fatalf("open: %v, want EMFILE", err)
	}
	if got := f.Calls(cachetest.Create); got != 3 {
		t.Errorf("counted %d creates, want 3", got)
	}
}
