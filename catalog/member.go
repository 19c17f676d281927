package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"unique"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// member is a descriptor as it is stored: what identifies content, and no annotations. As with record, fields are only
// ever added.
type member struct {
	MediaType string `json:"type,omitempty"`
	Size      int64  `json:"size"`          // -1: nobody said
	Own       bool   `json:"own,omitempty"` // by the content itself, a manifest; what others say of it counts no more
	// Heard is set where the size is an upstream's word alone, and stands in no manifest.
	Heard bool `json:"heard,omitempty"`
}

func memberKey(repo oci.Repo, d oci.Digest) string { return repo.String() + "@" + string(d) }

func (m member) descriptor(d oci.Digest) oci.Descriptor {
	return oci.Descriptor{MediaType: m.MediaType, Digest: d, Size: m.Size}
}

// with is what is known of content that m was known of, after somebody said n of it.
func (m member) with(n member) member {
	switch {
	case n.Own:
		return n
	case m.Own:
		return m
	}
	switch {
	case n.Heard && (m.Heard || m.Size <= 0), n.Size >= 0 && !n.Heard:
		m.Size, m.Heard = n.Size, n.Heard && n.Size >= 0
	}
	if n.MediaType != "" {
		m.MediaType = n.MediaType
	}
	return m
}

// Learn makes a manifest, and what it refers to, members of repo, in one write. What is known already costs none. The
// manifest's own media type and size win over what an index says of it; a size of -1 never replaces one that is known.
func (c *Catalog) Learn(repo oci.Repo, m *oci.Manifest) error {
	list := make([]oci.Descriptor, 0, len(m.Children)+1)
	list = append(list, oci.Descriptor{MediaType: m.MediaType, Digest: m.Digest, Size: int64(len(m.Bytes))})
	for _, child := range m.Children {
		list = append(list, child.Descriptor)
	}
	return c.learn(repo, list, member{Own: true}, member{})
}

// LearnBlob makes a blob a member of repo, by an upstream's word: a size that stands in a manifest counts more. A size
// of -1 takes back what was known by that word alone.
func (c *Catalog) LearnBlob(repo oci.Repo, d oci.Descriptor) error {
	return c.learn(repo, []oci.Descriptor{d}, member{Heard: true}, member{})
}

// learn writes what is new in a list, whose first element, and the others, are known in some way. Two that learn the same at the
// same time may both write it; nothing is removed meanwhile, so that does no harm.
func (c *Catalog) learn(repo oci.Repo, list []oci.Descriptor, first, others member) error {
	var items []state.Item
	fresh := make(map[string]member)
	for i, d := range list {
		key := memberKey(repo, d.Digest)
		c.removal.learns(key)
		have, ok := fresh[key] // an image may have a layer twice
		if !ok {
			var err error
			if have, ok, err = c.member(key); err != nil {
				return fmt.Errorf("look up %s: %w", key, err)
			}
		}
		if !ok {
			have.Size = -1
		}
		said := others
		if i == 0 {
			said = first
		}
		said.MediaType, said.Size = d.MediaType, d.Size
		next := have.with(said)
		if ok && next == have {
			continue
		}
		b, err := json.Marshal(next)
		if err != nil {
			return fmt.Errorf("record %s: %w", key, err)
		}
		items = append(items, state.Item{Key: key, Value: b})
		fresh[key] = next
	}
	if len(items) == 0 {
		return nil
	}
	point.Hit("catalog/learn")
	if err := c.refs.Write(items); err != nil {
		return fmt.Errorf("record what %s refers to: %w", repo, err)
	}
	point.Hit("catalog/learnt")
	for key, m := range fresh {
		c.members.put(key, interned(m))
	}
	return nil
}

// Member reports whether content belongs to a repository, and as what. The size is -1 where nobody said it.
func (c *Catalog) Member(repo oci.Repo, d oci.Digest) (oci.Descriptor, bool, error) {
	key := memberKey(repo, d)
	c.removal.uses(key)
	m, ok, err := c.member(key)
	switch {
	case err != nil:
		return oci.Descriptor{}, false, fmt.Errorf("look up %s: %w", key, err)
	case !ok:
		return oci.Descriptor{}, false, nil
	}
	return m.descriptor(d), true, nil
}

func (c *Catalog) member(key string) (member, bool, error) {
	if m, ok := c.members.get(key); ok {
		return m, true, nil
	}
	batch := c.removal.batches.Load()
	it, err := c.refs.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return member{}, false, nil
	}
	if err != nil {
		return member{}, false, err
	}
	m, ok := c.decode(it)
	if !ok {
		return member{}, false, nil
	}
	// A writer that came between the read and here has put what is newer.
	m = c.members.offer(key, interned(m))
	if c.removal.batches.Load() != batch { // perhaps it is no longer there
		c.members.drop(key)
	}
	return m, true, nil
}

// decode reads what was recorded. False: it can't be read.
func (c *Catalog) decode(it state.Item) (m member, ok bool) {
	if err := json.Unmarshal(it.Value, &m); err != nil {
		c.log.Warn("what was recorded of content can't be read; it is learnt again", "key", it.Key, "err", err)
		return member{}, false
	}
	return m, true
}

// interned keeps one string for each of the few media types there are.
func interned(m member) member {
	m.MediaType = unique.Make(m.MediaType).Value()
	return m
}
