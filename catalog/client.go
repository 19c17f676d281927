package catalog

import (
	"cmp"
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

const (
	// clientMark is between the key of a tag and the name of a client. No name has it.
	clientMark = "\x00"
	// clientsMost is how many clients of a tag are recorded. Each address has its share, see beyond.
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
	peer    uint32    // a sum of the address that it came from; 0: not known
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

// Served notes which digest a client has got for a tag. peer is the address that it pulls from. It takes no time: records are
// written in batches, and not at all where the client has got the same digest within the last hour.
func (c *clients) Served(ref oci.Ref, d oci.Digest, client, peer string, at time.Time) {
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
		next := pulled{digest: d, at: at, peer: have.peer, written: have.written}
		if age := at.Sub(have.written); !ok || have.digest != d || age < 0 || age >= pulledEvery {
			next.peer, next.written, news = crc32.ChecksumIEEE([]byte(peer)), at, true
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
	return c.list(prefix, have), nil
}

// list are the clients of a tag, out of those that are stored.
func (c *clients) list(prefix string, have map[string]pulled) []Client {
	c.mu.Lock()
	for name, p := range c.pending[prefix] {
		if old, ok := have[name]; !ok || !old.after(p.at) {
			have[name] = p
		}
	}
	c.mu.Unlock()
	for _, name := range beyond(have) {
		delete(have, name)
	}
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
	return list
}

// AllClients returns the clients of every tag that a client has pulled, as Clients does for one. It costs one pass over the clients,
// however many tags there are.
func (c *clients) AllClients() (map[oci.Ref][]Client, error) {
	byTag := make(map[string]map[string]pulled)
	if c.table != nil {
		for it, err := range c.table.Scan("") {
			if err != nil {
				return nil, fmt.Errorf("list the clients of tags: %w", err)
			}
			p, err := decodeClient(it.Value)
			tag, name, ok := strings.Cut(it.Key, clientMark)
			if err != nil || !ok {
				continue
			}
			if byTag[tag] == nil {
				byTag[tag] = make(map[string]pulled)
			}
			byTag[tag][name] = p
		}
	}
	c.mu.Lock()
	for prefix := range c.pending {
		if tag := strings.TrimSuffix(prefix, clientMark); byTag[tag] == nil {
			byTag[tag] = make(map[string]pulled)
		}
	}
	c.mu.Unlock()
	all := make(map[oci.Ref][]Client, len(byTag))
	for tag, have := range byTag {
		if ref, ok := tagRef(tag); ok {
			all[ref] = c.list(tag+clientMark, have)
		}
	}
	return all, nil
}

// beyond are the clients of a tag above the bound. Each address keeps as many as any other, those that pulled last: a client that
// gives itself many names takes no room of others. What an address does not need of its share is for the others.
func beyond(have map[string]pulled) (gone []string) {
	if len(have) <= clientsMost {
		return nil
	}
	byPeer := make(map[uint32][]string)
	for name, p := range have {
		byPeer[p.peer] = append(byPeer[p.peer], name)
	}
	latest := func(a, b string) int { return cmp.Or(have[b].at.Compare(have[a].at), strings.Compare(a, b)) }
	kept := func(share int) (n int) {
		for _, names := range byPeer {
			n += min(len(names), share)
		}
		return n
	}
	share := sort.Search(clientsMost, func(n int) bool { return kept(n+1) > clientsMost })
	var next []string // of each address, the first above its share: what room is left is for the latest of these
	for _, names := range byPeer {
		if len(names) > share {
			slices.SortFunc(names, latest)
			next = append(next, names[share])
			gone = append(gone, names[share+1:]...)
		}
	}
	slices.SortFunc(next, latest)
	return append(gone, next[clientsMost-kept(share):]...)
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

// write writes the pulls of one tag, and removes those above the bound.
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
	if names := beyond(have); len(names) > 0 {
		gone := make(map[string]bool, len(names))
		for _, name := range names {
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
