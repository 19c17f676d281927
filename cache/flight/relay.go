package flight

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// All readers get the bytes of the first reader's source, unless that is slow and another reader has another source:
//
//	 prefix        fill, from a.example, 20 KB/s                     probe, from b.example
//	|██████|█>                                             |         |████|
//	0                                                              end-4 MiB   end
//
// Once a second the flight checks whether the fill is slow, and whether a reader has a source with another Key. That source
// is tried with a part from the end of the blob, or with half of the rest if that is less: the part that the fill would have
// reached last, so that no byte comes twice. If it is clearly faster (see faster), it fetches the rest. A source with the Key
// of the fill is never tried: it is asked once for all its readers, however slow it is.

// faster is how many times as fast another source has to be to become the fill.
const faster = 1.5

const (
	slowRate   = 16 << 20 // bytes a second: a faster fill is left alone
	slowLooks  = 2        // looks at a fill before it is judged
	trialLooks = 4        // looks at a trial before it has failed
	trialMost  = 3        // trials of one Key: a source that is fast only while it is watched gets no fourth
	pauseMost  = 32       // looks without a trial after a lost one: the pause doubles with each, up to this
	slowRest   = 5        // looks that the rest must take for a trial to be worth a request
)

// relay is what is known of the sources of a flight. The flight's lock guards it.
type relay struct {
	f       *Flight
	runs    bool               // watch does
	fill    *fetch             // at the last look
	brought int64              // bytes of that fill at the last look
	at      time.Time          // of the last look
	looks   int                // at that fill
	trial   *trial             // that runs; nil: none
	trials  map[string]int     // by Key
	clients map[string]int     // trials by client
	rates   map[string]float64 // bytes a second, as last seen, by Key
	best    *Source            // that has won a trial; nil: each reader's own is used
	lost    int                // trials in a row
	pause   int                // looks until the next trial
}

// trial is a part that comes from another source than the fill's.
type trial struct {
	ft      *fetch
	began   time.Time
	ended   time.Time // zero: it runs
	failed  bool
	looks   int
	fill    *fetch // when it began
	brought int64  // bytes of the fill when it began
}

// joined starts watch if a reader has another source than the fill, whose own reader may have left. The lock is held.
func (r *relay) joined() {
	f := r.f
	if !guard.Relay || r.runs || f.life.ended || len(f.readers) == 0 {
		return
	}
	key := f.readers[0].src.Key
	if fill := f.filling(); fill != nil {
		key = fill.src.Key
	}
	if slices.ContainsFunc(f.readers, func(r *Reader) bool { return r.src.Key != key }) {
		r.runs = true
		f.g.wg.Go(r.watch)
	}
}

// watch looks for a better source until there is nothing more to gain.
func (r *relay) watch() {
	f := r.f
	f.mu.Lock()
	defer f.mu.Unlock()
	r.fill = nil
	every(f, f.g.sizes.watch, r.look)
	r.runs = false
}

// look judges the fill, and the trial. It returns false where no reader has another source any more. The lock is held.
func (r *relay) look(now time.Time) bool {
	f := r.f
	fill := f.filling()
	if f.plan.whole() {
		return false
	}
	if r.trial != nil {
		r.judge(fill, now)
		return true
	}
	if fill == nil || fill != r.fill {
		r.fill, r.looks, r.at, r.brought = fill, 0, now, 0
		if fill != nil {
			r.brought = fill.brought
		}
		return len(f.readers) > 0
	}
	rate := float64(fill.brought-r.brought) / max(now.Sub(r.at).Seconds(), 1e-9)
	r.brought, r.at = fill.brought, now
	if r.looks++; r.looks < slowLooks {
		return true
	}
	src, any := r.candidate(fill.src.Key, rate)
	if !any {
		return false
	}
	if r.pause > 0 {
		r.pause--
		return true
	}
	if src != nil && f.plan.size < 0 && !fill.open { // no answer, and no part for a trial: there is nothing to lose
		r.trials[src.Key]++
		r.takeOver(*src)
		return true
	}
	if src != nil && r.isSlow(rate) {
		r.rates[fill.src.Key] = rate
		r.try(*src, fill, now)
	}
	return true
}

