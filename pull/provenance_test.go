package pull_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/state"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

const (
	secret = "corp/secret"           // private, on the hub
	evil   = "ghcr.io/mallory/evil"  // its publisher names content that it does not have
	honest = "ghcr.io/builders/base" // has the same content
)

var (
	byRules = forAll("docker.io/corp/**")
	tagged  = []string{"image", "index", "nested", "foreign"}
)

// poison publishes manifests that name all content of an image that their repository does not have.
func poison(t *testing.T, at *origin.Origin, im origin.Built) {
	t.Helper()
	push := func(tag, mediaType string, v map[string]any) oci.Descriptor {
		v["schemaVersion"], v["mediaType"] = 2, mediaType
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return at.AddManifest("mallory/evil", tag, mediaType, b)
	}
	config := im.Blobs()[0]
	push("image", oci.MediaTypeOCIManifest, map[string]any{"config": config, "layers": im.Blobs()})
	index := push("index", oci.MediaTypeOCIIndex, map[string]any{"manifests": append(slices.Clone(im.Manifests), im.Root)})
	push("nested", oci.MediaTypeOCIIndex, map[string]any{"manifests": []oci.Descriptor{index, im.Root}})
	foreign := slices.Clone(im.Blobs())
	for i := range foreign {
		foreign[i].MediaType = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
		foreign[i].URLs = []string{"https://elsewhere.example/layer"}
	}
	// A manifest is named as a layer, and a layer as a manifest, too.
	push("foreign", oci.MediaTypeDockerManifest, map[string]any{
		"config": im.Root, "layers": append(foreign, im.Manifests...),
	})
	list := []oci.Descriptor{}
	for _, d := range im.Blobs() {
		d.MediaType = oci.MediaTypeOCIManifest
		list = append(list, d)
	}
	push("swapped", oci.MediaTypeOCIIndex, map[string]any{"manifests": list})
}

// takes tries each way in which a client can read content, and returns the errors.
func (c *chain) takes(t *testing.T, repo string, d oci.Digest) map[string]error {
	t.Helper()
	got := make(map[string]error)
	ctx := t.Context()
	read := func(what string, off, n int64) {
		b, err := c.Blob(ctx, askBlob(repo, d))
		if err == nil {
			defer func() { _ = b.Close() }()
			if n < 0 {
				n = b.Size - off
			}
			if err = b.Ready(ctx, off, n); err == nil {
				_, err = b.Object.ReadAt(make([]byte, 1), off)
			}
		}
		got[what] = err
	}
	read("GET blob", 0, -1)
	read("GET range", 1, 1)
	_, got["HEAD blob"] = c.Blob(ctx, head(askBlob(repo, d)))
	_, got["GET manifest"] = c.Manifest(ctx, ask(repo, d.String()))
	_, got["HEAD manifest"] = c.Manifest(ctx, head(ask(repo, d.String())))
	return got
}

// everyDigest is all content of an image.
func everyDigest(im origin.Built) []oci.Digest {
	list := []oci.Digest{im.Root.Digest}
	for _, d := range append(slices.Clone(im.Manifests), im.Blobs()...) {
		if !slices.Contains(list, d.Digest) {
			list = append(list, d.Digest)
		}
	}
	return list
}

// refused reports whether an error is a registry's no, or ours.
func refused(err error) bool {
	if _, ok := errors.AsType[*access.ForbiddenError](err); ok {
		return true
	}
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Status >= 400 && e.Status < 500
}

