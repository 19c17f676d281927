package catalog

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

const (
	// clientMark is between the key of a tag and the name of a client. No name has it.
	clientMark = "\x00"
	// clientsMost is how many clients of a tag are recorded, those that have pulled it last.
	clientsMost = 1024
	// clientMost is how many bytes of a client's name are recorded.
	clientMost = 256
	// pulledEvery is the precision of the time on disk at which a client last pulled a digest; in memory it is exact.
	pulledEvery = time.Hour
	// pendingMost is how many pulls wait to be written; others are not recorded.
	pendingMost = 65_536
)

// Client is what a client last got for a tag.
type Client struct {
	Client   string // its name, which it may choose: see package client
	Digest   oci.Digest
	LastPull time.Time
}

// pulled is what a client last got.
type pulled struct {
	digest  oci.Digest
	at      time.Time
	written time.Time // the time that was written, or waits to be
}

// clients has the records of which client has pulled which digest of a tag.
type clients struct {
	table state.Table // nil: none
	log   *slog.Logger

	last *memory[pulled] // by tag and client
	full chan struct{}   // a value: those that wait are to be written soon

	mu      sync.Mutex                   // guards what follows
	pending map[string]map[string]pulled // pulls that wait to be written, by tag and client
	count   int
}

func newClients(table state.Table, o Options) *clients {
	return &clients{
		table: table, log: o.Log, last: newMemory[pulled](o.Remembered, nil), full: make(chan struct{}, 1),
		pending: make(map[string]map[string]pulled),
	}
}

// after reports whether the pull was after another one, of a time that is not so much earlier that the clock was set back: the calls
// came in another order.
func (p pulled) after(at time.Time) bool { return at.Before(p.at) && at.After(p.at.Add(-pulledEvery)) }

// Served notes which digest a client has got for a tag. It takes no time: records are written in batches, and not at all where
// the client has got the same digest within the last hour.
func (c *clients) Served(ref oci.Ref, d oci.Digest, client string, at time.Time) {
	if ref.Tag == "" || client == "" {
		return
	}
	client = client[:min(len(client), clientMost)]
	key := tagKey(ref) + clientMark + client
	var news bool
	p := c.last.update(key, func(have pulled, ok bool) pulled {
		if ok && have.after(at) {
			return have
		}
		next := pulled{digest: d, at: at, written: have.written}
		if age := at.Sub(have.written); !ok || have.digest != d || age < 0 || age >= pulledEvery {
			next.written, news = at, true
		}
		return next
	})
	if news && !c.hold(key, len(key)-len(client), p) {
		c.last.drop(key) // it is noted with its next pull
	}
}

// hold keeps a pull until it is written. name is where the client's name begins in the key.
func (c *clients) hold(key string, name int, p pulled) bool {
	tag, client := key[:name], key[name:]
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pending[tag][client]; !ok {
		if c.count >= pendingMost {
			return false
		}
		c.count++
	}
	if c.pending[tag] == nil {
		c.pending[tag] = make(map[string]pulled)
	}
	c.pending[tag][client] = p
	if c.count >= pendingMost/2 {
		select {
		case c.full <- struct{}{}:
		default:
		}
	}
	return true
}

// Clients returns which client last got which digest of a tag, the last pull first.
func (c *clients) Clients(ref oci.Ref) ([]Client, error) {
	prefix := tagKey(ref) + clientMark
	have, err := c.stored(prefix)
	if err != nil {
		return nil, fmt.Errorf("list the clients of tag %s: %w", tagKey(ref), err)
	}
	c.mu.Lock()
	for name, p := range c.pending[prefix] {
		if old, ok := have[name]; !ok || !old.after(p.at) {
			have[name] = p
		}
	}
	c.mu.Unlock()
	list := make([]Client, 0, len(have))
	for name, p := range have {
		if exact, ok := c.last.get(prefix + name); ok && exact.at.After(p.at) {
			p = exact
		}
		list = append(list, Client{Client: name, Digest: p.digest, LastPull: p.at})
	}
	slices.SortFunc(list, func(a, b Client) int {
		return cmp.Or(b.LastPull.Compare(a.LastPull), strings.Compare(a.Client, b.Client))
	})
	return list[:min(len(list), clientsMost)], nil
}

