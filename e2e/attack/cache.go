package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// cacheScenes try to have others' content evicted, or to have the mirror download what no client reads.
func cacheScenes() []scene {
	var list []scene
	for _, x := range claims {
		list = append(list, scene{
			line: 5, name: "eviction-by-" + x.name, short: true,
			play: func(ctx context.Context, s *stage) error { return playClaim(ctx, s, x) },
		})
	}
	return append(list,
		scene{line: 10, name: "first-source-is-slow", short: true, limit: 3 * time.Minute, play: playSlowSource},
		scene{line: 11, name: "leaves-at-once", limit: 4 * time.Minute, timed: true, play: playLeave},
		scene{line: 11, name: "leaves-before-it-begins", short: true, play: playLeaveQueued},
	)
}

const (
	cacheSize = 400 << 20
	cachedOne = 16 << 20
	cachedAll = 20 // blobs of others that are cached
	// ahead is how much a reservation may be ahead of what came, where the registry has agreed to the size.
	ahead = 80 << 20
)

// claim is a size that is not true.
type claim struct {
	name    string
	size    int64 // that the attacker's manifest says
	blob    *blob // what its registry then sends under the layer's digest; nil: 404
	leave   bool  // the client leaves before the first byte
	evicted int64 // how much of others' content may go, in bytes
}

var claims = []claim{
	{name: "a-manifest", size: cacheSize * 85 / 100, blob: &blob{size: 5}},
	{name: "a-manifest-and-no-layer", size: cacheSize * 85 / 100},
	{name: "a-manifest-above-the-cache", size: cacheSize * 2, blob: &blob{size: 5}},
	// The registry agrees, sends five bytes and then nothing: what is reserved grows with what comes.
	{name: "a-registry-that-stalls", size: 300 << 20, blob: &blob{size: 5, claim: 300 << 20}, evicted: ahead},
	{name: "a-client-that-leaves", size: 300 << 20, blob: &blob{size: 300 << 20, rate: 10}, leave: true, evicted: ahead},
}

// playClaim fills the cache, ends the leases by a restart, and has the attacker's manifest name one layer.
func playClaim(ctx context.Context, s *stage, x claim) error {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	o := setup{Options: mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.url() + "]}", Cache: fmt.Sprintf("size: %d, minFree: 0", cacheSize),
	}}
	m, err := s.start(ctx, o)
	if err != nil {
		return err
	}
	if err := fill(ctx, g, m); err != nil {
		return err
	}
	if m, err = s.restart(ctx, m, o); err != nil {
		return err
	}
	var before cacheStats
	if err := waitFor(ctx, time.Minute, func() (err error) { // it reads what is stored in the background
		if before, err = m.cache(ctx); err == nil && before.Bytes < cachedAll*cachedOne {
			err = fmt.Errorf("%d bytes are cached", before.Bytes)
		}
		return err
	}); err != nil {
		return err
	}
	r := g.repo("attacker/claims")
	layer := descriptor{MediaType: layerType, Digest: sum([]byte("never")), Size: x.size}
	g.change(func() {
		if x.blob != nil {
			b := *x.blob
			b.content = filler(9)
			r.blobs[layer.Digest] = b
		}
		r.put("v1", manifestOf("claims", r.config("claims"), layer))
	})
	c := m.attacker()
	defer c.close()
	if a := c.get(ctx, manifestPath("docker.io/attacker/claims", "v1")); a.code != http.StatusOK {
		return fmt.Errorf("the attacker's manifest: %s", a)
	}
	if x.leave {
		brief, leave := context.WithTimeout(ctx, 300*time.Millisecond)
		_ = c.get(brief, blobPath("docker.io/attacker/claims", layer.Digest))
		leave()
		pause(ctx, time.Second)
	} else {
		asking, leave := context.WithTimeout(ctx, 5*time.Second)
		_ = c.get(asking, blobPath("docker.io/attacker/claims", layer.Digest))
		leave()
	}
	after, err := m.cache(ctx)
	if err != nil {
		return err
	}
	s.atLeast("cached before", mib(before.Bytes), cachedAll*cachedOne>>20, "MiB")
	s.atMost("evicted of others' content", mib(after.EvictedBytes), mib(x.evicted), "MiB")
	return nil
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// fill caches others' blobs.
func fill(ctx context.Context, g *registry, m *mirror) error {
	c := m.victim()
	defer c.close()
	r := g.repo("library/others")
	for i := range cachedAll {
		b := made(uint64(1000+i), cachedOne)
		g.change(func() { r.add(b) })
		if a := c.get(ctx, blobPath("docker.io/library/others", digestOf(b))); a.code != http.StatusOK {
			return fmt.Errorf("others' blob: %s", a)
		}
	}
	return nil
}

