package cache

import (
	"time"

	"github.com/registrymirror/mirror/oci"
)

// entry is one piece of stored content.
type entry struct {
	digest   oci.Digest
	size     int64  // bytes
	used     uint32 // minutes since 1970
	verified bool   // the size is that of verified content, not only of the file
	going    bool   // picked as a victim, and on no list

	holds     []*hold // its open files, the oldest first
	lingering bool    // evicted while they were open

	prev, next *entry
	list       *list
}

func (e *entry) access() Access {
	return Access{Digest: e.digest, Size: e.size, Used: time.Unix(int64(e.used)*60, 0)}
}

// minute is the time of an entry.
func minute(t time.Time) uint32 { return uint32(max(0, t.Unix()/60)) }

// list holds entries, the latest used in front. It is a ring through root.
type list struct {
	root  entry
	bytes int64
}

func (l *list) init() { l.root.prev, l.root.next = &l.root, &l.root }

func (l *list) insert(e, after *entry) {
	e.prev, e.next = after, after.next
	e.prev.next, e.next.prev = e, e
	e.list = l
	l.bytes += e.size
}

func (l *list) pushFront(e *entry) { l.insert(e, &l.root) }
func (l *list) pushBack(e *entry)  { l.insert(e, l.root.prev) }

// back is the entry that was not used for the longest time, or nil.
func (l *list) back() *entry { return l.before(&l.root) }

// before is the next entry from the back, or nil.
func (l *list) before(e *entry) *entry {
	if e.prev == &l.root {
		return nil
	}
	return e.prev
}

// unlink takes an entry off its list, if it is on one.
func (e *entry) unlink() {
	if e.list == nil {
		return
	}
	e.list.bytes -= e.size
	e.prev.next, e.next.prev = e.next, e.prev
	e.prev, e.next, e.list = nil, nil, nil
}

// segments is a segmented LRU: content that is used once pushes out nothing that is used again and again.
type segments struct {
	probation, protected list
	most                 int64 // bytes of protected
}

func (s *segments) init(most int64) {
	s.probation.init()
	s.protected.init()
	s.most = most
}

// touch makes an entry the latest of its list; a new one, and a victim that is used, goes on probation. One on
// probation that was last used in an earlier minute is protected from now on: fifty nodes that pull at once, or one
// client's many ranges, are one use.
func (s *segments) touch(e *entry, now uint32) {
	to := e.list
	switch {
	case to == nil:
		to = &s.probation
		e.going = false
	case now > e.used:
		to = &s.protected
	}
	e.used = max(e.used, now)
	e.unlink()
	to.pushFront(e)
	for s.protected.bytes > s.most && s.protected.back() != e {
		old := s.protected.back()
		old.unlink()
		s.probation.pushFront(old)
	}
}

// victims yields entries from the one to go first.
func (s *segments) victims(yield func(*entry) bool) {
	for _, l := range []*list{&s.probation, &s.protected} {
		for e := l.back(); e != nil; {
			before := l.before(e) // yield may unlink e
			if !yield(e) {
				return
			}
			e = before
		}
	}
}
