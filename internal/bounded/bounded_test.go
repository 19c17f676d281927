package bounded_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/bounded"
)

func TestPut(t *testing.T) {
	t.Parallel()
	var m map[string]int
	for i := range 3 {
		bounded.Put(&m, fmt.Sprint(i), i, 3)
	}
	bounded.Put(&m, "0", 9, 3) // a key that is there needs no room
	if len(m) != 3 || m["0"] != 9 {
		t.Errorf("a full map: %v", m)
	}
	bounded.Put(&m, "3", 3, 3)
	if len(m) != 1 || m["3"] != 3 {
		t.Errorf("after one more: %v", m)
	}
}

func TestLRU(t *testing.T) {
	t.Parallel()
	var gone []string
	l := bounded.NewLRU(bounded.Options[string, int]{
		Budget: 10, Gone: func(k string, v int) { gone = append(gone, fmt.Sprint(k, v)) },
	})
	left := func(what string, want ...string) {
		t.Helper()
		if !slices.Equal(gone, want) {
			t.Errorf("%s: %q left, want %q", what, gone, want)
		}
		gone = nil
	}
	l.Put("a", 1, 4)
	l.Put("b", 2, 4)
	left("room for both")
	if v, ok := l.Get("a"); v != 1 || !ok {
		t.Errorf("a: %d, %v", v, ok)
	}
	l.Put("c", 3, 4)
	left("the one used longest ago", "b2")
	if _, ok := l.Get("b"); ok {
		t.Error("b is still there")
	}
	l.Put("a", 5, 6)
	left("one that is replaced", "a1")
	l.Put("huge", 6, 11)
	left("one above the budget")
	if _, ok := l.Get("huge"); ok {
		t.Error("an entry above the budget is kept")
	}
	l.Put("a", 7, 11)
	left("one that is replaced by one above the budget", "a5")
	l.Put("d", 8, 6)
	l.RemoveIf(func(k string) bool { return k == "c" })
	left("one that is removed", "c3")
	l.Put("e", 9, 4)
	l.Shrink(5)
	left("as much as is wanted, and not more", "d8")
	l.Remove("e")
	l.Remove("e")
	left("one that is removed by its key", "e9")
	l.Shrink(1)
}

// memory has room for a number of bytes.
type memory struct {
	room int64
}

func (m *memory) Keep(n int64) bool {
	if n > m.room {
		return false
	}
	m.room -= n
	return true
}

func (m *memory) Drop(n int64) { m.room += n }

func TestMemory(t *testing.T) {
	t.Parallel()
	m := &memory{room: 10}
	l := bounded.NewLRU(bounded.Options[string, int]{Budget: 100, Memory: m})
	l.Put("a", 1, 6)
	l.Put("b", 2, 6)
	if _, ok := l.Get("a"); ok || m.room != 4 {
		t.Errorf("a is there: %v; room for %d", ok, m.room)
	}
	m.room = 0 // others have taken it
	l.Put("c", 3, 7)
	if _, ok := l.Get("c"); ok || m.room != 6 {
		t.Errorf("c is there: %v; room for %d", ok, m.room)
	}
}

func TestTogether(t *testing.T) {
	t.Parallel()
	l := bounded.NewLRU(bounded.Options[int, int]{Budget: 8})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 500 {
				l.Put(n%16, i, 1)
				l.Get((n + i) % 16)
				if n%50 == 0 {
					l.RemoveIf(func(k int) bool { return k%2 == 0 })
				}
			}
		})
	}
	wg.Wait()
}

func TestExpiring(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var e bounded.Expiring[string, int]
		if v, ok := e.Get("a"); v != 0 || ok || e.Delete("a") {
			t.Errorf("before the first Put: %d, %v", v, ok)
		}
		e.Put("a", 1, time.Minute, 2)
		e.Put("b", 2, time.Hour, 2)
		time.Sleep(time.Minute - time.Nanosecond)
		if v, ok := e.Get("a"); v != 1 || !ok {
			t.Errorf("just before the end: %d, %v", v, ok)
		}
		time.Sleep(time.Nanosecond)
		if v, ok := e.Get("a"); v != 0 || ok || e.Has("a") {
			t.Errorf("at the end: %d, %v", v, ok)
		}
		e.Put("c", 3, time.Hour, 2) // the expired one has made room
		if !e.Has("b") || !e.Delete("b") || e.Has("b") {
			t.Error("b was not remembered, or was not deleted")
		}
		e.Put("d", 4, time.Hour, 2)
		e.Put("e", 5, time.Hour, 2) // one too many
		if e.Has("c") || e.Has("d") || !e.Has("e") {
			t.Error("a full memory is not emptied")
		}
		e.Clear()
		if e.Has("e") {
			t.Error("e is remembered after Clear")
		}
	})
}
