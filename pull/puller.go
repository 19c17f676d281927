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
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// Cache is what a pull needs of the cache. *cache.Cache is the real one.
type Cache interface {
	// Open returns the content, or joins or starts the flight that brings it. size is -1 where it is not known.
	Open(ctx context.Context, d oci.Digest, size int64, src cache.Source) (cache.Object, cache.Outcome, error)
	// Get returns a small piece of content, or cache.ErrNotFound.
	Get(ctx context.Context, d oci.Digest) ([]byte, error)
	// Put stores a small piece of content.
	Put(ctx context.Context, d oci.Digest, content []byte) error
	// Stat returns the size of content that is there in bytes.
	Stat(d oci.Digest) (size int64, ok bool)
	// Settled reports whether what Stat doesn't find isn't there.
	Settled() bool
	// Peek is Get, and no use of the content.
	Peek(d oci.Digest) ([]byte, error)
	// Touch notes a use of content that was served from memory.
	Touch(d oci.Digest)
	// Keep protects content from eviction until the given time. A holder's later call replaces its earlier one.
	Keep(holder string, until time.Time, digests ...oci.Digest)
}

// Catalog is what a pull needs of the catalog. *catalog.Catalog is the real one.
type Catalog interface {
	// Tag returns what is recorded of a tag, or catalog.ErrUnknown.
	Tag(ref oci.Ref) (catalog.Tag, error)
	// Moved records that the upstream has just been seen to mean a digest by the tag.
	Moved(ref oci.Ref, from catalog.Tag, to oci.Digest) (catalog.Tag, error)
	// Forget removes what is recorded of a tag.
	Forget(ref oci.Ref) error
	// Learn records that a registry has shown a manifest, and names what that refers to.
	Learn(repo oci.Repo, m *oci.Manifest, s catalog.Standing) error
	// LearnBlob records that a registry has shown a blob; Show does so in memory alone.
	LearnBlob(repo oci.Repo, d oci.Descriptor, s catalog.Standing) error
	Show(repo oci.Repo, d oci.Digest, s catalog.Standing)
	// Name makes content known by a manifest of the repository that refers to it, in memory.
	Name(repo oci.Repo, list []oci.Descriptor)
	// Unshow takes back that a registry has shown content, Unlearn all that is known of it.
	Unshow(repo oci.Repo, d oci.Digest) error
	Unlearn(repo oci.Repo, list ...oci.Digest) error
	// Member returns what is known of content in a repository.
	Member(repo oci.Repo, d oci.Digest) (catalog.Member, error)
	// Open records that content has come without a login; IsOpen reports that.
	Open(d oci.Digest) error
	IsOpen(d oci.Digest) (bool, error)
	// NoteShown and NoteRefused record that a repository was shown, or refused, without a login.
	NoteShown(repo oci.Repo) error
	NoteRefused(repo oci.Repo) error
	// Prune forgets what is known of content that is not in the cache, and returns how much that was.
	Prune(ctx context.Context, cached func(d oci.Digest) bool) (int, error)
}

// Options for a Puller. The zero value of a field means what its comment says.
type Options struct {
	Cache   Cache
	Catalog Catalog
	Private *access.Private // nil: what was learnt for some is not told from what was learnt for everybody
	Log     *slog.Logger    // nil: discard
	// Wait is how long a client waits for an upstream at most: 25 s, since containerd gives up on headers after 30.
	Wait time.Duration
	// Limit is how long a trip to an upstream may go on, with or without a client: 1 min.
	Limit time.Duration
	// Hot is how many bytes of manifests are kept in memory at most: 32 MiB.
	Hot int64
	// Memory is what documents may take, those in memory included: 128 MiB.
	Memory *memory.Budget
}

// Puller answers pulls. All methods are safe for concurrent use.
type Puller struct {
	cache   Cache
	catalog Catalog
	private *access.Private
	log     *slog.Logger
	wait    time.Duration // of a client
	limit   time.Duration // of a trip

	setup atomic.Pointer[setup]
	using sync.Mutex    // one Use at a time
	sites atomic.Uint64 // the last generation given out
	hosts *hosts

	memory   *memory.Budget
	sending  sending
	hot      *lru[oci.Digest, *manifest]
	storing  sync.Map // of oci.Ref to *soon
	words    *words
	failures *failures
	lists    *lru[key, *lastList]
	leases   *leases

	work     *work
	fetching calls[*fetched]
	asking   calls[oci.Descriptor] // tags
	sizing   calls[oci.Descriptor] // blobs
	listing  calls[*upstream.Document]
}

