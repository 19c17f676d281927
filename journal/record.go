package journal

import (
	"cmp"
	"container/list"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/state"
)

// Failure is a failure of pulls: the same reason for the same image at the same host is one, with a count. It is also
// the form in which it is shown and stored.
type Failure struct {
	ID       string          `json:"id"` // the fingerprint that the client was told
	Reason   diagnose.Reason `json:"reason"`
	Class    diagnose.Class  `json:"class"`
	Summary  string          `json:"summary"`
	Remedy   string          `json:"remedy"`
	Evidence []string        `json:"evidence,omitempty"` // of the last time

	Image     string  `json:"image,omitempty"`
	Platform  string  `json:"platform,omitempty"` // that was wanted, where that is the reason
	Upstream  string  `json:"upstream,omitempty"`
	Host      string  `json:"host,omitempty"`
	Stage     string  `json:"stage,omitempty"`
	Status    int     `json:"status,omitempty"` // the upstream's
	Outcome   Outcome `json:"outcome"`          // Failed or Declined
	Client    string  `json:"client,omitempty"` // who met it last
	UserAgent string  `json:"userAgent,omitempty"`

	// Clients says how many pulls of whom failed. Beyond 16 clients the others are counted under "others".
	Clients   map[string]int64 `json:"clients,omitempty"`
	Count     int64            `json:"count"` // of pulls
	FirstSeen time.Time        `json:"firstSeen"`
	LastSeen  time.Time        `json:"lastSeen"`
}

const (
	mostFailures = 1000 // of each outcome; of more, the client that has most loses the one seen longest ago
	mostClients  = 16   // of one failure
	keepFailure  = 7 * 24 * time.Hour
	flushEvery   = 5 * time.Second
	others       = "others"
)

// Record keeps the failures: at most 1,000 that failed and 1,000 that were declined, for at most a week, over restarts.
// Its memory and what it writes are bounded, however many pulls fail: changes are gathered for five seconds, and a
// failure that came and was pushed out meanwhile is never written. It is safe for concurrent use, and nothing in it
// waits for the disk but its own Run.
type Record struct {
	table state.Table
	log   *slog.Logger

	mu     sync.Mutex // guards what follows; never held over I/O
	all    map[string]*list.Element
	order  map[Outcome]*list.List             // of *recorded, the one seen last in front
	held   map[Outcome]*shares[*list.Element] // the same, by client
	dirty  map[string]bool                    // keys that differ from the table
	stored map[string]bool                    // keys in the table
	sick   bool                               // the last write failed
}

// recorded is a failure with what it is charged to.
type recorded struct {
	Failure
	share *share[*list.Element]
}

// stored is the form of a failure in the table.
type stored struct {
	Failure
	Source string `json:"source,omitempty"` // it is charged to, with Client
}

// NewRecord reads what an earlier run has recorded. Nil for table: nothing is kept over a restart.
func NewRecord(table state.Table, log *slog.Logger) *Record {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	r := &Record{
		table: table, log: log, all: make(map[string]*list.Element),
		order: map[Outcome]*list.List{Failed: list.New(), Declined: list.New()},
		held: map[Outcome]*shares[*list.Element]{
			Failed: newShares[*list.Element](mostFailures), Declined: newShares[*list.Element](mostFailures),
		},
		dirty: make(map[string]bool), stored: make(map[string]bool),
	}
	if table != nil {
		r.load()
	}
	return r
}

func (r *Record) load() {
	var found []*stored
	for it, err := range r.table.Scan("") {
		if err != nil {
			r.log.Error("the record of failures can't be read; it begins anew", "err", err)
			break
		}
		r.stored[it.Key] = true
		f := &stored{}
		if json.Unmarshal(it.Value, f) != nil || keyOf(f.Outcome, f.ID) != it.Key || r.order[f.Outcome] == nil {
			r.dirty[it.Key] = true // to be removed
			continue
		}
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b *stored) int { return a.LastSeen.Compare(b.LastSeen) })
	for _, f := range found {
		r.put(f.Failure, holder{orElse(f.Source, f.Client), f.Client})
	}
	r.expire(time.Now())
}

