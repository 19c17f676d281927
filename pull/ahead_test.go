package pull_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
	"github.com/registrymirror/mirror/upstream/transfer"
)

var inBackground = pull.FetchOptions{As: "warm-up", Background: true}

// ahead brings the manifests of an image into the cache, in the background.
func (w *world) ahead(t *testing.T, tag string) *pull.Image {
	t.Helper()
	m, err := w.Manifests(context.Background(), appRef(tag, ""), inBackground)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// The halves of a fetch: the manifests of the platforms, then each part.
func TestFetchInTwoHalves(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		o := inBackground
		o.Platforms = []string{"linux/arm64"}
		m, err := w.Manifests(context.Background(), appRef("v1", ""), o)
		if err != nil {
			t.Fatal(err)
		}
		child := im.children[1]
		w.hub.wants(t, "HEAD acme/app:v1", "GET acme/app@"+im.index.Digest.String(), "GET acme/app@"+child.Digest.String())
		if m.Ref != appRef("v1", im.index.Digest) || !slices.Equal(m.Platforms, []string{"linux/arm64"}) || len(m.Parts) != 4 {
			t.Fatalf("%+v", m)
		}
		for i, part := range m.Parts {
			if part.Manifest != (i < 2) || part.Here != part.Manifest || part.Size <= 0 {
				t.Errorf("part %d: %+v", i, part)
			}
		}
		for range 2 {
			for _, part := range m.Parts {
				if err := w.Part(context.Background(), m.Ref.Repo, part, o); err != nil {
					t.Error(err)
				}
			}
		}
		w.hub.wants(t, "BLOB acme/app@"+child.Children[0].Digest.String(), "BLOB acme/app@"+child.Children[1].Digest.String())
		if s, err := w.Survey(m.Ref, o.Platforms); err != nil || len(s.Missing()) != 0 {
			t.Errorf("missing %v, %v", s.Missing(), err)
		}
		if _, err := w.Manifests(context.Background(), oci.Ref{Repo: oci.Repo{Host: "unknown.example", Name: app}, Tag: "v1"}, o); err == nil {
			t.Error("an image of an unknown registry is fetched")
		}
		if err := w.Part(context.Background(), oci.Repo{Host: "unknown.example", Name: app}, m.Parts[2], o); err == nil {
			t.Error("a part of an unknown registry is fetched")
		}
	})
}

// A model has no platform, an empty config that its registry lacks, and media types that no runtime knows.
func TestFetchOfAnArtifact(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		weights := []byte(strings.Repeat("weights", 1000))
		m := document(t, oci.MediaTypeOCIManifest, map[string]any{
			"artifactType": "application/vnd.cncf.model.manifest.v1+json",
			"config":       descriptor("application/vnd.oci.empty.v1+json", []byte("{}")),
			"layers":       []oci.Descriptor{descriptor("application/vnd.cncf.model.weight.v1.raw", weights)},
		})
		layer := m.Children[1].Digest
		w.hub.manifests[app+"@"+m.Digest.String()] = m
		w.hub.tags[app+":model"] = m.Digest
		w.hub.blobs[app+"@"+layer.String()] = weights
		o := inBackground
		o.Platforms = []string{"linux/amd64"}
		got, err := w.Fetch(context.Background(), appRef("model", ""), o)
		if err != nil || len(got.Platforms) != 0 || len(got.Parts) != 3 || len(got.Missing()) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
		if all, here := got.Size(); all != here || all != int64(len(m.Bytes)+2+len(weights)) {
			t.Errorf("%d of %d bytes", here, all)
		}
	})
}

