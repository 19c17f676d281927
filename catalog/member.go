package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
	"unique"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// member is the record of content in a repository, as it is stored. As with record, fields are only ever added. Records of
// earlier versions have no Shown, and so count as named.
type member struct {
	MediaType string `json:"type,omitempty"`
	Size      int64  `json:"size"`          // -1: not known
	Own       bool   `json:"own,omitempty"` // type and size are the content's own, a manifest's; other descriptions don't count
	// Heard is set where the size comes from an upstream's answer, and not from a manifest.
	Heard bool `json:"heard,omitempty"`
	// Seen is the hour, since epoch, in which the registry has last shown it to a login; 0: it was not, or an earlier version has
	// recorded that. An hour, so that each showing is not a write.
	Seen uint32 `json:"seen,omitempty"`
	// Shown is set where the repository's registry has shown the content there.
	Shown shown `json:"shown,omitempty"`

	// unread says that only memory was looked at so far: the table may have more. It is never stored.
	unread bool
}

// shown is the kind of request to which a registry has shown content.
type shown string

const (
	shownByLogin shown = "login"
	shownToAll   shown = "all"
)

// content has the records of content in repositories, and of repositories.
type content struct {
	refs state.Table
	log  *slog.Logger

	members *memory[member]
	// repositories has entries for repositories that are not in the table, too.
	repositories *memory[Repository]
	turns        *turns // of repositories

	pruning sync.Mutex // one Prune at a time; before removal's
	removal removal
}

func newContent(refs state.Table, o Options) *content {
	return &content{
		refs: refs, log: o.Log, members: newMemory[member](o.Remembered, nil),
		repositories: newMemory[Repository](o.Remembered/5, nil), turns: newTurns(),
	}
}

// everywhere takes the place of a repository in the keys of content that some registry has shown without a login. It is
// not a name that a host can have.
const everywhere = "*"

// memberKey is repo.String(), an at sign and the digest, in one allocation: it is made for each request.
func memberKey(repo oci.Repo, d oci.Digest) string {
	return repo.Host + "/" + repo.Name + "@" + string(d)
}

func openKey(d oci.Digest) string { return everywhere + "@" + string(d) }

func (m member) standing() Standing {
	switch m.Shown {
	case shownToAll:
		return ShownToAll
	case shownByLogin:
		return ShownByLogin
	}
	return Named
}

// with is the record of content after n was learnt of it.
func (m member) with(n member) member {
	n.Seen = max(n.Seen, m.Seen)
	m.Seen = n.Seen
	if m.Shown == shownToAll || n.Shown == "" {
		n.Shown = m.Shown
	}
	m.Shown = n.Shown
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

// by is the stored form of a standing.
func by(s Standing) shown {
	switch s {
	case ShownToAll:
		return shownToAll
	case ShownByLogin:
		return shownByLogin
	}
	return ""
}

// seen is the hour for the record of a showing, as it is now.
func seen(s Standing) uint32 {
	if s != ShownByLogin {
		return 0
	}
	return uint32(max(0, time.Now().Unix()/3600))
}

// Learn records that the registry of repo has shown a manifest there, in one write of one or two items, however many
// children it has. Its children become members by name alone, in memory: see Name. A known manifest costs no write.
func (c *content) Learn(repo oci.Repo, m *oci.Manifest, s Standing) error {
	own := member{MediaType: m.MediaType, Size: int64(len(m.Bytes)), Own: true, Shown: by(s), Seen: seen(s)}
	if err := c.learn(repo, m.Digest, own); err != nil {
		return err
	}
	list := make([]oci.Descriptor, 0, len(m.Children))
	for _, child := range m.Children {
		list = append(list, child.Descriptor)
	}
	c.Name(repo, list)
	return nil
}

// Name makes the parts of a manifest of repo members of repo by name: that has their sizes and types, and does not prove that
// the repository has them. It is remembered in memory alone, since the manifest has it.
func (c *content) Name(repo oci.Repo, list []oci.Descriptor) {
	for _, d := range list {
		key := memberKey(repo, d.Digest)
		c.removal.learns(key)
		c.hear(key, interned(member{MediaType: d.MediaType, Size: d.Size}))
	}
}

// LearnBlob records that the registry of repo has shown a blob there. A size from a manifest counts more than one from the
// registry's answer; a size of -1 takes the latter back. The media type is not recorded: a registry's answer for a blob has
// one that says nothing of the content.
func (c *content) LearnBlob(repo oci.Repo, d oci.Descriptor, s Standing) error {
	return c.learn(repo, d.Digest, member{Size: d.Size, Heard: true, Shown: by(s), Seen: seen(s)})
}

// Show is LearnBlob in memory alone: the registry has begun to send the blob, and LearnBlob follows.
func (c *content) Show(repo oci.Repo, d oci.Digest, s Standing) {
	key := memberKey(repo, d)
	c.removal.learns(key)
	c.hear(key, member{Size: -1, Shown: by(s), Seen: seen(s)})
}

// hear adds to the record in memory.
func (c *content) hear(key string, said member) {
	c.members.update(key, func(have member, ok bool) member {
		if !ok {
			have = member{Size: -1, unread: true}
		}
		return have.with(said)
	})
}

// Open records that the bytes of content have come from a registry, whole and right, without a login.
func (c *content) Open(d oci.Digest) error {
	key := openKey(d)
	c.removal.learns(key)
	if _, ok, err := c.member(key); err != nil || ok {
		return err
	}
	m := member{Size: -1, Shown: shownToAll}
	if err := c.write(key, m); err != nil {
		return err
	}
	c.put(key, m)
	return nil
}

// IsOpen reports whether content has come from a registry without a login, so that it may be served through every
// repository that refers to it.
func (c *content) IsOpen(d oci.Digest) (bool, error) {
	key := openKey(d)
	c.removal.uses(key)
	_, ok, err := c.member(key)
	return ok, err
}

// Unlearn removes the records of content in repo: its registry no longer has it, or has sent something else.
func (c *content) Unlearn(repo oci.Repo, list ...oci.Digest) error {
	items := make([]state.Item, 0, len(list))
	for _, d := range list {
		items = append(items, state.Item{Key: memberKey(repo, d)})
	}
	err := c.refs.Write(items)
	for _, it := range items {
		c.members.drop(it.Key)
	}
	if err != nil {
		return fmt.Errorf("forget content of %s: %w", repo, err)
	}
	return nil
}

// Unshow takes back that the registry of repo has shown content: it has sent something else.
func (c *content) Unshow(repo oci.Repo, d oci.Digest) error {
	key := memberKey(repo, d)
	m, ok, err := c.member(key)
	if err != nil || !ok || m.Shown == "" {
		return err
	}
	m.Shown, m.Seen = "", 0
	c.members.put(key, m)
	return c.write(key, m)
}

// learn writes the news of content. Two callers that learn the same at the same time may both write it, which does no harm.
func (c *content) learn(repo oci.Repo, d oci.Digest, said member) error {
	key := memberKey(repo, d)
	c.removal.learns(key)
	have, ok, err := c.stored(key)
	if err != nil {
		return fmt.Errorf("look up %s: %w", key, err)
	}
	if !ok {
		have = member{Size: -1}
	}
	next := have.with(said)
	if named, ok := c.members.get(key); ok {
		next = next.beside(named)
	}
	if ok && next == have {
		c.put(key, next)
		return nil
	}
	if err := c.write(key, next); err != nil {
		return err
	}
	c.put(key, next)
	return nil
}

// put sets the record in memory to that on disk, and keeps the news that memory has got meanwhile.
func (c *content) put(key string, m member) {
	m = interned(m)
	c.members.update(key, func(have member, ok bool) member {
		if !ok {
			return m
		}
		return m.beside(have)
	})
}

// beside is m with the additions of another description of the same content: that it was shown, and a size and a type from a
// manifest.
func (m member) beside(other member) member {
	m.Seen = max(m.Seen, other.Seen)
	if m.Shown == "" || other.Shown == shownToAll {
		m.Shown = other.Shown
	}
	if m.Own || other.Own || other.Heard {
		return m
	}
	if other.Size > 0 {
		m.Size, m.Heard = other.Size, false
	}
	if other.MediaType != "" {
		m.MediaType = other.MediaType
	}
	return m
}

// write writes to the table alone.
func (c *content) write(key string, m member) error {
	b, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("record %s: %w", key, err)
	}
	point.Hit("catalog/learn")
	if err := c.refs.Write([]state.Item{{Key: key, Value: b}}); err != nil {
		return fmt.Errorf("record %s: %w", key, err)
	}
	point.Hit("catalog/learnt")
	return nil
}

