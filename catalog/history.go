package catalog

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/oci"
)

const (
	// historyMost is how many periods of a tag are remembered.
	historyMost = 100
	// historyWhole is how many of these, the newest, are never thinned out.
	historyWhole = 50
)

// Due reports whether the tag was said to have moved since its digest was last confirmed: the next pull asks the upstream,
// whatever the tag's age is. The copy stays as good a fallback as before.
func (t Tag) Due() bool { return t.Checked.Before(t.Expired) }

// firmAfter is how far apart two checks must be that vouch for a digest whose manifest was never fetched.
const firmAfter = time.Minute

// IsReported reports whether the present digest was only reported.
func (t Tag) IsReported() bool { return len(t.History) > 0 && t.History[0].Reported }

// First returns the first digest that an immutable tag can be held to: one whose manifest was fetched, or that two checks apart have
// found. A single answer to a HEAD may be wrong. False: there is none yet.
func (t Tag) First() (oci.Digest, bool) {
	history := t.history()
	at, ok := first(history)
	return history[at].Digest, ok
}

// first is the index of the period of First; else 0.
func first(history []Seen) (at int, ok bool) {
	for i, s := range slices.Backward(history) {
		if !s.Reported || s.Last.Sub(s.First) >= firmAfter {
			return i, true
		}
	}
	return 0, false
}

// At returns what the tag meant at a given time: the last period that had begun by then. Between the Last of that period and
// the First of the next one the upstream was not asked, so the tag may have moved at any time in between. False: nothing
// is known of the tag at that time.
func (t Tag) At(when time.Time) (Seen, bool) {
	for _, s := range t.History {
		if !s.First.After(when) {
			return s, true
		}
	}
	return Seen{}, false
}

// Gap returns the time around when in which the upstream was not asked: from the last sight of the period of At to the first of the
// next one. False: when is not between two periods.
func (t Tag) Gap(when time.Time) (from, to time.Time, ok bool) {
	for i := 1; i < len(t.History); i++ {
		if from, to = t.History[i].Last, t.History[i-1].First; when.After(from) && when.Before(to) && !t.History[i].First.After(when) {
			return from, to, true
		}
	}
	return time.Time{}, time.Time{}, false
}

// begin returns a history with a new period in front. A digest that the tag has meant before keeps its description. reported says
// that its manifest is not here.
func begin(old []Seen, to oci.Digest, at time.Time, by Source, reported bool) []Seen {
	s := Seen{Digest: to, First: at, Last: at, Source: by, Reported: reported}
	if i := slices.IndexFunc(old, func(s Seen) bool { return s.Digest == to }); i >= 0 {
		s.Reversion, s.Reported = true, reported && old[i].Reported
		s.Size, s.Platforms = old[i].Size, old[i].Platforms
	}
	h := make([]Seen, 0, len(old)+1)
	h = append(append(h, s), old...)
	for len(h) > historyMost {
		h = thin(h, at)
	}
	return h
}

// thin removes the period that is missed least: of those behind the newest, the one whose neighbours are closest together in
// relation to its age. So the periods become rarer the older they are. The first one that was ever seen stays.
func thin(h []Seen, now time.Time) []Seen {
	least, at := 0.0, -1
	for i := historyWhole; i < len(h)-1; i++ {
		gap := h[i-1].First.Sub(h[i+1].First)
		age := max(now.Sub(h[i].First), 1)
		if part := float64(gap) / float64(age); at < 0 || part < least {
			least, at = part, i
		}
	}
	return slices.Delete(h, at, at+1)
}

// describe returns a history in which all periods of a digest have a size and platforms, as its manifest says, and whether that
// is news.
func describe(old []Seen, d oci.Digest, size int64, platforms []string) (h []Seen, changed bool) {
	h = slices.Clone(old) // readers have the old one
	for i := range h {
		if s := &h[i]; s.Digest == d && (s.Reported || s.Size != size || !slices.Equal(s.Platforms, platforms)) {
			s.Reported, s.Size, s.Platforms, changed = false, size, platforms, true
		}
	}
	return h, changed
}

// storable is the part of a list of platforms that is kept: publishers choose their number and names.
func storable(list []string) []string {
	var kept []string
	for _, p := range list {
		if p != "" && len(p) <= platformMost && len(kept) < platformsMost {
			kept = append(kept, p)
		}
	}
	return kept
}
