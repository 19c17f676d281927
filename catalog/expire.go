package catalog

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/oci"
)

// Expire records that a tag was said to have moved at a time: it is due for a check, at its next pull. Without a tag that goes
// for all tags of the repository. A tag that is not known needs no record, since its registry is asked in any case. When the call
// returns nil, that is on disk.
func (l *ledger) Expire(ref oci.Ref, by Source, at time.Time) error {
	key := tagKey(ref)
	defer l.turns.wait(key)()
	e := expiry{at: passed(at, time.Now()), by: by}
	if ref.Tag == "" {
		return l.expireAll(key, e)
	}
	for {
		t, err := l.load(ref, key)
		if errors.Is(err, ErrUnknown) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("expire tag %s: %w", key, err)
		}
		due, next := t.Due(), t.expiredBy(e)
		switch {
		case !next.Due() || next.Expired.Equal(t.Expired):
			return nil // it was checked, or expired, since
		case due: // the table has that, with an earlier time
			l.remember(key, next)
			return nil
		}
		if next.Version, err = l.swap(key, next, t.Version); errors.Is(err, state.ErrConflict) {
			l.forget(key)
			continue
		}
		if err != nil {
			return fmt.Errorf("expire tag %s: %w", key, err)
		}
		l.clean(key)
		l.known.put(key, next)
		return nil
	}
}

// expireAll is Expire of a repository, whose key is that of a tag without a name. It is one record, however many tags there are.
func (l *ledger) expireAll(key string, e expiry) error {
	if known, err := l.knows(key); err != nil || !known {
		return err
	}
	have, err := l.storedExpiry(key)
	if err != nil || !e.at.After(have.at) {
		return err
	}
	if err := l.table.Write([]state.Item{{Key: key, Value: encodeExpiry(e)}}); err != nil {
		return fmt.Errorf("expire the tags of %s: %w", strings.TrimSuffix(key, ":"), err)
	}
	l.expiries.put(key, e)
	return nil
}

// knows reports whether there is a record of a tag whose key begins with a prefix, and is longer.
func (l *ledger) knows(prefix string) (bool, error) {
	for it, err := range l.table.Scan(prefix) {
		if err != nil || it.Key != prefix {
			return err == nil, err
		}
	}
	return len(l.unwritten(prefix)) > 0, nil
}

// allKey is the key of the record for all tags of a repository, out of the key of one of them.
func allKey(key, tag string) string { return key[:len(key)-len(tag)] }

// expiry finds the record for all tags of a repository. One that can't be read counts as none: the tags are checked when
// they are old.
func (l *ledger) expiry(key string) expiry {
	if e, ok := l.expiries.get(key); ok {
		return e
	}
	key = strings.Clone(key) // it is a part of a longer one
	defer l.turns.wait(key)()
	e, err := l.storedExpiry(key)
	if err != nil {
		return expiry{}
	}
	return l.expiries.offer(key, e)
}

func (l *ledger) storedExpiry(key string) (expiry, error) {
	it, err := l.table.Get(key)
	if errors.Is(err, state.ErrNotFound) {
		return expiry{}, nil
	}
	if err != nil {
		return expiry{}, fmt.Errorf("look up %s: %w", key, err)
	}
	e, err := decodeExpiry(it.Value)
	if err != nil {
		l.log.Warn("record of a repository is damaged; its registry is asked again", "name", key, "error", err)
		return expiry{}, nil
	}
	e.at = passed(e.at, time.Now())
	return e, nil
}

// expiredBy is the tag after it has expired, if that is news.
func (t Tag) expiredBy(e expiry) Tag {
	if t.Digest != "" && e.at.After(t.Expired) {
		t.Expired, t.ExpiredBy = e.at, e.by
	}
	return t
}
