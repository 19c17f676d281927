package catalog

import (
	"errors"
	"hash/maphash"
	"log/slog"
	"sync"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// remembered is the default of Options.Remembered. A member takes some 300 bytes of memory, a tag 600 to 1,100 and, when it
// has moved often, 25 KiB: so there is room for a fifth as many tags, of which those that have moved often count as several.
const remembered = 100_000

// Options for a Catalog.
type Options struct {
	Log        *slog.Logger // nil: discard
	Remembered int          // members in memory; a fifth as many tags are. 0: 100,000
	// Clients is the table of the clients that have pulled each tag, Pins that of pins; no other code uses them. Nil: they are
	// kept in memory alone.
	Clients, Pins state.Table
}

// Catalog has all records. It is safe for concurrent use.
type Catalog struct {
	*ledger  // tags
	*content // content and repositories
	*clients // which client has pulled which digest of a tag
	*pins
}

// New makes a catalog on two tables, which no other code uses, and those of the options.
func New(tags, refs state.Table, o Options) *Catalog {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Remembered == 0 {
		o.Remembered = remembered
	}
	return &Catalog{
		ledger: newLedger(tags, o), content: newContent(refs, o), clients: newClients(o.Clients, o),
		pins: newPins(o.Pins, o.Log),
	}
}

// Forget removes the record of a tag, if there is one, and those of its clients.
func (c *Catalog) Forget(ref oci.Ref) error {
	return errors.Join(c.forgetTag(ref), c.clients.forget(ref))
}

// turns are by key: a key is written, and read into memory, by one goroutine at a time, the one that has its turn. Without that, a
// value that was read before a write could come into memory after it. Reads from memory take no turn.
type turns struct {
	seed  maphash.Seed
	locks [256]sync.Mutex // by hash of the key
}

func newTurns() *turns { return &turns{seed: maphash.MakeSeed()} }

// wait waits for a key's and returns how to end it. Keys may share one.
func (t *turns) wait(key string) (end func()) {
	mu := &t.locks[maphash.String(t.seed, key)%uint64(len(t.locks))]
	mu.Lock()
	return mu.Unlock
}
