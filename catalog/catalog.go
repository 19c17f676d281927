package catalog

import (
	"hash/maphash"
	"log/slog"
	"sync"

	"github.com/registrymirror/mirror/internal/state"
)

// remembered is the default of Options.Remembered. A member takes some 300 bytes of memory, a tag 600 and, when it has moved
// often, up to 4 KiB: so there is room for a fifth as many tags.
const remembered = 100_000

// Options for a Catalog.
type Options struct {
	Log        *slog.Logger // nil: discard
	Remembered int          // members in memory; a fifth as many tags are. 0: 100,000
}

// Catalog is safe for concurrent use.
//
// A key is written, and read into memory, by one goroutine at a time: the one that holds its turn. Without that, a value that
// was read before a write could come into memory after it. Reads from memory take no turn.
type Catalog struct {
	tags, refs state.Table
	log        *slog.Logger
	most       int

	known   *memory[Tag]
	members *memory[member]
	// repositories has entries for repositories that are not in the table, too.
	repositories *memory[Repository]

	seed  maphash.Seed
	turns [256]sync.Mutex // by hash of the key of a tag or repository; before mu

	pruning sync.Mutex // one Prune at a time; before removal's
	removal removal

	mu    sync.Mutex     // guards dirty
	dirty map[string]Tag // tags that were confirmed, and not written since
}

// New makes a catalog on two tables, which no other code uses.
func New(tags, refs state.Table, o Options) *Catalog {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Remembered == 0 {
		o.Remembered = remembered
	}
	return &Catalog{
		tags: tags, refs: refs, log: o.Log, most: o.Remembered, seed: maphash.MakeSeed(),
		known: newMemory[Tag](o.Remembered / 5), members: newMemory[member](o.Remembered),
		repositories: newMemory[Repository](o.Remembered / 5), dirty: make(map[string]Tag),
	}
}

// turn waits for a key's and returns how to end it. Keys may share one.
func (c *Catalog) turn(key string) (end func()) {
	mu := &c.turns[maphash.String(c.seed, key)%uint64(len(c.turns))]
	mu.Lock()
	return mu.Unlock
}
