package catalog

import (
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/point"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// ErrUnknown says that there is no record of a tag. It wraps state.ErrNotFound.
var ErrUnknown = fmt.Errorf("tag not known: %w", state.ErrNotFound)

// ledger has the records of tags.
type ledger struct {
	table state.Table
	log   *slog.Logger

	known *memory[Tag]
	// expiries has entries for repositories that have not expired, too.
	expiries *memory[expiry]
	turns    *turns // of tags, and of repositories; before mu

	mu    sync.Mutex     // guards what follows
	dirty map[string]Tag // tags that were confirmed or described, and not written since
	cost  int            // of these
	most  int            // that it may be
}

func newLedger(table state.Table, o Options) *ledger {
	return &ledger{
		table: table, log: o.Log, known: newMemory(o.Remembered/5, tagCost), expiries: newMemory[expiry](o.Remembered/5, nil),
		turns: newTurns(), dirty: make(map[string]Tag), most: max(o.Remembered/2, 4096),
	}
}

func tagKey(ref oci.Ref) string { return ref.Host + "/" + ref.Name + ":" + ref.Tag } // one allocation: it is made for each pull

// tagRef is the tag that a key names. False: the key names none.
func tagRef(key string) (oci.Ref, bool) {
	at := strings.LastIndexByte(key, ':')
	host, name, ok := strings.Cut(key[:max(at, 0)], "/")
	if !ok || host == "" || at+1 == len(key) {
		return oci.Ref{}, false
	}
	return oci.Ref{Repo: oci.Repo{Host: host, Name: name}, Tag: key[at+1:]}, true
}

// tagCost is what a tag takes in memory: one for up to four periods, some 1,100 bytes.
func tagCost(t Tag) int { return (len(t.History) + 3) / 4 }

// Tag returns the record of ref's tag, or ErrUnknown.
func (l *ledger) Tag(ref oci.Ref) (Tag, error) {
	key := tagKey(ref)
	t, ok := l.known.get(key)
	if !ok {
		var err error
		if t, err = l.read(ref, key); err != nil {
			return Tag{}, err
		}
	}
	return t.expiredBy(l.expiry(allKey(key, ref.Tag))), nil
}

// read is load, in the key's turn.
func (l *ledger) read(ref oci.Ref, key string) (Tag, error) {
	defer l.turns.wait(key)()
	t, err := l.load(ref, key)
	if err != nil && !errors.Is(err, ErrUnknown) {
		return Tag{}, fmt.Errorf("look up tag %s: %w", key, err)
	}
	return t, err
}

// load finds a tag in memory or in the table. In place of an unknown one it returns a Tag without a digest, with the
// version to swap. The caller has the key's turn.
func (l *ledger) load(ref oci.Ref, key string) (Tag, error) {
	if t, ok := l.known.get(key); ok {
		return t, nil
	}
	l.mu.Lock()
	t, ok := l.dirty[key] // memory is bounded
	l.mu.Unlock()
	if ok {
		l.known.put(key, t)
		return t, nil
	}
	it, err := l.table.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return Tag{}, ErrUnknown
	}
	if err != nil {
		return Tag{}, err
	}
	if t, err = decodeTag(it.Value); err != nil {
		l.log.Warn("record of a tag is damaged; its registry is asked again", "name", key, "error", err)
		return Tag{Version: uint64(it.Version)}, ErrUnknown
	}
	t.Ref, t.Version = oci.Ref{Repo: ref.Repo, Tag: ref.Tag}, uint64(it.Version)
	// The clock was set back since: no report of the upstream would be newer than that until it has caught up.
	// And no digest would be old enough for MinAge.
	now := time.Now()
	t.Checked, t.Expired = passed(t.Checked, now), passed(t.Expired, now)
	for i, s := range t.History {
		t.History[i].First, t.History[i].Last = passed(s.First, now), passed(s.Last, now)
	}
	l.known.put(key, t)
	return t, nil
}

