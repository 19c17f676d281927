package catalog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// ErrUnknown says that nothing is known of a tag. It wraps state.ErrNotFound.
var ErrUnknown = fmt.Errorf("tag not known: %w", state.ErrNotFound)

const (
	// historyMost is how many digests of a tag are remembered.
	historyMost = 20
	// remembered is how many tags, and how many members, are held in memory: some 20 MB each.
	remembered = 100_000
	// flushEvery is how often the times of checks are written.
	flushEvery = 30 * time.Second
)

// Options for a Catalog. The zero value of a field means what its comment says.
type Options struct {
	Log *slog.Logger // nil: discard
}

// Catalog is safe for concurrent use.
type Catalog struct {
	tags, refs state.Table
	log        *slog.Logger

	known   *memory[Tag]
	members *memory[oci.Descriptor]

	mu    sync.Mutex // guards dirty
	dirty map[string]Tag
}

// New makes a catalog on two tables, which are its alone.
func New(tags, refs state.Table, o Options) *Catalog {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Catalog{tags: tags, refs: refs, log: o.Log, known: newMemory[Tag](remembered),
		members: newMemory[oci.Descriptor](remembered), dirty: make(map[string]Tag)}
}

// record is a Tag as it is stored. Fields are only ever added.
type record struct {
	Digest  oci.Digest `json:"digest"`
	Checked time.Time  `json:"checked"`
	History []Seen     `json:"history"`
}

func tagKey(ref oci.Ref) string { return ref.Repo.String() + ":" + ref.Tag }

func memberKey(repo oci.Repo, d oci.Digest) string { return repo.String() + "@" + string(d) }

// Tag returns what is known of ref's tag, or ErrUnknown.
func (c *Catalog) Tag(ref oci.Ref) (Tag, error) {
	key := tagKey(ref)
	if t, ok := c.known.get(key); ok {
		return t, nil
	}
	it, err := c.tags.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return Tag{}, ErrUnknown
	}
	if err != nil {
		return Tag{}, fmt.Errorf("look up tag %s: %w", key, err)
	}
	t, err := decodeTag(ref, it)
	if err != nil {
		return Tag{}, err
	}
	// A writer that came between the read and here has the newer version.
	return c.known.merge(key, newer(t)), nil
}

// newer keeps the later version of a tag.
func newer(t Tag) func(Tag, bool) Tag {
	return func(have Tag, ok bool) Tag {
		if ok && have.Version >= t.Version {
			return have
		}
		return t
	}
}

func decodeTag(ref oci.Ref, it state.Item) (Tag, error) {
	var r record
	if err := json.Unmarshal(it.Value, &r); err != nil {
		return Tag{}, fmt.Errorf("read what is known of tag %s: %w", it.Key, err)
	}
	return Tag{Ref: oci.Ref{Repo: ref.Repo, Tag: ref.Tag}, Digest: r.Digest, Checked: r.Checked, History: r.History,
		Version: uint64(it.Version)}, nil
}

// Moved records that the upstream has just been seen to mean digest to by ref's tag. from is what the caller knew
// before it asked; its zero value means nothing. When somebody else has recorded a move meanwhile, the later of the two
// calls wins: both saw the upstream, this one last. A digest that is the tag's already costs no write.
func (c *Catalog) Moved(ref oci.Ref, from Tag, to oci.Digest) (Tag, error) {
	key := tagKey(ref)
	now := time.Now()
	for {
		if from.Digest == to && from.Version != 0 {
			return c.confirmed(key, from, now), nil
		}
		next := Tag{Ref: oci.Ref{Repo: ref.Repo, Tag: ref.Tag}, Digest: to, Checked: now,
			History: history(from.History, to, now)}
		b, err := json.Marshal(record{Digest: next.Digest, Checked: next.Checked, History: next.History})
		if err != nil {
			return Tag{}, fmt.Errorf("record tag %s: %w", key, err)
		}
		v, err := c.tags.Swap(key, state.Version(from.Version), b)
		if errors.Is(err, state.ErrConflict) {
			if from, err = c.stored(ref); err == nil {
				continue
			}
		}
		if err != nil {
			return Tag{}, fmt.Errorf("record tag %s: %w", key, err)
		}
		next.Version = uint64(v)
		c.mu.Lock()
		delete(c.dirty, key)
		c.mu.Unlock()
		return c.known.merge(key, newer(next)), nil
	}
}

// stored reads a tag past the memory, zero if there is none.
func (c *Catalog) stored(ref oci.Ref) (Tag, error) {
	it, err := c.tags.Get(tagKey(ref))
	if errors.Is(err, state.ErrNotFound) {
		return Tag{}, nil
	}
	if err != nil {
		return Tag{}, err
	}
	return decodeTag(ref, it)
}

// confirmed notes in memory that the digest is still the tag's. What somebody else knows by now is kept.
func (c *Catalog) confirmed(key string, t Tag, now time.Time) Tag {
	got := c.known.merge(key, func(have Tag, ok bool) Tag {
		if !ok {
			have = t
		}
		if have.Digest != t.Digest || have.Checked.After(now) {
			return have
		}
		have.Checked = now
		have.History = slices.Clone(have.History) // readers have the old one
		if len(have.History) > 0 {
			have.History[0].Last = now
		}
		return have
	})
	if got.Digest == t.Digest {
		c.mu.Lock()
		c.dirty[key] = got
		c.mu.Unlock()
	}
	return got
}

