package e2e_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/crash"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// subject is a tag that clients pull.
type subject struct {
	repo, tag string
	versions  []origin.Built // what it means now and meant before
}

// content is all that a client needs of a version.
func content(x origin.Built) []digest.Digest {
	list := []digest.Digest{x.Root.Digest, x.Manifests[0].Digest, x.Configs[0].Digest}
	for _, l := range x.Layers[0] {
		list = append(list, l.Digest)
	}
	return list
}

// stage is an upstream, and the data folder of the mirrors that live one after the other before it.
type stage struct {
	program, dir, data string
	cache              string
	rng                *rand.Rand
	sum                *tally
	upstream           *origin.Origin

	kept   subject   // pulled in the life before
	moving subject   // pulled in the life before; the tag means the other version since
	fresh  subject   // not pulled before
	old    []subject // pulled in the life before, where the budget is small

	gates []*origin.Gate // what the upstream waits for in answers that nobody waits for any more

	mu   sync.Mutex
	done map[string]digest.Digest // by repository: what a client has pulled by tag and to the end, the last one
}

func newStage(program, cache string, rng *rand.Rand, sum *tally) (*stage, error) {
	dir, err := os.MkdirTemp("", "crash-")
	if err != nil {
		return nil, err
	}
	upstream, err := origin.New(origin.Options{Rate: 40 << 20})
	if err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	g := &stage{
		program: program, dir: dir, data: filepath.Join(dir, "data"), cache: cache, rng: rng, sum: sum,
		upstream: upstream, done: make(map[string]digest.Digest),
	}
	g.kept = g.subject("library/kept", 1, 3<<10, 300<<10)
	g.moving = g.subject("acme/moving", 2, 200<<10, 5<<10)
	y := upstream.AddImage(g.moving.repo, "", origin.Image{Index: true, Layers: []int64{210 << 10, 6 << 10}, Seed: 3})
	g.moving.versions = append(g.moving.versions, y)
	g.fresh = g.subject("library/fresh", 4, 2<<10, 70<<10, 1<<20, 3<<20)
	for i := range 5 {
		g.old = append(g.old, g.subject(fmt.Sprintf("acme/old%d", i), int64(5+i), 2<<20))
	}
	return g, nil
}

func (g *stage) subject(repo string, seed int64, layers ...int64) subject {
	x := g.upstream.AddImage(repo, "v1", origin.Image{Index: true, Layers: layers, Seed: seed})
	return subject{repo: repo, tag: "v1", versions: []origin.Built{x}}
}

// small reports whether the budget is, so that content goes.
func (g *stage) small() bool { return strings.HasPrefix(g.cache, "size:") }

// all is every subject.
func (g *stage) all() []subject { return append([]subject{g.kept, g.moving, g.fresh}, g.old...) }

func (g *stage) close() {
	for _, gate := range g.gates {
		gate.Open()
	}
	g.upstream.Close()
	_ = os.RemoveAll(g.dir)
}

// launch starts a mirror on the folder, and holds it to being ready within 10 s.
func (g *stage) launch(ctx context.Context, noWait bool, env ...string) (*mirrord.Mirror, error) {
	start := time.Now()
	m, err := mirrord.Launch(ctx, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.upstream.URL() + "], tags: {maxAge: 0s}}",
		Cache:     g.cache, Level: "info", Program: g.program, Dir: g.dir, NoWait: noWait, Env: env,
	})
	if err != nil || noWait {
		return m, err
	}
	took := time.Since(start)
	g.sum.ready(took)
	if took > 10*time.Second {
		m.End()
		return nil, fmt.Errorf("it was ready after %s, want 10 s at most; it was started at %s and said:\n%s", took,
			start.UTC().Format(time.RFC3339Nano), m.Tail())
	}
	return m, nil
}