// setup is a Setup with what belongs to each site at run time.
type setup struct {
	Setup
	sites map[string]*site
}

// site is an upstream as one Setup has it.
type site struct {
	Site
	rules      *access.Rules
	generation uint64 // changes with Site.Upstream and Site.Ruled
	// troubled is set while the last check did not answer in time: then nobody waits long for the next one.
	troubled *atomic.Bool
	// linked are the parameters that its links to further pages have carried.
	linked *linked
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
	w := newWork(o.Log)
	p := &Puller{
		cache: o.Cache, catalog: o.Catalog, private: o.Private, log: o.Log, wait: o.Wait, limit: o.Limit,
		hot:      newLRU[oci.Digest, *manifest](o.Hot).within(o.Memory),
		memory:   o.Memory,
		words:    newWords(),
		hosts:    newHosts(),
		failures: newFailures(),
		lists:    newLRU[key, *lastList](maxLists).within(o.Memory),
		leases:   newLeases(o.Cache),
		work:     w,
		fetching: calls[*fetched]{work: w, limit: o.Limit},
		asking:   calls[oci.Descriptor]{work: w, limit: o.Limit},
		sizing:   calls[oci.Descriptor]{work: w, limit: o.Limit},
		listing:  calls[*upstream.Document]{work: w, limit: o.Limit},
	}
	p.setup.Store(&setup{})
	return p
}

// Use makes s the setup of all requests that come from now on; those that run keep theirs. Failures are forgotten, since
// what they came from may have been repaired; that an upstream was slow is remembered of one that is the same as before:
// compared by ==, so an Upstream is a pointer.
func (p *Puller) Use(s Setup) {
	p.using.Lock()
	defer p.using.Unlock()
	old := p.setup.Load()
	next := &setup{Setup: s, sites: make(map[string]*site, len(s.Sites))}
	for name, v := range s.Sites {
		st := &site{Site: v, rules: s.Rules}
		if o := old.sites[name]; o != nil && o.Upstream == v.Upstream && o.Ruled == v.Ruled && o.Login == v.Login {
			st.generation, st.troubled, st.linked = o.generation, o.troubled, o.linked
		} else {
			st.generation, st.troubled, st.linked = p.sites.Add(1), new(atomic.Bool), new(linked)
		}
		next.sites[name] = st
	}
	p.setup.Store(next)
	p.failures.forgetAll()
}

// Run ends with ctx, and takes with it what has outlived its clients: it returns when the last of that has ended. After
// it, whatever needs an upstream is refused. Content in memory and in the cache is served without Run, too.
func (p *Puller) Run(ctx context.Context) error {
	var pruner sync.WaitGroup
	defer pruner.Wait()
	pruner.Go(func() { p.pruneDaily(ctx) })
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

// Route returns the canonical reference that a request means, for records of it, even where the pull fails. The error
// is *route.UnknownError.
func (p *Puller) Route(r oci.Request) (oci.Ref, error) {
	_, ref, err := p.route(r)
	return ref, err
}

// Forget clears what is remembered of a repository's failures and lists, and of tags that are not recorded yet: something
// has changed there.
func (p *Puller) Forget(repo oci.Repo) {
	p.failures.forget(repo)
	p.words.forget(repo)
	p.lists.removeIf(func(k key) bool { return k.repo == repo })
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

func (st *site) key(kind oci.Kind, repo oci.Repo, what string) key {
	return key{site: st.generation, kind: kind, repo: repo, what: what}
}

// patience is how long a client waits that could be given a copy.
func (p *Puller) patience(st *site) time.Duration {
	if st.troubled.Load() {
		return min(st.Tags.Wait, time.Second)
	}
	return min(st.Tags.Wait, p.wait)
}

// note records how a check that took so long ended.
func (st *site) note(took time.Duration, err error) {
	st.troubled.Store(!answered(err) || took > st.Tags.Wait)
}
