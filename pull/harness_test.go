package pull_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream/fault"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	hub  = "docker.io"
	ghcr = "ghcr.io"
	app  = "acme/app"
)

var policy = catalog.Policy{MaxAge: time.Minute, Wait: 5 * time.Second, StaleIfError: 168 * time.Hour}

// books is the real catalog, whose writes are journalled and fail as they are told.
type books struct {
	pull.Catalog
	journal *journal
	fail    func(op string) error
	begin   func(op string) // called before a look-up of a tag
	look    func(op string) // called after a look-up, before its result is known to the caller
}

func (b *books) Tag(ref oci.Ref) (catalog.Tag, error) {
	b.begin("tag")
	t, err := b.Catalog.Tag(ref)
	b.look("tag")
	return t, err
}

func (b *books) Member(repo oci.Repo, d oci.Digest) (catalog.Member, error) {
	m, err := b.Catalog.Member(repo, d)
	b.look("member")
	return m, err
}

func (b *books) Learn(repo oci.Repo, m *oci.Manifest, s catalog.Standing) error {
	if err := b.fail("learn"); err != nil {
		return err
	}
	b.journal.add("references " + m.Digest.String())
	return b.Catalog.Learn(repo, m, s)
}

func (b *books) Moved(ref oci.Ref, from catalog.Tag, to oci.Digest, at time.Time, by catalog.Source) (catalog.Tag, error) {
	if err := b.fail("moved"); err != nil {
		return catalog.Tag{}, err
	}
	b.journal.add("tag " + ref.Tag + " " + to.String())
	return b.Catalog.Moved(ref, from, to, at, by)
}

// world is a puller between two registries and a cache, all in memory.
type world struct {
	*pull.Puller
	t      testing.TB
	hub    *registry
	ghcr   *registry
	shelf  *shelf
	books  *books
	tables [2]state.Table
	marks  state.Table // of private repositories

	clients, pins state.Table
	stop          func()

	log   *slog.Logger    // of the puller; nil: none
	moved func(pull.Move) // nil: none
}

// writes is how many transactions there were in all tables.
func (w *world) writes() (n int) {
	for _, t := range []state.Table{w.tables[0], w.tables[1], w.marks, w.clients, w.pins} {
		n += t.(*statetest.Table).Writes()
	}
	return n
}

func newWorld(t testing.TB) *world {
	t.Helper()
	j := new(journal)
	w := &world{
		t: t, hub: newRegistry(hub), ghcr: newRegistry(ghcr),
		shelf:  &shelf{journal: j, content: make(map[oci.Digest][]byte)},
		tables: [2]state.Table{statetest.NewTable(), statetest.NewTable()}, marks: statetest.NewTable(),
		clients: statetest.NewTable(), pins: statetest.NewTable(),
		books: &books{
			journal: j, fail: func(string) error { return nil },
			begin: func(string) {}, look: func(string) {},
		},
	}
	w.restart()
	return w
}

// restart makes a new puller and catalog on the same content and tables, as a new process would.
func (w *world) restart() {
	w.t.Helper()
	if w.stop != nil {
		w.stop()
	}
	known := catalog.New(w.tables[0], w.tables[1], catalog.Options{Clients: w.clients, Pins: w.pins})
	w.books.Catalog = known
	w.Puller = pull.New(pull.Options{
		Cache: w.shelf, Catalog: w.books, Private: access.NewPrivate(w.marks, slog.New(slog.DiscardHandler)),
		Log: w.log, Moved: w.moved,
	})
	w.use(w.hub, policy)
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	group.Go(func() error { return w.Run(ctx) })
	group.Go(func() error { return known.Run(ctx) })
	w.stop = func() {
		cancel()
		if err := group.Wait(); err != nil {
			w.t.Errorf("run: %v", err)
		}
		w.stop = nil
	}
}

// use sets docker.io's upstream and policy.
func (w *world) use(r pull.Upstream, p catalog.Policy) { w.useRules(r, p, nil) }

// useRules is use; where there are rules, docker.io goes by them.
func (w *world) useRules(r pull.Upstream, p catalog.Policy, rules *access.Rules) {
	w.t.Helper()
	table, err := route.New([]route.Upstream{{Name: hub, Library: true}, {Name: ghcr}}, hub)
	if err != nil {
		w.t.Fatal(err)
	}
	w.Use(pull.Setup{Routes: table, Rules: rules, Sites: map[string]pull.Site{
		hub:  {Name: hub, Upstream: r, Tags: catalog.Policies{Base: p}, Ruled: rules != nil},
		ghcr: {Name: ghcr, Upstream: w.ghcr, Tags: catalog.Policies{Base: p}},
	}})
}

// inBubble runs a test with a clock of its own.
func inBubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		f(t, w)
		if w.stop != nil {
			w.stop()
		}
	})
}

// ask is a request for a manifest by tag or digest.
func ask(repo, ref string) pull.Ask {
	r := oci.Request{Kind: oci.KindManifest, Name: repo}
	if d := oci.Digest(ref); d.Validate() == nil {
		r.Digest = d
	} else {
		r.Tag = ref
	}
	return pull.Ask{Request: r, Client: "node-1"}
}

func head(a pull.Ask) pull.Ask {
	a.Request.Head = true
	return a
}

func askBlob(repo string, d oci.Digest) pull.Ask {
	return pull.Ask{Request: oci.Request{Kind: oci.KindBlob, Name: repo, Digest: d}}
}

// get pulls a manifest that must come.
func (w *world) get(a pull.Ask) *pull.Content {
	w.t.Helper()
	c, err := w.Manifest(context.Background(), a)
	if err != nil {
		w.t.Fatalf("pull %s %s%s: %v", a.Request.Name, a.Request.Tag, a.Request.Digest, err)
	}
	return c
}

// fails pulls a manifest that must not come.
func (w *world) fails(a pull.Ask) error {
	w.t.Helper()
	c, err := w.Manifest(context.Background(), a)
	if err == nil {
		w.t.Fatalf("pull %s %s%s: got %s, want an error", a.Request.Name, a.Request.Tag, a.Request.Digest, c.Digest)
	}
	return err
}

// wants compares the calls of a registry since the last time with those that are wanted, in any order.
func (r *registry) wants(t testing.TB, want ...string) {
	t.Helper()
	got := r.asked()
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("calls to %s (-want +got):\n%s", r.host, diff)
	}
}

// status is an upstream's answer as an error.
func status(code int) func(string) error {
	err := &fault.Error{Op: "resolve", Upstream: hub, Repository: app, Status: code}
	return func(string) error { return err }
}

func takes(d time.Duration) func(string) time.Duration {
	return func(string) time.Duration { return d }
}

// since returns how long f took by the bubble's clock.
func since(f func()) time.Duration {
	start := time.Now()
	f()
	return time.Since(start)
}

func isTimeout(err error) bool {
	_, ok := errors.AsType[*pull.TimeoutError](err)
	return ok
}

// same reports whether two errors are one and the same value.
func same(a, b any) bool { return a == b }
