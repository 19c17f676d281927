package warm

import (
	"sync/atomic"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// blob is a piece of content of the images of unfinished jobs, and of those that are kept. Manifests are blobs here, too.
type blob struct {
	part    pull.Part
	done    atomic.Int64 // bytes that are here
	here    bool
	wanters []*image // that are not over and lack it
	uses    int      // images that have it among their parts
	holds   int      // images that hold it
	fetch   *unit    // that brings it; nil: none does
}

func (b *blob) size() int64 { return max(b.part.Size, 0) }

// found records whether a blob is here. One that images wait for is left to its fetch, which tells them.
func (b *blob) found(here bool) {
	if b.fetch != nil || len(b.wanters) > 0 {
		return
	}
	if b.here && !here {
		b.done.Store(0)
	}
	b.here = here
}

// arrived are the bytes that are here.
func (b *blob) arrived() int64 {
	if b.here {
		return b.size()
	}
	return min(b.done.Load(), b.size())
}

// digests are those of the parts.
func digests(parts []*blob) []oci.Digest {
	list := make([]oci.Digest, len(parts))
	for i, b := range parts {
		list[i] = b.part.Digest
	}
	return list
}

// contents are the blobs of images, each once.
type contents map[oci.Digest]*blob

// attach makes parts those of an image that had none.
func (c contents) attach(m *image, parts []pull.Part) {
	m.parts = make([]*blob, 0, len(parts))
	fetched := make(map[*blob]bool)
	for _, p := range parts {
		b := c[p.Digest]
		if b == nil {
			b = &blob{part: p}
			c[p.Digest] = b
		}
		b.found(p.Here)
		b.uses++
		m.parts = append(m.parts, b)
		fetched[b] = p.Fetched
	}
	first := m.cached < 0
	if first {
		m.cached = 0
	}
	for _, b := range m.parts {
		before := first && b.here && !fetched[b]
		if before {
			m.cached += b.size()
		}
		if _, counted := m.job.content[b]; counted || m.job.content == nil {
			continue
		}
		m.job.content[b] = struct{}{}
		m.job.total += b.size()
		if before {
			m.job.cached += b.size()
		}
	}
}

// hold has an image hold its parts, until they are detached.
func (c contents) hold(m *image) {
	m.held = true
	for _, b := range m.parts {
		b.holds++
	}
}

// detach takes the parts from an image. Blobs that no image has are forgotten.
func (c contents) detach(m *image) {
	for _, b := range m.parts {
		if m.held {
			b.holds--
		}
		if b.uses--; b.uses == 0 && c[b.part.Digest] == b {
			delete(c, b.part.Digest)
		}
	}
	m.parts, m.todo, m.held, m.missing = nil, nil, false, 0
}

// drop takes the parts from an image of a job that is not over, which gets them again.
func (c contents) drop(m *image) {
	parts := m.parts
	c.detach(m)
	for _, b := range parts {
		if _, counted := m.job.content[b]; counted && b.uses == 0 {
			delete(m.job.content, b)
			m.job.total -= b.size()
		}
	}
}

// kept are the bytes that images hold: in all, and that are here.
func (c contents) kept() (total, here int64) {
	for _, b := range c {
		if b.holds > 0 {
			total += b.size()
			here += b.arrived()
		}
	}
	return total, here
}
