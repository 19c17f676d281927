package pull

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// belief is what is believed of a tag.
type belief struct {
	catalog.Tag                // by the last word on it, recorded or not
	desc        oci.Descriptor // that word's, where it is in memory
	kept        catalog.Tag    // the recorded one: the copy to fall back on
}

// believe puts together the catalog's record and the last word.
func (p *Puller) believe(ctx context.Context, st *site, ref oci.Ref) belief {
	kept, err := p.kept(st, ref)
	if err != nil && !errors.Is(err, catalog.ErrUnknown) {
		p.log.WarnContext(ctx, "tag can't be looked up", "ref", ref.Name, "tag", ref.Tag, "err", err)
	}
	b := belief{Tag: kept, kept: kept}
	if w, ok := p.words.get(st.generation, ref); ok && (kept.Digest == "" || w.at.After(kept.Checked)) {
		b.Tag, b.desc = catalog.Tag{Ref: ref, Digest: w.desc.Digest, Checked: w.at}, w.desc
	}
	return b
}

// byTag answers a request for a tag: with what it means by the record, if that is young enough, else with what the
// upstream says by HEAD, else, where that does not come in time, with the copy.
func (p *Puller) byTag(ctx context.Context, st *site, ref oci.Ref, head bool) (*Content, error) {
	start := time.Now()
	b := p.believe(ctx, st, ref)
	now := time.Now() // what was recorded in between is not from the future
	verdict := catalog.Ask
	if b.Digest != "" {
		verdict = b.Judge(st.Tags, now)
	}
	if verdict == catalog.ServeAndAsk {
		p.checkBehind(ctx, st, ref, start)
	}
	if verdict != catalog.Ask {
		if c, ok := p.known(ctx, st, ref, b, head, now); ok {
			return c, nil
		}
	}

	// From here on the upstream has a say. A client that can be given a copy does not wait long for it.
	old, ok := p.copyOf(ctx, st, ref, b.kept, now)
	wait := p.wait
	if ok {
		wait = p.patience(st)
	}
	c, err := p.asked(ctx, st, ref, b, verdict == catalog.Ask, head, start, wait)
	if err == nil || !ok || ctx.Err() != nil {
		return c, err
	}
	if st.Tags.DropDeleted && isMissing(err) {
		p.deleted(ctx, ref, old)
		return nil, err
	}
	p.log.DebugContext(ctx, "stale tag served", "ref", ref.Name, "tag", ref.Tag, "digest", old.digest, "err", err)
	ref.Digest = old.digest
	return p.answer(ctx, ref, old, head, Status{
		Outcome: cache.Hit, Stale: true, Age: now.Sub(b.kept.Checked), Reason: err,
	}, time.Now())
}

// known answers without the upstream from what is believed of a tag, if that can be done.
func (p *Puller) known(ctx context.Context, st *site, ref oci.Ref, b belief, head bool, now time.Time) (
	*Content, bool,
) {
	ref.Digest = b.Digest
	s := Status{Outcome: cache.Hit, Age: now.Sub(b.Checked)}
	if f, may := p.local(ctx, st, ref.Repo, ref.Digest); may == mayServe {
		if c, err := p.answer(ctx, ref, f, head, s, now); err == nil {
			return c, true
		}
	}
	if head && p.promises(st, ref.Repo, b.desc) {
		return described(ref, b.desc, s), true
	}
	return nil, false
}

// copyOf finds the manifest that a recorded tag means, if it is here and the policy allows to fall back on it.
func (p *Puller) copyOf(ctx context.Context, st *site, ref oci.Ref, t catalog.Tag, now time.Time) (fetched, bool) {
	if t.Digest == "" || !t.Usable(st.Tags, now) {
		return fetched{}, false
	}
	f, may := p.local(ctx, st, ref.Repo, t.Digest)
	return f, may != mustAsk
}

// deleted forgets a tag that the upstream no longer has, and what it meant: all of that has to be shown anew. What the
// upstream still has costs it a question each.
func (p *Puller) deleted(ctx context.Context, ref oci.Ref, old fetched) {
	if err := p.catalog.Forget(ref); err != nil {
		p.log.WarnContext(ctx, "tag can't be forgotten", "ref", ref.Name, "tag", ref.Tag, "err", err)
	}
	p.words.forget(ref.Repo)
	parts := slices.Clone(old.parts)
	for _, d := range old.parts[1:] { // the images of an index
		if b, err := p.cache.Peek(d); err == nil && len(b) <= oci.MaxManifestSize {
			if m, err := oci.ParseManifest("", b); err == nil {
				for _, c := range m.Children {
					parts = append(parts, c.Digest)
				}
			}
		}
	}
	p.gone(ctx, ref.Repo, parts...)
	p.log.InfoContext(ctx, "tag was deleted upstream; it is no longer served", "ref", ref.Name, "tag", ref.Tag,
		"digest", old.digest)
}