func keyOf(o Outcome, id string) string { return string(o) + "/" + id }

// put takes a failure in as the one seen last, and pushes out another if there are too many: one client's failures never
// push out another's.
func (r *Record) put(f Failure, h holder) {
	x := &recorded{Failure: f}
	e := r.order[f.Outcome].PushFront(x)
	r.all[keyOf(f.Outcome, f.ID)] = e
	added, victim := r.held[f.Outcome].add(h, e)
	if x.share = added; victim != nil {
		r.drop(victim.value)
	}
}

func (r *Record) drop(e *list.Element) {
	f := e.Value.(*recorded)
	k := keyOf(f.Outcome, f.ID)
	r.order[f.Outcome].Remove(e)
	r.held[f.Outcome].remove(f.share)
	delete(r.all, k)
	if r.dirty[k] = true; !r.stored[k] {
		delete(r.dirty, k)
	}
}

func (r *Record) expire(now time.Time) {
	for _, l := range r.order {
		for e := l.Back(); e != nil && now.Sub(e.Value.(*recorded).LastSeen) > keepFailure; e = l.Back() {
			r.drop(e)
		}
	}
}

// add counts a failure of one more pull, which is a holder's.
func (r *Record) add(seen Failure, h holder) {
	seen.LastSeen = seen.LastSeen.UTC().Round(0)
	k := keyOf(seen.Outcome, seen.ID)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[k]
	if e == nil {
		seen.Count, seen.FirstSeen = 1, seen.LastSeen
		seen.Clients = map[string]int64{seen.Client: 1}
		r.dirty[k] = true
		r.put(seen, h)
		return
	}
	f := e.Value.(*recorded)
	seen.Count, seen.FirstSeen, seen.Clients = f.Count+1, f.FirstSeen, f.Clients
	who := seen.Client
	if _, ok := seen.Clients[who]; !ok && len(seen.Clients) >= mostClients {
		who = others
	}
	seen.Clients[who]++
	f.Failure = seen
	r.order[f.Outcome].MoveToFront(e)
	r.held[f.Outcome].lighten(f.share, h)
	r.dirty[k] = true
}

// retract takes back one count of a failure: the pull went well after all.
func (r *Record) retract(o Outcome, id, client string) {
	k := keyOf(o, id)
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.all[k]
	if e == nil {
		return
	}
	f := e.Value.(*recorded)
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

// flush writes what has changed. What could not be written is tried again the next time.
func (r *Record) flush() {
	r.mu.Lock()
	r.expire(time.Now())
	items := make([]state.Item, 0, len(r.dirty))
	for k := range r.dirty {
		it := state.Item{Key: k}
		if e := r.all[k]; e != nil {
			f := e.Value.(*recorded)
			it.Value, _ = json.Marshal(stored{f.Failure, f.share.holder().source}) // of strings, numbers and times: it can't fail
		}
		items = append(items, it)
	}
	clear(r.dirty)
	r.mu.Unlock()
	if len(items) == 0 {
		return
	}
	err := r.table.Write(items)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil && !r.sick {
		r.log.Error("the record of failures is not written, a restart loses what is new in it; check the disk", "err", err)
	}
	r.sick = err != nil
	for _, it := range items {
		switch {
		case err != nil:
			if r.all[it.Key] != nil || r.stored[it.Key] {
				r.dirty[it.Key] = true
			}
		case it.Value == nil:
			delete(r.stored, it.Key)
		default:
			if r.stored[it.Key] = true; r.all[it.Key] == nil { // pushed out while it was written
				r.dirty[it.Key] = true
			}
		}
	}
}

// Filter chooses failures. The zero value of a field chooses all.
type Filter struct {
	ID     string
	Reason diagnose.Reason
	Class  diagnose.Class
	// Image is an image, a repository, which is all of its images, or either with * for any characters.
	Image    string
	Client   string
	Since    time.Time // seen at that time or later
	Declined bool      // those that were declined, too
	Limit    int       // at most so many, 0: all
	After    string    // what an earlier page gave as its next
}

// ErrContinue says that a Filter's After is none that was given out.
var ErrContinue = errors.New("continue is not from an earlier page")

func (f *Filter) match(x *Failure) bool {
	if f.ID != "" && f.ID != x.ID || f.Reason != "" && f.Reason != x.Reason || f.Class != "" && f.Class != x.Class ||
		x.LastSeen.Before(f.Since) || x.Outcome == Declined && !f.Declined {
		return false
	}
	if _, ok := x.Clients[f.Client]; f.Client != "" && f.Client != x.Client && !ok {
		return false
	}
	return f.Image == "" || matchImage(f.Image, x.Image)
}

func matchImage(pattern, image string) bool {
	return glob(pattern, image) || glob(pattern, repository(image))
}

// repository is an image without its tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// glob matches with * for any characters, in linear time for each of them.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		_, rest, ok := strings.Cut(s, p)
		if !ok {
			return false
		}
		s = rest
	}
	return strings.HasSuffix(s, last)
}

