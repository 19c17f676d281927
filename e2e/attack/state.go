package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"
)

// stateScenes write as much as they can into state.db.
func stateScenes() []scene {
	return []scene{
		{line: 4, name: "state-of-an-earlier-version", earlier: true, play: playEarlier},
		{line: 4, name: "downgrade-and-upgrade", earlier: true, play: playDowngrade},
		{line: 7, name: "state-under-pressure", timed: true, limit: 5 * time.Minute, play: playPressure},
	}
}

// playPressure has the largest manifests written that the mirror takes, while a victim pulls small cold ones.
func playPressure(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	c := m.attacker()
	defer c.close()
	r := g.repo("attacker/large")
	var large *larges
	pull := func(seed int) answer {
		doc := large.make(seed)
		g.change(func() { r.put("", doc) })
		defer g.change(func() { delete(r.docs, doc.digest) })
		return c.get(ctx, manifestPath("docker.io/attacker/large", doc.digest))
	}
	entries := 0
	for i, n := range []int{9_990, 5_000, 4_000, 2_500, 2_000, 1_000, 500} {
		large = newLarges(n, 0)
		if a := pull(i); a.code == http.StatusOK {
			entries = n
			break
		}
	}
	if entries == 0 {
		return errors.New("a manifest of 500 entries is refused")
	}
	cold := s.coldManifest(ctx, g, m)
	stop := watch(ctx, 100*time.Millisecond, cold)
	var t tally
	each(ctx, 40, 40, func(i int) { t.add(pull(i + 100)) })
	s.verdict(fmt.Sprintf("a victim's small cold manifest beside 40 of %d entries %s", entries, t.String()), stop(), 2*time.Second)
	each(ctx, 60, 8, func(i int) { t.add(pull(i + 200)) })
	s.add(figure{What: fmt.Sprintf("of 100 manifests of %d entries, answered", entries), Got: t.String(), Bound: "200, or 503 with Retry-After", OK: t.of(200)+t.of(503) == 100})
	info, err := os.Stat(filepath.Join(m.Data, "state.db"))
	if err != nil {
		return err
	}
	s.atMost("state.db", mib(info.Size()), 192, "MiB")
	began := time.Now()
	if _, err := s.restart(ctx, m, m.setup); err != nil {
		return err
	}
	s.within("clean stop and the next start", time.Since(began), 4*time.Second)
	return nil
}

// playEarlier has an earlier version record what a private image and an attacker's manifest refer to. The binary under
// test must not take it for proof.
func playEarlier(ctx context.Context, s *stage) error {
	now := s.mirror
	s.mirror = s.earlier
	w, err := newWorld(ctx, s, "")
	s.mirror = now
	if err != nil {
		return err
	}
	defer w.release()
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	attacker := w.m.attacker()
	defer attacker.close()
	r := w.open.repo("attacker/evil")
	w.open.change(func() {
		r.put("v1", manifestOf("attacker", w.p.config, w.p.layer))
		r.put("ix", indexOf("attacker", w.p.manifest.descriptor().forPlatform()))
	})
	for _, ref := range []string{"v1", "ix"} {
		if a := attacker.get(ctx, manifestPath("docker.io/attacker/evil", ref)); a.code != http.StatusOK {
			return fmt.Errorf("the attacker's manifest: %s", a)
		}
	}
	if w.m, err = s.restart(ctx, w.m, w.rules); err != nil {
		return err
	}
	c := w.m.attacker()
	defer c.close()
	leaks := 0
	for _, path := range w.p.parts("docker.io/attacker/evil") {
		if w.p.leaks(c.get(ctx, path)) {
			leaks++
		}
	}
	s.equal("private parts read through what an earlier version has recorded", leaks, 0)
	v := w.m.victim()
	defer v.close()
	s.holds("the image's own reader still gets all of it", w.p.pull(ctx, v, "corp.example/"+secretRepo) == nil, "")
	return nil
}

// playDowngrade goes back to the earlier version on the data of the binary under test, and forth again.
func playDowngrade(ctx context.Context, s *stage) error {
	w, err := newWorld(ctx, s, "")
	if err != nil {
		return err
	}
	defer w.release()
	for i, program := range []string{"", s.earlier, ""} {
		if i > 0 {
			o := w.rules
			o.Program = program
			if w.m, err = s.restart(ctx, w.m, o); err != nil {
				return fmt.Errorf("start %d: %w", i, err)
			}
		}
		c := w.m.victim()
		err := w.p.pull(ctx, c, "corp.example/"+secretRepo)
		c.close()
		s.holds([]string{"this version", "then the earlier one", "then this one again"}[i]+": the image is served", err == nil, errors.Join(err))
		if i == 1 { // what the earlier one learns by the attacker's manifest must not count for this one
			a := w.m.attacker()
			r := w.open.repo("attacker/evil")
			w.open.change(func() { r.put("v1", manifestOf("attacker", w.p.config, w.p.layer)) })
			_ = a.get(ctx, manifestPath("docker.io/attacker/evil", "v1"))
			a.close()
		}
	}
	c := w.m.attacker()
	defer c.close()
	a := c.get(ctx, blobPath("docker.io/attacker/evil", w.p.layer.Digest))
	s.holds("what the earlier version learnt meanwhile opens nothing", !w.p.leaks(a), a)
	return nil
}