// stored reads the records of a tag's clients, by name. One that can't be read is left out.
func (c *clients) stored(prefix string) (map[string]pulled, error) {
	have := make(map[string]pulled)
	if c.table == nil {
		return have, nil
	}
	for it, err := range c.table.Scan(prefix) {
		if err != nil {
			return nil, err
		}
		if p, err := decodeClient(it.Value); err == nil {
			have[it.Key[len(prefix):]] = p
		}
	}
	return have, nil
}

// flush writes the pulls that wait. Those that can't be written wait for the next time.
func (c *clients) flush(ctx context.Context) {
	if c.table == nil {
		return
	}
	c.mu.Lock()
	pending := c.pending
	c.pending, c.count = make(map[string]map[string]pulled), 0
	c.mu.Unlock()
	var (
		failed int
		cause  error
	)
	for prefix, list := range pending {
		if err := c.write(prefix, list); err != nil {
			failed, cause = failed+len(list), err
			for name, p := range list {
				c.holdOlder(prefix, name, p)
			}
		}
	}
	if failed > 0 {
		c.log.WarnContext(ctx, "cannot record which client has which digest; it is tried again", "items", failed, "error", cause)
	}
}

// holdOlder is hold of a pull, unless a later one waits.
func (c *clients) holdOlder(prefix, name string, p pulled) {
	c.mu.Lock()
	_, later := c.pending[prefix][name]
	c.mu.Unlock()
	if !later {
		c.hold(prefix+name, len(prefix), p)
	}
}

// write writes the pulls of one tag, and removes the oldest ones above the bound.
func (c *clients) write(prefix string, list map[string]pulled) error {
	have, err := c.stored(prefix)
	if err != nil {
		return err
	}
	var items []state.Item
	for name, p := range list {
		old, ok := have[name]
		age := p.at.Sub(old.at)
		if ok && (old.after(p.at) || old.digest == p.digest && age >= 0 && age < pulledEvery) {
			continue
		}
		have[name] = p
		items = append(items, state.Item{Key: prefix + name, Value: encodeClient(p)})
	}
	if over := len(have) - clientsMost; over > 0 {
		names := make([]string, 0, len(have))
		for name := range have {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int { return have[a].at.Compare(have[b].at) })
		gone := make(map[string]bool, over)
		for _, name := range names[:over] {
			gone[name] = true
		}
		items = slices.DeleteFunc(items, func(it state.Item) bool { return gone[it.Key[len(prefix):]] })
		for name := range gone {
			items = append(items, state.Item{Key: prefix + name})
		}
	}
	if len(items) == 0 {
		return nil
	}
	slices.SortFunc(items, func(a, b state.Item) int { return strings.Compare(a.Key, b.Key) })
	return c.table.Write(items)
}

// forget removes the records of a tag's clients.
func (c *clients) forget(ref oci.Ref) error {
	key := tagKey(ref)
	prefix := key + clientMark
	c.mu.Lock()
	pending := c.pending[prefix]
	c.count -= len(pending)
	delete(c.pending, prefix)
	c.mu.Unlock()
	have, err := c.stored(prefix)
	if err != nil {
		return fmt.Errorf("forget the clients of tag %s: %w", key, err)
	}
	var items []state.Item
	for name := range have {
		items = append(items, state.Item{Key: prefix + name})
		c.last.drop(prefix + name)
	}
	for name := range pending {
		c.last.drop(prefix + name)
	}
	if len(items) == 0 {
		return nil
	}
	if err := c.table.Write(items); err != nil {
		return fmt.Errorf("forget the clients of tag %s: %w", key, err)
	}
	return nil
}