// Failures returns the failures that f chooses, the one seen last first, and what to set as After for those that are
// left, empty if none are. The error is ErrContinue or nil.
func (r *Record) Failures(f Filter) (list []Failure, next string, err error) {
	var after Failure
	if f.After != "" {
		at, id, ok := strings.Cut(f.After, "-")
		ns, err := strconv.ParseInt(at, 10, 64)
		if !ok || err != nil {
			return nil, "", ErrContinue
		}
		after.LastSeen, after.ID = time.Unix(0, ns), id
	}
	r.mu.Lock()
	for _, e := range r.all {
		if x := &e.Value.(*recorded).Failure; f.match(x) && (f.After == "" || newestFirst(after, *x) < 0) {
			c := *x
			c.Clients = maps.Clone(x.Clients)
			list = append(list, c)
		}
	}
	r.mu.Unlock()
	slices.SortFunc(list, newestFirst)
	if f.Limit > 0 && len(list) > f.Limit {
		list = list[:f.Limit]
		last := list[f.Limit-1]
		next = strconv.FormatInt(last.LastSeen.UnixNano(), 10) + "-" + last.ID + string(last.Outcome[:1])
	}
	return list, next, nil
}

func newestFirst(a, b Failure) int {
	return cmp.Or(b.LastSeen.Compare(a.LastSeen), cmp.Compare(a.position(), b.position()))
}

// position orders failures that were seen at the same time. One that comes from a Filter's After has it as its ID.
func (f *Failure) position() string {
	if f.Outcome == "" {
		return f.ID
	}
	return f.ID + string(f.Outcome[:1])
}

// Summary counts failed pulls.
type Summary struct {
	Classes map[string]int64 `json:"classes"`
	Reasons map[string]int64 `json:"reasons"`
	Images  map[string]int64 `json:"images"`
	Clients map[string]int64 `json:"clients"`
}

// Summary counts the pulls behind the failures that f chooses; its Limit and After are left aside. A failure that was
// seen since f.Since counts whole.
func (r *Record) Summary(f Filter) Summary {
	f.Limit, f.After = 0, ""
	list, _, _ := r.Failures(f)
	s := Summary{
		Classes: make(map[string]int64), Reasons: make(map[string]int64),
		Images: make(map[string]int64), Clients: make(map[string]int64),
	}
	for _, x := range list {
		s.Classes[string(x.Class)] += x.Count
		s.Reasons[string(x.Reason)] += x.Count
		s.Images[x.Image] += x.Count
		for c, n := range x.Clients {
			s.Clients[c] += n
		}
	}
	return s
}
