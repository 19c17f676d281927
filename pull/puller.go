package pull

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// Cache is the part of the cache that a pull needs. *cache.Cache is the real one.
type Cache interface {
	// Open returns the content, or joins or starts the flight that brings it. size is -1 where it is not known.
	Open(ctx context.Context, d oci.Digest, size int64, src cache.Source) (cache.Object, cache.Outcome, error)
	// Reopen replaces an object whose stored content can't be read because of err.
	Reopen(ctx context.Context, o cache.Object, err error, d oci.Digest, size int64, src cache.Source) (
		cache.Object, cache.Outcome, error)
	// Room returns why a blob of size bytes could not be stored now, or nil. It evicts nothing.
	Room(ctx context.Context, size int64) error
	// Get returns a small piece of content, or cache.ErrNotFound.
	Get(ctx context.Context, d oci.Digest) ([]byte, error)
	// Put stores a small piece of content.
	Put(ctx context.Context, d oci.Digest, content []byte) error
	// Stat returns the size of content that is there in bytes.
	Stat(d oci.Digest) (size int64, ok bool)
	// Settled reports whether all content has been listed: content that Stat doesn't find is not there.
	Settled() bool
	// Peek is Get without recording a use.
	Peek(d oci.Digest) ([]byte, error)
	// Touch notes a use of content that was served from memory.
	Touch(d oci.Digest)
	// Remove removes content, kept or not. Open objects stay readable.
	Remove(d oci.Digest) error
	// Keep protects content from eviction until the given time. A holder's later call replaces its earlier one.
	Keep(holder string, until time.Time, digests ...oci.Digest)
}

// Catalog is the part of the catalog that a pull needs. *catalog.Catalog is the real one.
type Catalog interface {
	// Tag returns the record of a tag, or catalog.ErrUnknown.
	Tag(ref oci.Ref) (catalog.Tag, error)
	// Moved records that at a time the upstream was seen to mean a digest by the tag.
	Moved(ref oci.Ref, from catalog.Tag, to oci.Digest, at time.Time, by catalog.Source) (catalog.Tag, error)
	// Reported is Moved for a digest whose manifest is not here.
	Reported(ref oci.Ref, to oci.Digest, at time.Time, by catalog.Source) error
	// Describe notes the size and the platforms of a digest of a tag.
	Describe(ref oci.Ref, d oci.Digest, size int64, platforms []string)
	// Expire makes a tag be checked at the next pull, whatever its age.
	Expire(ref oci.Ref, by catalog.Source, at time.Time) error
	// Served notes which digest a client got for a tag, and from which address it pulls.
	Served(ref oci.Ref, d oci.Digest, client, peer string, at time.Time)
	// Pinned returns the pin of a tag, from memory.
	Pinned(ref oci.Ref, now time.Time) (catalog.Pin, bool)
	// Forget removes the record of a tag.
	Forget(ref oci.Ref) error
	// SetPin fixes a tag to a digest, RemovePin ends that; Pins are all that hold at a time.
	SetPin(pin catalog.Pin) error
	RemovePin(ref oci.Ref) error
	Pins(now time.Time) []catalog.Pin
	// EndedPins are those that have ended, each once.
	EndedPins(now time.Time) ([]catalog.Pin, error)
	// Learn records that a registry has shown a manifest, and names its parts.
	Learn(repo oci.Repo, m *oci.Manifest, s catalog.Standing) error
	// LearnBlob records that a registry has shown a blob; Show does so in memory alone.
	LearnBlob(repo oci.Repo, d oci.Descriptor, s catalog.Standing) error
	Show(repo oci.Repo, d oci.Digest, s catalog.Standing)
	// Name makes content known by a manifest of the repository that refers to it, in memory.
	Name(repo oci.Repo, list []oci.Descriptor)
	// Unshow takes back that a registry has shown content, Unlearn the whole record of it.
	Unshow(repo oci.Repo, d oci.Digest) error
	Unlearn(repo oci.Repo, list ...oci.Digest) error
	// Member returns the record of content in a repository.
	Member(repo oci.Repo, d oci.Digest) (catalog.Member, error)
	// Open records that content has come without a login; IsOpen reports that.
	Open(d oci.Digest) error
	IsOpen(d oci.Digest) (bool, error)
	// NoteShown and NoteRefused record that a repository was shown, or refused, without a login.
	NoteShown(repo oci.Repo) error
	NoteRefused(repo oci.Repo) error
	// Prune removes the records of content that is not in the cache, and returns how many.
	Prune(ctx context.Context, cached func(d oci.Digest) bool) (int, error)
}