// asked answers with the upstream's help: the tag is checked by HEAD, if check says so, and what it means is fetched if
// it is not here. A client that sent HEAD itself is answered by the upstream's HEAD alone: it comes for the manifest
// when it wants it, by digest.
func (p *Puller) asked(ctx context.Context, st *site, ref oci.Ref, b belief, check, head bool,
	start time.Time, wait time.Duration,
) (*Content, error) {
	at := ref
	at.Digest = b.Digest
	age := max(0, start.Sub(b.Checked))
	if check {
		desc, led, err := p.resolve(ctx, st, ref, start, wait)
		if err != nil {
			return nil, err
		}
		at.Digest, age = desc.Digest, 0
		s := trip(led)
		if f, may := p.local(ctx, st, ref.Repo, at.Digest); may == mayServe {
			s.Outcome = cache.Hit // what came from the upstream is that it is still the right one
			if c, err := p.answer(ctx, at, f, head, s, time.Now()); !errors.Is(err, errGone) {
				return c, err
			}
		}
		if head && p.promises(st, ref.Repo, desc) {
			return described(at, desc, s), nil
		}
	}
	c, err := p.byDigest(ctx, st, at, head, start, wait)
	switch {
	case err == nil:
		c.Status.Age = age
	case isMissing(err) && !check:
		// The record led to what is gone, and the bytes are no longer here: the tag must have moved.
		return p.asked(ctx, st, ref, b, true, head, start, wait)
	case errors.Is(err, context.DeadlineExceeded):
		st.troubled.Store(true)
	}
	return c, err
}

// promises reports whether a descriptor says all that a HEAD is answered with, of a manifest that a GET has not just been
// found not to bring.
func (p *Puller) promises(st *site, repo oci.Repo, d oci.Descriptor) bool {
	return d.Digest != "" && d.Size > 0 && d.MediaType != "" &&
		p.failures.get(st.key(oci.KindManifest, repo, d.Digest.String())) == nil
}

// described answers a HEAD with a descriptor alone.
func described(ref oci.Ref, d oci.Descriptor, s Status) *Content {
	return &Content{Ref: ref, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Status: s}
}

// resolve asks the upstream what a tag means, once for all who want to know.
func (p *Puller) resolve(ctx context.Context, st *site, ref oci.Ref, start time.Time, wait time.Duration) (
	desc oci.Descriptor, led bool, err error,
) {
	k := st.key(oci.KindManifest, ref.Repo, ref.Tag)
	if err := p.failures.get(k); err != nil {
		return desc, false, err
	}
	desc, led, err = p.asking.do(ctx, k.String(), start.Add(wait), func(ctx context.Context) (oci.Descriptor, error) {
		return p.check(ctx, st, k, ref, start)
	})
	if errors.Is(err, errWaited) {
		st.troubled.Store(true)
	}
	return desc, led, p.timeout(err, k, ref, start, wait)
}

// checkBehind checks a tag that has been answered already.
func (p *Puller) checkBehind(ctx context.Context, st *site, ref oci.Ref, now time.Time) {
	k := st.key(oci.KindManifest, ref.Repo, ref.Tag)
	if p.failures.get(k) != nil {
		return
	}
	p.asking.start(ctx, k.String(), new(bool), func(ctx context.Context) (oci.Descriptor, error) {
		return p.check(ctx, st, k, ref, now)
	})
}

// check is the trip of resolve. What it learns is recorded even if nobody waits any more.
func (p *Puller) check(ctx context.Context, st *site, k key, ref oci.Ref, since time.Time) (oci.Descriptor, error) {
	// Between a client's look and its turn here another check may have ended.
	if w, ok := p.words.get(st.generation, ref); ok && !w.at.Before(since) {
		return w.desc, nil
	}
	if err := p.failures.get(k); err != nil {
		return oci.Descriptor{}, err
	}
	ctx, hold := p.memory.Enter(ctx, memory.Work) // where HEAD is refused it is a GET
	defer hold.Release()
	begun := time.Now()
	desc, err := st.Upstream.Resolve(ctx, ref.Name, ref.Tag)
	if err == nil && desc.Digest.Validate() != nil {
		err = &upstream.Error{
			Op: "resolve", Upstream: ref.Host, Repository: ref.Name, Reference: ref.Tag, Status: 200,
			Err: &upstream.ContentError{Kind: upstream.ContentNotRegistry, Want: "a digest", Got: "none"},
		}
	}
	if !overloaded(err) {
		st.note(time.Since(begun), err)
	}
	if err != nil {
		p.failures.put(k, err)
		p.refused(ctx, st, ref.Repo, err)
		return desc, err
	}
	p.failures.clear(k)
	w := p.words.put(st.generation, ref, desc)
	if err := p.shown(st, ref.Repo); err != nil {
		p.log.WarnContext(ctx, "tag can't be recorded", "ref", ref.Name, "tag", ref.Tag, "err", err)
		return desc, nil
	}
	p.settle(ctx, st, ref, w)
	return desc, nil
}

// maxLag is how old a word may be when it is recorded. The record will count from now, so a tag can pass for younger
// than it is by as much.
const maxLag = 10 * time.Second

// settle records a word on a tag if what it means is on disk and known to belong to the repository. Else the word waits
// in memory for that, see store.
func (p *Puller) settle(ctx context.Context, st *site, ref oci.Ref, w word) {
	if _, here := p.cache.Stat(w.desc.Digest); !here {
		return
	}
	if _, may := p.member(ctx, st, ref.Repo, w.desc.Digest); may == mustAsk {
		return
	}
	p.record(ctx, ref, w)
}

// record writes what a tag means. A tag that can't be written is served from memory, as long as its word is young.
func (p *Puller) record(ctx context.Context, ref oci.Ref, w word) {
	if time.Since(w.at) > maxLag {
		return
	}
	from, err := p.catalog.Tag(ref)
	if err != nil && !errors.Is(err, catalog.ErrUnknown) {
		p.log.WarnContext(ctx, "tag can't be looked up", "ref", ref.Name, "tag", ref.Tag, "err", err)
		return
	}
	if from.Checked.After(w.at) {
		return // somebody knows better
	}
	if _, err := p.catalog.Moved(ref, from, w.desc.Digest); err != nil {
		p.log.WarnContext(ctx, "tag can't be recorded", "ref", ref.Name, "tag", ref.Tag, "err", err)
	}
}