// A private image that is cached, on its way, gone again, or left by another time, is read by no manifest that names it:
// neither of another repository of the same registry nor of another one. Each thing is asked for there once, in vain. A
// repository that has the content gets it, for one HEAD each.
func TestReferencesAreNoProof(t *testing.T) {
	t.Parallel()
	type scene struct {
		name string
		// left is what is done after the private image was pulled by those that may.
		left func(t *testing.T, c *chain, im origin.Built)
		cold bool // nothing of it is here then
	}
	for _, sc := range []scene{
		{name: "cached", left: func(*testing.T, *chain, origin.Built) {}},
		{name: "after a restart", left: func(t *testing.T, c *chain, _ origin.Built) { c.start(t) }},
		{name: "after rules have gone", left: func(_ *testing.T, c *chain, _ origin.Built) { c.goBy(nil) }},
		{name: "after rules have gone and a restart", left: func(t *testing.T, c *chain, _ origin.Built) {
			c.rules = nil
			c.start(t)
		}},
		{name: "after rules have gone and come back", left: func(_ *testing.T, c *chain, _ origin.Built) {
			c.goBy(nil)
			c.goBy(byRules)
		}},
		{name: "after the state was lost", left: func(t *testing.T, c *chain, _ origin.Built) {
			c.tables = [3]state.Table{statetest.NewTable(), statetest.NewTable(), statetest.NewTable()}
			c.start(t)
		}},
		{name: "evicted", cold: true, left: func(t *testing.T, c *chain, im origin.Built) {
			c.stop() // readers end before their blob is kept
			for _, d := range everyDigest(im) {
				if err := c.store.Remove(d); err != nil {
					t.Fatal(err)
				}
			}
			c.start(t)
		}},
		{name: "state of an earlier version", left: func(t *testing.T, c *chain, _ origin.Built) {
			for it, err := range c.tables[1].Scan("") {
				if err != nil {
					t.Fatal(err)
				}
				old := strings.ReplaceAll(strings.ReplaceAll(string(it.Value), `,"shown":"login"`, ""), `,"shown":"all"`, "")
				it.Value = []byte(old)
				if err := c.tables[1].Write([]state.Item{it}); err != nil {
					t.Fatal(err)
				}
			}
			c.start(t)
		}},
	} {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			c := newChain(t, origin.Options{})
			im := c.hub.AddImage(secret, "1", twoPlatforms)
			poison(t, c.ghcr, im)
			c.goBy(byRules)
			c.pullImage(t, secret, "1", im)
			c.hub.Script(origin.Rule{Repo: secret, Do: origin.Fault{Status: http.StatusForbidden}})
			sc.left(t, c, im)
			for _, tag := range tagged {
				if _, err := c.Manifest(t.Context(), ask(evil, tag)); err != nil {
					t.Fatalf("%s: %v", tag, err)
				}
			}
			_, _ = c.Manifest(t.Context(), ask(evil, "swapped"))
			c.ghcr.ClearRequests()
			for _, d := range everyDigest(im) {
				for what, err := range c.takes(t, evil, d) {
					if !refused(err) {
						t.Errorf("%s of %s: %v", what, d, err)
					}
				}
				// One question among blobs and one among manifests; a manifest is asked for by HEAD and GET.
				if n := c.ghcr.CountRef(origin.KindBlob, d.String()) + c.ghcr.CountRef(origin.KindManifest, d.String()); n > 4 {
					t.Errorf("%s: the registry was asked %d times", d, n)
				}
			}
			for _, d := range everyDigest(im) {
				if n := c.ghcr.Bytes(d); n > 0 {
					t.Errorf("%d bytes of %s were sent by a registry that has none", n, d)
				}
			}

			// Another repository has it all.
			c.ghcr.AddImage("builders/base", "1", twoPlatforms)
			c.ghcr.ClearRequests()
			c.pullImage(t, honest, "1", im)
			for _, d := range im.Blobs() {
				want := 0
				if sc.cold {
					want = 1
				}
				if n := c.ghcr.CountRef(origin.KindBlob, d.Digest.String(), http.MethodGet); n != want {
					t.Errorf("blob %s was downloaded %d times, want %d", d.Digest, n, want)
				}
				if n := c.ghcr.CountRef(origin.KindBlob, d.Digest.String(), http.MethodHead); n+want != 1 {
					t.Errorf("blob %s was asked for by HEAD %d times, want %d", d.Digest, n, 1-want)
				}
			}
			c.ghcr.ClearRequests()
			c.pullImage(t, honest, "1", im)
			if n := c.ghcr.Count(origin.KindBlob) + c.ghcr.Count(origin.KindManifest, http.MethodGet); n > 0 {
				t.Errorf("%d requests for content that was shown", n)
			}
			// That makes nothing of it open to the other one, which came by a login first: unless this was without one.
			for _, d := range im.Blobs() {
				if _, err := c.Blob(t.Context(), head(askBlob(evil, d.Digest))); !refused(err) && !sc.cold {
					t.Errorf("blob %s is open: %v", d.Digest, err)
				}
			}
		})
	}
}