// playSlowSource asks for a layer through a slow registry first; a reader of a fast one must not wait for it.
func playSlowSource(ctx context.Context, s *stage) error {
	slow, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	fast, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	layer := made(7, 10<<20)
	digest := digestOf(layer)
	slow.repo("a/app").blobs[digest] = blob{content: layer.content, size: layer.size, rate: 20_000}
	fast.repo("a/app").blobs[digest] = layer
	m, err := s.start(ctx, setup{Options: mirrord.Options{
		Upstreams: fmt.Sprintf("docker.io: {endpoints: [%s]}\nslow.example: {endpoints: [%s]}", fast.url(), slow.url()),
	}})
	if err != nil {
		return err
	}
	attacker, victim := m.attacker(), m.victim()
	defer attacker.close()
	defer victim.close()
	first, leave := context.WithCancel(ctx)
	defer leave()
	var group sync.WaitGroup
	group.Go(func() { _ = attacker.get(first, blobPath("slow.example/a/app", digest)) })
	if err := waitFor(ctx, time.Minute, func() error {
		if slow.hits(func(h hit) bool { return h.ref == digest && h.method == http.MethodGet }) == 0 {
			return fmt.Errorf("the slow registry has not been asked")
		}
		return nil
	}); err != nil {
		return err
	}
	pause(ctx, time.Second)
	limited, stop := context.WithTimeout(ctx, 40*time.Second)
	defer stop()
	a := victim.get(limited, blobPath("docker.io/a/app", digest))
	s.within("10 MB of a fast registry, first asked of a slow one", a.took, 10*time.Second)
	s.equal("bytes that the victim got", len(a.body), layer.size)
	s.holds("they are right", sum(a.body) == digest, a)
	s.atMost("requests for it at the fast registry", float64(fast.asked("a/app", digest)), 8, "")
	leave()
	group.Wait()
	return nil
}

// playLeave has one client begin a hundred downloads and leave each after its first bytes.
func playLeave(ctx context.Context, s *stage) error {
	const blobs, size = 100, 20 << 20
	g, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	var digests []string
	for i := range blobs {
		b := made(uint64(i)+1, size)
		b.rate = 4 << 20 // so that little has come when the client leaves
		digests = append(digests, g.repo(fmt.Sprint("big/app", i)).add(b).Digest)
	}
	m, err := s.start(ctx, setup{Options: mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.url() + "]}", Cache: "size: 4GiB, minFree: 0",
	}})
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for i, d := range digests {
		group.Go(func() {
			c := m.attacker()
			defer c.close()
			resp, err := c.open(ctx, http.MethodGet, blobPath(fmt.Sprint("docker.io/big/app", i), d))
			if err != nil {
				return
			}
			_, _ = io.CopyN(io.Discard, resp.Body, 100)
			_ = resp.Body.Close()
		})
	}
	group.Wait()
	fetched, err := settled(ctx, m)
	if err != nil {
		return err
	}
	s.atMost("fetched for one client that has left 100 downloads of 20 MiB", mib(fetched), 128, "MiB")
	return nil
}

// settled is how much the mirror has fetched when it fetches no more.
func settled(ctx context.Context, m *mirror) (int64, error) {
	last := int64(-1)
	for range 60 {
		c, err := m.cache(ctx)
		if err != nil {
			return 0, err
		}
		if c.UpstreamBytes == last {
			return last, nil
		}
		last = c.UpstreamBytes
		pause(ctx, 2*time.Second)
	}
	return last, nil
}

// playLeaveQueued leaves downloads that wait for their turn: what has not begun must not begin.
func playLeaveQueued(ctx context.Context, s *stage) error {
	const blobs, size = 12, 2 << 20
	g, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	m, err := s.start(ctx, setup{Options: mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.url() + "], maxTransfers: 1}",
	}})
	if err != nil {
		return err
	}
	c := m.attacker()
	defer c.close()
	gate := make(chan struct{})
	var digests []string
	for i := range blobs {
		b := made(uint64(i)+1, size)
		if i == 0 {
			b.gate = gate
		}
		digests = append(digests, g.repo(fmt.Sprint("big/app", i)).add(b).Digest)
	}
	staying, end := context.WithCancel(ctx)
	defer end()
	leaving, leave := context.WithCancel(staying)
	defer leave()
	var group sync.WaitGroup
	for i, d := range digests {
		asking := leaving
		if i == 0 {
			asking = staying
		}
		group.Go(func() { _ = c.get(asking, blobPath(fmt.Sprint("docker.io/big/app", i), d)) })
		if i > 0 {
			continue
		}
		if err := waitFor(ctx, time.Minute, func() error { // the first one has the only turn
			if g.hits(func(h hit) bool { return h.ref == d && h.method == http.MethodGet }) == 0 {
				return errors.New("the first download has not begun")
			}
			return nil
		}); err != nil {
			return err
		}
	}
	if err := m.waiting(ctx, blobs-1); err != nil {
		return err
	}
	leave() // not the first one yet: its turn would go to one of which the mirror can't know yet that its client leaves
	if err := m.waiting(ctx, 0); err != nil {
		return err
	}
	end()
	group.Wait()
	close(gate)
	ask := s.coldBlob(ctx, g, m, size, 0)
	for i := range 3 { // each has its turn behind what was there before
		s.equal("a victim's blob, status", ask(i).code, http.StatusOK)
	}
	s.equal("downloads that began after their only reader had left", g.hits(func(h hit) bool {
		return strings.HasPrefix(h.repo, "big/") && h.method == http.MethodGet && h.ref != digests[0]
	}), 0)
	return nil
}