// history is the life before: some images are pulled and stored. It ends well, or by
// SIGKILL unless it shall be clean.
func (g *stage) history(ctx context.Context, clean bool) error {
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	subjects := []subject{g.kept, g.moving}
	if g.small() {
		subjects = append(subjects, g.old...)
	}
	for _, s := range subjects {
		if err := g.byTag(ctx, m, s, false); err != nil {
			return errors.Join(err, errors.New(m.Tail()))
		}
	}
	err = wait.Until(ctx, 30*time.Second, func() error {
		for _, s := range subjects {
			if err := g.stored(content(s.versions[0])); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if clean || g.rng.IntN(2) == 0 {
		if !m.End() {
			return errors.New("it did not stop when it was asked to")
		}
	} else if err := died(m); err != nil {
		return err
	}
	g.move()
	return nil
}

// move has the moving tag mean its second version, for good.
func (g *stage) move() {
	g.upstream.SetTag(g.moving.repo, g.moving.tag, g.moving.versions[1].Root.Digest)
}

// leave has a client go away in the middle of a layer that the upstream is slow with.
func (g *stage) leave(ctx context.Context, m *mirrord.Mirror) error {
	layers := g.fresh.versions[0].Layers[0]
	layer := layers[len(layers)-1]
	gate := origin.NewGate()
	remove := g.upstream.Script(origin.Rule{
		Ref: layer.Digest.String(), Method: http.MethodGet,
		Do: origin.Fault{Stall: &origin.Stall{At: layer.Size / 2, Gate: gate}},
	})
	defer remove()
	p, done := customer(m, g.fresh)
	defer done()
	if err := p.some(ctx, layer, layer.Size/4); err != nil {
		return err
	}
	g.gates = append(g.gates, gate) // shut until the end, as the mirror goes on without the client
	return nil
}

// some pulls the first n bytes of a blob, and leaves.
func (p puller) some(ctx context.Context, d ocispec.Descriptor, n int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"blobs/"+d.Digest.String(), nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	_, err = io.CopyN(io.Discard, resp.Body, n)
	return err
}

// died kills a mirror and waits for its end.
func died(m *mirrord.Mirror) error {
	if err := kill(m, syscall.SIGKILL); err != nil {
		return err
	}
	<-m.Done()
	return nil
}

// stored is nil where all of it is.
func (g *stage) stored(list []digest.Digest) error {
	for _, d := range list {
		if _, err := os.Stat(crash.Path(g.data, d)); err != nil {
			return err
		}
	}
	return nil
}

// crowd has clients pull everything at once, each in an order of its own. Its error is that of one who failed; wrong
// bytes come first.
func (g *stage) crowd(ctx context.Context, m *mirrord.Mirror, clients int) error {
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		rng := rand.New(rand.NewPCG(g.rng.Uint64(), 0))
		wg.Go(func() {
			jobs := []func() error{
				func() error { return g.byTag(ctx, m, g.kept, rng.IntN(2) == 0) },
				func() error { return g.byTag(ctx, m, g.moving, rng.IntN(2) == 0) },
				func() error { return g.byTag(ctx, m, g.fresh, rng.IntN(2) == 0) },
				func() error { return byDigest(ctx, m, g.fresh, 0) },
			}
			for _, j := range rng.Perm(len(jobs)) {
				if err := jobs[j](); err != nil {
					errs[i] = fmt.Errorf("client %d: %w", i, err)
					return
				}
				g.sum.online.Add(1)
			}
		})
	}
	wg.Wait()
	slices.SortStableFunc(errs, func(a, b error) int {
		rank := func(err error) int {
			switch {
			case errors.Is(err, errWrongBytes):
				return 0
			case err != nil:
				return 1
			}
			return 2
		}
		return rank(a) - rank(b)
	})
	return errs[0]
}

// byTag pulls a subject and notes that it is whole at a client.
func (g *stage) byTag(ctx context.Context, m *mirrord.Mirror, s subject, head bool) error {
	x, err := pull(ctx, m, s, head)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done[s.repo] = x.Root.Digest
	return nil
}

// pull pulls by tag all that amd64 needs, and returns which version it was. With head it asks what the tag means first,
// as containerd does.
func pull(ctx context.Context, m *mirrord.Mirror, s subject, head bool) (origin.Built, error) {
	p, done := customer(m, s)
	defer done()
	sum, err := p.tag(ctx, s.tag, head)
	if err != nil {
		return origin.Built{}, fmt.Errorf("%s:%s: %w", s.repo, s.tag, err)
	}
	for _, x := range s.versions {
		if x.Root.Digest == sum {
			if err := p.image(ctx, string(sum), string(sum), "amd64"); err != nil {
				return x, fmt.Errorf("%s:%s, which is %s: %w", s.repo, s.tag, sum, err)
			}
			return x, nil
		}
	}
	return origin.Built{}, fmt.Errorf("%s:%s is %s, which it never was: %w", s.repo, s.tag, sum, errWrongBytes)
}

func byDigest(ctx context.Context, m *mirrord.Mirror, s subject, version int) error {
	p, done := customer(m, s)
	defer done()
	d := string(s.versions[version].Root.Digest)
	if err := p.image(ctx, d, d, "amd64"); err != nil {
		return fmt.Errorf("%s@%s: %w", s.repo, d, err)
	}
	return nil
}

// customer is a client with connections of its own.
func customer(m *mirrord.Mirror, s subject) (p puller, done func()) {
	transport := &http.Transport{DisableCompression: true}
	return puller{
		client: &http.Client{Transport: transport}, base: m.URL() + "/v2/docker.io/" + s.repo + "/",
	}, transport.CloseIdleConnections
}

// tag asks what a tag means and returns the digest of the answer's bytes, or the one that a HEAD says.
func (p puller) tag(ctx context.Context, tag string, head bool) (digest.Digest, error) {
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+"manifests/"+tag, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex+", "+ocispec.MediaTypeImageManifest+", */*")
	resp, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	said := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if head {
		return said, nil
	}
	h := sha256.Sum256(body)
	sum := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h[:]))
	if said != sum {
		return "", fmt.Errorf("the answer says to be %s and is %s: %w", said, sum, errWrongBytes)
	}
	return sum, nil
}

