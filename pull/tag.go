package pull

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// tagState is what is known of a tag.
type tagState struct {
	catalog.Tag                // by the last report on it, recorded or not
	desc        oci.Descriptor // of its digest, where a report on that is in memory
}

// tagState puts together the catalog's record and the last report.
func (p *Puller) tagState(ctx context.Context, st *site, ref oci.Ref) tagState {
	recorded, err := p.recorded(st, ref)
	if err != nil && !errors.Is(err, catalog.ErrUnknown) {
		p.log.WarnContext(ctx, "cannot read the record of a tag", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
	}
	t := tagState{Tag: recorded}
	r, ok := p.reports.get(st.generation, ref)
	if ok && (recorded.Digest == "" || !r.at.Before(recorded.Checked)) {
		t.Tag = recorded.Reported(r.desc.Digest, r.first, r.at)
		t.Ref = oci.Ref{Repo: ref.Repo, Tag: ref.Tag}
	}
	if ok && r.desc.Digest == t.Digest {
		t.desc = r.desc
	}
	return t
}

// tagPull is one request for a tag.
type tagPull struct {
	p      *Puller
	st     *site
	ref    oci.Ref // without a digest
	policy catalog.Policy
	head   bool
	fresh  bool // the upstream is asked, however young the record is
	by     catalog.Source
	start  time.Time
}

// tagPull is a request for a tag that begins now.
func (p *Puller) tagPull(st *site, ref oci.Ref, by catalog.Source) tagPull {
	return tagPull{p: p, st: st, ref: ref, policy: st.Tags.For(ref.Name, ref.Tag), by: by, start: time.Now()}
}

// byTag answers a request for a tag, and notes which digest the client got. A HEAD counts as much as a GET: a node that has
// the image already sends no more than that.
func (p *Puller) byTag(ctx context.Context, st *site, ref oci.Ref, a Ask) (*Content, error) {
	q := p.tagPull(st, ref, cmp.Or(a.By, catalog.ByPull))
	q.head = a.Request.Head
	c, err := q.answer(ctx)
	if err == nil && q.by == catalog.ByPull && a.Client != "" && !catalog.IsArtifactTag(ref.Tag) {
		p.catalog.Served(ref, c.Digest, a.Client, cmp.Or(a.Peer, a.Client), time.Now())
	}
	return c, err
}

// answer answers with the digest of the tag's pin, if it has one, else with what the tag means by the record, if that is young
// enough, else with what the upstream says by HEAD, else, where that does not come in time, with the copy. Which digest
// that is, is for the policy to say: see catalog.Tag.Choose.
func (q tagPull) answer(ctx context.Context) (*Content, error) {
	if pin, ok := q.p.catalog.Pinned(q.ref, q.start); ok {
		return q.pinned(ctx, pin)
	}
	t := q.p.tagState(ctx, q.st, q.ref)
	now := time.Now() // a record that was made in between is not from the future
	verdict := t.Judge(q.policy, now)
	if verdict == catalog.ServeAndAsk && !q.policy.Immutable && upstream.IsSpare(ctx) {
		verdict = catalog.Ask // a copy that may be old is of no use to background work
	}
	young := q.fresh && verdict == catalog.Serve && !q.policy.Immutable && t.Choose(q.policy, now).Hold == catalog.NotHeld
	if young {
		verdict = catalog.Ask
	}
	if verdict == catalog.ServeAndAsk {
		q.checkInBackground()
	}
	if verdict != catalog.Ask {
		if c, ok := q.known(ctx, t, now); ok {
			return c, nil
		}
	}

	// From here on the upstream has a say. A client that can be given a copy does not wait long for it.
	old, of, ok := q.copyOf(ctx, t, now)
	wait := q.p.wait
	if ok {
		wait = q.p.patience(q.st, q.policy)
	}
	// A HEAD is answered by a HEAD: registries count the GET of a manifest as a pull.
	unsized := q.head && t.IsReported() && t.desc.Digest == "" && t.Choose(q.policy, now).Digest == t.Digest
	c, err := q.fromUpstream(ctx, t, verdict == catalog.Ask || unsized, wait)
	switch {
	case err == nil || ctx.Err() != nil || isHeld(err):
		return c, err
	case q.st.refuses(err):
		return nil, err
	case young && !isMissing(err):
		if c, ok := q.known(ctx, t, now); ok {
			return c, nil
		}
		return nil, err
	case !ok:
		return q.latest(ctx, err)
	case q.policy.DropDeleted && isMissing(err) && !isFixed(err):
		q.deleted(ctx, old)
		return nil, err
	}
	q.p.log.DebugContext(ctx, "stale tag served", "repository", q.ref.Repo.String(), "tag", q.ref.Tag, "digest", old.digest, "error", err)
	return q.p.answer(ctx, q.with(old.digest), old, q.head, Status{
		Outcome: cache.Hit, Stale: true, Age: now.Sub(of.AsOf), Reason: err, Choice: of,
	}, time.Now())
}

// with is the tag's reference with a digest.
func (q tagPull) with(d oci.Digest) oci.Ref {
	q.ref.Digest = d
	return q.ref
}

// pinned answers with the digest that an operator has fixed the tag to. Nothing is asked about the tag.
func (q tagPull) pinned(ctx context.Context, pin catalog.Pin) (*Content, error) {
	choice := catalog.Choice{Digest: pin.Digest, Hold: catalog.HeldByPin, Until: pin.Until, AsOf: pin.Since}
	c, err := q.p.byDigest(ctx, q.st, q.with(pin.Digest), q.head, q.start, q.p.wait)
	if err != nil {
		return nil, &FixedError{Ref: q.ref, Choice: choice, Err: err}
	}
	c.Status.Choice, c.Status.Age = choice, max(0, q.start.Sub(pin.Since))
	return c, nil
}

// known answers without the upstream from what is known of a tag, if that can be done.
func (q tagPull) known(ctx context.Context, t tagState, now time.Time) (*Content, bool) {
	choice := t.Choose(q.policy, now)
	if choice.Digest == "" {
		return nil, false
	}
	ref := q.with(choice.Digest)
	s := Status{Outcome: cache.Hit, Age: now.Sub(choice.AsOf), Choice: choice}
	if f, may := q.p.local(ctx, q.st, ref.Repo, ref.Digest); may == mayServe {
		if c, err := q.p.answer(ctx, ref, f, q.head, s, now); err == nil {
			return c, true
		}
	}
	if q.head && t.desc.Digest == choice.Digest && q.p.answersHead(q.st, ref.Repo, t.desc) && q.p.isShownLately(q.st, ref) {
		return headContent(ref, t.desc, s), true
	}
	return nil, false
}

// copyOf finds a manifest that the tag may be answered with where the upstream does not help.
func (q tagPull) copyOf(ctx context.Context, t tagState, now time.Time) (f fetched, of catalog.Choice, ok bool) {
	for _, c := range t.Copies(q.policy, now) {
		if f, may := q.p.local(ctx, q.st, q.ref.Repo, c.Digest); may != mustAsk {
			return f, c, true
		}
	}
	return fetched{}, catalog.Choice{}, false
}

// fromUpstream answers with the upstream's help: the tag is checked by HEAD, if check says so, and the manifest that it is served
// with is fetched if it is not here. A client that sent HEAD itself is answered by the upstream's HEAD alone: it comes for
// the manifest when it wants it, by digest.
func (q tagPull) fromUpstream(ctx context.Context, t tagState, check bool, wait time.Duration) (*Content, error) {
	var (
		desc oci.Descriptor
		s    Status
	)
	if check {
		var (
			led bool
			err error
		)
		if desc, led, err = q.resolve(ctx, t, wait); err != nil {
			return nil, err
		}
		s = fetchStatus(led)
		if t = q.p.tagState(ctx, q.st, q.ref); t.Digest != desc.Digest && !t.Checked.After(q.start) { // it is not remembered
			t.Tag = t.Reported(desc.Digest, q.start, q.start)
		}
	}
	choice := t.Choose(q.policy, time.Now())
	if choice.Digest == "" {
		return nil, &HeldError{Ref: q.ref, Latest: choice.Latest, MinAge: q.policy.MinAge, Until: choice.Until}
	}
	s.Choice = choice
	if !check {
		s.Age = max(0, q.start.Sub(choice.AsOf))
	}
	at := q.with(choice.Digest)
	if check {
		if f, may := q.p.local(ctx, q.st, q.ref.Repo, at.Digest); may == mayServe {
			s.Outcome = cache.Hit // the upstream has only said what the tag means
			if c, err := q.p.answer(ctx, at, f, q.head, s, time.Now()); !errors.Is(err, errGone) {
				return c, err
			}
		}
		if q.head && desc.Digest == at.Digest && q.p.answersHead(q.st, q.ref.Repo, desc) {
			return headContent(at, desc, s), nil
		}
	}
	c, err := q.p.byDigest(ctx, q.st, at, q.head, q.start, wait)
	switch {
	case err == nil:
		c.Status.Age, c.Status.Choice = s.Age, choice
		return c, nil
	case isMissing(err) && !check && choice.Digest == choice.Latest:
		// The digest of the record is gone upstream, and its bytes are no longer here: the tag must have moved.
		return q.fromUpstream(ctx, t, true, wait)
	case errors.Is(err, context.DeadlineExceeded):
		q.st.troubled.Store(true)
	}
	if _, first := t.First(); choice.Digest != choice.Latest || q.policy.Immutable && first {
		err = &FixedError{Ref: q.ref, Choice: choice, Err: err}
	}
	return nil, err
}

// latest answers a request that failed with err, for which there is no copy, where the digest is gone that the policy's MinAge
// wants: then no digest of the tag is old enough, and the latest one is served if the policy serves such tags.
func (q tagPull) latest(ctx context.Context, err error) (*Content, error) {
	e, ok := errors.AsType[*FixedError](err)
	if !ok || !isMissing(err) || q.policy.Immutable {
		return nil, err
	}
	choice := e.Choice
	choice.Hold = catalog.HeldUnknown
	if q.policy.HoldUnknown {
		return nil, &HeldError{Ref: q.ref, Latest: choice.Latest, MinAge: q.policy.MinAge, Until: choice.Until}
	}
	choice.Digest = choice.Latest
	c, err := q.p.byDigest(ctx, q.st, q.with(choice.Digest), q.head, q.start, q.p.wait)
	if err != nil {
		return nil, err
	}
	c.Status.Choice = choice
	return c, nil
}

// deleted forgets a tag that the upstream no longer has, and the content that it meant, if that is here: all of that has to be
// shown anew. Content that the upstream still has costs one request each.
func (q tagPull) deleted(ctx context.Context, old fetched) {
	p, ref := q.p, q.ref
	err := error(nil)
	if q.policy.MinAge > 0 { // without the record, a digest that the tag gets when it comes back would pass for its first one
		err = p.catalog.Expire(ref, catalog.ByCheck, time.Now())
	} else {
		err = p.catalog.Forget(ref)
	}
	if err != nil {
		p.log.WarnContext(ctx, "cannot remove the record of a tag that was deleted upstream", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
	}
	p.reports.forget(ref.Repo)
	if old.manifest == nil {
		return
	}
	parts := slices.Clone(old.parts)
	for i, d := range old.parts[1:] { // the images of an index
		if !oci.IsManifest(old.named[i].mediaType) {
			continue
		}
		if m, err := p.peekManifest(oci.Descriptor{Digest: d, MediaType: old.named[i].mediaType}); err == nil && m != nil {
			for _, c := range m.Children {
				parts = append(parts, c.Digest)
			}
		}
	}
	p.unlearn(ctx, ref.Repo, parts...)
	p.log.InfoContext(ctx, "tag deleted upstream; it is no longer served", "repository", ref.Repo.String(), "tag", ref.Tag,
		"digest", old.digest)
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

// resolve asks the upstream which digest the tag means, once for all requests that wait for it.
func (q tagPull) resolve(ctx context.Context, t tagState, wait time.Duration) (desc oci.Descriptor, led bool, err error) {
	k := q.st.key(oci.KindManifest, q.ref.Repo, q.ref.Tag)
	if err := q.p.failures.get(k); err != nil {
		return desc, false, err
	}
	switch {
	case t.Due():
		q.by = cmp.Or(t.ExpiredBy, q.by)
	case q.by == catalog.ByPull && t.Digest != "":
		q.by = catalog.ByCheck
	}
	desc, led, err = q.p.asking.do(ctx, k.String(), q.start.Add(wait), func(ctx context.Context) (oci.Descriptor, error) {
		return q.check(ctx, k)
	})
	if errors.Is(err, errWaited) {
		q.st.troubled.Store(true)
	}
	return desc, led, q.p.timeout(err, k, q.ref, q.start, wait)
}

const (
	// checkSpread is how long a check in the background waits at most before it begins: tags that are pulled together are not
	// all checked at the same moment.
	checkSpread = time.Second
	// checkAgain is how long after a check in the background that failed the next one begins at the earliest.
	checkAgain = time.Minute
	// maxChecks bounds the memory of these checks, and maxChecking how many run at once. A tag that can't be checked now is
	// checked with its next pull.
	maxChecks   = 10_000
	maxChecking = 256
)

// checkInBackground checks a tag that was answered already, once for all requests.
func (q tagPull) checkInBackground() {
	key := siteRef{q.st.generation, q.ref}
	if q.p.checks.Has(key) {
		return
	}
	select {
	case q.p.checking <- struct{}{}:
	default:
		return
	}
	q.p.checks.Put(key, struct{}{}, checkAgain, maxChecks)
	q.p.inBackground(func(ctx context.Context) {
		defer func() { <-q.p.checking }()
		timer := time.NewTimer(rand.N(checkSpread))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
		q.start = time.Now()
		t := q.p.tagState(ctx, q.st, q.ref)
		_, _, err := q.resolve(ctx, t, q.p.limit)
		if err == nil {
			q.p.checks.Delete(key)
		}
		if !q.policy.DropDeleted || !isMissing(err) {
			return
		}
		old, _, _ := q.copyOf(ctx, t, time.Now())
		q.deleted(ctx, old)
	})
}

// check is the trip of resolve. Its result is recorded even if no client waits any more.
func (q tagPull) check(ctx context.Context, k key) (oci.Descriptor, error) {
	p, st, ref := q.p, q.st, q.ref
	// Between a client's look and its turn here another check may have ended.
	if r, ok := p.reports.get(st.generation, ref); ok && !r.at.Before(q.start) {
		return r.desc, nil
	}
	if err := p.failures.get(k); err != nil {
		return oci.Descriptor{}, err
	}
	ctx, hold := p.memory.Enter(ctx, memory.Work) // where HEAD is refused it is a GET
	defer hold.Release()
	before := p.tagState(ctx, st, ref)
	begun := time.Now()
	desc, err := st.Upstream.Resolve(ctx, ref.Name, ref.Tag)
	var at time.Time
	if err == nil && p.tagState(ctx, st, ref).Expired.After(begun) {
		// The tag was said to have moved meanwhile: the answer may be from before that.
		begun = time.Now()
		desc, err = st.Upstream.Resolve(ctx, ref.Name, ref.Tag)
		if p.tagState(ctx, st, ref).Expired.After(begun) {
			at = begun // it is due again
		}
	}
	if err == nil && desc.Digest.Validate() != nil {
		err = &fault.Error{
			Op: "resolve", Upstream: ref.Host, Repository: ref.Name, Reference: ref.Tag, Status: 200,
			Err: &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a digest", Got: "none"},
		}
	}
	if !ownReason(err) {
		st.note(time.Since(begun), err, q.policy.Wait)
	}
	if err != nil {
		p.failures.put(k, err)
		p.refused(ctx, st, ref.Repo, err)
		return desc, err
	}
	p.failures.clear(k)
	r := p.reports.put(st.generation, ref, desc, at, q.by)
	q.noteMove(ctx, before, desc.Digest)
	if err := p.shown(st, ref.Repo); err != nil {
		p.notRecorded(ctx, ref, err)
		return desc, nil
	}
	p.recordReport(ctx, st, ref, r)
	return desc, nil
}

// Move is a change of a tag at its upstream.
type Move struct {
	Ref      oci.Ref // without a digest
	From, To oci.Digest
	Kind     MoveKind
	By       catalog.Source
}

// MoveKind is the kind of a Move.
type MoveKind string

// The kinds.
const (
	Moved          MoveKind = "moved"
	MovedBack      MoveKind = "reverted"  // to a digest that the tag had before
	MovedImmutable MoveKind = "immutable" // of a tag that must not move, to whatever
)

// noteMove logs and counts a move of a tag that is known.
func (q tagPull) noteMove(ctx context.Context, before tagState, to oci.Digest) {
	if before.Digest == "" || before.Digest == to {
		return
	}
	m := Move{Ref: q.ref, From: before.Digest, To: to, Kind: Moved, By: q.by}
	first, ok := before.First()
	switch {
	case q.policy.Immutable && ok:
		m.Kind = MovedImmutable
	case slices.ContainsFunc(before.History, func(s catalog.Seen) bool { return s.Digest == to }):
		m.Kind = MovedBack
	}
	q.p.moved(m)
	name := q.ref.Repo.String() + ":" + q.ref.Tag
	if m.Kind != MovedImmutable {
		q.p.log.InfoContext(ctx, "tag moved", "ref", name, "digest", to, "previous", m.From, "source", string(m.By))
		return
	}
	q.p.log.WarnContext(ctx, "a tag that must not move has moved; its first digest is still served", "ref", name, "digest", to,
		"previous", first, "source", string(m.By))
}

// recordReport records a report on a tag. If its manifest is on disk and known to belong to the repository, the tag leads to content
// that can be served. Else the record says that the digest was only reported, until the manifest comes, see store. The record gives no
// right to read the content: see member.
func (p *Puller) recordReport(ctx context.Context, st *site, ref oci.Ref, r report) {
	if p.stored(ctx, st, ref.Repo, r.desc.Digest) {
		p.record(ctx, ref, r)
		return
	}
	if err := p.catalog.Reported(ref, r.desc.Digest, r.at, r.by); err != nil {
		p.notRecorded(ctx, ref, err)
	}
}

// stored reports whether a manifest is on disk and known to belong to the repository. One that is in memory alone, since it could
// not be written or was evicted, is written anew: it can be served, so its tag must end in a record.
func (p *Puller) stored(ctx context.Context, st *site, repo oci.Repo, d oci.Digest) bool {
	if _, may := p.member(ctx, st, repo, d); may == mustAsk {
		return false
	}
	if p.cached(d) {
		return true
	}
	m, hot := p.hot.Get(d)
	return hot && m.bytes != nil && p.cache.Put(ctx, m.digest, m.bytes) == nil
}

// notRecorded logs that a tag could not be recorded, which is served from memory.
func (p *Puller) notRecorded(ctx context.Context, ref oci.Ref, err error) {
	p.log.WarnContext(ctx, "cannot record a tag; after a restart it is checked again", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
}

// record writes what a tag means, as of the time of the report: a slow client makes no tag younger, and loses none. A tag
// that can't be written is served from memory.
func (p *Puller) record(ctx context.Context, ref oci.Ref, r report) {
	from, err := p.catalog.Tag(ref)
	if err != nil && !errors.Is(err, catalog.ErrUnknown) {
		p.log.WarnContext(ctx, "cannot read the record of a tag", "repository", ref.Repo.String(), "tag", ref.Tag, "error", err)
		return
	}
	t, err := p.catalog.Moved(ref, from, r.desc.Digest, r.at, r.by)
	if err != nil {
		p.notRecorded(ctx, ref, err)
		return
	}
	i := slices.IndexFunc(t.History, func(s catalog.Seen) bool { return s.Digest == r.desc.Digest })
	if i < 0 || t.History[i].Size > 0 || t.History[i].Platforms != nil {
		return
	}
	if doc, err := p.peekManifest(oci.Descriptor{Digest: r.desc.Digest, MediaType: r.desc.MediaType}); err == nil && doc != nil {
		size, platforms := describe(doc)
		p.catalog.Describe(ref, r.desc.Digest, size, platforms)
	}
}

// describe returns the bytes of an image, as its manifest says, and the platforms of an index. 0 and nil: it does not say.
func describe(doc *oci.Manifest) (size int64, platforms []string) {
	index := oci.IsIndex(doc.MediaType)
	for _, c := range doc.Children {
		switch {
		case !index:
			size += max(c.Size, 0)
		case c.Platform != nil && c.Platform.OS != "unknown": // as attestations have it
			platforms = append(platforms, oci.PlatformText(*c.Platform))
		}
	}
	if !index {
		size += int64(len(doc.Bytes))
	}
	slices.Sort(platforms)
	return size, slices.Compact(platforms)
}
