package catalog

import (
	"hash/fnv"
	"slices"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// Verdict is whether the upstream is asked before a pull of a tag is answered.
type Verdict int

// The verdicts of Tag.Judge.
const (
	Ask         Verdict = iota // wait for the upstream; a copy, where there is one, is the fallback
	Serve                      // the copy, without asking
	ServeAndAsk                // the copy at once, and a check in the background
)

// Hold is why a tag is not simply served with the digest that its upstream said last.
type Hold int

// The holds, in the order in which they count: the first one that applies.
const (
	NotHeld         Hold = iota
	HeldByPin            // an operator has fixed the tag to a digest
	HeldByImmutable      // the tag has moved though it must not: its first digest is served
	HeldByMinAge         // the latest digest is younger than the policy's MinAge: an older one is served
	HeldUnknown          // no digest is known for MinAge: the oldest one is served, or none
)

// Choice is the digest that a tag is served with.
type Choice struct {
	Digest oci.Digest // empty: the tag is not served
	Hold   Hold
	Latest oci.Digest // what the upstream said last; empty: not known, or not asked for
	// Until is when the hold ends if nothing changes: for HeldByMinAge when a newer digest is served, for HeldUnknown when the
	// oldest one is old enough. Zero: it has no end.
	Until time.Time
	// AsOf is when the tag is known to have been served with the digest rightly: the age of an answer counts from then.
	AsOf time.Time
}

// immutableEvery is how often an immutable tag is checked, and immutableSpread the part of that by which tags differ, so that
// the tags of one roll-out are not all checked at the same moment for ever.
const (
	immutableEvery  = 24 * time.Hour
	immutableSpread = immutableEvery / 10
)

// Judge decides whether the upstream is asked before a pull of the tag is answered at a given time. It is pure. A Tag without a
// digest is always asked for.
func (t Tag) Judge(p Policy, now time.Time) Verdict {
	if t.Digest == "" {
		return Ask
	}
	age := now.Sub(t.Checked)
	// A clock that was set back must not make a copy fresh for longer than its policy says.
	known := age >= 0 && !t.Due() && (!t.lags() || age < lagEvery)
	immutable := p.Immutable
	if immutable {
		_, immutable = t.First()
	}
	switch {
	case immutable && known && age < immutableEvery-t.spread(immutableSpread):
		return Serve
	case immutable:
		return ServeAndAsk
	case known && age < p.MaxAge:
		return Serve
	case p.ServeStaleFirst && !t.Due() && t.Usable(p, now):
		return ServeAndAsk
	}
	return Ask
}

// A registry may report a push before its other servers know of it. For lagFor after a report, a check that has found the digest
// from before counts for lagEvery alone.
const (
	lagFor   = time.Minute
	lagEvery = 5 * time.Second
)

// lags reports whether the last check came soon after a report of a change, and found no change.
func (t Tag) lags() bool {
	return t.Checked.Before(t.Expired.Add(lagFor)) && !t.Expired.IsZero() && len(t.History) > 0 && t.History[0].First.Before(t.Expired)
}

// Usable reports whether the copy may be served when the upstream does not answer.
func (t Tag) Usable(p Policy, now time.Time) bool {
	return t.Digest != "" && (p.Immutable || now.Sub(t.Checked) <= p.StaleIfError)
}

// spread is a part of d that differs from tag to tag.
func (t Tag) spread(d time.Duration) time.Duration {
	h := fnv.New64a()
	_, _ = h.Write([]byte(tagKey(t.Ref)))
	return time.Duration(h.Sum64() % uint64(d))
}

// Reported returns the tag with a report of the upstream on it, which is newer than the record: at a time it meant the digest d,
// which was first seen as this tag's at another.
func (t Tag) Reported(d oci.Digest, first, at time.Time) Tag {
	if t.Digest == d {
		t.Checked = at
		return t
	}
	t.History = append([]Seen{{Digest: d, First: first, Last: at, Reported: true}}, t.History...)
	t.Digest, t.Checked = d, at
	return t
}

// Choose returns the digest that the tag is served with at a given time. It is pure.
//
//	immutable                                       the first digest that was seen: see First
//	no MinAge                                       the latest
//	MinAge                                          the newest that the tag has meant for MinAge without a break
//	MinAge, and it has meant none for so long       the one that is known for longest, or none (HoldUnknown)
//
// A digest that was replaced before it came of age never does: an image that its publisher has withdrawn is not served later. A tag
// that goes back to a digest which has come of age is not held.
func (t Tag) Choose(p Policy, now time.Time) Choice {
	c := Choice{Digest: t.Digest, Latest: t.Digest, AsOf: t.Checked}
	if t.Digest == "" || !p.Immutable && p.MinAge == 0 {
		return c
	}
	history := t.history()
	newest := 0
	if p.Immutable {
		newest, _ = first(history)
		if c.Digest = history[newest].Digest; c.Digest != t.Digest {
			c.Hold = HeldByImmutable
		}
	}
	if p.MinAge == 0 {
		return c
	}
	c.Until = history[newest].First.Add(p.MinAge) // one that was replaced meanwhile never comes of age
	for i := newest; i < len(history); i++ {
		if !p.Immutable && !ofAge(history, i, p.MinAge, now) || p.Immutable && now.Sub(history[i].First) < p.MinAge {
			continue
		}
		if c.Digest = history[i].Digest; c.Digest != t.Digest && c.Hold == NotHeld {
			c.Hold = HeldByMinAge
		} else {
			c.Until = time.Time{}
		}
		return c
	}
	c.Digest, c.Hold = history[len(history)-1].Digest, HeldUnknown
	if p.HoldUnknown {
		c.Digest = ""
	}
	return c
}

// Copies returns the digests that the tag may be served with when the upstream does not answer, the best one first. It is
// pure. A digest that was replaced is among them where the digest that is due to be served may never have been fetched: under
// MinAge, and where that digest was only reported.
func (t Tag) Copies(p Policy, now time.Time) []Choice {
	c := t.Choose(p, now)
	if c.Digest == "" {
		return nil
	}
	var list []Choice
	if t.Usable(p, now) {
		list = append(list, c)
	}
	if p.Immutable || c.Hold == HeldUnknown {
		return list
	}
	history := t.history()
	if p.MinAge == 0 {
		i := slices.IndexFunc(history, func(s Seen) bool { return !s.Reported })
		if i > 0 && now.Sub(history[i].Last) <= p.StaleIfError {
			list = append(list, Choice{Digest: history[i].Digest, Latest: t.Digest, AsOf: history[i].Last})
		}
		return list
	}
	served := 0
	for history[served].Digest != c.Digest {
		served++
	}
	next := served
	for i := served + 1; i < len(history); i++ {
		if !ofAge(history, i, p.MinAge, now) {
			continue
		}
		// It was served rightly until the one after it came of age.
		old := Choice{Digest: history[i].Digest, Hold: HeldByMinAge, Latest: t.Digest, AsOf: history[i].Last}
		if end := history[next].First.Add(p.MinAge); end.After(old.AsOf) {
			old.AsOf = end
		}
		next = i
		if old.Digest != c.Digest && now.Sub(old.AsOf) <= p.StaleIfError {
			list = append(list, old)
		}
	}
	return list
}

// history is the tag's, with the present digest at least.
func (t Tag) history() []Seen {
	if len(t.History) == 0 {
		return []Seen{{Digest: t.Digest, First: t.Checked, Last: t.Checked}}
	}
	return t.History
}

// ofAge reports whether the digest of a period has come of age: the tag meant it for minAge without a break, in this period or in
// an older one. One that was replaced before, as an image that its publisher has withdrawn, has not.
func ofAge(history []Seen, i int, minAge time.Duration, now time.Time) bool {
	for k := i; k < len(history); k++ {
		end := now
		if k > 0 {
			end = history[k-1].First
		}
		if history[k].Digest == history[i].Digest && end.Sub(history[k].First) >= minAge {
			return true
		}
	}
	return false
}