// history puts a digest in front.
func history(old []Seen, to oci.Digest, now time.Time) []Seen {
	h := make([]Seen, 0, len(old)+1)
	h = append(h, Seen{Digest: to, First: now, Last: now})
	for _, s := range old {
		if s.Digest == to { // it moved back: the digest is one entry, first seen when it was first seen
			h[0].First = s.First
			continue
		}
		h = append(h, s)
	}
	return h[:min(len(h), historyMost)]
}

// Forget removes what is known of a tag. A tag that is not known is no error.
func (c *Catalog) Forget(ref oci.Ref) error {
	key := tagKey(ref)
	c.mu.Lock()
	delete(c.dirty, key)
	c.mu.Unlock()
	c.known.drop(key)
	if err := c.tags.Write([]state.Item{{Key: key}}); err != nil {
		return fmt.Errorf("forget tag %s: %w", key, err)
	}
	return nil
}

// Learn makes a manifest, and what it refers to, members of repo. What is known already costs no write.
func (c *Catalog) Learn(repo oci.Repo, m *oci.Manifest) error {
	list := []oci.Descriptor{{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Bytes))}}
	for _, child := range m.Children {
		list = append(list, child.Descriptor)
	}
	return c.learn(repo, list)
}

// LearnBlob makes a blob a member of repo.
func (c *Catalog) LearnBlob(repo oci.Repo, d oci.Descriptor) error {
	return c.learn(repo, []oci.Descriptor{d})
}

// member is a descriptor as it is stored: what identifies content, and no annotations.
type member struct {
	MediaType string `json:"type,omitempty"`
	Size      int64  `json:"size"`
}

func (c *Catalog) learn(repo oci.Repo, list []oci.Descriptor) error {
	var items []state.Item
	var fresh []oci.Descriptor
	for _, d := range list {
		have, ok, err := c.Member(repo, d.Digest)
		if err != nil {
			return err
		}
		if ok && have.Size == d.Size && (have.MediaType == d.MediaType || d.MediaType == "") {
			continue
		}
		b, err := json.Marshal(member{MediaType: d.MediaType, Size: d.Size})
		if err != nil {
			return fmt.Errorf("record %s of %s: %w", d.Digest, repo, err)
		}
		items = append(items, state.Item{Key: memberKey(repo, d.Digest), Value: b})
		fresh = append(fresh, oci.Descriptor{MediaType: d.MediaType, Digest: d.Digest, Size: d.Size})
	}
	if len(items) == 0 {
		return nil
	}
	if err := c.refs.Write(items); err != nil {
		return fmt.Errorf("record what %s refers to: %w", repo, err)
	}
	for _, d := range fresh {
		c.members.put(memberKey(repo, d.Digest), d)
	}
	return nil
}

// Member reports whether content belongs to a repository, and as what.
func (c *Catalog) Member(repo oci.Repo, d oci.Digest) (oci.Descriptor, bool, error) {
	key := memberKey(repo, d)
	if desc, ok := c.members.get(key); ok {
		return desc, true, nil
	}
	it, err := c.refs.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return oci.Descriptor{}, false, nil
	}
	if err != nil {
		return oci.Descriptor{}, false, fmt.Errorf("look up %s: %w", key, err)
	}
	var m member
	if err := json.Unmarshal(it.Value, &m); err != nil {
		return oci.Descriptor{}, false, fmt.Errorf("read what is known of %s: %w", key, err)
	}
	desc := oci.Descriptor{MediaType: m.MediaType, Digest: d, Size: m.Size}
	c.members.put(key, desc)
	return desc, true, nil
}

// Run writes the times of checks in batches until the context ends, and once more then.
func (c *Catalog) Run(ctx context.Context) error {
	t := time.NewTicker(flushEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			c.flush(context.WithoutCancel(ctx))
			return nil
		case <-t.C:
			c.flush(ctx)
		}
	}
}

// flush writes tags that were confirmed. Each is swapped, so that a move is never undone by an older confirmation.
func (c *Catalog) flush(ctx context.Context) {
	c.mu.Lock()
	batch := c.dirty
	c.dirty = make(map[string]Tag)
	c.mu.Unlock()
	var wg sync.WaitGroup // side by side, so that they share transactions
	limit := make(chan struct{}, 256)
	for key, t := range batch {
		limit <- struct{}{}
		wg.Go(func() {
			defer func() { <-limit }()
			b, err := json.Marshal(record{Digest: t.Digest, Checked: t.Checked, History: t.History})
			var v state.Version
			if err == nil {
				v, err = c.tags.Swap(key, state.Version(t.Version), b)
			}
			switch {
			case errors.Is(err, state.ErrConflict): // moved meanwhile; that knows better
			case err != nil:
				c.log.WarnContext(ctx, "the time of a tag's check was not written; after a restart it is checked again",
					"ref", key, "err", err)
			default:
				c.known.merge(key, func(have Tag, ok bool) Tag {
					if !ok {
						have = t
					}
					if have.Version == t.Version {
						have.Version = uint64(v)
					}
					return have
				})
			}
		})
	}
	wg.Wait()
}
