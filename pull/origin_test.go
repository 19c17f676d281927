package pull_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// chain is a puller with the real cache and catalog on memory, and the real upstream in front of two scripted ones.
type chain struct {
	*pull.Puller
	hub, ghcr *origin.Origin
	store     *cachetest.Store
	tables    [3]state.Table // tags, references, private repositories
	policy    catalog.Policy
	rules     *access.Rules // of the hub; nil: it is public
	setup     pull.Setup
	memory    *memory.Budget                  // nil: that of New
	learning  func(pull.Catalog) pull.Catalog // nil: the catalog itself
	options   func(*upstream.Options)         // of both upstreams; nil: none
	known     *catalog.Catalog
	stop      func()
}

func newChain(t *testing.T, o origin.Options) *chain {
	t.Helper()
	return newChainOf(t, o, func(*chain) {})
}

func newChainOf(t *testing.T, o origin.Options, adapt func(*chain)) *chain {
	t.Helper()
	c := &chain{
		hub: origin.Start(t, o), ghcr: origin.Start(t, o), store: cachetest.NewStore(),
		tables: [3]state.Table{statetest.NewTable(), statetest.NewTable(), statetest.NewTable()}, policy: policy,
	}
	if o.Network != nil {
		c.options = func(u *upstream.Options) { u.Dial = o.Network.Dial }
	}
	adapt(c)
	c.start(t)
	t.Cleanup(func() { c.stop() })
	return c
}

// start runs everything on the store and the tables, as a new process would.
func (c *chain) start(t *testing.T) {
	t.Helper()
	if c.stop != nil {
		c.stop()
	}
	content := cache.New(cache.Options{Store: c.store, Size: 1 << 30})
	c.known = catalog.New(c.tables[0], c.tables[1], catalog.Options{})
	books := pull.Catalog(c.known)
	if c.learning != nil {
		books = c.learning(c.known)
	}
	c.Puller = pull.New(pull.Options{
		Cache: content, Catalog: books, Private: access.NewPrivate(c.tables[2], slog.New(slog.DiscardHandler)), Memory: c.memory,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var group errgroup.Group
	setup := pull.Setup{Sites: make(map[string]pull.Site)}
	for name, at := range map[string]*origin.Origin{hub: c.hub, ghcr: c.ghcr} {
		where, err := url.Parse("http://" + at.Host())
		if err != nil {
			t.Fatal(err)
		}
		o := upstream.Options{Name: name, Endpoints: []upstream.Endpoint{{URL: where}}}
		if c.options != nil {
			c.options(&o)
		}
		r, err := upstream.New(o)
		if err != nil {
			t.Fatal(err)
		}
		setup.Sites[name] = pull.Site{Name: name, Upstream: r, Tags: catalog.Policies{Base: c.policy}}
		group.Go(func() error { return r.Run(ctx) })
	}
	var err error
	if setup.Routes, err = route.New([]route.Upstream{{Name: hub, Library: true}, {Name: ghcr}}, hub); err != nil {
		t.Fatal(err)
	}
	c.setup = setup
	c.goBy(c.rules)
	for _, run := range []func(context.Context) error{content.Run, c.known.Run, c.Run} {
		group.Go(func() error { return run(ctx) })
	}
	c.stop = func() {
		cancel()
		if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("run: %v", err)
		}
	}
}

// isOpen waits until the end of a download without a login is recorded, which may be after its last byte.
func (c *chain) isOpen(t *testing.T, blobs []oci.Descriptor) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, b := range blobs {
		for {
			open, err := c.known.IsOpen(b.Digest)
			if err == nil && open {
				break
			}
			select {
			case <-ctx.Done():
				t.Fatalf("%s is not recorded as open: %v", b.Digest, err)
			case <-time.After(time.Millisecond):
			}
		}
	}
}

// goBy has the hub go by rules from now on, or none.
func (c *chain) goBy(rules *access.Rules) {
	c.rules = rules
	s := c.setup
	s.Sites = maps.Clone(s.Sites)
	site := s.Sites[hub]
	site.Ruled = rules != nil
	s.Sites[hub], s.Rules = site, rules
	c.Use(s)
}