// Member returns the record of content in a repository. The error says that the table can't be read.
func (c *content) Member(repo oci.Repo, d oci.Digest) (Member, error) {
	key := memberKey(repo, d)
	c.removal.uses(key)
	m, ok, err := c.member(key)
	switch {
	case err != nil:
		return Member{Descriptor: oci.Descriptor{Digest: d, Size: -1}}, fmt.Errorf("look up %s: %w", key, err)
	case !ok:
		return Member{Descriptor: oci.Descriptor{Digest: d, Size: -1}}, nil
	}
	r, err := c.repository(key[:len(key)-len(d)]) // which is its key, and takes no memory
	if err != nil {
		return Member{Descriptor: oci.Descriptor{Digest: d, Size: -1}}, fmt.Errorf("look up %s: %w", repo, err)
	}
	return Member{
		Descriptor: oci.Descriptor{MediaType: m.MediaType, Digest: d, Size: m.Size},
		Standing:   m.standing(), Manifest: m.Own, Repository: r, Seen: time.Unix(int64(m.Seen)*3600, 0),
	}, nil
}

// member finds a record in memory or in the table.
func (c *content) member(key string) (member, bool, error) {
	m, ok := c.members.get(key)
	if ok && !m.unread {
		return m, true, nil
	}
	batch := c.removal.batches.Load()
	have, stored, err := c.stored(key)
	if err != nil {
		return member{}, false, err
	}
	if ok { // known by name so far
		return c.members.update(key, func(m member, ok bool) member {
			switch {
			case stored && (!ok || m.unread):
				m = interned(have).beside(m)
			case !ok:
				m = member{Size: -1}
			}
			m.unread = false
			return m
		}), true, nil
	}
	if !stored {
		return member{}, false, nil
	}
	// A writer that came between the read and here has put a newer record.
	m = c.members.offer(key, interned(have))
	if c.removal.batches.Load() != batch { // perhaps it is no longer there
		c.members.drop(key)
	}
	return m, true, nil
}

// stored reads the table.
func (c *content) stored(key string) (member, bool, error) {
	it, err := c.refs.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return member{}, false, nil
	}
	if err != nil {
		return member{}, false, err
	}
	m, ok := c.decode(it)
	return m, ok, nil
}

// decode reads a record. False: it can't be read.
func (c *content) decode(it state.Item) (m member, ok bool) {
	if err := json.Unmarshal(it.Value, &m); err != nil {
		c.log.Warn("record of content is damaged; its registry is asked again", "name", it.Key, "error", err)
		return member{}, false
	}
	return m, true
}

// interned keeps one string for each of the few media types there are.
func interned(m member) member {
	m.MediaType = unique.Make(m.MediaType).Value()
	return m
}