// Options for a Puller.
type Options struct {
	Cache   Cache
	Catalog Catalog
	Private *access.Private // the private repositories; nil: there are none
	Log     *slog.Logger    // nil: discard
	// Wait is how long a client waits for an upstream at most. 0: 25 s, since containerd gives up on headers after 30.
	Wait time.Duration
	// Limit is how long a trip to an upstream may go on, with or without a client. 0: 1 min.
	Limit time.Duration
	// Hot is how many bytes of manifests are kept in memory at most. 0: 32 MiB.
	Hot int64
	// Memory is the budget of bytes for documents, those that are kept in memory included. Nil: one of 128 MiB.
	Memory *memory.Budget
	// Moved is called for each move of a tag that is seen. Nil: nothing is.
	Moved func(Move)
}

// Puller answers pulls. All methods are safe for concurrent use.
//
// It has many methods and fields, since each step of the one decision (the right, the tag, the digest, the download) needs the
// catalog, the cache and the memories of the others; the fields are these memories, each a type with a lock of its own.
type Puller struct {
	cache   Cache
	catalog Catalog
	private *access.Private
	log     *slog.Logger
	wait    time.Duration // of a client
	limit   time.Duration // of a trip
	moved   func(Move)

	setup atomic.Pointer[setup]
	using sync.Mutex    // one Use at a time
	sites atomic.Uint64 // the last generation given out
	hosts *hosts

	memory   *memory.Budget
	sending  sending
	hot      *bounded.LRU[oci.Digest, *manifest]
	storing  sync.Map // of oci.Ref to *unrecorded
	reports  *reports
	checks   bounded.Expiring[siteRef, struct{}] // checks in the background that run, or have failed lately
	checking chan struct{}                       // a value for each that runs
	failures *failures
	lists    *bounded.LRU[key, *lastList]
	leases   *leases
	pins     *pins
	owned    *owned

	work     *work
	fetching *calls[*fetched]
	asking   *calls[oci.Descriptor] // tags
	sizing   *calls[oci.Descriptor] // blobs
	listing  *calls[*upstream.Document]
}

// setup is a Setup with the state of each site.
type setup struct {
	Setup
	sites map[string]*site
}

// site is an upstream as one Setup has it.
type site struct {
	Site
	rules      *access.Rules
	pattern    *site  // that the host fits; nil: the site is an upstream of its own
	generation uint64 // changes with Site.Upstream, Site.Ruled and Site.Own
	own        *own   // of a client's view of the site; nil: it is the site itself
	// troubled is set while the last check was not answered in time: then no client waits long for the next one.
	troubled *atomic.Bool
	// linked are the parameters that its links to further pages have had.
	linked *linked
	// gone ends when no setup has the upstream any more, by remove. Background work for it ends then.
	gone   context.Context
	remove context.CancelFunc
}

// New makes a Puller. It knows no upstream before the first Use.
func New(o Options) *Puller {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Wait == 0 {
		o.Wait = 25 * time.Second
	}
	if o.Limit == 0 {
		o.Limit = time.Minute
	}
	if o.Hot == 0 {
		o.Hot = 32 << 20
	}
	if o.Memory == nil {
		o.Memory = memory.New(memory.Options{})
	}
	if o.Moved == nil {
		o.Moved = func(Move) {}
	}
	w := newWork(o.Log)
	p := &Puller{
		cache: o.Cache, catalog: o.Catalog, private: o.Private, log: o.Log, wait: o.Wait, limit: o.Limit, moved: o.Moved,
		hot:      newDocuments[oci.Digest, *manifest](o.Hot, o.Memory),
		memory:   o.Memory,
		reports:  newReports(),
		hosts:    newHosts(),
		checking: make(chan struct{}, maxChecking),
		failures: newFailures(),
		lists:    newDocuments[key, *lastList](maxLists, o.Memory),
		leases:   newLeases(o.Cache),
		pins:     newPins(),
		owned:    newOwned(),
		work:     w,
		fetching: newCalls[*fetched](w, o.Limit),
		asking:   newCalls[oci.Descriptor](w, o.Limit),
		sizing:   newCalls[oci.Descriptor](w, o.Limit),
		listing:  newCalls[*upstream.Document](w, o.Limit),
	}
	p.setup.Store(&setup{})
	return p
}

