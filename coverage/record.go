package coverage

import (
	"cmp"
	"encoding/json"
	"errors"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

const (
	// maxEntries bounds the record: 10,000 nodes with 100 images of four entries each, 52 MB.
	maxEntries = 4_000_000
	// largePart is how much of it an address may have before its clients are the first to go.
	largePart = maxEntries / 64
	// maxOfClient is how many entries a client has. Beyond that it loses those seen longest ago.
	maxOfClient = 2048
	// maxPending is how many entries wait to be written. Further ones are lost, and that time is a gap.
	maxPending = 262_144
	writeEvery = 30 * time.Second
	// aliveEvery is how often a mirror that has nothing to write writes that it records.
	aliveEvery = 5 * time.Minute
	// unwritten is how long ago the pulls ended, before the last write, that a crash may have lost: a pull is open for a minute after
	// its last request.
	unwritten = 2 * time.Minute
	maxGaps   = 64
)

// Gap is a time in which the mirror did not record.
type Gap struct {
	From time.Time `json:"from"`
	To   time.Time `json:"to"`
}

// Record keeps which client got which image, over restarts. It is safe for concurrent use, and only Run and Clients wait for the
// disk.
type Record struct {
	table state.Table
	log   *slog.Logger

	mu      sync.Mutex // guards what follows; not held over I/O
	span    span
	clients map[string]*holding // all that are recorded, by their key in the table
	entries int                 // of all of them
	pending map[string]*waiting
	count   int                 // of entries that wait
	writing map[string]*waiting // what waited, while it is written
	full    chan struct{}
	lastRun time.Time // when it was last written
	failing bool      // the last write failed
}

// span is the time that the record covers.
type span struct {
	Since time.Time `json:"since"`
	Gaps  []Gap     `json:"gaps,omitempty"` // in order
	Alive time.Time `json:"alive"`          // until then all that was recorded is written
	Clean bool      `json:"clean"`          // the mirror has stopped then
}

// holding is what a client takes of the record.
type holding struct {
	source string
	n      int
	last   int64 // when it was last seen, in seconds since 1970
}

// waiting is what waits to be written of a client.
type waiting struct {
	source string
	list   map[Key]Entry
}

// add takes in later entries.
func (w *waiting) add(list map[Key]Entry) {
	for k, e := range list {
		if have, ok := w.list[k]; ok {
			e = have.add(e)
		}
		w.list[k] = e
	}
}

// The keys of the table: of clients, of nodes by their kubelets' Events, and of the span.
const (
	clientPrefix  = "client/"
	kubeletPrefix = "kubelet/"
	spanKey       = "span"
)

// Open reads what an earlier run has recorded. A nil table: nothing is kept over a restart.
func Open(table state.Table, log *slog.Logger) *Record {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	now := time.Now().UTC().Truncate(time.Second)
	r := &Record{
		table: table, log: log, clients: make(map[string]*holding), pending: make(map[string]*waiting), full: make(chan struct{}, 1),
		span: span{Since: now, Alive: now}, lastRun: now,
	}
	if table == nil {
		return r
	}
	if err := r.load(now); err != nil {
		log.Error("cannot read the record of which client got which image; it begins anew", "error", err)
		r.span = span{Since: now, Alive: now}
	}
	return r
}

func (r *Record) load(now time.Time) error {
	it, err := r.table.Get(spanKey)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	var s span
	if err := json.Unmarshal(it.Value, &s); err != nil || s.Since.IsZero() || s.Since.After(now) {
		return errors.Join(errors.New("its beginning is not known"), err)
	}
	r.span = s
	r.span.Clean = false
	from := s.Alive
	if !s.Clean {
		from = from.Add(-unwritten)
	}
	r.gap(from, now)
	for it, err := range r.table.Scan("") {
		if err != nil {
			return err
		}
		if source, list, ok := decode(it.Value); ok && it.Key != spanKey {
			r.clients[it.Key] = &holding{source, len(list), lastOf(list)}
			r.entries += len(list)
		}
	}
	return nil
}

func lastOf(list []Entry) (last int64) {
	for _, e := range list {
		last = max(last, e.Last)
	}
	return last
}

// gap notes a time in which something may not have been recorded. Of too many the first ones are taken out of the span.
func (r *Record) gap(from, to time.Time) {
	if from.Before(r.span.Since) {
		from = r.span.Since
	}
	if !to.After(from) {
		return
	}
	if n := len(r.span.Gaps); n > 0 && !from.After(r.span.Gaps[n-1].To) {
		r.span.Gaps[n-1].To = later(to, r.span.Gaps[n-1].To)
		return
	}
	r.span.Gaps = append(r.span.Gaps, Gap{from, to})
	for len(r.span.Gaps) > maxGaps {
		r.span.Since = r.span.Gaps[0].To
		r.span.Gaps = r.span.Gaps[1:]
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Span is since when the record is kept, and when it was not.
func (r *Record) Span() (since time.Time, gaps []Gap) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.span.Since, slices.Clone(r.span.Gaps)
}

// Lost says that pulls were lost since the last write.
func (r *Record) Lost(int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gap(r.lastRun.Add(-unwritten), time.Now())
}

// Note notes a pull that has ended.
func (r *Record) Note(p journal.Pull) {
	if p.Upstream == "" || p.Client == "" {
		return
	}
	r.put(clientPrefix+p.Client, cmp.Or(p.Source, p.Client), entriesOf(p))
}

// entriesOf are the entries of a pull.
func entriesOf(p journal.Pull) (list []Entry) {
	flags := Shown
	if p.Config {
		flags |= Config
	}
	if p.Layers {
		flags |= Layers
	}
	if p.Outcome == journal.Failed || p.Outcome == journal.Declined {
		flags |= Refused
	}
	last := p.Began.Add(p.Took).Unix()
	if p.Ref.Tag != "" {
		list = append(list, Entry{TagKey(p.Ref), last, flags})
	}
	if p.Ref.Digest != "" && !slices.Contains(p.Documents, p.Ref.Digest) {
		list = append(list, Entry{DigestKey(p.Ref.Digest), last, flags})
	}
	for _, d := range p.Documents {
		list = append(list, Entry{DigestKey(d), last, flags})
	}
	return list
}

// Pulled notes that the kubelet of a node says that it has pulled an image, in the time from began to ended. A pull during which the
// mirror did not record proves nothing, and is not noted.
func (r *Record) Pulled(node string, d oci.Digest, began, ended time.Time) {
	since, gaps := r.Span()
	if d == "" || !recorded(since, gaps, began, ended) {
		return
	}
	r.put(kubeletPrefix+node, kubeletPrefix+node, []Entry{{DigestKey(d), ended.Unix(), Shown}})
}

func (r *Record) put(key, source string, list []Entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w := r.pending[key]
	if w == nil {
		w = &waiting{source, make(map[Key]Entry, len(list))}
		r.pending[key] = w
	}
	w.source = source
	for _, e := range list {
		have, ok := w.list[e.Key]
		switch {
		case ok:
			e = have.add(e)
		case r.count >= maxPending:
			r.gap(r.lastRun.Add(-unwritten), time.Now())
			return
		default:
			r.count++
		}
		w.list[e.Key] = e
	}
	if r.count >= maxPending/2 {
		select {
		case r.full <- struct{}{}:
		default:
		}
	}
}

// Client is a client with what it got.
type Client struct {
	Name    string // as in the record of pulls: a node's name, or an address
	Source  string // the address that its requests came from
	Kubelet bool   // it is not a client, but a node's name, and the entries are what its kubelet says that it has pulled
	Entries []Entry
}

// Clients yields all clients: those that are written, those that wait, and the pulls that go on. After an error it ends.
func (r *Record) Clients(running []journal.Pull) iter.Seq2[Client, error] {
	next := make(map[string]*waiting)
	r.mu.Lock()
	for key, w := range r.writing {
		next[key] = &waiting{w.source, maps.Clone(w.list)}
	}
	for key, w := range r.pending {
		if next[key] == nil {
			next[key] = &waiting{w.source, make(map[Key]Entry, len(w.list))}
		}
		next[key].add(w.list)
	}
	r.mu.Unlock()
	for _, p := range running {
		if p.Upstream == "" {
			continue
		}
		key := clientPrefix + p.Client
		w := next[key]
		if w == nil {
			w = &waiting{cmp.Or(p.Source, p.Client), make(map[Key]Entry)}
			next[key] = w
		}
		for _, e := range entriesOf(p) {
			w.add(map[Key]Entry{e.Key: e})
		}
	}
	return func(yield func(Client, error) bool) {
		if r.table != nil {
			for it, err := range r.table.Scan("") {
				if err != nil {
					yield(Client{}, err)
					return
				}
				source, list, ok := decode(it.Value)
				if !ok || it.Key == spanKey {
					continue
				}
				if w := next[it.Key]; w != nil {
					source, list = w.source, merged(list, w.list)
					delete(next, it.Key)
				}
				if !yield(clientOf(it.Key, source, list), nil) {
					return
				}
			}
		}
		for key, w := range next {
			if !yield(clientOf(key, w.source, merged(nil, w.list)), nil) {
				return
			}
		}
	}
}

func clientOf(key, source string, list []Entry) Client {
	if name, ok := strings.CutPrefix(key, kubeletPrefix); ok {
		return Client{Name: name, Kubelet: true, Entries: list}
	}
	return Client{Name: strings.TrimPrefix(key, clientPrefix), Source: source, Entries: list}
}
