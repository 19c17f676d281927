package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// privateScenes read private content through another repository.
func privateScenes() []scene {
	list := []scene{
		{line: 1, name: "public-through-a-public-repository", short: true, play: playShown},
		{line: 1, name: "one-registrys-word-opens-no-others", short: true, play: playOneWord},
	}
	for _, through := range []string{"docker.io", "corp.example"} {
		for _, x := range states {
			list = append(list, scene{
				line: 1, name: "private-" + x.name + "-through-" + through, short: through == "docker.io" || x.name == "cached",
				play: func(ctx context.Context, s *stage) error { return playTable(ctx, s, x, through) },
			})
		}
	}
	return list
}

// private is an image that the login alone opens. Each part of it has the marker in its bytes.
type private struct {
	marker          string
	index, manifest document
	config, layer   descriptor
}

const secretRepo = "corp/secret"

// newPrivate makes one and tags it in a repository of the registry.
func newPrivate(g *registry, marker string) private {
	r := g.repo(secretRepo)
	p := private{marker: marker}
	g.change(func() {
		r.closed = true
		p.config = r.config(marker)
		p.layer = r.add(text(strings.Repeat(marker+" ", 16<<10)))
		p.manifest = r.put("", manifestOf(marker, p.config, p.layer))
		p.index = r.put("v1", indexOf(marker, p.manifest.descriptor().forPlatform()))
	})
	return p
}

// pull gets all of the image as a client that may.
func (p private) pull(ctx context.Context, c *client, repo string) error {
	for _, path := range []string{
		manifestPath(repo, "v1"), manifestPath(repo, p.index.digest), manifestPath(repo, p.manifest.digest),
		blobPath(repo, p.config.Digest), blobPath(repo, p.layer.Digest),
	} {
		if a := c.get(ctx, path); a.code != http.StatusOK || a.err != nil {
			return fmt.Errorf("the image's own reader, %s: %s", path, a)
		}
	}
	return nil
}

// leaks reports whether an answer shows private content.
func (p private) leaks(a answer) bool {
	return a.code/100 == 2 || strings.Contains(string(a.body), p.marker)
}

// way is one form of the attack: what the attacker publishes in a repository of its own, what it pulls from there
// first, and what it then asks for.
type way struct {
	name    string
	target  func(p private) string // the digest that is asked for
	publish func(r *repository, p private) (first []string)
	ask     func(ctx context.Context, c *client, repo string, p private) answer
}

func layerOf(p private) string    { return p.layer.Digest }
func configOf(p private) string   { return p.config.Digest }
func manifestIn(p private) string { return p.manifest.digest }

// ways are the columns of the table.
var ways = []way{
	{"blob", layerOf, namesParts, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.get(ctx, blobPath(repo, p.layer.Digest))
	}},
	{"config", configOf, namesParts, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.get(ctx, blobPath(repo, p.config.Digest))
	}},
	{"manifest", manifestIn, namesManifest, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.get(ctx, manifestPath(repo, p.manifest.digest))
	}},
	{"index child", manifestIn, namesIndex, func(ctx context.Context, c *client, repo string, p private) answer {
		if a := c.get(ctx, manifestPath(repo, p.index.digest)); p.leaks(a) {
			return a
		}
		return c.get(ctx, manifestPath(repo, p.manifest.digest))
	}},
	{"manifest under blobs", manifestIn, namesManifestAsLayer, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.get(ctx, blobPath(repo, p.manifest.digest))
	}},
	{"config under manifests", configOf, namesParts, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.get(ctx, manifestPath(repo, p.config.Digest))
	}},
	{"Range", layerOf, namesParts, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.get(ctx, blobPath(repo, p.layer.Digest), "Range", "bytes=0-99")
	}},
	{"HEAD of a blob", layerOf, namesParts, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.head(ctx, blobPath(repo, p.layer.Digest))
	}},
	{"HEAD of a manifest", manifestIn, namesManifest, func(ctx context.Context, c *client, repo string, p private) answer {
		return c.head(ctx, manifestPath(repo, p.manifest.digest))
	}},
	{"referrers' tag", manifestIn, namesReferrer, func(ctx context.Context, c *client, repo string, p private) answer {
		_ = c.get(ctx, "/v2/"+repo+"/referrers/"+ownManifest.digest)
		return c.get(ctx, manifestPath(repo, p.manifest.digest))
	}},
	{"nested index", manifestIn, namesNested, func(ctx context.Context, c *client, repo string, p private) answer {
		if a := c.get(ctx, manifestPath(repo, p.manifest.digest)); p.leaks(a) {
			return a
		}
		return c.get(ctx, blobPath(repo, p.layer.Digest))
	}},
}

func namesParts(r *repository, p private) []string {
	r.put("v1", manifestOf("attacker", p.config, p.layer))
	return []string{"v1"}
}

func namesManifest(r *repository, p private) []string {
	r.put("v1", indexOf("attacker", p.manifest.descriptor().forPlatform()))
	return []string{"v1"}
}

func namesIndex(r *repository, p private) []string {
	r.put("v1", indexOf("attacker", p.index.descriptor()))
	return []string{"v1"}
}