// pullImage takes an image of one platform as containerd does: HEAD of the tag, then everything by digest.
func (c *chain) pullImage(t *testing.T, repo, tag string, im origin.Built) (stale bool) {
	t.Helper()
	top, err := c.Manifest(t.Context(), head(ask(repo, tag)))
	if err != nil {
		t.Errorf("head of %s: %v", tag, err)
		return false
	}
	if top.Digest != im.Root.Digest || top.Size != im.Root.Size || top.MediaType != im.Root.MediaType {
		t.Errorf("head of %s: got %s, %d bytes, %s; want %+v", tag, top.Digest, top.Size, top.MediaType, im.Root)
	}
	for _, d := range append([]oci.Descriptor{im.Root}, im.Manifests...) {
		m, err := c.Manifest(t.Context(), ask(repo, d.Digest.String()))
		if err != nil {
			t.Errorf("manifest %s: %v", d.Digest, err)
			return false
		}
		if string(m.Bytes) != string(im.Bytes(d.Digest)) || m.MediaType != d.MediaType {
			t.Errorf("manifest %s: wrong bytes or type %s", d.Digest, m.MediaType)
		}
	}
	for _, d := range im.Blobs() {
		c.pullBlob(t, repo, d, im.Bytes(d.Digest))
	}
	return top.Status.Stale
}

func (c *chain) pullBlob(t *testing.T, repo string, d oci.Descriptor, want []byte) {
	t.Helper()
	b, err := c.Blob(t.Context(), askBlob(repo, d.Digest))
	if err == nil {
		defer func() { _ = b.Close() }()
		err = b.Ready(t.Context(), 0, b.Size)
	}
	if err != nil {
		t.Errorf("blob %s: %v", d.Digest, err)
		return
	}
	got, err := io.ReadAll(b.Object)
	if err != nil || string(got) != string(want) || b.Size != d.Size {
		t.Errorf("blob %s: %d bytes of %d, %v", d.Digest, len(got), d.Size, err)
	}
}

var twoPlatforms = origin.Image{
	Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []int64{256 << 10, 64 << 10, 4 << 10},
}

func TestTwoHundredColdPulls(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}, Redirect: true})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	var herd sync.WaitGroup
	for range 200 {
		herd.Go(func() { c.pullImage(t, app, "1", im) })
	}
	herd.Wait()
	if n := c.hub.CountRef(origin.KindManifest, "1"); n > 2 { // the first may be told to fetch a token
		t.Errorf("%d requests for the tag", n)
	}
	served := make(map[string]int) // 200 and its like by method and reference
	for _, r := range c.hub.Requests() {
		if r.Status == http.StatusOK {
			served[r.Method+" "+r.Ref]++
		}
	}
	want := map[string]int{"HEAD 1": 1}
	for _, d := range append([]oci.Descriptor{im.Root}, im.Manifests...) {
		want["GET "+d.Digest.String()] = 1
	}
	for _, d := range im.Blobs() {
		want["GET "+d.Digest.String()] = 1
		if n := c.hub.Bytes(d.Digest); n != d.Size {
			t.Errorf("blob %s: %d bytes sent, it has %d", d.Digest, n, d.Size)
		}
	}
	for what, n := range want {
		if served[what] != n {
			t.Errorf("%s was answered %d times, want %d", what, served[what], n)
		}
	}
	if n := c.hub.Count(origin.KindToken); n != 1 {
		t.Errorf("%d tokens for one scope", n)
	}
	if n := c.hub.Count(origin.KindManifest, http.MethodGet); n != 3 {
		t.Errorf("%d GETs of 3 manifests", n)
	}
}

func TestWarmImageWithItsUpstreamDown(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	c.pullImage(t, app, "1", im)
	c.hub.Down()
	c.policy.MaxAge = 0 // the tag is older than its policy wants
	c.start(t)
	start := time.Now()
	if stale := c.pullImage(t, app, "1", im); !stale {
		t.Error("an unchecked tag is not said to be stale")
	}
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("took %s", took)
	}
	_, err := c.Manifest(t.Context(), ask(app, "2"))
	if e, ok := errors.AsType[*fault.Error](err); !ok || e.Status != 0 || e.Upstream != hub {
		t.Errorf("a tag that is not here: %v", err)
	}
}

