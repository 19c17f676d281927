package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/bounded"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// How images are pulled from an upstream at which the clients' own logins decide (access: client).
//
//	has the registry shown this right to this login lately? ──yes──────────────────────────┐
//	 │no                                                                                    │
//	 ▼                                                                                      │
//	does it refuse the repository without a login? ──not known──► pull without a login ──► the answer
//	 │yes, in the last ten minutes                                 │                        │
//	 │◄────────────────── 401 or 403 ──────────────────────────────┘                        │
//	 ▼                                                                                      ▼
//	has the client sent a login? ──no──► LoginError      ask with it ──shown──► pull, with it where the registry is asked
//	 └──yes──────────────────────────────► may it be shown? ──► refused: RefusedError, whatever the reason
//
// A pull without a login is one of access: public; one with a login is like one of access: rules, with the right of the login in
// the place of a rule. All that is remembered of a registry's answers to a login (failures, reports on tags, lists) is for that
// login alone: its view of the site has a generation of its own. The bytes are shared, and so are the records that content is in a
// repository, which the registry has shown to a login.

const (
	// closedLife is for how long a repository counts as one that needs a login, after the registry has refused it without.
	closedLife = 10 * time.Minute
	// unsureLife is that for a repository that needed one before, where the registry does not answer now.
	unsureLife = 10 * time.Second
	// openLife is for how long what a registry has shown without a login is served without asking.
	openLife = 10 * time.Minute
	// grantPatience is how long a client with a right that is remembered waits for the registry to confirm it.
	grantPatience = time.Second

	maxClosed = 16_384 // repositories
	maxViews  = 16_384
)

// owned is what a Puller remembers for sites whose clients have logins of their own.
type owned struct {
	grants *access.Grants
	// closed are the repositories that need a login. The value says that the registry has refused a HEAD without one, so that a HEAD
	// proves a right: there are registries that answer one for all content.
	closed bounded.Expiring[siteRef, bool]

	mu    sync.Mutex                       // held from looking a view up until it is there
	views *bounded.LRU[access.Key, uint64] // generations, by login
}

func newOwned() *owned {
	return &owned{grants: access.NewGrants(), views: bounded.NewLRU(bounded.Options[access.Key, uint64]{Budget: maxViews})}
}

// own is what a view of a site has beside it: the login of a client.
type own struct {
	try access.Try
	// proven says that the registry has shown that the login may read the repository. Otherwise it has to show each content.
	proven bool
	// known says that it has shown that before, if not lately: what it then lacks may be called missing.
	known bool
	// late says that the registry has not answered this request in the time that a client with a right waits: it is not waited for again
	// where there is a copy.
	late     bool
	mirrored bool // as in access.ForbiddenError
}

// isOwn reports whether the requests of a site are made with a client's own login.
func (st *site) isOwn() bool { return st.own != nil }

// isPrivate reports whether what a site's upstream shows is for some clients only.
func (st *site) isPrivate() bool { return st.Ruled || st.isOwn() }

// TakesLogins reports whether a request may carry the client's own login at the registry, which decides what it may read. For a
// request of no repository it reports whether there is an upstream of that kind.
func (p *Puller) TakesLogins(r oci.Request) bool {
	if r.Kind == oci.KindPing {
		for _, st := range p.setup.Load().sites {
			if st.Own != nil {
				return true
			}
		}
		return false
	}
	st, _, err := p.route(r)
	return err == nil && st.Own != nil
}

// as answers a request at the site that it means, with the client's right.
func (p *Puller) as(ctx context.Context, a Ask, pull func(context.Context, *site, oci.Ref) (*Content, error)) (*Content, error) {
	st, ref, err := p.admit(a)
	if err != nil {
		return nil, err
	}
	if st.Own == nil {
		return pull(ctx, st, ref)
	}
	return p.asOwn(ctx, a, st, ref, pull)
}