// Moved records that at the given time ref's tag meant the digest to, and returns the record. The time may be long ago: the
// record is then as old as that. from is the record that the caller knew before it asked the upstream; zero: none. A digest
// that is the tag's already costs no write. When another caller has recorded a move since from, that move stays if this
// caller has found nothing new, or an older state. Otherwise this caller's digest replaces it. by says how the digest was
// learnt, if it is news.
//
// The digest's manifest is in the cache, or was; see Reported. A tag that had expired is due until a digest is recorded with a time that is not
// before that, so an answer to a request from before Expire must have the time of that request.
func (l *ledger) Moved(ref oci.Ref, from Tag, to oci.Digest, at time.Time, by Source) (Tag, error) {
	key := tagKey(ref)
	all := l.expiry(allKey(key, ref.Tag)) // has a turn of its own
	defer l.turns.wait(key)()
	t, err := l.move(ref, key, from, to, at, by)
	return t.expiredBy(all), err
}

// Reported is Moved for a digest that the upstream has only named, as in the answer to a HEAD. It is written with the next batch,
// so that no client waits for it, and only as many as fit into one.
func (l *ledger) Reported(ref oci.Ref, to oci.Digest, at time.Time, by Source) error {
	key := tagKey(ref)
	defer l.turns.wait(key)()
	now := time.Now()
	have, err := l.load(ref, key)
	switch {
	case err != nil && !errors.Is(err, ErrUnknown):
		return fmt.Errorf("record tag %s: %w", key, err)
	case err == nil && have.Digest == to:
		l.confirm(key, have, at, now)
	case err != nil || !newer(have, at, now):
		l.remember(key, have.movedTo(ref, to, at, by, true))
	}
	return nil
}

// movedTo is the record of a tag after a move.
func (t Tag) movedTo(ref oci.Ref, to oci.Digest, at time.Time, by Source, reported bool) Tag {
	return Tag{
		Ref: oci.Ref{Repo: ref.Repo, Tag: ref.Tag}, Digest: to, Checked: at, History: begin(t.History, to, at, by, reported),
		Expired: passed(t.Expired, time.Now()), ExpiredBy: t.ExpiredBy, Version: t.Version,
	}
}

// move is Moved, in the key's turn.
func (l *ledger) move(ref oci.Ref, key string, from Tag, to oci.Digest, at time.Time, by Source) (Tag, error) {
	now := time.Now()
	for {
		have, err := l.load(ref, key)
		if err != nil && !errors.Is(err, ErrUnknown) {
			return Tag{}, fmt.Errorf("record tag %s: %w", key, err)
		}
		next := have
		switch {
		case err == nil && have.Digest == to && !have.IsReported():
			return l.confirm(key, have, at, now), nil
		case err == nil && have.Digest == to:
			next = have.confirmed(at, now) // and its manifest has come
			next.History[0].Reported = false
		case err == nil && from.Version != 0 && from.Digest == to:
			return have, nil
		case err == nil && newer(have, at, now):
			return have, nil
		default:
			next = have.movedTo(ref, to, at, by, false)
		}
		point.Hit("catalog/move")
		if next.Version, err = l.swap(key, next, have.Version); errors.Is(err, state.ErrConflict) {
			l.forget(key) // another writer has written to the table; its record counts
			continue
		}
		if err != nil {
			return Tag{}, fmt.Errorf("record tag %s: %w", key, err)
		}
		point.Hit("catalog/moved")
		l.forget(key)
		l.known.put(key, next)
		return next, nil
	}
}

func (l *ledger) swap(key string, t Tag, old uint64) (uint64, error) {
	v, err := l.table.Swap(key, state.Version(old), encodeTag(t))
	return uint64(v), err
}

// newer reports whether a record is of a later time than at. One from the future was written before the clock was set
// back, and does not count.
func newer(t Tag, at, now time.Time) bool { return t.Checked.After(at) && !t.Checked.After(now) }

// passed is a time, or now where the clock was set back since.
func passed(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}

// confirm notes in memory that a digest was the tag's at a time. The caller has the key's turn.
func (l *ledger) confirm(key string, t Tag, at, now time.Time) Tag {
	if newer(t, at, now) {
		return t
	}
	t = t.confirmed(at, now)
	l.remember(key, t)
	return t
}

