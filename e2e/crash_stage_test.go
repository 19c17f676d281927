package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/opencontainers/go-digest"

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

	gates []*origin.Gate // what the upstream waits for in answers without a client

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

// launch starts a mirror on the folder, and holds it to being ready soon: within 10 s in the runs that have a machine for
// themselves.
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
	if g.sum.prompt && took > 10*time.Second {
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
	err = wait.Until(ctx, 2*time.Minute, func() error {
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
