package pull

import (
	"context"
	"errors"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// admit routes a request, and checks the names that its upstream may be asked for and the client's right. No record of the content has been read by then, and no upstream was
// asked: to a client that may not read, content that is there looks like content that is not.
func (p *Puller) admit(a Ask) (*site, oci.Ref, error) {
	r := a.Request
	st, ref, err := p.route(r)
	if err == nil {
		if err = st.Names.Check(ref.Repo); err != nil {
			if e, ok := errors.AsType[*access.BlockedError](err); ok {
				e.Mirrored = r.Namespace != ""
			}
		}
	}
	if err == nil && st.Ruled && !st.rules.Allow(a.Who, ref.Repo) {
		err = &access.ForbiddenError{Repo: ref.Repo, Mirrored: r.Namespace != "", Who: a.Who}
	}
	if err == nil && st.Open != nil {
		st, err = p.hosts.site(p, st, ref.Host)
	}
	return st, ref, err
}

// right is whether content that is here may be served through a repository.
type right int

const (
	// mustAsk: only after the repository's registry has shown the content there.
	mustAsk right = iota
	// mayServe: without asking.
	mayServe
	// shouldAsk: the registry has not shown the repository for so long that it is asked again. Where it does not answer the
	// content is served.
	shouldAsk
)

// member returns what is known of content in a repository, and whether that is enough to serve it. A catalog that can't
// be read knows nothing.
//
//	by the record of the content in this repository     and of the repository        right
//	its registry has shown it there                      under rules, or to a login   mayServe
//	... more than a day ago                              by a login of ours or a      shouldAsk
//	                                                     client's, for some clients
//	                                                     shown lately                 mayServe
//	                                                     refused, and shown lately    mayServe
//	                                                     refused since long           mustAsk
//	                                                     not shown since long         shouldAsk
//	... to a login or by rules that are gone             since shown to all clients   as above, else mustAsk
//	a manifest there refers to it                        as above, if some registry has shown the content without a
//	                                                     login, else mustAsk
func (p *Puller) member(ctx context.Context, st *site, repo oci.Repo, d oci.Digest) (catalog.Member, right) {
	m, err := p.catalog.Member(repo, d)
	if err != nil {
		p.log.WarnContext(ctx, "cannot read the record of content; its registry is asked again", "repository", repo.String(), "digest", d,
			"error", err)
	}
	if !guard.Membership {
		return m, mayServe
	}
	if st.isOwn() && !st.own.proven { // its registry has to show the content to the login
		return m, mustAsk
	}
	switch m.Standing {
	case catalog.Unknown:
		return m, mustAsk
	case catalog.Named:
		if !guard.Reference {
			return m, mayServe
		}
		if isEmptyConfig(d) {
			break // its bytes are public knowledge
		}
		if open, err := p.catalog.IsOpen(d); err != nil || !open {
			return m, mustAsk
		}
	case catalog.ShownByLogin:
		// In a repository that was never shown to all clients it was learnt by rules, even if the record of that is lost.
		if !st.isPrivate() && (p.private.Has(repo) || m.Repository.Shown.IsZero()) {
			return m, mustAsk
		}
	case catalog.ShownToAll:
	}
	switch {
	case !st.isPrivate():
		return m, standing(st, m.Repository)
	case m.Standing != catalog.Named && (st.Login || st.isOwn()) && !isRecent(m.Seen):
		return m, shouldAsk
	}
	return m, mayServe
}

// memberLife is for how long content counts as a repository's by what its registry has shown to a login: rights end, and content
// is deleted.
const memberLife = 24 * time.Hour

// isRecent reports whether a showing, which is known to the hour, counts. A clock that was set back must not lengthen it.
func isRecent(seen time.Time) bool {
	age := time.Since(seen)
	return age > -time.Hour && age < memberLife
}

// standing is the right to serve content of a repository that all clients may read, as far as its registry still shows
// it to them.
func standing(st *site, r catalog.Repository) right {
	age := time.Since(r.Shown) // the clock is read after the record, which may have just been made
	life := st.Tags.Base.StaleIfError
	if st.Own != nil {
		if r.Refused.After(r.Shown) {
			return mustAsk
		}
		life = min(life, openLife)
	}
	switch {
	// A clock that was set back must not make a repository public for longer than the policy says.
	case age >= 0 && age <= life:
		return mayServe
	case r.Refused.After(r.Shown):
		return mustAsk
	}
	return shouldAsk
}

// hidden reports whether the tags that are recorded of a repository are not for the clients of a site: they were learnt
// under rules, and those are gone. The upstream has to show them anew, to a request without a login.
func (p *Puller) hidden(st *site, repo oci.Repo) bool {
	return guard.Membership && !st.isPrivate() && p.private.Has(repo)
}

// recorded is the catalog's record of a tag as far as it is for the clients of a site.
func (p *Puller) recorded(st *site, ref oci.Ref) (catalog.Tag, error) {
	if p.hidden(st, ref.Repo) {
		return catalog.Tag{}, catalog.ErrUnknown
	}
	return p.catalog.Tag(ref)
}

// by is the standing of content that the upstream of a site has sent.
func (st *site) by() catalog.Standing {
	if st.isPrivate() || st.Login {
		return catalog.ShownByLogin
	}
	return catalog.ShownToAll
}

// shown notes for which clients the upstream of a site has shown content of a repository, before that content is recorded:
// under rules for some, else for all. After an error nothing may be recorded.
func (p *Puller) shown(st *site, repo oci.Repo) error {
	if st.isPrivate() {
		return p.private.Add(repo)
	}
	return p.catalog.NoteShown(repo)
}

// public notes that the upstream of a site has sent a manifest of a repository whose bytes are right, which shows that
// all clients may read it: a site without rules sends a login only after the registry has done that without one.
func (p *Puller) public(st *site, repo oci.Repo) error {
	if st.isPrivate() {
		return nil
	}
	return p.private.Remove(repo)
}

// refused notes that the upstream of a site has refused a repository, where that was a request without a login.
func (p *Puller) refused(ctx context.Context, st *site, repo oci.Repo, err error) {
	if st.isPrivate() || !refusedWithoutLogin(err) {
		return
	}
	if err := p.catalog.NoteRefused(repo); err != nil {
		p.log.WarnContext(ctx, "cannot record that a repository was refused", "repository", repo.String(), "error", err)
	}
}

// refusedWithoutLogin reports whether an upstream has refused a request that had no login, or had none in the end.
func refusedWithoutLogin(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && (e.Status == 401 || e.Status == 403)
}

// ask asks the upstream of a site whether it still shows a repository, by the content that a client wants of it, once for all
// requests that wait for it. It returns nil where cached content may be served: the upstream shows it, or does not answer
// in time.
func (p *Puller) ask(ctx context.Context, st *site, kind oci.Kind, ref oci.Ref, start time.Time) error {
	k := st.key(kind, ref.Repo, ref.Digest.String())
	if err := p.failures.get(k); err != nil {
		return unlessUnanswered(err)
	}
	_, _, err := p.asking.do(ctx, "shown "+k.String(), start.Add(p.patience(st, st.Tags.Base)), func(ctx context.Context) (
		oci.Descriptor, error,
	) {
		begun := time.Now()
		var (
			desc oci.Descriptor
			err  error
		)
		if kind == oci.KindManifest {
			desc, err = st.Upstream.Resolve(ctx, ref.Name, ref.Digest.String())
		} else {
			desc, err = st.Upstream.Stat(ctx, ref.Name, ref.Digest)
		}
		if n, here := p.cache.Stat(ref.Digest); err == nil && st.isPrivate() && here && desc.Size != n &&
			(kind == oci.KindBlob || desc.Digest != ref.Digest) {
			err = blob{ref: ref}.wrongSize(n, desc.Size) // it shows something else
		}
		if !ownReason(err) {
			st.note(time.Since(begun), err, st.Tags.Base.Wait)
		}
		if err == nil {
			p.noteShown(ctx, st, ref, desc)
			return desc, nil
		}
		p.failures.put(k, err)
		if answered(err) && (!st.isOwn() || isMissing(err)) { // a login may have lost its right, and others not
			p.unlearn(ctx, ref.Repo, ref.Digest)
		}
		p.refused(ctx, st, ref.Repo, err)
		return desc, err
	})
	if errors.Is(err, errWaited) {
		st.troubled.Store(true)
	}
	if st.isPrivate() && wrongContent(err) {
		return err
	}
	return unlessUnanswered(err)
}

// noteShown records the answer to ask.
func (p *Puller) noteShown(ctx context.Context, st *site, ref oci.Ref, desc oci.Descriptor) {
	var err error
	if st.isPrivate() {
		err = p.catalog.LearnBlob(ref.Repo, oci.Descriptor{Digest: ref.Digest, Size: desc.Size}, st.by())
	} else {
		err = p.catalog.NoteShown(ref.Repo)
	}
	if err != nil {
		p.log.WarnContext(ctx, "cannot record that a repository was shown", "repository", ref.Repo.String(), "error", err)
	}
}

// unlessUnanswered is an error that is an upstream's answer, else nil.
func unlessUnanswered(err error) error {
	if e, ok := errors.AsType[*fault.Error](err); ok && answered(e) {
		return err
	}
	return nil
}

// unlearn removes the records of content that its registry no longer shows.
func (p *Puller) unlearn(ctx context.Context, repo oci.Repo, list ...oci.Digest) {
	if err := p.catalog.Unlearn(repo, list...); err != nil {
		p.log.WarnContext(ctx, "cannot remove the record of content that is gone upstream", "repository", repo.String(), "error", err)
	}
}
