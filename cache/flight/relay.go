package flight

import (
	"slices"
	"time"

	"github.com/registrymirror/mirror/internal/guard"
)

// All readers get the bytes of the first reader's source, unless it is slow and another reader has another source:
//
//	 prefix        fill, from a.example, 20 KB/s                     trial, from b.example
//	|██████|█>                                             |         |████|
//	0                                                              end-4 MiB   end
//
// Once a second the flight looks whether the fill is slow, and whether a reader has a source with another Key. That source is
// tried with a part from the end of the blob, or with half of what is left if that is less: the part that the fill would have
// reached last, so that no byte comes twice. If it is clearly faster (see sharp), it fetches the rest. A source with the Key of
// the fill is never tried: it is asked once for all its readers, however slow it is.

// sharp is how much faster another source has to be to become the fill.
const sharp = 1.5

const (
	slowRate   = 16 << 20 // bytes a second: a fill that is as fast as that is left alone
	slowLooks  = 2        // looks at a fill before it is judged
	trialLooks = 4        // looks at a trial before it has failed
	trialMost  = 3        // trials of one key: one that was fast for as long as it was watched gets no fourth
	restMost   = 32       // looks without a trial, after many that were lost: twice as many after each
	slowRest   = 5        // looks that the rest takes at least for a trial to be worth a request
)

// relay is what is known of the sources of a flight. The flight's lock guards it.
type relay struct {
	runs    bool
	fill    *fetch // seen by the last look,
	came    int64  // and its bytes by then
	at      time.Time
	looks   int
	trial   *trial
	trials  map[string]int     // by key
	clients map[string]int     // trials by client
	rates   map[string]float64 // bytes a second, as last seen, by key
	best    *Source            // that has won; nil: each reader's own is used
	lost    int                // trials in a row
	rest    int                // looks until the next one
}

// trial is a part that comes from another source than the fill's.
type trial struct {
	ft     *fetch
	began  time.Time
	ended  time.Time // zero: it runs
	failed bool
	looks  int
	fill   *fetch
	came   int64 // of the fill, when it began
}

// relayed has watch run if a reader has another source than the fill, whose own reader may have left. The lock is held.
func (f *Flight) relayed() {
	if !guard.Relay || f.relay.runs || f.ended || len(f.readers) == 0 {
		return
	}
	key := f.readers[0].src.Key
	if fill := f.filling(); fill != nil {
		key = fill.src.Key
	}
	if slices.ContainsFunc(f.readers, func(r *Reader) bool { return r.src.Key != key }) {
		f.relay.runs = true
		f.g.wg.Go(f.watch)
	}
}

// watch looks for a better source until there is nothing to be gained.
func (f *Flight) watch() {
	t := time.NewTicker(f.g.sizes.watch)
	defer t.Stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	defer func() { f.relay.runs = false }()
	f.relay.fill = nil
	for {
		f.mu.Unlock()
		select {
		case <-t.C:
		case <-f.ctx.Done():
		}
		f.mu.Lock()
		if f.ctx.Err() != nil || f.ended || !f.look(time.Now()) {
			return
		}
	}
}

// look judges the fill, and the trial. False: no reader has another source any more. The lock is held.
func (f *Flight) look(now time.Time) bool {
	r := &f.relay
	fill := f.filling()
	if f.size >= 0 && f.prefix() >= f.size {
		return false
	}
	if r.trial != nil {
		f.judge(fill, now)
		return true
	}
	if fill == nil || fill != r.fill {
		r.fill, r.looks, r.at, r.came = fill, 0, now, 0
		if fill != nil {
			r.came = fill.came
		}
		return len(f.readers) > 0
	}
	rate := float64(fill.came-r.came) / max(now.Sub(r.at).Seconds(), 1e-9)
	r.came, r.at = fill.came, now
	if r.looks++; r.looks < slowLooks {
		return true
	}
	src, any := f.candidate(fill.src.Key, rate)
	if !any {
		return false
	}
	if r.rest > 0 {
		r.rest--
		return true
	}
	if src != nil && f.size < 0 && !fill.open { // no answer, and no part to try another source with: there is nothing to lose
		r.trials[src.Key]++
		f.takeOver(*src)
		return true
	}
	if src != nil && f.isSlow(rate) {
		r.rates[fill.src.Key] = rate
		f.try(*src, fill, now)
	}
	return true
}

// isSlow reports whether a fill that brings so many bytes a second is worth a trial of another source. The lock is held.
func (f *Flight) isSlow(rate float64) bool {
	if rate >= slowRate || f.size < 0 {
		return false
	}
	rest := float64(f.size - f.have.bytes())
	return rest > rate*(slowRest*f.g.sizes.watch).Seconds()
}

