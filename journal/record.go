package journal

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/internal/state"
)

const (
	maxFailures = 1000 // of each outcome; beyond that, the client with the most of them loses the one seen longest ago
	maxClients  = 16   // of one failure
	keepFailure = 7 * 24 * time.Hour
	flushEvery  = 5 * time.Second
	others      = "others" // the clients of a failure beyond maxClients
)

// Record keeps the failures: at most 1,000 that failed and 1,000 that were declined, for at most a week, over restarts.
// Its memory and its writes are bounded, however many pulls fail: changes are gathered for five seconds, and a failure
// that came and was displaced meanwhile is never written. It is safe for concurrent use, and only its own goroutine waits
// for the disk.
type Record struct {
	table state.Table
	log   *slog.Logger

	mu      sync.Mutex // guards the fields below; never held over I/O
	all     map[string]*share[*Failure]
	shares  map[Outcome]*shares[*Failure] // of all
	dirty   map[string]bool               // keys that differ from the table
	written map[string]bool               // keys in the table
	failing bool                          // the last write failed
}

// NewRecord reads what an earlier run has recorded. A nil table: nothing is kept over a restart.
func NewRecord(table state.Table, log *slog.Logger) *Record {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Record{
		table: table, log: log, all: make(map[string]*share[*Failure]),
		shares: map[Outcome]*shares[*Failure]{
			Failed: newShares[*Failure](maxFailures), Declined: newShares[*Failure](maxFailures),
		},
		dirty: make(map[string]bool), written: make(map[string]bool),
	}
	if table != nil {
		r.load()
	}
	return r
}

// load reads the table. A record that cannot be read is dropped, and removed from the table with the next write.
func (r *Record) load() {
	var found []storedFailure
	dropped := 0
	var problem error
	for it, err := range r.table.Scan("") {
		if err != nil {
			r.log.Error("cannot read all recorded failures; keeping those that were read", "error", err)
			break
		}
		r.written[it.Key] = true
		f, err := decodeFailure(it.Value)
		if err != nil || keyOf(f.Outcome, f.ID) != it.Key || r.shares[f.Outcome] == nil {
			r.dirty[it.Key] = true
			dropped++
			problem = err
			continue
		}
		found = append(found, f)
	}
	if dropped > 0 {
		r.log.Warn("recorded failures in an unknown form are dropped", "count", dropped, "error", problem)
	}
	slices.SortFunc(found, func(a, b storedFailure) int { return a.LastSeen.Compare(b.LastSeen) })
	for _, f := range found {
		r.put(f.failure(), holder{cmp.Or(f.Source, f.Client), f.Client})
	}
	r.expire(time.Now())
}

func keyOf(o Outcome, id string) string { return string(o) + "/" + id }

// put takes in a failure as the one seen last, and displaces another if there are too many: one client's failures never
// displace another's.
func (r *Record) put(f Failure, h holder) {
	added, victim := r.shares[f.Outcome].add(h, &f)
	if r.all[keyOf(f.Outcome, f.ID)] = added; victim != nil {
		r.drop(victim)
	}
}

func (r *Record) drop(e *share[*Failure]) {
	f := e.value
	k := keyOf(f.Outcome, f.ID)
	r.shares[f.Outcome].remove(e)
	delete(r.all, k)
	if r.dirty[k] = true; !r.written[k] {
		delete(r.dirty, k)
	}
}

func (r *Record) expire(now time.Time) {
	for _, e := range r.all {
		if now.Sub(e.value.LastSeen) > keepFailure {
			r.drop(e)
		}
	}
}