// A download that a private repository has begun is joined by no reader of another repository whose registry has not shown
// the content there; one whose registry has is.
func TestRunningDownloadsAreNoProof(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(secret, "1", origin.Image{Layers: []int64{8 << 20}})
	poison(t, c.ghcr, im)
	c.goBy(byRules)
	layer := im.Blobs()[1]
	gate := origin.NewGate()
	c.hub.Script(origin.Rule{Kind: origin.KindBlob, Repo: secret, Ref: layer.Digest.String(), Do: origin.Fault{
		Stall: &origin.Stall{At: 6 << 20, Gate: gate},
	}})
	if _, err := c.Manifest(t.Context(), ask(secret, "1")); err != nil {
		t.Fatal(err)
	}
	mine, err := c.Blob(t.Context(), askBlob(secret, layer.Digest))
	if err == nil {
		defer func() { _ = mine.Close() }()
		err = mine.Ready(t.Context(), 0, 1<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.CopyN(io.Discard, mine.Object, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, tag := range tagged {
		if _, err := c.Manifest(t.Context(), ask(evil, tag)); err != nil {
			t.Fatal(err)
		}
	}
	for what, err := range c.takes(t, evil, layer.Digest) {
		if !refused(err) {
			t.Errorf("%s of a running download: %v", what, err)
		}
	}
	if n := c.ghcr.Bytes(layer.Digest); n > 0 {
		t.Errorf("%d bytes", n)
	}
	c.ghcr.AddImage("builders/base", "1", origin.Image{Layers: []int64{8 << 20}})
	c.ghcr.ClearRequests()
	if _, err := c.Manifest(t.Context(), ask(honest, "1")); err != nil {
		t.Fatal(err)
	}
	ours, err := c.Blob(t.Context(), askBlob(honest, layer.Digest))
	if err == nil {
		defer func() { _ = ours.Close() }()
		err = ours.Ready(t.Context(), 0, 1<<20)
	}
	if err != nil || ours.Status.Outcome != cache.Joined {
		t.Fatalf("%v", err)
	}
	if h, g := c.ghcr.CountRef(origin.KindBlob, layer.Digest.String(), http.MethodHead),
		c.ghcr.CountRef(origin.KindBlob, layer.Digest.String(), http.MethodGet); h != 1 || g != 0 {
		t.Errorf("%d HEAD, %d GET", h, g)
	}
	gate.Open()
	if _, err := io.Copy(io.Discard, mine.Object); err != nil {
		t.Error(err)
	}
	// Verified and kept by now. It came by a login, so only the repository that has shown it may serve it.
	for what, err := range c.takes(t, evil, layer.Digest) {
		if !refused(err) {
			t.Errorf("%s once it is here: %v", what, err)
		}
	}
}

// Content that a registry has sent without a login is served through each repository that names it, without a request: also
// after a restart, and while the registry is down.
func TestOpenContentIsServedWhereItIsNamed(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage(app, "1", twoPlatforms)
	c.pullImage(t, app, "1", im)
	c.isOpen(t, im.Blobs())
	other := c.ghcr.AddImage("builders/base", "1", twoPlatforms)
	c.pullImage(t, honest, "1", other)
	if n := c.ghcr.Count(origin.KindBlob); n > 0 {
		t.Errorf("%d requests for blobs that are open", n)
	}
	c.start(t)
	c.hub.Down()
	c.ghcr.Down()
	c.pullImage(t, app, "1", im)
	c.pullImage(t, honest, "1", other)
	// Content that no manifest of the repository names is not served through it.
	if _, err := c.Blob(t.Context(), askBlob("ghcr.io/builders/empty", im.Blobs()[0].Digest)); err == nil {
		t.Error("served through a repository that does not name it")
	}
}

// A repository that all clients could read and that now refuses is served for as long as a stale tag is, and no longer. After
// that time without a question the registry is asked again, and the repository is served where it does not answer.
func TestRepositoryThatIsPublicNoMore(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				im := w.hub.push(t, app, "1", "a")
				pull := func(want bool, when string) {
					t.Helper()
					for what, err := range w.pulls(app, im) {
						if (err == nil) != want && what != "tags" && what != "referrers" {
							t.Errorf("%s: %s: %v", when, what, err)
						}
					}
				}
				pull(true, "at first")
				w.hub.behave(status(401), nil)
				time.Sleep(time.Minute + time.Second)
				pull(true, "refused for the first time")
				if restarted {
					w.restart()
				}
				time.Sleep(policy.StaleIfError - 2*time.Minute)
				pull(true, "refused for days")
				time.Sleep(3 * time.Minute)
				pull(false, "refused for a week")
				w.hub.behave(status(503), nil)
				time.Sleep(time.Minute)
				pull(false, "refused for a week, then down")
				w.hub.behave(nil, nil)
				time.Sleep(time.Minute)
				w.get(ask(app, "1"))
				pull(true, "shown again")
			})
		})
	}
	t.Run("by digest alone", func(t *testing.T) {
		inBubble(t, func(t *testing.T, w *world) {
			im := w.hub.push(t, app, "1", "a")
			d := im.children[0]
			layer := d.Children[1].Digest
			ask := ask(app, d.Digest.String())
			w.get(ask)
			w.blob(t, askBlob(app, layer), im.blobs[layer])
			w.hub.asked()
			time.Sleep(policy.StaleIfError - time.Minute)
			w.get(ask)
			w.hub.wants(t)
			time.Sleep(2 * time.Minute)
			w.hub.behave(status(503), nil)
			w.get(ask) // down: it is served
			w.blob(t, askBlob(app, layer), im.blobs[layer])
			w.hub.wants(t, "HEAD acme/app@"+d.Digest.String(), "STAT acme/app@"+layer.String())
			w.hub.behave(nil, nil)
			time.Sleep(time.Minute)
			w.get(ask)
			w.blob(t, askBlob(app, layer), im.blobs[layer])
			w.hub.wants(t, "HEAD acme/app@"+d.Digest.String()) // one word is enough for the repository
			time.Sleep(policy.StaleIfError + time.Minute)
			w.hub.behave(status(403), nil)
			_ = w.fails(ask)
			w.hub.wants(t, "HEAD acme/app@"+d.Digest.String())
			if _, err := w.Blob(t.Context(), askBlob(app, layer)); !refused(err) {
				t.Error(err)
			}
		})
	})
}