// candidate is the source to try: of the key, and then of the client, that was tried least. any is false where no reader
// has one that may ever be tried. The lock is held.
func (f *Flight) candidate(fill string, rate float64) (best *Source, any bool) {
	r := &f.relay
	if r.trials == nil {
		r.trials, r.clients, r.rates = make(map[string]int), make(map[string]int), make(map[string]float64)
	}
	for _, x := range slices.Backward(f.readers) {
		key := x.src.Key
		if key == fill || r.trials[key] >= trialMost {
			continue
		}
		any = true
		if seen, ok := r.rates[key]; ok && seen < rate*sharp {
			continue // it was no better than this
		}
		if best == nil || r.trials[key] < r.trials[best.Key] ||
			r.trials[key] == r.trials[best.Key] && r.clients[x.src.Client] < r.clients[best.Client] {
			best = &x.src
		}
	}
	return best, any
}

// try has a part of the blob come from another source. The lock is held.
func (f *Flight) try(src Source, fill *fetch, now time.Time) {
	r := &f.relay
	from, to, ok := int64(0), int64(0), false
	if f.lanes.want > 0 && !f.lanes.settled || f.lanes.want > 1 {
		from, to, ok = f.nextPart()
	}
	if ok {
		to = min(to, from+f.g.sizes.extent)
	} else if from, to, ok = f.tail(fill); !ok {
		return
	}
	r.trials[src.Key]++
	r.clients[src.Client]++
	ft := &fetch{src: src, trial: true, pos: from, to: to}
	r.trial = &trial{ft: ft, began: now, fill: fill, came: fill.came}
	f.start(ft)
}

// tail cuts what the fill would reach last off it: its last extent, or half of what it has left. The lock is held.
func (f *Flight) tail(fill *fetch) (from, to int64, ok bool) {
	if fill.to < 0 {
		return 0, 0, false
	}
	at := max(fill.pos, fill.writing)
	from, to = f.g.sizes.down(fill.to-1), fill.to
	if from < fill.claimed() {
		from = at + (to-at+1)/2
	}
	if from < at || from >= to {
		return 0, 0, false
	}
	fill.to = from
	return from, to, true
}

// judge ends a trial that has been won or lost. The lock is held.
func (f *Flight) judge(fill *fetch, now time.Time) {
	r, tr := &f.relay, f.relay.trial
	tr.looks++
	over := !tr.ended.IsZero()
	if fill == nil || fill != tr.fill || tr.failed {
		if tr.failed {
			r.rates[tr.ft.src.Key] = 0
		}
		f.endTrial()
		return
	}
	until := now
	if over {
		until = tr.ended
	}
	its := float64(tr.ft.came) / max(until.Sub(tr.began).Seconds(), 1e-9)
	fills := float64(fill.came-tr.came) / max(now.Sub(tr.began).Seconds(), 1e-9)
	switch {
	case its > fills*sharp && (over || tr.looks >= slowLooks):
		r.rates[fill.src.Key], r.rates[tr.ft.src.Key] = fills, its
		f.g.o.Log.DebugContext(f.ctx, "a blob goes on from another source, which is faster", "digest", f.digest,
			"bytes_per_second", int64(its), "before", int64(fills))
		f.takeOver(tr.ft.src)
	case over || tr.looks >= trialLooks:
		r.rates[tr.ft.src.Key] = its
		f.endTrial()
	}
}

// takeOver has the rest of the blob come from a source that is faster. What runs from others is stopped; what they
// brought stays. The lock is held.
func (f *Flight) takeOver(src Source) {
	f.relay.best, f.relay.trial, f.relay.lost = &src, nil, 0
	f.lanes.settled = true
	if f.lanes.want > 1 {
		f.lanes.want = 1
	}
	for _, ft := range f.fetches {
		if ft.src.Key != src.Key {
			ft.stop()
		}
	}
	f.tell()
}

// endTrial stops the trial. What it brought stays, what it lacks is the fill's again. The lock is held.
func (f *Flight) endTrial() {
	r, tr := &f.relay, f.relay.trial
	r.trial = nil
	r.lost++
	r.rest = min(1<<min(r.lost, 10), restMost)
	if tr.ended.IsZero() {
		tr.ft.stop()
	}
}

// tried takes in that a trial's fetch is over.
func (f *Flight) tried(ft *fetch, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if tr := f.relay.trial; tr != nil && tr.ft == ft {
		tr.ended, tr.failed = time.Now(), err != nil
	}
}

// sourceFor is what a reader's bytes are fetched by: its own source, or the one that has turned out to be faster. The lock
// is held.
func (f *Flight) sourceFor(r *Reader) Source {
	if best := f.relay.best; best != nil {
		return *best
	}
	return r.src
}