// after starts the mirror again, as it was left, and holds it to the promises.
func (g *stage) after(ctx context.Context, s scene) error {
	if !s.damages {
		if err := crash.Check(g.data); err != nil {
			return fmt.Errorf("what it left: %w", err)
		}
	}
	if !s.damages && !g.small() {
		if err := g.stored(content(g.kept.versions[0])); err != nil {
			return fmt.Errorf("it lost what was stored before: %w", err)
		}
	}
	have, err := crash.Blobs(g.data)
	if err != nil {
		return err
	}
	told := g.told()
	g.upstream.ClearRequests()
	// What went, or may go, can only be pulled again with the upstream up.
	offlineFirst := !s.damages && !g.small() && g.rng.IntN(2) == 0
	if offlineFirst {
		g.upstream.Down()
	}
	m, err := g.launch(ctx, false)
	if err != nil {
		return err
	}
	defer m.End()
	if err := g.promises(ctx, m, offlineFirst); err != nil {
		return errors.Join(err, errors.New(m.Tail()))
	}
	if !s.damages && !g.small() {
		if err := g.fetchedAgain(have, told); err != nil {
			return errors.Join(err, errors.New(m.Tail()))
		}
	}
	if !m.End() {
		return errors.New("it did not stop when it was asked to")
	}
	return crash.Check(g.data)
}

func (g *stage) promises(ctx context.Context, m *mirrord.Mirror, offlineFirst bool) error {
	if offlineFirst {
		if err := g.offline(ctx, m, false); err != nil {
			return fmt.Errorf("with the upstream down: %w", err)
		}
		g.upstream.Up()
	}
	if err := g.crowd(ctx, m, 1+g.rng.IntN(4)); err != nil {
		return fmt.Errorf("with the upstream up: %w", err)
	}
	if err := wait.Until(ctx, time.Minute, func() error { return g.tidy() }); err != nil {
		return fmt.Errorf("a minute later: %w", err)
	}
	// A tag whose check failed while the upstream was down may be the old one for a moment.
	err := wait.Until(ctx, 30*time.Second, func() error {
		x, err := pull(ctx, m, g.moving, false)
		if err != nil {
			return err
		}
		if now := g.moving.versions[1].Root.Digest; x.Root.Digest != now {
			return fmt.Errorf("%s is still %s, and means %s", g.moving.repo, x.Root.Digest, now)
		}
		return g.stored(content(g.moving.versions[1]))
	})
	if err != nil && !g.small() {
		return err
	}
	g.upstream.Down()
	if err := g.offline(ctx, m, true); err != nil {
		return fmt.Errorf("with the upstream down at the end: %w", err)
	}
	return nil
}

