package cache

import (
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/oci"
)

// accounts holds a budget to its own sums.
func accounts(t *testing.T, b *budget, downloads ...*reservation) {
	t.Helper()
	var stored, reserved, claimed, parked, held int64
	for _, e := range b.entries {
		stored += e.size
	}
	for _, r := range downloads {
		reserved += r.reserved
		claimed += r.claimed
		if r.parked {
			parked += r.reserved
		}
	}
	for e := range b.held {
		held += e.size
	}
	lists := b.lru.probation.bytes + b.lru.protected.bytes
	if b.stored != stored || b.reserved != reserved || b.claimed != claimed || b.parked != parked || b.heldBytes != held ||
		lists != stored {
		t.Errorf("stored %d of %d (lists %d), reserved %d of %d, claimed %d of %d, parked %d of %d, held %d of %d", b.stored,
			stored, lists, b.reserved, reserved, b.claimed, claimed, b.parked, parked, b.heldBytes, held)
	}
}

func testBudget(size int64, kept ...string) *budget {
	b := newBudget(size, func(d oci.Digest, _ time.Time) bool {
		for _, k := range kept {
			if d == digest.FromString(k) {
				return true
			}
		}
		return false
	})
	b.loaded = true
	return b
}

// store adds content of 100 bytes by one-letter names, each used in a minute of its own.
func (b *budget) store(names string) {
	for i, n := range names {
		b.lru.touch(b.add(digest.FromString(string(n)), 100, true), uint32(i))
	}
}

func (b *budget) names(list []*entry) string {
	var s strings.Builder
	for _, e := range list {
		for n := 'a'; n <= 'z'; n++ {
			if e.digest == digest.FromString(string(n)) {
				s.WriteRune(n)
			}
		}
	}
	return s.String()
}

var noLack = shortfall{bytes: -1 << 62}

func TestBudgetMarks(t *testing.T) {
	t.Parallel()
	b := testBudget(1000)
	b.store("abcdefghi")
	if b.aboveHigh() || b.excess() != 0 {
		t.Errorf("at the high mark: %d to evict", b.excess())
	}
	b.store("j")
	if !b.aboveHigh() || b.excess() != 200 {
		t.Errorf("above the high mark: %d to evict, want 200", b.excess())
	}
	accounts(t, b)
}

func TestBudgetPicks(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := testBudget(1000, "b")
	b.store("abcdefa")
	if got := b.names(b.pick(shortfall{bytes: 250}, onlyClosed, now)); got != "cde" {
		t.Errorf("picked %s, want cde: b is kept, and a was used again", got)
	}
	if got := b.names(b.pick(shortfall{files: 5}, onlyClosed, now)); got != "fa" {
		t.Errorf("picked %s, want the rest", got)
	}
	b = testBudget(1000)
	b.store("abc")
	victims := b.pick(shortfall{bytes: 1000}, onlyClosed, now)
	b.lru.touch(victims[1], 9) // used meanwhile
	b.spare(victims)
	if got := b.names(b.pick(shortfall{bytes: 1000}, onlyClosed, now)); got != "cab" {
		t.Errorf("after they were spared: picked %s, want cab", got)
	}
	b.loaded = false
	b.store("xyz")
	if got := b.pick(shortfall{bytes: 100}, onlyClosed, now); got != nil {
		t.Errorf("picked %s before what is stored was known", b.names(got))
	}
}

func TestBudgetReserves(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := testBudget(1000)
	b.store("abcdef")
	var one, two reservation
	if missing := b.reserve(&one, 300, noLack); !missing.none() {
		t.Errorf("missing %+v", missing)
	}
	if missing := b.reserve(&two, 300, noLack); missing.bytes != 200 {
		t.Errorf("missing %+v, want 200", missing)
	}
	if missing := b.reserve(&two, 50, shortfall{bytes: -320, files: -1}); missing.bytes != 30 {
		t.Errorf("missing %+v of the disk, want 30 beside what it does not know of yet", missing)
	}
	b.placed(300)
	if missing := b.reserve(&two, 50, shortfall{bytes: -320, files: -1}); !missing.none() {
		t.Errorf("missing %+v", missing)
	}
	accounts(t, b, &one, &two)
	b.claim(&one, 500)
	if b.fits(200, noLack, now) {
		t.Error("200 bytes fit beside 850 that are claimed, of 1000")
	}
	b.park(&one, 100)
	accounts(t, b, &one, &two)
	if one.reserved != 100 || one.claimed != 100 || b.parked != 100 {
		t.Errorf("parked: %+v", one)
	}
	if !b.fits(200, noLack, now.Add(fullFor)) {
		t.Error("200 bytes don't fit though what is stored may go")
	}
	b.unpark(&one)
	accounts(t, b, &one, &two)
	b.end(&one)
	b.end(&two)
	b.end(&two)
	if missing := b.reserve(&two, 100, noLack); !missing.none() || b.reserved != 0 {
		t.Errorf("one that has ended reserves %d", b.reserved)
	}
	accounts(t, b, &one, &two)
	if b.resume(new(reservation), 500) || !b.resume(&reservation{}, 400) {
		t.Error("what is resumed takes the room that is left, and no other")
	}
}

func TestBudgetHolds(t *testing.T) {
	t.Parallel()
	now := time.Now()
	b := testBudget(1000)
	b.store("abc")
	holds := []*hold{{}, {}}
	e := b.entries[digest.FromString("a")]
	for _, h := range holds {
		b.hold(e, h, now)
	}
	if got := b.names(b.pick(shortfall{bytes: 1000}, onlyClosed, now)); got != "bc" {
		t.Errorf("picked %s, and a is open", got)
	}
	if got := b.pick(shortfall{bytes: 1000}, orOpenLong, now.Add(openFor-1)); len(got) > 0 {
		t.Errorf("picked %s, open for less than a minute", b.names(got))
	}
	if got := b.names(b.pick(shortfall{bytes: 1000}, orOpenLong, now.Add(openFor))); got != "a" {
		t.Errorf("picked %s, want a", got)
	}
	b.remove(e.digest, now)
	if b.heldBytes != 100 || b.stored != 200 {
		t.Errorf("held %d, stored %d", b.heldBytes, b.stored)
	}
	if got := len(b.heldFiles(false, now)); got != 0 {
		t.Errorf("%d files to be closed at once", got)
	}
	if got := len(b.heldFiles(false, now.Add(heldFor))); got != 2 {
		t.Errorf("%d files to be closed, want 2", got)
	}
	if b.release(holds[1]) || !b.release(holds[0]) || b.heldBytes != 0 || len(b.held) != 0 {
		t.Errorf("held %d after both were closed", b.heldBytes)
	}
}