// isSlow reports whether a fill that brings so many bytes a second is worth a trial of another source. The lock is held.
func (r *relay) isSlow(rate float64) bool {
	f := r.f
	if rate >= slowRate || f.plan.size < 0 {
		return false
	}
	return float64(f.plan.missing()) > rate*(slowRest*f.g.sizes.watch).Seconds()
}

// candidate is the source to try: of the Key, and then of the client, that was tried least. any is false where no reader
// has a source that may ever be tried. The lock is held.
func (r *relay) candidate(fill string, rate float64) (best *Source, any bool) {
	if r.trials == nil {
		r.trials, r.clients, r.rates = make(map[string]int), make(map[string]int), make(map[string]float64)
	}
	for _, x := range slices.Backward(r.f.readers) {
		key := x.src.Key
		if key == fill || r.trials[key] >= trialMost {
			continue
		}
		any = true
		if seen, ok := r.rates[key]; ok && seen < rate*faster {
			continue // it was no faster than the fill is now
		}
		if best == nil || r.trials[key] < r.trials[best.Key] ||
			r.trials[key] == r.trials[best.Key] && r.clients[x.src.Client] < r.clients[best.Client] {
			best = &x.src
		}
	}
	return best, any
}

// try has a part of the blob come from another source. The lock is held.
func (r *relay) try(src Source, fill *fetch, now time.Time) {
	c := r.f.plan.addProbe(fill.claim)
	if c == nil {
		return
	}
	r.trials[src.Key]++
	r.clients[src.Client]++
	r.trial = &trial{ft: r.f.start(c, src), began: now, fill: fill, brought: fill.brought}
}

// judge ends a trial that has been won or lost. The lock is held.
func (r *relay) judge(fill *fetch, now time.Time) {
	f, tr := r.f, r.trial
	tr.looks++
	over := !tr.ended.IsZero()
	if fill == nil || fill != tr.fill || tr.failed {
		if tr.failed {
			r.rates[tr.ft.src.Key] = 0
		}
		r.endTrial()
		return
	}
	until := now
	if over {
		until = tr.ended
	}
	probed := float64(tr.ft.brought) / max(until.Sub(tr.began).Seconds(), 1e-9)
	filled := float64(fill.brought-tr.brought) / max(now.Sub(tr.began).Seconds(), 1e-9)
	switch {
	case probed > filled*faster && (over || tr.looks >= slowLooks):
		r.rates[fill.src.Key], r.rates[tr.ft.src.Key] = filled, probed
		f.g.o.Log.DebugContext(f.ctx, "the rest of a blob is fetched from another source, which is faster", "digest", f.digest)
		r.takeOver(tr.ft.src)
	case over || tr.looks >= trialLooks:
		r.rates[tr.ft.src.Key] = probed
		r.endTrial()
	}
}

// takeOver has the rest of the blob come from a source that is faster. Fetches from other sources are stopped; their bytes
// stay. The lock is held.
func (r *relay) takeOver(src Source) {
	f := r.f
	r.best, r.trial, r.lost = &src, nil, 0
	f.plan.alone()
	for _, ft := range f.fetches {
		if ft.src.Key != src.Key {
			ft.stop()
		}
	}
	f.tell()
}

// endTrial stops the trial. Its bytes stay; those that it lacks are the fill's again. The lock is held.
func (r *relay) endTrial() {
	tr := r.trial
	r.trial = nil
	r.lost++
	r.pause = min(1<<min(r.lost, 10), pauseMost)
	if tr.ended.IsZero() {
		tr.ft.stop()
	}
}

// ended notes that a fetch has ended, if it is that of the trial. The lock is held.
func (r *relay) ended(ft *fetch, failed bool) {
	if tr := r.trial; tr != nil && tr.ft == ft && tr.ended.IsZero() {
		tr.ended, tr.failed = time.Now(), failed
	}
}

// sourceFailed stops the use of a source that has taken over. The lock is held.
func (r *relay) sourceFailed(key string) {
	if r.best != nil && r.best.Key == key {
		r.best = nil
	}
}

// sourceFor is the source that a reader's bytes are fetched from: its own, or the one that has turned out to be faster. The
// lock is held.
func (r *relay) sourceFor(reader *Reader) Source {
	if r.best != nil {
		return *r.best
	}
	return reader.src
}
