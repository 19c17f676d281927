package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// ErrUnknown says that there is no record of a tag. It wraps state.ErrNotFound.
var ErrUnknown = fmt.Errorf("tag not known: %w", state.ErrNotFound)

// historyMost is how many digests of a tag are remembered.
const historyMost = 20

// record is a Tag as it is stored: JSON, to which fields are only ever added. Another format would begin with another
// byte than '{', and be unknown to a version that does not read it.
type record struct {
	Digest  oci.Digest `json:"digest"`
	Checked time.Time  `json:"checked"`
	History []Seen     `json:"history"`
}

func tagKey(ref oci.Ref) string { return ref.Repo.String() + ":" + ref.Tag }

func encodeTag(t Tag) ([]byte, error) {
	return json.Marshal(record{Digest: t.Digest, Checked: t.Checked, History: t.History})
}

// Tag returns the record of ref's tag, or ErrUnknown.
func (c *Catalog) Tag(ref oci.Ref) (Tag, error) {
	key := tagKey(ref)
	if t, ok := c.known.get(key); ok {
		return t, nil
	}
	defer c.turn(key)()
	t, err := c.load(ref, key)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return Tag{}, fmt.Errorf("look up tag %s: %w", key, err)
	}
	return t, err
}

// load finds a tag in memory or in the table. In place of an unknown one it returns a Tag without a digest, with the
// version to swap. The caller has the key's turn.
func (c *Catalog) load(ref oci.Ref, key string) (Tag, error) {
	if t, ok := c.known.get(key); ok {
		return t, nil
	}
	c.mu.Lock()
	t, ok := c.dirty[key] // memory is bounded
	c.mu.Unlock()
	if ok {
		c.known.put(key, t)
		return t, nil
	}
	it, err := c.tags.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return Tag{}, ErrUnknown
	}
	if err != nil {
		return Tag{}, err
	}
	var r record
	if err := json.Unmarshal(it.Value, &r); err != nil || r.Digest.Validate() != nil {
		c.log.Warn("record of a tag is damaged; its registry is asked again", "name", key, "error", err)
		return Tag{Version: uint64(it.Version)}, ErrUnknown
	}
	t = Tag{
		Ref: oci.Ref{Repo: ref.Repo, Tag: ref.Tag}, Digest: r.Digest, Checked: r.Checked, History: r.History,
		Version: uint64(it.Version),
	}
	// The clock was set back since: no report of the upstream would be newer than that until it has caught up.
	if now := time.Now(); t.Checked.After(now) {
		t.Checked = now
	}
	c.known.put(key, t)
	return t, nil
}

// Moved records that at the given time ref's tag meant the digest to, and returns the record. The time may be long ago: the
// record is then as old as that. from is the record that the caller knew before it asked the upstream; zero: none. A digest
// that is the tag's already costs no write. When another caller has recorded a move since from, that move stays if this
// caller has found nothing new, or an older state. Otherwise this caller's digest replaces it.
func (c *Catalog) Moved(ref oci.Ref, from Tag, to oci.Digest, at time.Time) (Tag, error) {
	key := tagKey(ref)
	defer c.turn(key)()
	now := time.Now()
	for {
		have, err := c.load(ref, key)
		if err != nil && !errors.Is(err, ErrUnknown) {
			return Tag{}, fmt.Errorf("record tag %s: %w", key, err)
		}
		switch {
		case err == nil && have.Digest == to:
			return c.confirm(key, have, at, now), nil
		case err == nil && from.Version != 0 && from.Digest == to:
			return have, nil
		case err == nil && newer(have, at, now):
			return have, nil
		}
		next := Tag{
			Ref: oci.Ref{Repo: ref.Repo, Tag: ref.Tag}, Digest: to, Checked: at,
			History: history(have.History, to, at),
		}
		point.Hit("catalog/move")
		if next.Version, err = c.swap(key, next, have.Version); errors.Is(err, state.ErrConflict) {
			c.forget(key) // another writer has written to the table; its record counts
			continue
		}
		if err != nil {
			return Tag{}, fmt.Errorf("record tag %s: %w", key, err)
		}
		point.Hit("catalog/moved")
		c.forget(key)
		c.known.put(key, next)
		return next, nil
	}
}

func (c *Catalog) swap(key string, t Tag, old uint64) (uint64, error) {
	b, err := encodeTag(t)
	if err != nil {
		return 0, err
	}
	v, err := c.tags.Swap(key, state.Version(old), b)
	return uint64(v), err
}

// newer reports whether a record is of a later time than at. One from the future was written before the clock was set
// back, and does not count.
func newer(t Tag, at, now time.Time) bool { return t.Checked.After(at) && !t.Checked.After(now) }

// confirm notes in memory that a digest was the tag's at a time. The caller has the key's turn.
func (c *Catalog) confirm(key string, t Tag, at, now time.Time) Tag {
	if newer(t, at, now) {
		return t
	}
	t.Checked = at
	t.History = slices.Clone(t.History) // readers have the old one
	if len(t.History) > 0 {
		t.History[0].Last = at
	}
	c.known.put(key, t)
	c.mu.Lock()
	if _, ok := c.dirty[key]; ok || len(c.dirty) < c.most {
		c.dirty[key] = t
	}
	c.mu.Unlock()
	return t
}

// history puts a digest in front. A digest that the tag had before keeps its First.
func history(old []Seen, to oci.Digest, now time.Time) []Seen {
	h := make([]Seen, 0, len(old)+1)
	h = append(h, Seen{Digest: to, First: now, Last: now})
	for _, s := range old {
		if s.Digest == to {
			h[0].First = s.First
			continue
		}
		h = append(h, s)
	}
	return h[:min(len(h), historyMost)]
}

// Forget removes the record of a tag, if there is one.
func (c *Catalog) Forget(ref oci.Ref) error {
	key := tagKey(ref)
	defer c.turn(key)()
	if err := c.tags.Write([]state.Item{{Key: key}}); err != nil {
		return fmt.Errorf("forget tag %s: %w", key, err)
	}
	c.forget(key)
	return nil
}

// forget drops a tag from memory. The caller has the key's turn.
func (c *Catalog) forget(key string) {
	c.mu.Lock()
	delete(c.dirty, key)
	c.mu.Unlock()
	c.known.drop(key)
}