// Signatures are found by tag, referrers on all pages of their list.
func TestAttached(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		ref := appRef("", im.index.Digest)
		tag := oci.ReferrersTag(im.index.Digest)
		list, err := w.Attached(context.Background(), ref, inBackground)
		if err != nil || len(list) != 0 {
			t.Errorf("of an image without any: %v, %v", list, err)
		}
		w.hub.wants(t, "HEAD acme/app:"+tag+".sig", "HEAD acme/app:"+tag+".att", "HEAD acme/app:"+tag+".sbom",
			"REFERRERS acme/app@"+im.index.Digest.String()+":")
		time.Sleep(time.Minute)
		sig := w.hub.push(t, app, tag+".sig", "signature").index.Digest
		other := w.hub.push(t, app, "other", "other").index.Digest
		w.hub.lists[app+"@"+im.index.Digest.String()] = &upstream.Document{
			MediaType: oci.MediaTypeOCIIndex,
			Bytes:     fmt.Appendf(nil, `{"schemaVersion":2,"manifests":[{"digest":%q},{"digest":%q},{"digest":"x"}]}`, sig, other),
		}
		list, err = w.Attached(context.Background(), ref, inBackground)
		want := []oci.Ref{appRef(tag+".sig", ""), appRef("", sig), appRef("", other)}
		if err != nil || !slices.Equal(list, want) {
			t.Errorf("%v, %v, want %v", list, err, want)
		}
		for _, r := range list {
			if m, err := w.Fetch(context.Background(), r, inBackground); err != nil || len(m.Missing()) != 0 {
				t.Errorf("%s: %v", r, err)
			}
		}
		w.hub.behave(status(503), nil)
		time.Sleep(2 * time.Minute)
		if _, err := w.Attached(context.Background(), ref, inBackground); err == nil {
			t.Error("a registry that fails: no error")
		}
	})
}

// frugal is a registry that makes no counted request for work that can wait. Each takes two seconds.
type frugal struct {
	*registry
	tags bool // checks of tags count
}

func (f frugal) spare(ctx context.Context, repo, ref string) error {
	if err := f.ask(ctx, "SPARE", repo, ref); err != nil {
		return err
	}
	e := &fault.ReserveError{Upstream: hub, Until: time.Now().Add(time.Hour)}
	return &fault.Error{
		Op: "manifest", Upstream: hub, Repository: repo, Reference: ref, Status: 429, RetryAfter: time.Hour, Err: e,
		Steps: []fault.Step{{Name: fault.StepManifest, Err: e}},
	}
}

func (f frugal) Manifest(ctx context.Context, repo, ref string) (*oci.Manifest, error) {
	if upstream.IsSpare(ctx) {
		return nil, f.spare(ctx, repo, ref)
	}
	return f.registry.Manifest(ctx, repo, ref)
}

func (f frugal) Resolve(ctx context.Context, repo, ref string) (oci.Descriptor, error) {
	if f.tags && upstream.IsSpare(ctx) {
		return oci.Descriptor{}, f.spare(ctx, repo, ref)
	}
	return f.registry.Resolve(ctx, repo, ref)
}

