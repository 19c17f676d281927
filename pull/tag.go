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
	"github.com/registrymirror/mirror/upstream/fault"
)

// tagState is what is known of a tag.
type tagState struct {
	catalog.Tag                // by the last report on it, recorded or not
	desc        oci.Descriptor // that report's, where it is in memory
	recorded    catalog.Tag    // the copy to fall back on
}

// tagState puts together the catalog's record and the last report.
func (p *Puller) tagState(ctx context.Context, st *site, ref oci.Ref) tagState {
	recorded, err := p.recorded(st, ref)
	if err != nil && !errors.Is(err, catalog.ErrUnknown) {
		p.log.WarnContext(ctx, "cannot read the record of a tag", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
	}
	t := tagState{Tag: recorded, recorded: recorded}
	if r, ok := p.reports.get(st.generation, ref); ok && (recorded.Digest == "" || r.at.After(recorded.Checked)) {
		t.Tag, t.desc = catalog.Tag{Ref: ref, Digest: r.desc.Digest, Checked: r.at}, r.desc
	}
	return t
}

// byTag answers a request for a tag: with what it means by the record, if that is young enough, else with what the
// upstream says by HEAD, else, where that does not come in time, with the copy.
func (p *Puller) byTag(ctx context.Context, st *site, ref oci.Ref, head bool) (*Content, error) {
	start := time.Now()
	t := p.tagState(ctx, st, ref)
	now := time.Now() // a record that was made in between is not from the future
	verdict := t.Judge(st.Tags, now)
	if verdict == catalog.ServeAndAsk {
		p.checkInBackground(st, ref, start)
	}
	if verdict != catalog.Ask {
		if c, ok := p.known(ctx, st, ref, t, head, now); ok {
			return c, nil
		}
	}

	// From here on the upstream has a say. A client that can be given a copy does not wait long for it.
	old, of, ok := p.copyOf(ctx, st, ref, t, now)
	wait := p.wait
	if ok {
		wait = p.patience(st)
	}
	c, err := p.fromUpstream(ctx, st, ref, t, verdict == catalog.Ask, head, start, wait)
	if err == nil || !ok || ctx.Err() != nil {
		return c, err
	}
	if st.Tags.DropDeleted && isMissing(err) {
		p.deleted(ctx, ref, old)
		return nil, err
	}
	p.log.DebugContext(ctx, "stale tag served", "repository", ref.Repo.String(), "tag", ref.Tag, "digest", old.digest, "error", err)
	ref.Digest = old.digest
	return p.answer(ctx, ref, old, head, Status{
		Outcome: cache.Hit, Stale: true, Age: now.Sub(of.Checked), Reason: err,
	}, time.Now())
}

// known answers without the upstream from what is known of a tag, if that can be done.
func (p *Puller) known(ctx context.Context, st *site, ref oci.Ref, t tagState, head bool, now time.Time) (
	*Content, bool,
) {
	ref.Digest = t.Digest
	s := Status{Outcome: cache.Hit, Age: now.Sub(t.Checked)}
	if f, may := p.local(ctx, st, ref.Repo, ref.Digest); may == mayServe {
		if c, err := p.answer(ctx, ref, f, head, s, now); err == nil {
			return c, true
		}
	}
	if head && p.answersHead(st, ref.Repo, t.desc) {
		return headContent(ref, t.desc, s), true
	}
	return nil, false
}

// copyOf finds the manifest that a tag means, if it is here and the policy allows to fall back on it: by the last report
// on the tag, which may not be recorded since the disk is full, else by the record.
func (p *Puller) copyOf(ctx context.Context, st *site, ref oci.Ref, state tagState, now time.Time) (
	f fetched, of catalog.Tag, ok bool,
) {
	for _, t := range []catalog.Tag{state.Tag, state.recorded} {
		if t.Digest == "" || !t.Usable(st.Tags, now) {
			continue
		}
		if f, may := p.local(ctx, st, ref.Repo, t.Digest); may != mustAsk {
			return f, t, true
		}
	}
	return fetched{}, catalog.Tag{}, false
}

// deleted forgets a tag that the upstream no longer has, and the content that it meant: all of that has to be shown anew.
// Content that the upstream still has costs one request each.
func (p *Puller) deleted(ctx context.Context, ref oci.Ref, old fetched) {
	if err := p.catalog.Forget(ref); err != nil {
		p.log.WarnContext(ctx, "cannot remove the record of a tag that was deleted upstream", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
	}
	p.reports.forget(ref.Repo)
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
	p.unlearn(ctx, ref.Repo, parts...)
	p.log.InfoContext(ctx, "tag deleted upstream; it is no longer served", "repository", ref.Repo.String(), "tag", ref.Tag,
		"digest", old.digest)
}

// fromUpstream answers with the upstream's help: the tag is checked by HEAD, if check says so, and its manifest is fetched
// if it is not here. A client that sent HEAD itself is answered by the upstream's HEAD alone: it comes for the manifest
// when it wants it, by digest.
func (p *Puller) fromUpstream(ctx context.Context, st *site, ref oci.Ref, t tagState, check, head bool,
	start time.Time, wait time.Duration,
) (*Content, error) {
	at := ref
	at.Digest = t.Digest
	age := max(0, start.Sub(t.Checked))
	if check {
		desc, led, err := p.resolve(ctx, st, ref, start, wait)
		if err != nil {
			return nil, err
		}
		at.Digest, age = desc.Digest, 0
		s := fetchStatus(led)
		if f, may := p.local(ctx, st, ref.Repo, at.Digest); may == mayServe {
			s.Outcome = cache.Hit // the upstream has only said that it is still the right one
			if c, err := p.answer(ctx, at, f, head, s, time.Now()); !errors.Is(err, errGone) {
				return c, err
			}
		}
		if head && p.answersHead(st, ref.Repo, desc) {
			return headContent(at, desc, s), nil
		}
	}
	c, err := p.byDigest(ctx, st, at, head, start, wait)
	switch {
	case err == nil:
		c.Status.Age = age
	case isMissing(err) && !check:
		// The digest of the record is gone upstream, and its bytes are no longer here: the tag must have moved.
		return p.fromUpstream(ctx, st, ref, t, true, head, start, wait)
	case errors.Is(err, context.DeadlineExceeded):
		st.troubled.Store(true)
	}
	return c, err
}

// answersHead reports whether a descriptor has all that a HEAD is answered with, and is not of a manifest that a GET has just
// failed to bring.
func (p *Puller) answersHead(st *site, repo oci.Repo, d oci.Descriptor) bool {
	return d.Digest != "" && d.Size > 0 && d.MediaType != "" &&
		p.failures.get(st.key(oci.KindManifest, repo, d.Digest.String())) == nil
}

// headContent answers a HEAD with a descriptor alone.
func headContent(ref oci.Ref, d oci.Descriptor, s Status) *Content {
	return &Content{Ref: ref, Digest: d.Digest, MediaType: d.MediaType, Size: d.Size, Status: s}
}

// resolve asks the upstream which digest a tag means, once for all requests that wait for it.
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

// checkInBackground checks a tag that was answered already.
func (p *Puller) checkInBackground(st *site, ref oci.Ref, start time.Time) {
	p.inBackground(func(ctx context.Context) { _, _, _ = p.resolve(ctx, st, ref, start, p.limit) })
}

// check is the trip of resolve. Its result is recorded even if no client waits any more.
func (p *Puller) check(ctx context.Context, st *site, k key, ref oci.Ref, since time.Time) (oci.Descriptor, error) {
	// Between a client's look and its turn here another check may have ended.
	if r, ok := p.reports.get(st.generation, ref); ok && !r.at.Before(since) {
		return r.desc, nil
	}
	if err := p.failures.get(k); err != nil {
		return oci.Descriptor{}, err
	}
	ctx, hold := p.memory.Enter(ctx, memory.Work) // where HEAD is refused it is a GET
	defer hold.Release()
	begun := time.Now()
	desc, err := st.Upstream.Resolve(ctx, ref.Name, ref.Tag)
	if err == nil && desc.Digest.Validate() != nil {
		err = &fault.Error{
			Op: "resolve", Upstream: ref.Host, Repository: ref.Name, Reference: ref.Tag, Status: 200,
			Err: &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a digest", Got: "none"},
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
	r := p.reports.put(st.generation, ref, desc)
	if err := p.shown(st, ref.Repo); err != nil {
		p.log.WarnContext(ctx, "cannot record a tag; after a restart it is checked again", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
		return desc, nil
	}
	p.recordIfStored(ctx, st, ref, r)
	return desc, nil
}

// recordIfStored records a report on a tag if its manifest is on disk and known to belong to the repository. Else the report
// waits in memory for that, see store. A manifest that is in memory alone, since it could not be written or was evicted, is
// written anew: it can be served, so its tag must end in a record.
func (p *Puller) recordIfStored(ctx context.Context, st *site, ref oci.Ref, r report) {
	if _, may := p.member(ctx, st, ref.Repo, r.desc.Digest); may == mustAsk {
		return
	}
	if _, here := p.cache.Stat(r.desc.Digest); !here {
		m, hot := p.hot.Get(r.desc.Digest)
		if !hot || m.bytes == nil || p.cache.Put(ctx, m.digest, m.bytes) != nil {
			return
		}
	}
	p.record(ctx, ref, r)
}

// record writes what a tag means, as of the time of the report: a slow client makes no tag younger, and loses none. A tag
// that can't be written is served from memory.
func (p *Puller) record(ctx context.Context, ref oci.Ref, r report) {
	from, err := p.catalog.Tag(ref)
	if err != nil && !errors.Is(err, catalog.ErrUnknown) {
		p.log.WarnContext(ctx, "cannot read the record of a tag", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
		return
	}
	by := catalog.ByCheck
	if from.Digest == "" {
		by = catalog.ByPull
	}
	if _, err := p.catalog.Moved(ref, from, r.desc.Digest, r.at, by); err != nil {
		p.log.WarnContext(ctx, "cannot record a tag; after a restart it is checked again", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
	}
}
