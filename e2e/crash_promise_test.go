package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/opencontainers/go-digest"
	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/crash"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

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
	if err := wait.Until(ctx, 2*time.Minute, func() error { return g.tidy() }); err != nil {
		return fmt.Errorf("two minutes later: %w", err)
	}
	// A tag whose check failed while the upstream was down may be the old one for a moment.
	err := wait.Until(ctx, 2*time.Minute, func() error {
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
