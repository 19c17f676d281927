package warm_test

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

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/warm"
)

const (
	kib = int64(1) << 10
	mib = int64(1) << 20
	gib = int64(1) << 30
)

// hub is a registry with the puller before it, and the cache that it fills: it counts what it is asked, and fails as it is told.
type hub struct {
	mu       sync.Mutex
	images   map[string]*pushed // by canonical reference
	asked    []string           // "TREE ref", "BLOB name"
	here     map[oci.Digest]int64
	names    map[oci.Digest]string
	keeps    map[string]kept // by holder
	size     int64           // of the cache
	free     int64           // of the disk; 0: not known
	fault    func(request string) error
	loses    string // the blob that is removed as soon as it has come
	rate     int64  // bytes in a second; 0: at once
	now, top int    // blobs under way, and the most at once
	limit    [2]int64
	resetAt  time.Time
}

type kept struct {
	until   time.Time
	digests []oci.Digest
}

// pushed is an image: blobs for each platform.
type pushed struct {
	ref       oci.Ref
	digest    oci.Digest
	platforms []string
	blobs     map[string][]blob // by platform
	attached  []oci.Ref
	built     string // by its config, of an image without an index; empty: it has none
}

type blob struct {
	name string
	size int64
}

func newHub() *hub {
	return &hub{
		images: make(map[string]*pushed), here: make(map[oci.Digest]int64), names: make(map[oci.Digest]string), keeps: make(map[string]kept),
		size: 20 * gib,
	}
}

func named(name string) oci.Digest { return digest.FromString(name) }

// ref is the canonical reference of an image.
func ref(image string) oci.Ref {
	r, err := oci.ParseRef(image)
	if err != nil {
		panic(err)
	}
	return r
}