// told is the manifests that a client had with all that belongs to them: what they mean is recorded.
func (g *stage) told() map[digest.Digest]bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	list := make(map[digest.Digest]bool)
	for _, s := range g.all() {
		for _, x := range s.versions {
			if g.done[s.repo] == x.Root.Digest {
				list[x.Root.Digest], list[x.Manifests[0].Digest] = true, true
			}
		}
	}
	return list
}

// fetchedAgain is an error where the upstream has sent what was stored, or told, when the mirror started.
func (g *stage) fetchedAgain(have, told map[digest.Digest]bool) error {
	var errs []error
	for _, r := range g.upstream.Requests() {
		if r.Method != http.MethodGet || r.Bytes == 0 || r.Status >= http.StatusMultipleChoices {
			continue
		}
		d := digest.Digest(r.Ref)
		if r.Kind == origin.KindManifest && !told[d] {
			continue // its bytes may have been there, and nothing of what they mean
		}
		if have[d] {
			errs = append(errs, fmt.Errorf("stored, and fetched again: %s %s", r.Method, r.Path))
		}
	}
	return errors.Join(errs...)
}

// offline pulls by tag what has to be there with the upstream down: what a client had to the end before, and so is
// recorded with bytes, references and tag, and of which all bytes are stored. Layers may lack where a process died after
// a client had them and before the commit, so not when settled; anything may where the budget is small.
func (g *stage) offline(ctx context.Context, m *mirrord.Mirror, settled bool) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, s := range g.all() {
		head := g.rng.IntN(2) == 0
		group.Go(func() error { return g.offlineOne(ctx, m, s, head, settled) })
	}
	return group.Wait()
}

func (g *stage) offlineOne(ctx context.Context, m *mirrord.Mirror, s subject, head, settled bool) error {
	g.mu.Lock()
	last, had := g.done[s.repo]
	g.mu.Unlock()
	if !had {
		return nil
	}
	p, done := customer(m, s)
	defer done()
	for _, x := range s.versions {
		if x.Root.Digest == last && g.small() && g.stored(content(x)[:1]) != nil {
			return nil
		}
	}
	sum, err := p.tag(ctx, s.tag, head)
	if err != nil {
		return fmt.Errorf("%s:%s: %w", s.repo, s.tag, err)
	}
	for i, x := range s.versions {
		switch {
		case x.Root.Digest != sum:
			continue
		case sum != last && i == 0: // the tag moved, and moves back never
			return fmt.Errorf("%s:%s is the old %s again, a client had %s", s.repo, s.tag, sum, last)
		}
		if err := g.stored(content(x)); err != nil && settled && !g.small() {
			return fmt.Errorf("%s:%s was pulled to its end and is not stored: %w", s.repo, s.tag, err)
		} else if err != nil {
			return nil
		}
		if err := p.image(ctx, string(sum), string(sum), "amd64"); err != nil {
			return fmt.Errorf("%s:%s, all of which is stored: %w", s.repo, s.tag, err)
		}
		g.sum.offline.Add(1)
		return nil
	}
	return fmt.Errorf("%s:%s is %s, which it never was: %w", s.repo, s.tag, sum, errWrongBytes)
}

// tidy is nil where the folder has nothing wrong, nothing unfinished and nothing strange.
func (g *stage) tidy() error {
	left, err := crash.Spooled(g.data)
	if err != nil {
		return err
	}
	strange, err := crash.Strange(g.data)
	if err != nil {
		return err
	}
	if len(left)+len(strange) > 0 {
		return fmt.Errorf("left in the spool: %v; in the data folder: %v", left, strange)
	}
	return crash.Check(g.data)
}
