// Package statetest is the suite that every state.Table must pass, and a table in memory that does.
package statetest

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/internal/state"
)

// NewTable returns a table in memory, for tests of those who own one.
func NewTable() *Table { return &Table{items: make(map[string]state.Item)} }

// Table is a state.Table in memory. Writes counts its transactions, and Fail, where set, is asked before each; once
// the table is in use by others, SetFail sets it.
type Table struct {
	mu     sync.Mutex
	items  map[string]state.Item
	past   state.Version // the highest of a removed key
	writes int
	Fail   func() error
}

// Writes is how many write transactions there have been.
func (t *Table) Writes() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.writes
}

// SetFail sets Fail.
func (t *Table) SetFail(f func() error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.Fail = f
}

// Get implements state.Table.
func (t *Table) Get(key string) (state.Item, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	it, ok := t.items[key]
	if !ok {
		return state.Item{}, state.ErrNotFound
	}
	it.Value = bytes.Clone(it.Value)
	return it, nil
}

func (t *Table) begin() error {
	t.writes++
	if t.Fail != nil {
		return t.Fail()
	}
	return nil
}

// Swap implements state.Table.
func (t *Table) Swap(key string, old state.Version, v []byte) (state.Version, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.begin(); err != nil {
		return 0, err
	}
	if t.items[key].Version != old {
		return 0, state.ErrConflict
	}
	return t.put(key, v), nil
}

func (t *Table) put(key string, v []byte) state.Version {
	have := t.items[key].Version
	switch {
	case v == nil:
		t.past = max(t.past, have)
		delete(t.items, key)
		return 0
	case have == 0:
		have = t.past
	}
	next := have + 1
	t.items[key] = state.Item{Key: key, Value: bytes.Clone(v), Version: next}
	return next
}

// Write implements state.Table.
func (t *Table) Write(items []state.Item) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := t.begin(); err != nil {
		return err
	}
	for _, it := range items {
		t.put(it.Key, it.Value)
	}
	return nil
}

// Scan implements state.Table.
func (t *Table) Scan(prefix string) iter.Seq2[state.Item, error] {
	return func(yield func(state.Item, error) bool) {
		t.mu.Lock()
		keys := slices.Sorted(maps.Keys(t.items))
		t.mu.Unlock()
		for _, k := range keys {
			if !strings.HasPrefix(k, prefix) {
				continue
			}
			it, err := t.Get(k)
			if err == nil && !yield(it, nil) {
				return
			}
		}
	}
}