// asOwn is as for a site whose clients have logins of their own.
func (p *Puller) asOwn(ctx context.Context, a Ask, st *site, ref oci.Ref,
	pull func(context.Context, *site, oci.Ref) (*Content, error),
) (*Content, error) {
	kind, view := a.Request.Kind, p.view(st, a)
	standing := access.Unproven
	if view != nil {
		standing = p.owned.grants.Standing(p.right(view, ref.Repo, ""), *st.Own)
		view.own.known = standing != access.Unproven
	}
	if standing == access.Unproven && !p.isClosed(ctx, st, kind, ref) {
		c, err := pull(ctx, st, ref)
		if !p.closes(st, ref.Repo, err) {
			return c, err
		}
	}
	if view == nil {
		return nil, &access.LoginError{Repo: ref.Repo, Mirrored: a.Request.Namespace != "", Who: a.Who, Insecure: !a.Secure, Unusable: a.Unusable}
	}
	err := p.prove(ctx, view, kind, ref, standing)
	var c *Content
	if err == nil {
		asks := ctx
		if !view.own.proven { // the answer is the proof, and a token may outlive the right of the login that it was made for
			asks = upstream.Afresh(ctx, time.Now())
		}
		c, err = pull(asks, view, ref)
	}
	if fault.Is[*fault.UnprovenError](err) {
		p.owned.closed.Delete(st.asRepository(ref.Repo))
		c, err = pull(ctx, st, ref)
		p.closes(st, ref.Repo, err)
	}
	return c, p.forOwner(view, ref.Repo, err)
}

// view is a site as it is asked with the client's own login. Nil: the client has sent none that may be used.
func (p *Puller) view(st *site, a Ask) *site {
	registry, ok := st.Upstream.(*upstream.Registry)
	if !ok || !a.Secure || a.Login.IsZero() {
		return nil
	}
	key := p.owned.grants.Login(st.generation, a.Login.Write)
	v := *st
	v.Upstream = registry.For(a.Login)
	v.generation = p.owned.generation(key, &p.sites)
	v.own = &own{
		try:      access.Try{Login: key, Site: st.generation, User: a.Login.User(), Source: cmp.Or(a.Peer, a.Client)},
		mirrored: a.Request.Namespace != "",
	}
	return &v
}

// generation is that of the view with a login.
func (o *owned) generation(key access.Key, next *atomic.Uint64) uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, ok := o.views.Get(key)
	if !ok {
		n = next.Add(1)
		o.views.Put(key, n, 1)
	}
	return n
}

func (st *site) asRepository(repo oci.Repo) siteRef {
	return siteRef{st.generation, oci.Ref{Repo: repo}}
}

// right is the key of the right of a view's login to read a repository, or one blob of it.
func (p *Puller) right(view *site, repo oci.Repo, d oci.Digest) access.Key {
	return p.owned.grants.Right(view.own.try.Login, repo, d)
}

// denies reports whether an error is a registry's answer that a request needs another login, or one at all. The page of a firewall
// with such a status is not.
func denies(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && refusedWithoutLogin(err) && e.BodyKind != fault.BodyHTML
}

// refuses reports whether the clients of a site have to log in, or may not read, by its registry's answer: no copy is served then.
func (st *site) refuses(err error) bool { return st.Own != nil && denies(err) }

// closes notes that a repository needs a login, if the upstream has said so to a request without one.
func (p *Puller) closes(st *site, repo oci.Repo, err error) bool {
	if !denies(err) {
		return false
	}
	e, _ := errors.AsType[*fault.Error](err)
	p.owned.closed.Put(st.asRepository(repo), e.Op == "resolve", closedLife, maxClosed)
	return true
}

