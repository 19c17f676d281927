package flight

import "slices"

// Whether bytes are right is known only when all of them are there. So one source can spoil what another one brings. Therefore:
//
//   - What was parked is gone on with by a Key that brought some of it. Another one, whose source may be the honest one,
//     begins anew. Of what a former process left it is not known where it came from: that is gone on with by any.

// strange reports whether the flight is parked, and nothing of it came by key. It then ends, and the caller drops it and has
// end see to the rest. The group's lock is held.
func (f *Flight) strange(key string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	unknown := f.left != nil && len(f.brought) == 0
	if !f.parked || f.ended || unknown || slices.Contains(f.brought, key) {
		return false
	}
	f.ended = true
	return true
}