// newDocuments makes an LRU of documents, whose bytes are a part of the memory of all documents.
func newDocuments[K comparable, V any](budget int64, m *memory.Budget) *bounded.LRU[K, V] {
	l := bounded.NewLRU(bounded.Options[K, V]{Budget: budget, Memory: m})
	m.Register(l)
	return l
}

// Use makes s the setup of all requests from now on; those that run keep theirs. Failures are forgotten, since their causes may
// have been repaired. That an upstream was slow is remembered if it is the same as before: it is compared by ==, so an
// Upstream is a pointer.
func (p *Puller) Use(s Setup) {
	p.using.Lock()
	defer p.using.Unlock()
	old := p.setup.Load()
	next := &setup{Setup: s, sites: make(map[string]*site, len(s.Sites))}
	for name, v := range s.Sites {
		st := &site{Site: v, rules: s.Rules}
		if o := old.sites[name]; o != nil && o.Upstream == v.Upstream && o.sameAccess(v) {
			st.generation, st.troubled, st.linked = o.generation, o.troubled, o.linked
		} else {
			st.generation, st.troubled, st.linked = p.sites.Add(1), new(atomic.Bool), new(linked)
		}
		if o := old.sites[name]; o != nil {
			st.gone, st.remove = o.gone, o.remove
		} else {
			st.gone, st.remove = context.WithCancel(context.Background())
		}
		next.sites[name] = st
	}
	p.setup.Store(next)
	for name, o := range old.sites {
		if next.sites[name] == nil {
			o.remove()
		}
	}
	p.failures.forgetAll()
	p.pins.look()
}

// Run ends with ctx, and cancels the trips that have outlived their clients: it returns when the last of them has ended. After
// it, requests that need an upstream are refused. Content in memory and in the cache is served without Run, too.
func (p *Puller) Run(ctx context.Context) error {
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { p.pruneDaily(ctx) })
	others.Go(func() { p.watchPins(ctx) })
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			p.leases.sweep(now)
		case <-ctx.Done():
			p.work.close()
			return nil
		}
	}
}

// Route returns the canonical reference that a request means, for logs and records, even where the pull fails. The error
// is a *route.UnknownError.
func (p *Puller) Route(r oci.Request) (oci.Ref, error) {
	_, ref, err := p.route(r)
	return ref, err
}

// Forget clears the remembered failures and lists of a repository, and the reports on its tags: something has changed there.
func (p *Puller) Forget(repo oci.Repo) {
	p.failures.forget(repo)
	p.reports.forget(repo)
	p.lists.RemoveIf(func(k key) bool { return k.repo == repo })
}

// ForgetUpstream clears the remembered failures of an upstream.
func (p *Puller) ForgetUpstream(host string) {
	p.failures.known.RemoveIf(func(k key) bool { return k.repo.Host == host })
}

var errNoSetup = errors.New("no upstream is set up yet")

func (p *Puller) route(r oci.Request) (*site, oci.Ref, error) {
	s := p.setup.Load()
	if s.Routes == nil {
		return nil, oci.Ref{}, errNoSetup
	}
	target, err := s.Routes.Resolve(r)
	if err != nil {
		return nil, oci.Ref{}, err
	}
	ref := oci.Ref{Repo: target.Repo, Tag: r.Tag, Digest: r.Digest}
	name := target.Host
	if target.Pattern != "" {
		name = target.Pattern
	}
	st := s.sites[name]
	if st == nil {
		return nil, ref, fmt.Errorf("upstream %s is routed to but not set up", target.Host)
	}
	return st, ref, nil
}

// sameAccess reports whether an upstream's content is for the same clients as before.
func (s Site) sameAccess(as Site) bool {
	return s.Ruled == as.Ruled && s.Login == as.Login && (s.Own == nil) == (as.Own == nil)
}

func (st *site) key(kind oci.Kind, repo oci.Repo, what string) key {
	return key{site: st.generation, kind: kind, repo: repo, what: what}
}

// patience is how long a client waits for the upstream if there is a copy for it.
func (p *Puller) patience(st *site, policy catalog.Policy) time.Duration {
	switch {
	case st.isOwn() && st.own.late:
		return 0
	case st.troubled.Load():
		return min(policy.Wait, time.Second)
	}
	return min(policy.Wait, p.wait)
}

// note records how a check ended, how long it took, and how long a client would have waited.
func (st *site) note(took time.Duration, err error, wait time.Duration) {
	st.troubled.Store(!answered(err) || took > wait)
}
