package cache

import (
	"io"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// Content that is open can be evicted, too: its readers keep the file, and the disk its bytes, until they close it. The
// budget does not count those bytes any more, so they are bounded:
//
//	stored, open < openFor ── stays: a reader is likely to be at it
//	stored, open for longer ── goes when nothing else can, while all that is held is at most heldShare of the budget
//	held for heldFor, or beyond the share ── its files are closed, and its readers go on from their own sources
const (
	openFor   = time.Minute
	heldFor   = time.Minute
	heldShare = 8 // part of the budget: an eighth
)

// hold is one open file of an entry, or the open files of the spool that it came by.
type hold struct {
	e          *entry
	o          io.Closer // closing it ends the hold, sooner or later
	since      time.Time
	prev, next *hold // the entry's, the oldest first
}

// hold notes that an entry's file is open. The lock is held.
func (c *Cache) hold(e *entry, h *hold) {
	h.e, h.since, h.prev = e, time.Now(), e.newest
	if h.prev != nil {
		h.prev.next = h
	} else {
		e.oldest = h
	}
	e.newest = h
}

// letGo ends a hold, if it is one. The lock is held.
func (c *Cache) letGo(h *hold) {
	e := h.e
	if e == nil {
		return
	}
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		e.oldest = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		e.newest = h.prev
	}
	if e.oldest == nil && e.lingering {
		delete(c.held, e)
		c.heldBytes -= e.size
		c.noticeFreed()
	}
}

// lingers notes an entry that was taken out while its file is open. The lock is held.
func (c *Cache) lingers(e *entry) {
	if e.oldest == nil || e.lingering {
		return
	}
	e.lingering = true
	c.held[e] = time.Now()
	c.heldBytes += e.size
}

// openLong and closed say what may be evicted.
func closed(_ *Cache, e *entry, _ time.Time) bool { return e.oldest == nil }

func openLong(c *Cache, e *entry, now time.Time) bool {
	return e.oldest == nil || guard.Held && now.Sub(e.oldest.since) >= openFor && c.mayHold(e, now)
}

// mayHold reports whether an entry's bytes may stay on the disk uncounted, or those of others may not any more. The lock is
// held.
func (c *Cache) mayHold(e *entry, now time.Time) bool {
	if c.heldBytes == 0 || c.heldBytes+e.size <= c.o.Size/heldShare {
		return true
	}
	for _, since := range c.held {
		if now.Sub(since) >= heldFor {
			return true
		}
	}
	return false
}

// cutHeld closes the files of content that was evicted long ago, and of all where the disk is short of space.
func (c *Cache) cutHeld() {
	short := !c.belowFloor().none()
	now := time.Now()
	c.mu.Lock()
	var list []io.Closer
	for e, since := range c.held {
		if short || now.Sub(since) >= heldFor {
			for h := e.oldest; h != nil; h = h.next {
				list = append(list, h.o)
			}
		}
	}
	c.mu.Unlock()
	for _, o := range list {
		_ = o.Close()
	}
}