// Background work is kept from the rest of a limit. Clients that had joined its request make one of their own, all together, and
// nothing is remembered for them, nor that the registry is slow.
func TestReserveFailsNoClient(t *testing.T) {
	for name, tags := range map[string]bool{"at the tag": true, "at the manifest": false} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				up := frugal{w.hub, tags}
				w.use(up, policy)
				im := w.hub.push(t, app, "v1", "one")
				w.hub.behave(nil, takes(2*time.Second))
				work := make(chan error, 1)
				begin := func() {
					go func() {
						_, err := w.Manifests(context.Background(), appRef("v1", ""), inBackground)
						work <- err
					}()
					synctest.Wait()
				}
				ends := func() {
					t.Helper()
					err := <-work
					if e, ok := errors.AsType[*fault.ReserveError](err); !ok || e.Upstream != hub || e.Until.IsZero() {
						t.Errorf("background work ended with %v", err)
					}
				}
				begin()
				if !tags {
					time.Sleep(2 * time.Second) // it has resolved the tag
				}
				time.Sleep(time.Second)
				var clients sync.WaitGroup
				for i := range 20 {
					clients.Go(func() {
						a := ask(app, "v1")
						a.Client = fmt.Sprint("node-", i)
						if c, err := w.Manifest(context.Background(), a); err != nil || c.Digest != im.index.Digest {
							t.Errorf("client %d: %v", i, err)
						}
					})
				}
				clients.Wait()
				ends()
				get, check := "GET acme/app@"+im.index.Digest.String(), "HEAD acme/app:v1"
				if tags {
					w.hub.wants(t, "SPARE acme/app:v1", check, get)
				} else {
					w.hub.wants(t, check, "SPARE acme/app@"+im.index.Digest.String(), get)
				}

				// Alone, it fails each time, and a client that comes after is not told.
				next := w.hub.push(t, app, "v1", "two")
				time.Sleep(2 * time.Minute)
				for range 2 {
					begin()
					ends()
				}
				asked := w.hub.asked()
				if n := len(asked); !strings.HasPrefix(asked[n-1], "SPARE") || tags && n != 2 {
					t.Errorf("asked: %q", asked)
				}
				c := w.get(ask(app, "v1"))
				if c.Digest != next.index.Digest || c.Status.Stale {
					t.Errorf("a client afterwards got %s, stale %t: %v", c.Digest, c.Status.Stale, c.Status.Reason)
				}
			})
		})
	}
}

// Background work takes no copy of a tag that may be old, whether the policy serves it first or its registry fails.
func TestBackgroundWorkTakesNoOldCopy(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		first := policy
		first.ServeStaleFirst = true
		w.use(w.hub, first)
		w.hub.push(t, app, "v1", "one")
		w.get(ask(app, "v1"))
		next := w.hub.push(t, app, "v1", "two").index.Digest
		time.Sleep(2 * time.Minute)
		if m, err := w.Manifests(context.Background(), appRef("v1", ""), inBackground); err != nil || m.Ref.Digest != next {
			t.Errorf("%+v, %v, want %s", m, err, next)
		}
		time.Sleep(2 * time.Minute)
		w.hub.behave(status(503), nil)
		_, err := w.Manifests(context.Background(), appRef("v1", ""), inBackground)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Status != 503 {
			t.Errorf("from a registry that fails: %v", err)
		}
		if m, err := w.Manifests(context.Background(), appRef("v1", ""), pull.FetchOptions{}); err != nil || m.Ref.Digest != next {
			t.Errorf("as a client does: %+v, %v", m, err)
		}
	})
}

// Fresh work asks the registry what a tag means though the last answer is young; where it does not answer that one counts. A
// pinned tag is not asked for.
func TestFreshWorkAsksForTheTag(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		fresh := inBackground
		fresh.Fresh = true
		w.hub.push(t, app, "v1", "one")
		w.get(ask(app, "v1"))
		next := w.hub.push(t, app, "v1", "two").index.Digest
		time.Sleep(time.Second)
		if m, err := w.Manifests(context.Background(), appRef("v1", ""), inBackground); err != nil || m.Ref.Digest == next {
			t.Errorf("without Fresh: %+v, %v", m, err)
		}
		if m, err := w.Manifests(context.Background(), appRef("v1", ""), fresh); err != nil || m.Ref.Digest != next {
			t.Errorf("%+v, %v, want %s", m, err, next)
		}
		time.Sleep(time.Second)
		w.hub.behave(status(503), nil)
		if m, err := w.Manifests(context.Background(), appRef("v1", ""), fresh); err != nil || m.Ref.Digest != next {
			t.Errorf("with a registry that fails: %+v, %v", m, err)
		}
		w.hub.behave(nil, nil)
		if err := w.pinTo("v1", next, time.Time{}); err != nil {
			t.Fatal(err)
		}
		w.hub.push(t, app, "v1", "three")
		w.hub.asked()
		if m, err := w.Manifests(context.Background(), appRef("v1", ""), fresh); err != nil || m.Ref.Digest != next || len(w.hub.asked()) > 0 {
			t.Errorf("pinned: %+v, %v", m, err)
		}
	})
}