// TestTable holds an implementation to the contract of state.Table. make returns an empty one at each call.
func TestTable(t *testing.T, empty func(t *testing.T) state.Table) {
	t.Run("a key that is not there", func(t *testing.T) {
		tb := empty(t)
		if _, err := tb.Get("a"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("Get: %v, want ErrNotFound", err)
		}
		if _, err := tb.Swap("a", 1, []byte("x")); !errors.Is(err, state.ErrConflict) {
			t.Errorf("Swap of version 1: %v, want ErrConflict", err)
		}
		for it, err := range tb.Scan("") {
			t.Errorf("an empty table yields %+v, %v", it, err)
		}
	})
	t.Run("versions", func(t *testing.T) {
		tb := empty(t)
		v1, err := tb.Swap("a", 0, []byte("one"))
		if err != nil || v1 != 1 {
			t.Fatalf("first write: %d, %v", v1, err)
		}
		if _, err := tb.Swap("a", 0, []byte("again")); !errors.Is(err, state.ErrConflict) {
			t.Errorf("a second first write: %v, want ErrConflict", err)
		}
		if v, err := tb.Swap("a", v1, []byte("two")); err != nil || v != 2 {
			t.Errorf("second write: %d, %v", v, err)
		}
		if err := tb.Write([]state.Item{{Key: "a", Value: []byte("three")}}); err != nil {
			t.Fatal(err)
		}
		if it, err := tb.Get("a"); err != nil || it.Version != 3 || string(it.Value) != "three" || it.Key != "a" {
			t.Errorf("after three writes: %+v, %v", it, err)
		}
		if v, err := tb.Swap("a", 3, nil); err != nil || v != 0 {
			t.Errorf("removal: %d, %v", v, err)
		}
		if _, err := tb.Get("a"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("after the removal: %v", err)
		}
	})
	t.Run("a key made again never has an old version", func(t *testing.T) {
		tb := empty(t)
		old, err := tb.Swap("a", 0, []byte("one"))
		if err != nil {
			t.Fatal(err)
		}
		for _, remove := range []func(v state.Version) error{
			func(v state.Version) error { _, err := tb.Swap("a", v, nil); return err },
			func(state.Version) error { return tb.Write([]state.Item{{Key: "a"}}) },
		} {
			it, err := tb.Get("a")
			if err != nil {
				t.Fatal(err)
			}
			if err := remove(it.Version); err != nil {
				t.Fatal(err)
			}
			if v, err := tb.Swap("a", 0, []byte("again")); err != nil || v <= old {
				t.Errorf("made again with version %d, %v; it had %d", v, err, old)
			}
			if _, err := tb.Swap("a", old, []byte("late")); !errors.Is(err, state.ErrConflict) {
				t.Errorf("a swap of the version before the removal: %v, want ErrConflict", err)
			}
		}
	})
	t.Run("the value is the caller's", func(t *testing.T) {
		tb := empty(t)
		b := []byte("mine")
		if _, err := tb.Swap("a", 0, b); err != nil {
			t.Fatal(err)
		}
		b[0] = 'X'
		it, _ := tb.Get("a")
		it.Value[1] = 'Y'
		if it, _ := tb.Get("a"); string(it.Value) != "mine" {
			t.Errorf("value %q", it.Value)
		}
	})
	t.Run("an empty value is a value", func(t *testing.T) {
		tb := empty(t)
		if _, err := tb.Swap("a", 0, []byte{}); err != nil {
			t.Fatal(err)
		}
		if it, err := tb.Get("a"); err != nil || len(it.Value) != 0 {
			t.Errorf("%+v, %v", it, err)
		}
	})
	t.Run("scan in order, by prefix, over many", func(t *testing.T) {
		tb := empty(t)
		var items []state.Item
		for i := range 2500 {
			items = append(items, state.Item{Key: fmt.Sprintf("k/%04d", i), Value: []byte{byte(i)}})
		}
		items = append(items, state.Item{Key: "j", Value: []byte("x")}, state.Item{Key: "l", Value: []byte("x")})
		if err := tb.Write(items); err != nil {
			t.Fatal(err)
		}
		i := 0
		for it, err := range tb.Scan("k/") {
			if err != nil || it.Key != fmt.Sprintf("k/%04d", i) || it.Version != 1 {
				t.Fatalf("item %d: %+v, %v", i, it, err)
			}
			i++
		}
		if i != 2500 {
			t.Errorf("%d items", i)
		}
		for _, err := range tb.Scan("k/") {
			if err != nil {
				t.Error(err)
			}
			break // stopping early leaves nothing behind
		}
		if err := tb.Write([]state.Item{{Key: "j"}}); err != nil {
			t.Fatal(err)
		}
		if _, err := tb.Get("j"); !errors.Is(err, state.ErrNotFound) {
			t.Errorf("removed by Write: %v", err)
		}
	})
	t.Run("a conflict undoes nothing of others", func(t *testing.T) {
		tb := empty(t)
		var wg sync.WaitGroup
		for i := range 200 {
			wg.Go(func() {
				key := fmt.Sprint(i)
				if _, err := tb.Swap(key, 7, []byte("x")); !errors.Is(err, state.ErrConflict) {
					t.Errorf("swap of a version that never was: %v", err)
				}
				if v, err := tb.Swap(key, 0, []byte(key)); err != nil || v != 1 {
					t.Errorf("swap: %d, %v", v, err)
				}
			})
		}
		wg.Wait()
		for i := range 200 {
			if it, err := tb.Get(fmt.Sprint(i)); err != nil || string(it.Value) != fmt.Sprint(i) {
				t.Errorf("%d: %+v, %v", i, it, err)
			}
		}
	})
	t.Run("one of many wins a swap", func(t *testing.T) {
		tb := empty(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 30 {
			wg.Go(func() {
				_, err := tb.Swap("a", 0, []byte{byte(i)})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					won++
				} else if !errors.Is(err, state.ErrConflict) {
					t.Errorf("swap: %v", err)
				}
			})
		}
		wg.Wait()
		if won != 1 {
			t.Errorf("%d won", won)
		}
	})
}
