package cachetest

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
)

// Check compares a cache with its store, while nothing is on its way in or out: what the cache knows is what is stored,
// every digest is true, and the budget is kept.
func Check(t testing.TB, c *cache.Cache, s cache.Store) {
	t.Helper()
	known := make(map[oci.Digest]int64)
	var bytes int64
	for a := range c.Entries() {
		known[a.Digest] = a.Size
		bytes += a.Size
	}
	stored := list(t, s)
	if diff := cmp.Diff(stored, known); diff != "" {
		t.Errorf("what the cache knows is not what is stored (-stored +known):\n%s", diff)
	}
	for d := range stored {
		if got := d.Algorithm().FromBytes(read(t, s, d)); got != d {
			t.Errorf("%s holds %s", d, got)
		}
	}
	st := c.Stats()
	if st.Bytes != bytes || st.Objects != int64(len(known)) {
		t.Errorf("the cache counts %d bytes in %d objects, there are %d in %d", st.Bytes, st.Objects, bytes, len(known))
	}
	CheckBudget(t, c)
}

// CheckBudget checks at any time that what is stored and reserved does not exceed the budget.
func CheckBudget(t testing.TB, c *cache.Cache) {
	t.Helper()
	if st := c.Stats(); st.Bytes+st.Reserved > st.Size || st.Bytes < 0 || st.Reserved < 0 {
		t.Errorf("%d bytes stored and %d reserved of %d", st.Bytes, st.Reserved, st.Size)
	}
}