// A blob for which there is no room is not asked for.
func TestNoRoomInTheBackground(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "v1", "one")
		m := w.ahead(t, "v1")
		w.hub.asked()
		w.shelf.full = &cache.NoRoomError{Need: 100 << 30, Why: cache.TooLarge, Size: 20 << 30}
		for _, part := range m.Parts {
			if part.Manifest {
				continue
			}
			err := w.Part(context.Background(), m.Ref.Repo, part, inBackground)
			if e, ok := errors.AsType[*cache.NoRoomError](err); !ok || e.Need != 100<<30 {
				t.Errorf("%v", err)
			}
		}
		w.hub.wants(t)
	})
}

// busy is a registry whose transfers had no turn, so many times.
type busy struct {
	*registry
	left *int
}

func (b busy) Blob(ctx context.Context, repo string, d oci.Digest, w flight.Want) (*transfer.Body, error) {
	if *b.left > 0 {
		*b.left--
		return nil, &fault.Error{Op: "blob", Upstream: hub, Repository: repo, Err: &fault.QueueError{Most: 32}}
	}
	return b.registry.Blob(ctx, repo, d, w)
}

// A client that joined a download had no turn in its time, which ends the download. Background work goes on waiting, until its context
// ends.
func TestBackgroundWorkOutlastsClientsInAQueue(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "v1", "one")
		m := w.ahead(t, "v1")
		left := 5
		w.use(busy{w.hub, &left}, policy)
		part := m.Parts[len(m.Parts)-1]
		if err := w.Part(context.Background(), m.Ref.Repo, part, inBackground); err != nil || left != 0 {
			t.Errorf("%v, %d left", err, left)
		}
		left = 1
		w.shelf.evict(part.Digest)
		time.Sleep(time.Minute)
		if err := w.Part(context.Background(), m.Ref.Repo, part, pull.FetchOptions{}); !fault.Is[*fault.QueueError](err) {
			t.Errorf("not in the background: %v", err)
		}
		left = 1000
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := w.Part(ctx, m.Ref.Repo, part, inBackground); err == nil || left < 900 {
			t.Errorf("%v, %d left", err, left)
		}
	})
}

// The budget of background work is the upstream's, by any of its names.
func TestBudget(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		if _, _, _, known := w.Budget(hub); known {
			t.Error("a budget is known before the registry has said any")
		}
		reset := time.Now().Add(time.Hour)
		w.hub.budget = limit.Budget{Limit: 100, Remaining: 30, Reset: reset}
		if most, left, at, known := w.Budget(hub); most != 100 || left != 30 || !at.Equal(reset) || !known {
			t.Errorf("%d of %d until %s, %t", left, most, at, known)
		}
		if _, _, _, known := w.Budget("unknown.example"); known {
			t.Error("of an unknown registry")
		}
	})
}