// push adds an image for platforms, whose blobs are NAME:SIZE in KiB; those that begin with a platform are for that one alone.
func (h *hub) push(image string, platforms []string, blobs ...blob) oci.Digest {
	ref := ref(image)
	p := &pushed{ref: ref, digest: named(ref.String()), platforms: platforms, blobs: make(map[string][]blob)}
	for _, platform := range platforms {
		for _, b := range blobs {
			of, _, own := strings.Cut(b.name, "|")
			if !own || of == platform {
				p.blobs[platform] = append(p.blobs[platform], b)
			}
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.images[ref.String()] = p
	h.images[oci.Ref{Repo: ref.Repo, Digest: p.digest}.String()] = p
	return p.digest
}

// missingError is what an image that is not there is answered with.
var errMissing = diagnose.New(diagnose.TagNotFound, "registry has no such image", "check the image's name and tag")

func (h *hub) ask(request string) error {
	h.mu.Lock()
	h.asked = append(h.asked, request)
	fault := h.fault
	h.mu.Unlock()
	if fault != nil {
		return fault(request)
	}
	return nil
}

// fails makes requests fail as f says.
func (h *hub) fails(f func(request string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fault = f
}

// took returns what was asked since the last call, sorted.
func (h *hub) took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := slices.Sorted(slices.Values(h.asked))
	h.asked = nil
	return list
}

// count is how many requests began with a prefix.
func count(asked []string, prefix string) (n int) {
	for _, r := range asked {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (h *hub) Canonical(ref oci.Ref) (oci.Ref, error) { return ref, nil }

func (h *hub) find(ref oci.Ref) *pushed {
	if ref.Digest != "" {
		ref.Tag = ""
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.images[ref.String()]
}

func (h *hub) Manifests(ctx context.Context, ref oci.Ref, o pull.FetchOptions) (*pull.Image, error) {
	p := h.find(ref)
	known := false
	if p != nil {
		h.mu.Lock()
		_, known = h.here[p.digest]
		h.mu.Unlock()
	}
	if ref.Digest == "" || !known {
		if err := h.ask("TREE " + ref.String()); err != nil {
			return nil, err
		}
		if p == nil {
			return nil, fmt.Errorf("manifest %s: %w", ref, errMissing)
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := h.tree(p, o.Platforms)
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, part := range m.Parts {
		if part.Manifest {
			_, before := h.here[part.Digest]
			h.here[part.Digest] = part.Size
			m.Parts[i].Here, m.Parts[i].Fetched = true, !before
		}
	}
	return m, nil
}

// tree is an image with its parts for some platforms.
func (h *hub) tree(p *pushed, platforms []string) *pull.Image {
	m := &pull.Image{Ref: oci.Ref{Repo: p.ref.Repo, Tag: p.ref.Tag, Digest: p.digest}}
	h.mu.Lock()
	defer h.mu.Unlock()
	seen := make(map[oci.Digest]bool)
	add := func(name string, d oci.Digest, size int64, manifest bool) {
		if seen[d] {
			return
		}
		seen[d] = true
		h.names[d] = name
		_, here := h.here[d]
		m.Parts = append(m.Parts, pull.Part{Descriptor: oci.Descriptor{Digest: d, Size: size}, Manifest: manifest, Here: here})
	}
	add(p.ref.String(), p.digest, kib, true)
	if p.built != "" {
		add("config of "+p.ref.String(), named("config of "+p.ref.String()), kib, false)
		m.Parts[1].MediaType = "application/vnd.oci.image.config.v1+json"
	}
	for _, platform := range p.platforms {
		if len(platforms) > 0 && !slices.Contains(platforms, platform) && slices.ContainsFunc(platforms, func(x string) bool { return slices.Contains(p.platforms, x) }) {
			continue
		}
		if platform != "" {
			m.Platforms = append(m.Platforms, platform)
		}
		add(p.ref.String()+" "+platform, named(p.ref.String()+platform), kib, true)
		for _, b := range p.blobs[platform] {
			add(b.name, named(b.name), b.size, false)
		}
	}
	return m
}

func (h *hub) Part(ctx context.Context, repo oci.Repo, part pull.Part, o pull.FetchOptions) error {
	h.mu.Lock()
	name, rate := h.names[part.Digest], h.rate
	_, here := h.here[part.Digest]
	h.now++
	h.top = max(h.top, h.now)
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.now--
		h.mu.Unlock()
	}()
	if here {
		return nil
	}
	if err := h.ask("BLOB " + name); err != nil {
		return err
	}
	for done := int64(0); rate > 0 && done < part.Size; {
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
		done = min(done+rate, part.Size)
		if o.Progress != nil {
			o.Progress(part, done)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.loses != name {
		h.here[part.Digest] = part.Size
	}
	return nil
}

func (h *hub) Attached(_ context.Context, ref oci.Ref, _ pull.FetchOptions) ([]oci.Ref, error) {
	p := h.find(ref)
	if err := h.ask("ATTACHED " + p.ref.String()); err != nil {
		return nil, err
	}
	return p.attached, nil
}

func (h *hub) Built(m *pull.Image) string {
	config, ok := m.Config()
	if _, here := h.Stat(config.Digest); !ok || !here {
		return ""
	}
	return h.find(m.Ref).built
}

func (h *hub) Survey(ref oci.Ref, platforms []string) (*pull.Image, error) {
	p := h.find(oci.Ref{Repo: ref.Repo, Digest: ref.Digest})
	if p == nil {
		return nil, errors.New("not here")
	}
	m := h.tree(p, platforms)
	if !m.Parts[0].Here {
		m.Parts = m.Parts[:1] // what is below it is not known
	}
	return m, nil
}

func (h *hub) Known(_ context.Context, ref oci.Ref) (catalog.Tag, error) {
	p := h.find(ref)
	h.mu.Lock()
	defer h.mu.Unlock()
	if p != nil {
		if _, here := h.here[p.digest]; here {
			return catalog.Tag{Ref: ref, Digest: p.digest}, nil
		}
	}
	return catalog.Tag{}, catalog.ErrUnknown
}

func (h *hub) Choice(t catalog.Tag) catalog.Choice { return catalog.Choice{Digest: t.Digest} }

func (h *hub) Budget(string) (limit, remaining int64, resetAt time.Time, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.limit[0], h.limit[1], h.resetAt, h.limit[0] > 0
}

func (h *hub) Stat(d oci.Digest) (int64, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	n, here := h.here[d]
	return n, here
}

func (h *hub) Keep(holder string, until time.Time, digests ...oci.Digest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(digests) == 0 || !until.After(time.Now()) {
		delete(h.keeps, holder)
		return
	}
	h.keeps[holder] = kept{until, digests}
}

// kept reports how many holders keep a blob by name.
func (h *hub) kept(name string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, k := range h.keeps {
		if k.until.After(time.Now()) && slices.Contains(k.digests, named(name)) {
			n++
		}
	}
	return n
}

func (h *hub) Stats() cache.Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := cache.Stats{Size: h.size}
	for _, n := range h.here {
		s.Bytes += n
	}
	if h.free > 0 {
		s.Disk.Space = cache.Space{Free: h.free, Total: 1 << 50}
	}
	return s
}

// most is how many blobs were under way at once at most.
func (h *hub) most() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.top
}

// world is a hub with an engine that runs, in a bubble.
type world struct {
	*hub
	*warm.Engine
	t     *testing.T
	table *statetest.Table
	o     warm.Options
	stop  func()
}

func inBubble(t *testing.T, o warm.Options, f func(t *testing.T, w *world)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := &world{hub: newHub(), t: t, table: statetest.NewTable(), o: o}
		w.start()
		defer func() { w.stop() }()
		f(t, w)
	})
}

// start starts an engine on the table.
func (w *world) start() {
	w.o.Puller, w.o.Cache, w.o.Table = w.hub, w.hub, w.table
	w.o.Platforms = func() []string { return []string{"linux/amd64"} }
	w.Engine = warm.New(w.o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.stop = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("Run: %v", err)
		}
	}
}

// restart stops the engine and starts another one on the same table.
func (w *world) restart() {
	w.stop()
	w.start()
}

func (w *world) submit(images ...string) warm.Job {
	w.t.Helper()
	return w.request(warm.Request{Images: images})
}

func (w *world) request(r warm.Request) warm.Job {
	w.t.Helper()
	j, created, err := w.Submit(r)
	if err != nil || !created {
		w.t.Fatalf("submit: created %t, %v", created, err)
	}
	return j
}

// finished waits until a job is over.
func (w *world) finished(id string) warm.Job {
	w.t.Helper()
	var last warm.Job
	for j, err := range w.Watch(context.Background(), id) {
		if err != nil {
			w.t.Fatal(err)
		}
		last = j
	}
	return last
}

// job is a job when all that can happen now has happened.
func (w *world) job(id string) warm.Job {
	w.t.Helper()
	synctest.Wait()
	j, err := w.Job(id)
	if err != nil {
		w.t.Fatal(err)
	}
	return j
}

func states(j warm.Job) map[warm.State]int {
	m := make(map[warm.State]int)
	for _, i := range j.Images {
		m[i.State]++
	}
	return m
}
