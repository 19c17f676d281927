package catalog

import (
	"fmt"
	"testing"
)

func TestMemoryIsBoundedAndKeepsWhatIsUsed(t *testing.T) {
	t.Parallel()
	m := newMemory[int](1600, nil)
	m.put("used", -1)
	for i := range 100_000 {
		m.put(fmt.Sprint(i), i)
		if _, ok := m.get("used"); !ok {
			t.Fatalf("what is used all the time was dropped after %d others", i)
		}
	}
	if n := m.len(); n > 1600 {
		t.Errorf("%d entries, the bound is 1600", n)
	}
	m.drop("used")
	if _, ok := m.get("used"); ok {
		t.Error("dropped, and still there")
	}
}