// All of it together: background work with six images of ten seconds each, at an upstream with two turns. A client that pulls a new image
// meanwhile takes as long as alone; one that joins a download, which waits behind the others, too. Each blob is asked for once.
func TestClientsBesideBackgroundWork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		network := &origin.Network{Buffer: 4 << 10}
		c := newChainOf(t, origin.Options{Network: network, Rate: 100 << 10}, func(c *chain) {
			dial := c.options
			c.options = func(o *upstream.Options) {
				dial(o)
				o.MaxTransfers = 2
			}
		})
		image := func(name string, seed int64) origin.Built {
			return c.hub.AddImage(name, "1", origin.Image{Layers: []int64{1000 << 10}, Seed: seed})
		}
		var work sync.WaitGroup
		var images []origin.Built
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for i := range 6 {
			name := fmt.Sprint("acme/warm", i)
			images = append(images, image(name, int64(i)))
			work.Go(func() {
				m, err := c.Fetch(ctx, oci.Ref{Repo: oci.Repo{Host: hub, Name: name}, Tag: "1"}, inBackground)
				if err != nil || len(m.Missing()) != 0 {
					t.Errorf("warm-up of %s: %v", name, err)
				}
			})
			synctest.Wait()
		}
		time.Sleep(3 * time.Second)
		cold := image("acme/cold", 100)
		var clients sync.WaitGroup
		pulls := func(name string, im origin.Built) {
			clients.Go(func() {
				begin := time.Now()
				c.pullImage(t, name, "1", im)
				if took := time.Since(begin); took > 12*time.Second {
					t.Errorf("the pull of %s took %s, alone it takes 10 s", name, took)
				}
			})
		}
		pulls("acme/cold", cold)
		pulls("acme/warm5", images[5])
		clients.Wait()
		work.Wait()
		for _, im := range append(images, cold) {
			for _, d := range im.Blobs() {
				if n := c.hub.CountRef(origin.KindBlob, d.Digest.String()); n != 1 {
					t.Errorf("%d requests for %s", n, d.Digest)
				}
			}
		}
		gone := image("acme/gone", 101)
		ended := make(chan error, 1)
		go func() {
			_, err := c.Fetch(ctx, oci.Ref{Repo: oci.Repo{Host: hub, Name: "acme/gone"}, Tag: "1"}, inBackground)
			ended <- err
		}()
		time.Sleep(9 * time.Second)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		before := c.hub.Sent()
		time.Sleep(time.Minute)
		if n := c.hub.Sent() - before; n > 64<<10 {
			t.Errorf("%d bytes of %s came after the end of its context", n, gone.Root.Digest)
		}
	})
}

// A registry takes longer to fail than any client waits.
func TestBackgroundWorkHasNoDeadline(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "v1", "one")
		m := w.ahead(t, "v1")
		w.hub.behave(status(503), takes(40*time.Second))
		err := w.Part(context.Background(), m.Ref.Repo, m.Parts[len(m.Parts)-1], inBackground)
		if e, ok := errors.AsType[*fault.Error](err); !ok || e.Status != 503 {
			t.Errorf("%v", err)
		}
	})
}

// A reload removes an upstream while background work waits for it: it makes no further request there, and fails as one that begins
// now does.
func TestUpstreamIsRemovedDuringBackgroundWork(t *testing.T) {
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprint(again), func(t *testing.T) {
			inBubble(t, func(t *testing.T, w *world) {
				w.shelf.alone, w.shelf.leave = true, make(chan struct{})
				im := w.hub.push(t, app, "v1", "one")
				m := w.ahead(t, "v1")
				w.hub.behave(nil, func(string) time.Duration { return time.Minute })
				results := make(chan error, 2)
				go func() {
					for _, part := range m.Parts {
						if part.Manifest {
							continue
						}
						if err := w.Part(context.Background(), m.Ref.Repo, part, inBackground); err != nil {
							results <- err
							return
						}
					}
					results <- nil
				}()
				time.Sleep(time.Second)
				table, err := route.New([]route.Upstream{{Name: ghcr}}, ghcr)
				if err != nil {
					t.Fatal(err)
				}
				w.hub.asked()
				w.Use(pull.Setup{Routes: table, Sites: map[string]pull.Site{ghcr: {Name: ghcr, Upstream: w.ghcr}}})
				if again {
					w.use(w.hub, policy)
				}
				close(w.shelf.leave)
				err = <-results
				if unknown := fault.Is[*route.UnknownError](err); unknown == again || again && !errors.Is(err, flight.ErrClosed) {
					t.Errorf("added again: %t: %v", again, err)
				}
				w.hub.wants(t)
				if _, err := w.Manifests(context.Background(), appRef("v1", im.index.Digest), inBackground); again != (err == nil) {
					t.Errorf("later: %v", err)
				}
			})
		})
	}
}
