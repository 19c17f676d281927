package cache

import (
	"context"
	"fmt"
	"io"
	"iter"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/oci"
)

// Get returns small content whole, at most oci.MaxManifestSize, and verified; or ErrNotFound.
func (c *Cache) Get(ctx context.Context, d oci.Digest) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, context.Cause(ctx)
	}
	o := c.hit(d, -1)
	if o == nil {
		return nil, fmt.Errorf("get %s: %w", d, ErrNotFound)
	}
	defer o.Close()
	if o.Size() > oci.MaxManifestSize {
		return nil, fmt.Errorf("get %s: its %d bytes are too many for a manifest, of which at most %d are read", d,
			o.Size(), oci.MaxManifestSize)
	}
	b, err := verified(o, d)
	if err == nil {
		return b, nil
	}
	c.o.Log.WarnContext(ctx, "cached content is damaged; it is removed and fetched again", "digest", d, "error", err)
	if err := c.Remove(d); err != nil {
		c.health.fail(err)
	}
	return nil, fmt.Errorf("get %s: it was damaged: %w", d, ErrNotFound)
}

// Peek is Get without recording a use; damaged content is an error, and is not removed.
func (c *Cache) Peek(d oci.Digest) ([]byte, error) {
	o, err := c.o.Store.Open(d)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", d, err)
	}
	defer o.Close()
	b, err := verified(o, d)
	if err != nil {
		return nil, fmt.Errorf("look at %s: %w", d, err)
	}
	return b, nil
}

// verified reads all of an object. It fails where that is not the content of the digest.
func verified(o Object, d oci.Digest) ([]byte, error) {
	if o.Size() > oci.MaxManifestSize {
		return nil, fmt.Errorf("its %d bytes are too many for a manifest", o.Size())
	}
	b := make([]byte, o.Size())
	if _, err := io.ReadFull(o, b); err != nil {
		return nil, err
	}
	if got := d.Algorithm().FromBytes(b); got != d {
		return nil, fmt.Errorf("it has the digest %s", got)
	}
	return b, nil
}

// Put stores small content. It verifies the digest. ErrNoRoom and errors of the disk are returned: the caller has the
// content and serves it all the same.
func (c *Cache) Put(ctx context.Context, d oci.Digest, content []byte) (err error) {
	if err := ctx.Err(); err != nil {
		return context.Cause(ctx)
	}
	if err := d.Validate(); err != nil {
		return fmt.Errorf("put %q: %w", string(d), err)
	}
	if got := d.Algorithm().FromBytes(content); got != d {
		return fmt.Errorf("put %s: the content has digest %s", d, got)
	}
	if o := c.hit(d, int64(len(content))); o != nil {
		return o.Close()
	}
	if err := c.Room(ctx, int64(len(content))); err != nil {
		return fmt.Errorf("put %s: %w", d, err)
	}
	s, err := newReservedSpool(c, int64(len(content)))
	if err != nil {
		return fmt.Errorf("put %s: %w", d, err)
	}
	defer func() {
		if derr := s.Discard(); err == nil && derr != nil {
			c.o.Log.WarnContext(ctx, "spool can't be closed", "digest", d, "error", derr)
		}
	}()
	if _, err := s.WriteAt(content, 0); err != nil {
		return fmt.Errorf("put %s: %w", d, err)
	}
	point.Hit("cache/put")
	if err := s.Commit(d, int64(len(content))); err != nil {
		return fmt.Errorf("put %s: %w", d, err)
	}
	return nil
}

// Stat returns the size of stored content in bytes. It records no use, and once Run has loaded it reads no disk.
func (c *Cache) Stat(d oci.Digest) (size int64, ok bool) {
	c.mu.Lock()
	e, loaded := c.budget.entries[d], c.budget.loaded
	if e != nil {
		size = e.size
	}
	c.mu.Unlock()
	if e != nil || loaded {
		return size, e != nil
	}
	o, err := c.o.Store.Open(d)
	if err != nil {
		return 0, false
	}
	defer o.Close()
	return o.Size(), true
}

// Settled reports whether content that Stat doesn't find is not stored: what is stored is known, and the disk works.
func (c *Cache) Settled() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.budget.loaded && !c.health.broken.Load()
}

// Touch records a use of content that was served from elsewhere, from memory for one. Content that is not stored is left out.
func (c *Cache) Touch(d oci.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.budget.entries[d]; e != nil {
		c.touch(e)
	}
}

// Remove removes content, kept or not. Open objects stay readable; a download under way goes on.
func (c *Cache) Remove(d oci.Digest) error {
	l := c.stripes.of(d)
	l.Lock()
	defer l.Unlock()
	if err := c.o.Store.Remove(d); err != nil {
		return fmt.Errorf("remove from the cache: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(d)
	if !c.budget.loaded { // the load must not bring it back
		c.dirty[d] = struct{}{}
	}
	return nil
}

// Entries yields stored content and when it was last used, in no order, as of now.
func (c *Cache) Entries() iter.Seq[Access] {
	return func(yield func(Access) bool) {
		c.mu.Lock()
		list := make([]Access, 0, len(c.budget.entries))
		for _, e := range c.budget.entries {
			list = append(list, e.access())
		}
		c.mu.Unlock()
		for _, a := range list {
			if !yield(a) {
				return
			}
		}
	}
}