// An error that comes with status 200 does not replace the digest of a tag.
func TestTagOutlivesAnErrorWithStatus200(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{
		"nothing in it": `{}`,
		"a limit":       `{"errors":[{"code":"TOOMANYREQUESTS","message":"slow down"}]}`,
		"a message":     `{"code":500,"message":"oops"}`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, origin.Options{})
			im := c.hub.AddImage(app, "1", twoPlatforms)
			c.pullImage(t, app, "1", im)
			c.hub.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
				Status: 200, Body: body, Header: http.Header{"Content-Type": {oci.MediaTypeOCIManifest}},
			}})
			c.policy.MaxAge = 0
			c.start(t)
			for range 2 {
				if stale := c.pullImage(t, app, "1", im); !stale {
					t.Error("an unchecked tag is not said to be stale")
				}
			}
			if n := c.hub.CountRef(origin.KindManifest, "1"); n < 2 {
				t.Errorf("the tag was asked for %d times", n)
			}
			if _, err := c.Manifest(t.Context(), ask(app, "2")); err == nil {
				t.Error("a tag that is not here was served")
			}
		})
	}
}

func TestCachedContentOfOthersIsAskedFor(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	c.pullImage(t, app, "1", im)
	c.hub.ClearRequests()
	layer := im.Layers[0][0]
	for _, repo := range []string{"acme/other", "ghcr.io/" + app} {
		for _, a := range []pull.Ask{ask(repo, im.Root.Digest.String()), head(ask(repo, im.Root.Digest.String()))} {
			if got, err := c.Manifest(t.Context(), a); err == nil {
				t.Errorf("%s got manifest %s, which it does not have", repo, got.Digest)
			}
		}
		for _, a := range []pull.Ask{askBlob(repo, layer.Digest), head(askBlob(repo, layer.Digest))} {
			if got, err := c.Blob(t.Context(), a); err == nil {
				t.Errorf("%s got blob %s, which it does not have", repo, got.Digest)
				_ = got.Close()
			}
		}
	}
	if c.hub.CountRef(origin.KindManifest, im.Root.Digest.String()) == 0 ||
		c.ghcr.CountRef(origin.KindBlob, layer.Digest.String()) == 0 {
		t.Error("the upstream was not asked")
	}
	// A repository that has the blob gets it out of the cache, once its upstream has said so.
	c.ghcr.AddBlob(app, im.Bytes(layer.Digest))
	c.Forget(oci.Repo{Host: ghcr, Name: app})
	c.pullBlob(t, "ghcr.io/"+app, layer, im.Bytes(layer.Digest))
	if n := c.ghcr.Bytes(layer.Digest); n != 0 {
		t.Errorf("%d bytes were downloaded that were here", n)
	}
}

func TestUpstreamsWithoutDigestsOrHeads(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{NoDigest: true, NoHeadBlob: true, NoLength: true})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	for range 2 {
		c.pullImage(t, app, "1", im)
	}
	for _, d := range im.Blobs() {
		b, err := c.Blob(t.Context(), head(askBlob(app, d.Digest)))
		if err != nil || b.Size != d.Size {
			t.Errorf("head of blob: %+v, %v", b, err)
		}
	}
}

func TestWrongBlobIsRefused(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	if _, err := c.Manifest(t.Context(), ask(app, im.Manifests[0].Digest.String())); err != nil {
		t.Fatal(err)
	}
	layer := im.Layers[0][0]
	c.hub.Script(origin.Rule{Ref: layer.Digest.String(), Do: origin.Fault{Wrong: true}})
	try := func() error {
		b, err := c.Blob(t.Context(), askBlob(app, layer.Digest))
		if err != nil {
			return err
		}
		defer func() { _ = b.Close() }()
		if err := b.Ready(t.Context(), 0, b.Size); err != nil {
			return err
		}
		_, err = io.ReadAll(b.Object)
		b.Failed(err)
		return err
	}
	for range 2 { // the first time may be an accident
		if err := try(); err == nil {
			t.Fatal("wrong bytes were served")
		}
		if n := c.hub.Count(origin.KindBlob); n != 1 {
			t.Errorf("%d downloads, want 1", n)
		}
		c.hub.ClearRequests()
	}
	if err := try(); err == nil {
		t.Error("wrong bytes were served")
	}
	if n := c.hub.Count(origin.KindBlob); n != 0 {
		t.Errorf("%d more downloads of content that is known to be wrong", n)
	}
}