// isClosed reports whether a repository is known to need a login. One that needed one before, as the disk has it, is asked for
// first; where its registry does not answer in a moment it counts as one that does.
func (p *Puller) isClosed(ctx context.Context, st *site, kind oci.Kind, ref oci.Ref) bool {
	at := st.asRepository(ref.Repo)
	if p.owned.closed.Has(at) {
		return true
	}
	if !p.private.Has(ref.Repo) || kind != oci.KindManifest && kind != oci.KindBlob {
		return false
	}
	k := st.key(oci.KindManifest, ref.Repo, "open")
	_, _, err := p.asking.do(ctx, k.String(), time.Now().Add(grantPatience), func(ctx context.Context) (oci.Descriptor, error) {
		if kind == oci.KindBlob {
			return st.Upstream.Stat(ctx, ref.Name, ref.Digest)
		}
		return st.Upstream.Resolve(ctx, ref.Name, reference(ref))
	})
	if err != nil && !p.closes(st, ref.Repo, err) {
		p.owned.closed.Put(at, false, unsureLife, maxClosed)
	}
	return err != nil
}

// prove returns nil if the view may be pulled from: its login has a right that counts, or will be asked with for the content itself.
func (p *Puller) prove(ctx context.Context, view *site, kind oci.Kind, ref oci.Ref, standing access.Standing) error {
	g, o := p.owned.grants, view.own
	switch {
	case !guard.Own, standing == access.Proven, kind == oci.KindBlob && g.Standing(p.right(view, ref.Repo, ref.Digest), *view.Own) == access.Proven:
		o.proven = true
		return nil
	case !g.MayAsk(o.try, question(kind, ref)):
		return &access.RefusedError{Repo: ref.Repo, Mirrored: o.mirrored, Remembered: true}
	case kind != oci.KindManifest && kind != oci.KindBlob, kind == oci.KindBlob && standing == access.Unproven && g.WasRight(o.try):
		return nil // the registry shows each of these to the login itself
	}
	start, wait := time.Now(), p.wait
	if standing == access.Stale {
		wait = grantPatience
	}
	k := view.key(kind, ref.Repo, "right "+reference(ref))
	asked := *view
	asked.own = new(*o) // the trip may last longer than this wait for it, which then changes its own
	_, _, err := p.asking.do(upstream.Afresh(ctx, start), k.String(), start.Add(wait), func(ctx context.Context) (oci.Descriptor, error) {
		return oci.Descriptor{}, p.show(ctx, &asked, kind, ref)
	})
	_, kept := errors.AsType[*access.RefusedError](err)
	switch {
	case kept:
		return err
	case err == nil, standing == access.Stale && ctx.Err() == nil && !lacks(err) && !fault.Is[*fault.UnprovenError](err):
		o.proven, o.late = true, err != nil
		return nil
	case errors.Is(err, errWaited):
		return &TimeoutError{Ref: ref, Waited: time.Since(start)}
	}
	return err
}

// lacks reports whether a registry has answered that a login may not read something, or that it is not there.
func lacks(err error) bool { return denies(err) || isMissing(err) }

// reference is what a registry is asked by.
func reference(ref oci.Ref) string { return cmp.Or(ref.Digest.String(), ref.Tag) }

func question(kind oci.Kind, ref oci.Ref) string { return fmt.Sprint(kind, " ", ref) }

// beginLogin waits until the login of a view may be shown to its registry with a question that may show it to be wrong. end is called
// with the registry's answer.
func (p *Puller) beginLogin(ctx context.Context, st *site, kind oci.Kind, ref oci.Ref) (end func(error), err error) {
	if !st.isOwn() || st.own.proven {
		return func(error) {}, nil
	}
	g, o, q := p.owned.grants, st.own, question(kind, ref)
	done, ok := g.Begin(ctx, o.try, q)
	switch {
	case ok:
	case ctx.Err() != nil:
		return nil, ctx.Err()
	default:
		return nil, &access.RefusedError{Repo: ref.Repo, Mirrored: o.mirrored, Remembered: true}
	}
	return func(err error) {
		if lacks(err) && (ref.Digest != "" || !o.known || !isMissing(err)) { // a tag may be missing, whatever the right
			g.Revoke(p.right(st, ref.Repo, ""))
			g.Deny(o.try, q, isWrongLogin(err))
		}
		done()
	}, nil
}