func namesManifestAsLayer(r *repository, p private) []string {
	r.put("v1", indexOf("attacker", p.manifest.descriptor().forPlatform()))
	layer := p.manifest.descriptor()
	layer.MediaType = layerType
	r.put("v2", manifestOf("attacker", r.config("attacker"), layer))
	return []string{"v1", "v2"}
}

// ownManifest is the attacker's own, to which its referrers' tag refers.
var ownManifest = manifestOf("subject", descriptor{MediaType: configType, Digest: sum([]byte("{}")), Size: 2})

func namesReferrer(r *repository, p private) []string {
	r.put("v1", ownManifest)
	tag := strings.Replace(ownManifest.digest, ":", "-", 1)
	r.put(tag, indexOf("attacker", p.manifest.descriptor()))
	return []string{"v1", tag}
}

func namesNested(r *repository, p private) []string {
	inner := r.put("", indexOf("inner", p.manifest.descriptor().forPlatform()))
	r.put("v1", indexOf("outer", inner.descriptor()))
	return []string{"v1", inner.digest}
}

// world is a private registry, a public one, and a mirror before both.
type world struct {
	*stage
	closed, open *registry
	m            *mirror
	p            private
	rules, free  setup // with the login and a rule; without either
	gate         chan struct{}
	opened       sync.Once
}

// newWorld starts the registries, and the mirror under rules.
func newWorld(ctx context.Context, s *stage, cache string) (*world, error) {
	w := &world{stage: s, gate: make(chan struct{})}
	var err error
	if w.closed, err = s.newRegistry(ctx); err != nil {
		return nil, err
	}
	if w.open, err = s.newRegistry(ctx); err != nil {
		return nil, err
	}
	w.p = newPrivate(w.closed, "PRIVATE-ONE")
	file, err := s.passwordFile()
	if err != nil {
		return nil, err
	}
	public := "docker.io: {endpoints: [" + w.open.url() + "]}\n"
	w.rules = setup{Options: mirrord.Options{
		Upstreams: public + fmt.Sprintf("corp.example: {endpoints: [%s], access: rules, credentials: [{name: robot, username: %s, "+
			"passwordFile: %q}]}", w.closed.url(), user, file),
		More:  `rules: [{who: ["*"], pull: ["corp.example/corp/**", "corp.example/attacker/**"]}]`,
		Cache: cache,
	}}
	w.free = setup{Options: mirrord.Options{
		Upstreams: public + "corp.example: {endpoints: [" + w.closed.url() + "]}", Cache: cache,
	}}
	w.m, err = s.start(ctx, w.rules)
	return w, err
}

// playTable brings the private image into one state and attacks it in all ways.
func playTable(ctx context.Context, s *stage, x state, through string) error {
	w, err := newWorld(ctx, s, x.cache)
	if err != nil {
		return err
	}
	defer w.release()
	if err := x.reach(ctx, w); err != nil {
		return fmt.Errorf("reach the state %q: %w", x.name, err)
	}
	g := w.open
	if through == "corp.example" {
		g = w.closed
	}
	before := w.closed.hits(func(h hit) bool { return h.repo == secretRepo })
	answers := make([]answer, len(ways))
	errs := make([]error, len(ways))
	var group sync.WaitGroup
	for i, y := range ways {
		group.Go(func() { answers[i], errs[i] = attackBy(ctx, w, g, through, i, y) })
	}
	if x.running { // those that wait for the download to go on must have joined it by now
		pause(ctx, 2*time.Second)
		w.release()
	}
	group.Wait()
	for i, y := range ways {
		if errs[i] != nil {
			return fmt.Errorf("%s: %w", y.name, errs[i])
		}
		asked := g.asked(ownRepo(i), y.target(w.p))
		s.add(figure{
			What: fmt.Sprintf("%s, %s", x.name, y.name), Got: fmt.Sprintf("%s, asked %d", answers[i], asked),
			Bound: "no private byte, its own registry asked 1 or 2 times",
			OK:    !w.p.leaks(answers[i]) && answers[i].code >= 400 && asked >= 1 && asked <= 2,
		})
	}
	if !x.running {
		after := w.closed.hits(func(h hit) bool { return h.repo == secretRepo })
		s.equal("requests for the private repository", after-before, 0)
	}
	return nil
}

// ownRepo is the attacker's repository for a way.
func ownRepo(i int) string { return fmt.Sprintf("attacker/way%d", i) }

// attackBy publishes, pulls what was published, and asks for what is private.
func attackBy(ctx context.Context, w *world, g *registry, through string, i int, y way) (answer, error) {
	r := g.repo(ownRepo(i))
	var first []string
	g.change(func() { first = y.publish(r, w.p) })
	c := w.m.attacker()
	defer c.close()
	repo := through + "/" + ownRepo(i)
	for _, ref := range first {
		if a := c.get(ctx, manifestPath(repo, ref)); a.code != http.StatusOK {
			return a, fmt.Errorf("the attacker's own manifest %s: %s", ref, a)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 40*time.Second)
	defer cancel()
	return y.ask(ctx, c, repo, w.p), nil
}

func (w *world) release() { w.opened.Do(func() { close(w.gate) }) }

// waitFor asks again until cond returns nil.
func waitFor(ctx context.Context, limit time.Duration, cond func() error) error {
	return wait.Until(ctx, limit, cond)
}
