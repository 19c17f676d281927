package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// leaseScenes keep content from being evicted, or make the end of leases expensive.
func leaseScenes() []scene {
	return []scene{
		{line: 14, name: "leases-end-together", timed: true, limit: 4 * time.Minute, play: playLeases},
		{line: 14, name: "slow-readers-of-a-small-cache", short: true, play: playPins},
	}
}

// playLeases has hundreds of manifests lease the same thousands of digests, lets a quarter of an hour pass on the
// process's clock, and measures hits meanwhile.
func playLeases(ctx context.Context, s *stage) error {
	const manifests, entries = 600, 2_500
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	clock, err := clockOf(m.Pid())
	if err != nil {
		return err
	}
	r := g.repo("library/hit")
	hit := r.add(text("ok"))
	c := m.victim()
	defer c.close()
	if a := c.get(ctx, blobPath("docker.io/library/hit", hit.Digest)); a.code != http.StatusOK {
		return fmt.Errorf("the victim's blob: %s", a)
	}
	attacker := m.attacker()
	defer attacker.close()
	many := g.repo("attacker/leases")
	shared := newLarges(entries, 0)
	var t tally
	each(ctx, manifests, 8, func(i int) {
		doc := shared.note(i)
		g.change(func() { many.put("", doc) })
		t.add(attacker.get(ctx, manifestPath("docker.io/attacker/leases", doc.digest)))
		g.change(func() { delete(many.docs, doc.digest) })
	})
	var slowest time.Duration
	failed := 0
	for range 40 { // 20 minutes, half a minute at a time
		if err := clock.jump(30*time.Second, 30*time.Second); err != nil {
			return err
		}
		for range 10 {
			a := c.get(ctx, blobPath("docker.io/library/hit", hit.Digest))
			if slowest = max(slowest, a.took); a.code != http.StatusOK {
				failed++
			}
			pause(ctx, 10*time.Millisecond)
		}
	}
	s.holds("twenty minutes have passed for the process", m.drift(ctx, 20*time.Minute) < time.Minute, m.drift(ctx, 0).Round(time.Second))
	s.equal("failed hits", failed, 0)
	s.within(fmt.Sprintf("slowest hit while the leases of %d manifests of %d shared digests end %s", manifests, entries, t.String()), slowest, 500*time.Millisecond)
	return nil
}

// playPins has nine readers hold the nine blobs of a small cache open, a byte at a time. New content must be cached.
func playPins(ctx context.Context, s *stage) error {
	const blobs, size = 9, 13 << 20 // more than the kernel's buffers of a connection hold
	g, m, err := s.open(ctx, setup{Options: mirrord.Options{Cache: "size: 128MiB, minFree: 0"}})
	if err != nil {
		return err
	}
	reading, leave := context.WithCancel(ctx)
	defer leave()
	attacker := m.attacker()
	defer attacker.close()
	r := g.repo("attacker/pins")
	for i := range blobs {
		var d descriptor
		g.change(func() { d = r.add(made(uint64(i)+1, size)) })
		path := blobPath("docker.io/attacker/pins", d.Digest)
		if a := attacker.get(ctx, path); a.code != http.StatusOK {
			return fmt.Errorf("the attacker's blob: %s", a)
		}
		if err := hold(reading, m, path); err != nil {
			return err
		}
	}
	// Two minutes pass for the process, so slowly that each reader has had a byte in each half of one.
	k, err := clockOf(m.Pid())
	if err != nil {
		return err
	}
	for range 5 {
		if err := k.jump(20*time.Second, 20*time.Second); err != nil {
			return err
		}
		pause(ctx, 6*time.Second)
	}
	before, err := m.cache(ctx)
	if err != nil {
		return err
	}
	victim := m.victim()
	defer victim.close()
	v := g.repo("victim/app")
	stored := 0
	for i := range 6 {
		var d descriptor
		g.change(func() { d = v.add(made(uint64(i)+100, size)) })
		for range 2 { // the second one is from the cache, if it was stored
			if a := victim.get(ctx, blobPath("docker.io/victim/app", d.Digest)); a.code != http.StatusOK {
				return fmt.Errorf("the victim's blob: %s", a)
			}
		}
		if g.hits(func(h hit) bool { return h.ref == d.Digest && h.method == http.MethodGet }) == 1 {
			stored++
		}
	}
	after, err := m.cache(ctx)
	if err != nil {
		return err
	}
	s.atLeast(fmt.Sprintf("new blobs that were cached beside nine that are read slowly, of 6 (%d requests passed on)",
		after.Uncached-before.Uncached), float64(stored), 1, "")
	s.atMost("bytes cached", mib(after.Bytes), 128, "MiB")
	return nil
}

// hold opens a blob and takes a byte of it every few seconds, with a small window, until the context ends.
func hold(ctx context.Context, m *mirror, path string) error {
	conn, err := slowConnection(ctx, m.Host, attackerAddress)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: m\r\n\r\n", path); err != nil {
		return err
	}
	one := make([]byte, 1)
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Read(one); err != nil {
		return errors.Join(err, conn.Close())
	}
	go func() {
		defer func() { _ = conn.Close() }()
		tick := time.NewTicker(5 * time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := conn.Read(one); err != nil {
				return
			}
		}
	}()
	return nil
}