// A tag that was deleted upstream is kept, or no longer served, nor its content, from the first 404 on.
func TestDeletedTag(t *testing.T) {
	for _, drop := range []bool{false, true} {
		t.Run(fmt.Sprintf("drop %t", drop), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				p := policy
				p.DropDeleted = drop
				w.use(w.hub, p)
				im, other := w.hub.push(t, app, "1", "a"), w.hub.push(t, app, "2", "b")
				w.pull(t, app, "1", im)
				w.pull(t, app, "2", other)
				w.hub.mu.Lock()
				delete(w.hub.tags, app+":1")
				for _, d := range im.digests() {
					delete(w.hub.manifests, app+"@"+d.String())
					delete(w.hub.blobs, app+"@"+d.String())
				}
				w.hub.mu.Unlock()
				_ = w.fails(ask(app, "none")) // of a tag that was never there nothing is taken back
				w.get(ask(app, im.index.Digest.String()))
				time.Sleep(2 * time.Minute)
				_, err := w.Manifest(t.Context(), ask(app, "1"))
				if (err != nil) != drop {
					t.Errorf("the tag: %v", err)
				}
				for range 2 {
					for what, err := range w.pulls(app, im) {
						if (err != nil) != drop && what != "tags" && what != "referrers" {
							t.Errorf("%s: %v", what, err)
						}
					}
				}
				for _, d := range im.digests() {
					if _, err := w.Blob(t.Context(), askBlob(app, d)); drop && err == nil {
						t.Errorf("%s is served", d)
					}
				}
				w.hub.asked()
				w.get(ask(app, other.index.Digest.String()))
				w.hub.wants(t) // the other one stays
			})
		})
	}
}