// add counts a failure of one more pull, which is charged to a holder.
func (r *Record) add(seen Failure, h holder) {
	seen.LastSeen = seen.LastSeen.UTC().Round(0)
	k := keyOf(seen.Outcome, seen.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dirty[k] = true
	e := r.all[k]
	if e == nil {
		seen.Count, seen.FirstSeen = 1, seen.LastSeen
		seen.Clients = map[string]int64{seen.Client: 1}
		r.put(seen, h)
		return
	}
	f := e.value
	seen.Count, seen.FirstSeen, seen.Clients = f.Count+1, f.FirstSeen, f.Clients
	client := seen.Client
	if _, ok := seen.Clients[client]; !ok && len(seen.Clients) >= maxClients {
		client = others
	}
	seen.Clients[client]++
	*f = seen
	r.shares[f.Outcome].recharge(e, h)
}

// retract takes back one count of a failure: the pull succeeded in the end.
func (r *Record) retract(o Outcome, id, client string) {
	k := keyOf(o, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[k]
	if e == nil {
		return
	}
	f := e.value
	if f.Count--; f.Count <= 0 {
		r.drop(e)
		return
	}
	if _, ok := f.Clients[client]; !ok {
		client = others
	}
	if f.Clients[client]--; f.Clients[client] <= 0 {
		delete(f.Clients, client)
	}
	r.dirty[k] = true
}

// run writes what has changed, every few seconds and at the end.
func (r *Record) run(ctx context.Context) {
	if r.table == nil {
		return
	}
	tick := time.NewTicker(flushEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			r.flush()
		case <-ctx.Done():
			r.flush()
			return
		}
	}
}

// flush writes what has changed. A change that could not be written is tried again the next time.
func (r *Record) flush() {
	items := r.changes()
	if len(items) == 0 {
		return
	}
	err := r.table.Write(items)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !r.failing {
		r.log.Error("cannot write the record of failures; a restart loses what is new in it; check the disk", "error", err)
	}
	r.failing = err != nil
	for _, it := range items {
		switch {
		case err != nil:
			if r.all[it.Key] != nil || r.written[it.Key] {
				r.dirty[it.Key] = true
			}
		case it.Value == nil:
			delete(r.written, it.Key)
		default:
			if r.written[it.Key] = true; r.all[it.Key] == nil { // displaced while it was written
				r.dirty[it.Key] = true
			}
		}
	}
}

// changes are the items to write.
func (r *Record) changes() []state.Item {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expire(time.Now())
	items := make([]state.Item, 0, len(r.dirty))
	for k := range r.dirty {
		it := state.Item{Key: k}
		if e := r.all[k]; e != nil {
			it.Value, _ = encodeFailure(*e.value, e.holder().source) // of strings, numbers and times: it can't fail
		}
		items = append(items, it)
	}
	clear(r.dirty)
	return items
}

// Failures returns the failures that f chooses, the one seen last first.
func (r *Record) Failures(f Filter) []Failure {
	r.mu.Lock()
	var list []Failure
	for _, e := range r.all {
		if f.match(e.value) {
			x := *e.value
			x.Clients = maps.Clone(x.Clients)
			list = append(list, x)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, func(a, b Failure) int {
		return cmp.Or(b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Outcome, b.Outcome))
	})
	return list
}

// Filter chooses failures. The zero value of a field chooses all.
type Filter struct {
	ID     string
	Reason diagnose.Reason
	Class  diagnose.Class
	// Image is an image, a repository, which stands for all of its images, or either with * for any characters.
	Image    string
	Client   string
	Since    time.Time // seen at that time or later
	Declined bool      // also those that were declined
	// Sees reports whether an image, which may be empty, is one that may be shown. Nil: all are.
	Sees func(image string) bool
}

func (f *Filter) match(x *Failure) bool {
	if f.ID != "" && f.ID != x.ID || f.Reason != "" && f.Reason != x.Reason || f.Class != "" && f.Class != x.Class ||
		x.LastSeen.Before(f.Since) || x.Outcome == Declined && !f.Declined || f.Sees != nil && !f.Sees(x.Image) {
		return false
	}
	if _, ok := x.Clients[f.Client]; f.Client != "" && f.Client != x.Client && !ok {
		return false
	}
	return f.Image == "" || glob.Text(f.Image, x.Image) || glob.Text(f.Image, repository(x.Image))
}

// repository is an image without its tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// Summary counts failed pulls.
type Summary struct {
	Classes, Reasons, Images, Clients map[string]int64
}

// Summary counts the pulls behind the failures that f chooses. A failure that was seen since f.Since counts whole.
func (r *Record) Summary(f Filter) Summary {
	s := Summary{
		Classes: make(map[string]int64), Reasons: make(map[string]int64),
		Images: make(map[string]int64), Clients: make(map[string]int64),
	}
	for _, x := range r.Failures(f) {
		s.Classes[string(x.Class)] += x.Count
		s.Reasons[string(x.Reason)] += x.Count
		s.Images[x.Image] += x.Count
		for c, n := range x.Clients {
			s.Clients[c] += n
		}
	}
	return s
}