// confirmed is the tag after its digest was confirmed at a time, if that is later than the last time.
func (t Tag) confirmed(at, now time.Time) Tag {
	t.History = slices.Clone(t.History) // readers have the old one
	if newer(t, at, now) {
		return t
	}
	t.Checked, t.Expired = at, passed(t.Expired, now)
	if len(t.History) > 0 {
		t.History[0].Last = at
	}
	return t
}

// remember puts a tag into memory, to be written with the next batch. The caller has the key's turn.
func (l *ledger) remember(key string, t Tag) {
	l.known.put(key, t)
	l.mu.Lock()
	defer l.mu.Unlock()
	had, ok := l.dirty[key]
	cost := tagCost(t)
	if ok {
		cost -= tagCost(had)
	}
	if ok || l.cost+cost <= l.most {
		l.dirty[key] = t
		l.cost += cost
	}
}

// Describe fills in the size and the platforms of an image, wherever a digest stands in the tag's history. They are written
// with the next batch.
func (l *ledger) Describe(ref oci.Ref, d oci.Digest, size int64, platforms []string) {
	key := tagKey(ref)
	defer l.turns.wait(key)()
	t, err := l.load(ref, key)
	if err != nil {
		return // there is nothing to describe
	}
	if h, changed := describe(t.History, d, size, storable(platforms)); changed {
		t.History = h
		l.remember(key, t)
	}
}

// Tags yields the tags whose canonical names ("docker.io/library/nginx:1.27") begin with a prefix, in order of these. A record
// that can't be read is left out. A tag that is recorded meanwhile may be missing.
func (l *ledger) Tags(prefix string) iter.Seq2[Tag, error] {
	return func(yield func(Tag, error) bool) {
		pass := func(key string, t Tag) bool { return yield(t.expiredBy(l.expiry(allKey(key, t.Ref.Tag))), nil) }
		waiting := l.unwritten(prefix)
		keys := slices.Sorted(maps.Keys(waiting))
		for it, err := range l.table.Scan(prefix) {
			if err != nil {
				yield(Tag{}, fmt.Errorf("list tags: %w", err))
				return
			}
			for len(keys) > 0 && keys[0] <= it.Key {
				if key := keys[0]; key < it.Key && !pass(key, waiting[key]) { // else it was written meanwhile
					return
				}
				keys = keys[1:]
			}
			ref, ok := tagRef(it.Key)
			if !ok {
				continue
			}
			t, err := decodeTag(it.Value)
			if err != nil {
				continue
			}
			t.Ref, t.Version = ref, uint64(it.Version)
			l.mu.Lock()
			if noted, ok := l.dirty[it.Key]; ok {
				t = noted
			}
			l.mu.Unlock()
			if !pass(it.Key, t) {
				return
			}
		}
		for _, key := range keys {
			if !pass(key, waiting[key]) {
				return
			}
		}
	}
}

// unwritten are the tags whose keys begin with a prefix and that are not in the table yet, by key.
func (l *ledger) unwritten(prefix string) map[string]Tag {
	l.mu.Lock()
	defer l.mu.Unlock()
	found := make(map[string]Tag)
	for key, t := range l.dirty {
		if t.Version == 0 && strings.HasPrefix(key, prefix) {
			found[key] = t
		}
	}
	return found
}

// forgetTag removes the record of a tag, if there is one.
func (l *ledger) forgetTag(ref oci.Ref) error {
	key := tagKey(ref)
	defer l.turns.wait(key)()
	if err := l.table.Write([]state.Item{{Key: key}}); err != nil {
		return fmt.Errorf("forget tag %s: %w", key, err)
	}
	l.forget(key)
	return nil
}

// forget drops a tag from memory. The caller has the key's turn.
func (l *ledger) forget(key string) {
	l.clean(key)
	l.known.drop(key)
}

// clean takes a tag out of the next batch.
func (l *ledger) clean(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if t, ok := l.dirty[key]; ok {
		delete(l.dirty, key)
		l.cost -= tagCost(t)
	}
}