// Bytes that were wrong in the end take back that the registry has shown them.
func TestWhatWasWrongIsTakenBack(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.blob(t, askBlob(app, d), b)
		w.shelf.wrong(&flight.MismatchError{Digest: d, Got: descriptor("", nil).Digest, Size: int64(len(b))})
		m, err := w.books.Member(oci.Repo{Host: hub, Name: app}, d)
		if m.Standing != catalog.Named || err != nil {
			t.Errorf("%+v %v", m, err)
		}
	})
}

// An answer to a HEAD that does not say the content's own size shows nothing: any page can be that answer.
func TestHeadersOfSomethingElseShowNothing(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		d, b := w.layer(t)
		w.blob(t, askBlob(app, d), b)
		for _, size := range []int{0, len(b) - 1, len(b) + 1} {
			repo := fmt.Sprint("acme/other", size)
			w.hub.blobs[repo+"@"+d.String()] = make([]byte, size)
			for range 2 {
				if _, err := w.Blob(t.Context(), askBlob(repo, d)); err == nil {
					t.Errorf("a registry that has %d bytes has shown %d", size, len(b))
				}
			}
			if m, err := w.books.Member(oci.Repo{Host: hub, Name: repo}, d); m.Standing != catalog.Unknown || err != nil {
				t.Errorf("%+v %v", m, err)
			}
		}
	})
}

// A manifest that is asked for among blobs first, of a registry that has one store for both, is a manifest all the same when
// it is asked for as one: with its own type, and with parts that are known.
func TestManifestThatWasABlobFirst(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				im := w.hub.push(t, app, "1", "a")
				m := im.children[0]
				w.hub.blobs[app+"@"+m.Digest.String()] = m.Bytes
				w.headBlob(t, askBlob(app, m.Digest), len(m.Bytes))
				w.blob(t, askBlob(app, m.Digest), m.Bytes)
				if restarted {
					w.restart()
				}
				c := w.get(ask(app, m.Digest.String()))
				if c.MediaType != m.MediaType {
					t.Errorf("type %s, want %s", c.MediaType, m.MediaType)
				}
				known, err := w.books.Member(oci.Repo{Host: hub, Name: app}, m.Children[0].Digest)
				if known.Standing != catalog.Named || known.Size != m.Children[0].Size || err != nil {
					t.Errorf("its config: %+v %v", known, err)
				}
				w.hub.asked()
				if c := w.get(ask(app, m.Digest.String())); c.MediaType != m.MediaType {
					t.Errorf("type %s, want %s", c.MediaType, m.MediaType)
				}
				w.hub.wants(t)
			})
		})
	}
}

// A layer that two images share, at a registry that is asked with a login: the registry is asked whether the second image's
// repository has it when that image's manifest comes, so that it pulls while the registry is down though no client has asked
// for the layer there before.
func TestSharedLayersAreAskedForAhead(t *testing.T) {
	t.Parallel()
	c := newChain(t, origin.Options{})
	im := c.hub.AddImage("corp/app", "1", origin.Image{})
	c.hub.AddImage("corp/other", "1", origin.Image{}) // the same content
	c.goBy(byRules)
	c.pullImage(t, "corp/app", "1", im)
	c.hub.ClearRequests()
	blobs := im.Blobs()
	last := blobs[len(blobs)-1].Digest
	asked := c.hub.Arrived(func(r origin.Request) bool {
		return r.Kind == origin.KindBlob && r.Method == http.MethodHead && r.Ref == last.String()
	})
	if _, err := c.Manifest(t.Context(), ask("corp/other", "1")); err != nil {
		t.Fatal(err)
	}
	<-asked
	// A client that asks now shares the answer, and waits for it.
	if _, err := c.Blob(t.Context(), head(askBlob("corp/other", last))); err != nil {
		t.Fatal(err)
	}
	if n := c.hub.Count(origin.KindBlob); n != len(blobs) {
		t.Errorf("%d questions for %d blobs", n, len(blobs))
	}
	c.start(t) // what was asked for is recorded by then
	c.goBy(byRules)
	c.hub.Down()
	c.pullImage(t, "corp/other", "1", im)
}

// forAll are rules by which every client may read what globs name.
func forAll(globs ...string) *access.Rules {
	return access.NewRules(access.Rule{Who: []string{"*"}, Pull: globs})
}