// show is the trip of prove: it asks the registry with the login, and notes the result.
func (p *Puller) show(ctx context.Context, view *site, kind oci.Kind, ref oci.Ref) (err error) {
	g, o := p.owned.grants, view.own
	end, err := p.beginLogin(ctx, view, kind, ref)
	if err != nil {
		return err
	}
	defer func() { end(err) }()
	heads, _ := p.owned.closed.Get(siteRef{o.try.Site, oci.Ref{Repo: ref.Repo}})
	right := p.right(view, ref.Repo, "")
	var desc oci.Descriptor
	switch {
	case kind == oci.KindBlob:
		right = p.right(view, ref.Repo, ref.Digest)
		desc, err = view.Upstream.Stat(ctx, ref.Name, ref.Digest)
		if n, here := p.cache.Stat(ref.Digest); err == nil && (desc.Size < 0 || here && desc.Size != n) {
			err = blob{ref: ref}.wrongSize(n, desc.Size)
		}
	case heads && ref.Digest == "":
		may := *view
		may.own = &own{try: o.try, mirrored: o.mirrored, proven: true} // what is recorded is recorded after the registry has shown it
		desc, err = p.tagPull(&may, ref, catalog.ByPull).check(ctx, view.key(oci.KindManifest, ref.Repo, ref.Tag))
	case heads:
		desc, err = view.Upstream.Resolve(ctx, ref.Name, ref.Digest.String())
	default:
		ctx, hold := p.memory.Enter(ctx, memory.Work)
		defer hold.Release()
		var doc *oci.Manifest
		if doc, err = view.Upstream.Manifest(ctx, ref.Name, reference(ref)); err == nil {
			desc.Digest = doc.Digest
		}
	}
	if err == nil && ref.Digest != "" && kind == oci.KindManifest && desc.Digest != ref.Digest {
		err = &fault.Error{
			Op: "resolve", Upstream: ref.Host, Repository: ref.Name, Reference: ref.Digest.String(), Status: 200,
			Err: &fault.ContentError{Kind: fault.ContentDigest, Want: ref.Digest.String(), Got: desc.Digest.String()},
		}
	}
	if err == nil {
		g.Prove(o.try.Login, right)
	}
	return err
}

// isWrongLogin reports whether a registry has refused the login itself, as far as that can be told from one that lacks a right.
func isWrongLogin(err error) bool {
	e, ok := errors.AsType[*fault.Error](err)
	return ok && e.Status == 401 && (e.Step().Name == fault.StepToken || !strings.Contains(strings.ToLower(e.Challenge), "bearer"))
}

// forOwner is the error for a client with a login of its own. That the registry refuses the login looks like content that is not
// there, unless the registry has shown before that the login may read the repository.
func (p *Puller) forOwner(view *site, repo oci.Repo, err error) error {
	switch {
	case view.own == nil:
		return err
	case denies(err):
		p.owned.grants.Revoke(p.right(view, repo, ""))
	case isMissing(err) && !view.own.proven && !view.own.known:
	default:
		return err
	}
	return &access.RefusedError{Repo: repo, Mirrored: view.own.mirrored}
}

// forMirror is the error of a request of the mirror's own: it has no login at a site whose clients have theirs.
func (st *site) forMirror(repo oci.Repo, err error) error {
	if _, asked := errors.AsType[*access.LoginError](err); st.Own != nil && (asked || denies(err)) {
		return &access.LoginError{Repo: repo, Background: true}
	}
	return err
}

// isShownLately reports whether the answer to a HEAD may be what the registry has said of a tag before: where clients have logins of
// their own, it must have shown the repository without one lately.
func (p *Puller) isShownLately(st *site, ref oci.Ref) bool {
	if st.Own == nil || st.isOwn() {
		return true
	}
	m, may := p.member(context.Background(), st, ref.Repo, ref.Digest)
	return may == mayServe || standing(st, m.Repository) == mayServe
}
