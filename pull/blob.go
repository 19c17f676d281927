package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// blobType is what registries answer blobs with. A layer's own media type stands in the manifest.
const blobType = "application/octet-stream"

// Blob answers a GET or HEAD of a blob. HEAD never downloads. The content's object may still be on its way: call
// Content.Ready before a status is sent to the client. The error is as for Manifest.
func (p *Puller) Blob(ctx context.Context, a Ask) (*Content, error) {
	return p.as(ctx, a, func(ctx context.Context, st *site, ref oci.Ref) (*Content, error) {
		return p.blob(ctx, st, ref, a.Request.Head, cmp.Or(a.Peer, a.Client), time.Now())
	})
}

// blob is Blob after the client's right was checked.
func (p *Puller) blob(ctx context.Context, st *site, ref oci.Ref, head bool, client string, start time.Time) (*Content, error) {
	b := blob{
		p: p, st: st, ref: ref, key: st.key(oci.KindBlob, ref.Repo, ref.Digest.String()), start: start, as: blobType,
		client: client, background: upstream.IsSpare(ctx), kind: oci.KindBlob,
	}
	desc, may := p.member(ctx, st, ref.Repo, ref.Digest)
	desc.Descriptor = sized(ref.Digest, desc.Descriptor)
	b.known = may == mayServe && isEmptyConfig(ref.Digest)
	isManifest := desc.Manifest || oci.IsManifest(desc.MediaType)
	if isManifest {
		b.as, b.kind = cmp.Or(desc.MediaType, blobType), oci.KindManifest
	}
	n, here := p.cache.Stat(ref.Digest)
	if may == shouldAsk && here {
		if err := p.ask(ctx, st, b.kind, ref, start); err != nil {
			return nil, err
		}
		may = mayServe
	}
	b.proven = may == mayServe || may == shouldAsk && !st.isPrivate()
	if !b.proven || !here {
		if err := p.failures.get(b.key); err != nil {
			return nil, err
		}
	}
	s := Status{Outcome: cache.Hit}
	if isManifest && b.proven {
		if err := b.confirm(ctx, here); err != nil {
			return nil, err
		}
	}
	// Being cached is not a right to read: the repository's registry has to show the content first. Where it has to be
	// downloaded, the download shows it. A HEAD needs a size, and a GET is better with one: its bytes are held against it.
	if !b.proven && (here || head || desc.Standing == catalog.Unknown) || !here && desc.Size < 0 {
		var (
			led bool
			err error
		)
		if desc.Descriptor, led, err = b.size(ctx); err != nil {
			return nil, err
		}
		if here && !b.proven && desc.Size != n {
			return nil, b.wrongSize(n, desc.Size)
		}
		b.proven = true
		s = fetchStatus(led)
	}
	if !head {
		// With the size by the manifest, not by the file, which may be the remains of a crash.
		return b.open(ctx, desc.Size)
	}
	if desc.Size < 0 && here {
		desc.Size = n
	}
	if desc.Size < 0 {
		return nil, b.noSize()
	}
	return &Content{Ref: ref, Digest: ref.Digest, MediaType: b.as, Size: desc.Size, Status: s}, nil
}

// sized is a descriptor of a blob without a size of 0, unless it is the empty blob: some registries answer a HEAD with it.
func sized(d oci.Digest, desc oci.Descriptor) oci.Descriptor {
	if desc.Size == 0 && !oci.VerifyDigest(d, nil) {
		desc.Size = -1
	}
	return desc
}

// blob is one client's way to a blob.
type blob struct {
	p     *Puller
	st    *site
	ref   oci.Ref
	key   key
	start time.Time
	want  int64  // its size in bytes by this client's repository; -1: not known
	as    string // the media type of the answer
	known bool   // it is the empty config, in a repository that may be read: it is served even if the upstream lacks it
	// kind is what its registry has it as: a manifest is mostly not among the blobs, which must not remove its record.
	kind oci.Kind
	// proven says that the repository's registry has shown the content, or that it may be served without that. Otherwise
	// a download that this client's own source begins is what shows it.
	proven bool
	client string // among these turns and bytes are shared
	// background says that no client waits: the download can wait, and is of use only if it is stored.
	background bool
}

// confirm asks whether the upstream has a manifest among its blobs too: most have not. containerd asks for a digest there
// when it does not get it as a manifest, and takes the answer for an image, by the answer's type. Where the upstream does
// not answer, a cached manifest is served, with its own type.
func (b blob) confirm(ctx context.Context, here bool) error {
	p := b.p
	err := p.failures.get(b.key)
	if err == nil {
		_, _, err = p.sizing.do(ctx, "confirm "+b.key.String(), b.start.Add(p.wait), func(ctx context.Context) (oci.Descriptor, error) {
			desc, err := b.st.Upstream.Stat(ctx, b.ref.Name, b.ref.Digest)
			if err != nil {
				p.failures.put(b.key, err)
				p.refused(ctx, b.st, b.ref.Repo, err)
			}
			return desc, err
		})
	}
	if err == nil || here && !isMissing(err) && ctx.Err() == nil {
		return nil
	}
	return p.timeout(err, b.key, b.ref, b.start, p.wait)
}

// size asks the upstream for the blob's size, and so whether the repository has it: once for all requests that wait for it.
func (b blob) size(ctx context.Context) (desc oci.Descriptor, led bool, err error) {
	p := b.p
	desc, led, err = p.sizing.do(ctx, b.key.String(), b.start.Add(p.wait), func(ctx context.Context) (
		oci.Descriptor, error,
	) {
		// Between a client's look and its turn here another trip may have ended.
		if desc, shown := b.shown(ctx); shown {
			return desc, nil
		}
		if err := p.failures.get(b.key); err != nil {
			return oci.Descriptor{}, err
		}
		desc, err := b.st.Upstream.Stat(b.afresh(ctx), b.ref.Name, b.ref.Digest)
		if err != nil {
			// A download that has begun meanwhile shows the blob, and goes on through what this request met: a registry that fails
			// for a moment, or a signed URL that has expired.
			if desc, shown := b.shown(ctx); shown {
				return desc, nil
			}
			p.failures.put(b.key, err)
			p.refused(ctx, b.st, b.ref.Repo, err)
			return desc, err
		}
		p.failures.shown(b.key)
		desc.Digest = b.ref.Digest
		// An answer without the size, or with another size than the content's, shows nothing: any host can send it.
		if n, here := p.cache.Stat(b.ref.Digest); desc.Size < 0 || here && desc.Size != n {
			return desc, nil
		}
		b.learn(ctx, desc.Size)
		if o := b.st.own; o != nil {
			p.owned.grants.Prove(o.try.Login, p.right(b.st, b.ref.Repo, b.ref.Digest))
		}
		return desc, nil
	})
	return desc, led, p.timeout(err, b.key, b.ref, b.start, p.wait)
}

// afresh is the context of a request whose answer has to show the blob to a client's own login: a token may outlive the right of
// the login that it was made for. Others keep theirs.
func (b blob) afresh(ctx context.Context) context.Context {
	if o := b.st.own; o != nil && !o.proven {
		return upstream.Afresh(ctx, b.start)
	}
	return ctx
}

// shown is the record of the blob, where that has a size and is enough to serve it.
func (b blob) shown(ctx context.Context) (oci.Descriptor, bool) {
	m, may := b.p.member(ctx, b.st, b.ref.Repo, b.ref.Digest)
	return m.Descriptor, may == mayServe && sized(b.ref.Digest, m.Descriptor).Size >= 0
}

// open gets the blob's object from the cache, or from the flight that brings it.
func (b blob) open(ctx context.Context, size int64) (*Content, error) {
	b.want = size
	if b.background {
		if err := b.p.cache.Room(ctx, size); err != nil {
			return nil, err
		}
	}
	b.p.leases.renew(b.ref.Digest, b.start)
	ctx, end := b.bounded(ctx)
	o, outcome, err := b.p.cache.Open(ctx, b.ref.Digest, size, b.source())
	if err = end(err); err != nil {
		return nil, b.failed(err)
	}
	if _, partial := o.(readier); !partial { // another request's download has ended meanwhile
		if err := b.prove(ctx); err != nil {
			_ = o.Close()
			return nil, err
		}
	}
	return &Content{
		Ref: b.ref, Digest: b.ref.Digest, MediaType: b.as, Size: o.Size(), Object: o,
		Status: Status{Outcome: outcome, Collapsed: outcome == cache.Joined},
		blob:   &b,
	}, nil
}

// source is this client's own source. A failed fetch fails all clients that ask the same upstream for the same repository, and
// no others.
func (b blob) source() cache.Source {
	shows := &showing{b: b}
	return cache.Source{
		Key:        b.sourceKey(),
		Upstream:   b.ref.Host,
		Client:     b.client,
		Background: b.background,
		Open:       b.st.by() == catalog.ShownToAll,
		// A client that wanted a part may have left when the whole turns out to be wrong.
		Wrong: func(err error) {
			shows.wrong()
			if m, ok := errors.AsType[*flight.MismatchError](err); ok && m.Got != "" {
				b.st.Upstream.Corrupt(b.ref.Name, b.ref.Digest, err)
			}
			_ = b.failed(err)
		},
		Whole: shows.whole,
		Fetch: func(ctx context.Context, w flight.Want) (flight.Body, error) {
			if !b.background {
				w.By = b.start.Add(b.p.wait)
			}
			body, err := b.st.Upstream.Blob(b.afresh(ctx), b.ref.Name, b.ref.Digest, w)
			if b.known && isMissing(err) {
				return shows.emptyConfig(w), nil
			}
			if err != nil {
				b.p.refused(ctx, b.st, b.ref.Repo, err)
				if e, ok := errors.AsType[*fault.ContentError](err); ok && e.Kind == fault.ContentSize {
					b.forgetSize() // if it was the registry's own word, the next request asks for it again
				}
				if w.Part { // another fetch brings these bytes, so it is not the answer to the next client
					return nil, partError(err)
				}
				if ctx.Err() == nil { // else its readers left before the upstream was asked as often as for a client that waits
					b.p.failures.put(b.key, err)
				}
				return nil, err
			}
			return shows.begin(body), nil
		},
	}
}

// partError marks an error that comes from the mirror's own limit of transfers, and not from the upstream.
func partError(err error) error {
	if _, queued := errors.AsType[*fault.QueueError](err); queued {
		return fmt.Errorf("%w: %w", flight.ErrBusy, err)
	}
	return err
}

func (b blob) sourceKey() string {
	return fmt.Sprintf("%s/%s#%d", b.ref.Host, b.ref.Name, b.st.generation)
}

// learn records that the repository's registry has shown the blob, with a size by its answer; -1: it gave none.
func (b blob) learn(ctx context.Context, size int64) {
	err := b.p.shown(b.st, b.ref.Repo)
	if err == nil {
		err = b.p.catalog.LearnBlob(b.ref.Repo, oci.Descriptor{Digest: b.ref.Digest, Size: size}, b.st.by())
	}
	if err != nil {
		b.p.log.WarnContext(ctx, "cannot record a blob; its registry is asked again", "repository", b.ref.Repo.String(),
			"digest", b.ref.Digest, "error", err)
	}
}

// prove returns nil once the repository's registry has shown the content, else the reason why it has not.
func (b *blob) prove(ctx context.Context) error {
	if b.proven {
		return nil
	}
	m, may := b.p.member(ctx, b.st, b.ref.Repo, b.ref.Digest)
	switch {
	case may == shouldAsk && b.st.isPrivate(): // and it has joined the download of another repository
		if err := b.p.ask(ctx, b.st, b.kind, b.ref, b.start); err != nil {
			return err
		}
	case may == mustAsk:
		desc, _, err := b.size(ctx)
		if err != nil {
			return err
		}
		if n, here := b.p.cache.Stat(b.ref.Digest); here && n != desc.Size {
			return b.wrongSize(n, desc.Size)
		}
		if m.Size >= 0 && desc.Size >= 0 && m.Size != desc.Size {
			return b.wrongSize(m.Size, desc.Size)
		}
	}
	b.proven = true
	return nil
}

// wrongSize is the error where a registry gives another size than the blob has, or none.
func (b blob) wrongSize(want, got int64) error {
	if got < 0 {
		return b.noSize()
	}
	return &fault.Error{
		Op: "blob", Upstream: b.ref.Host, Repository: b.ref.Name, Reference: b.ref.Digest.String(), Status: 200,
		Err: fault.WrongSize(want, "", got),
	}
}

// bounded bounds a wait for the upstream by the rest of the client's time; that of background work has no end. end turns the outcome
// of the wait into the error for the client. The context stays alive after it, since an object may go on using it.
func (b blob) bounded(ctx context.Context) (_ context.Context, end func(error) error) {
	if b.background {
		return ctx, func(err error) error { return err }
	}
	late := &TimeoutError{Ref: b.ref}
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(time.Until(b.start.Add(b.p.wait)), func() { cancel(late) })
	return ctx, func(err error) error {
		timer.Stop()
		if err == nil {
			return nil
		}
		cancel(nil)
		if !errors.Is(context.Cause(ctx), late) {
			return err
		}
		late.Waited = time.Since(b.start)
		return late
	}
}

// failed remembers an error that the next client need not wait for again, and returns the error to answer with. The error of a
// fetch is remembered by the fetch.
func (b blob) failed(err error) error {
	if m, ok := errors.AsType[*flight.MismatchError](err); ok && !m.FaultOf(b.sourceKey()) {
		return err // the next download is from this repository alone
	}
	if m, ok := errors.AsType[*flight.MismatchError](err); ok && m.Got == "" && m.Size != b.want {
		return err // another request began the flight, and its manifest gives the blob a wrong size
	} else if ok && m.Got == "" && b.want >= 0 {
		err = b.contradicted(m, err)
	}
	if _, slow := errors.AsType[*TimeoutError](err); slow || wrongContent(err) {
		b.p.failures.put(b.key, err)
	}
	return b.p.forOwner(b.st, b.ref.Repo, err)
}

// contradicted finds where a size came from that the source has contradicted. Where it came from the upstream alone, which then
// sent another one, the upstream is asked for it again.
func (b blob) contradicted(m *flight.MismatchError, err error) error {
	repo, d := b.ref.Repo, b.ref.Digest
	b.forgetSize()
	desc, _ := b.p.catalog.Member(repo, d)
	if _, known := errors.AsType[*ClaimError](err); known || desc.Standing == catalog.Unknown || desc.Size != m.Size {
		return err
	}
	return &ClaimError{Ref: b.ref, Claim: m.Size, Size: m.GotSize, Host: m.Host, Err: err}
}

// forgetSize takes back the size that the registry gave: it belongs to other content, or to a coding of this. A size by a
// manifest stays.
func (b blob) forgetSize() {
	err := b.p.catalog.LearnBlob(b.ref.Repo, oci.Descriptor{Digest: b.ref.Digest, Size: -1}, catalog.Named)
	if err != nil {
		b.p.log.Warn("cannot remove a wrong size of a blob", "repository", b.ref.Repo.String(), "digest", b.ref.Digest,
			"error", err)
	}
}

// noSize is the error for a HEAD of a blob whose size neither a manifest nor the upstream gives: clients have no use for an
// answer without it.
func (b blob) noSize() error {
	return &fault.Error{
		Op: "blob", Upstream: b.ref.Host, Repository: b.ref.Name, Reference: b.ref.Digest.String(), Status: 200,
		Err: &fault.ContentError{Kind: fault.ContentLength, Want: "a size", Got: "none"},
	}
}

// readier is an object whose bytes may still be on their way.
type readier interface {
	Ready(ctx context.Context, off, n int64) error
}

var _ readier = (*flight.Reader)(nil)

// Ready waits until it is certain that n bytes of the object at off can be sent, or for the rest of the time that a
// client waits. Its error is the one to answer with. Cached content is ready at once.
func (c *Content) Ready(ctx context.Context, off, n int64) error {
	r, ok := c.Object.(readier)
	if !ok {
		return nil
	}
	if c.blob == nil {
		return r.Ready(ctx, off, n)
	}
	ctx, end := c.blob.bounded(ctx)
	err := r.Ready(ctx, off, n)
	if m, wrong := errors.AsType[*flight.MismatchError](err); wrong && !m.FaultOf(c.blob.sourceKey()) {
		err = c.restart(ctx, off, n, err)
	}
	if err == nil {
		err = c.blob.prove(ctx) // the bytes may come from another source
	}
	if err = end(err); err != nil {
		err = c.blob.failed(err)
	}
	return err
}

// restart replaces the object by another one, before any byte of it was sent: the source of another repository has spoilt it, and
// from here on this repository's source brings the content alone. err is what the object has ended with.
func (c *Content) restart(ctx context.Context, off, n int64, err error) error {
	o, outcome, fresh := c.blob.p.cache.Open(ctx, c.Digest, c.blob.want, c.blob.source())
	if fresh != nil {
		return fresh
	}
	if o.Size() != c.Size {
		_ = o.Close()
		return err
	}
	_ = c.Object.Close()
	c.Object, c.Status.Outcome, c.Status.Collapsed = o, outcome, outcome == cache.Joined
	if r, partial := o.(readier); partial {
		return r.Ready(ctx, off, n)
	}
	return nil
}

// Shown waits until the content's own registry has shown it. An answer needs that which has none of the content's bytes and says
// that the content exists. Its error is the one to answer with.
func (c *Content) Shown(ctx context.Context) error {
	if c.blob == nil {
		return nil
	}
	ctx, end := c.blob.bounded(ctx)
	err := end(c.blob.prove(ctx))
	if err != nil {
		err = c.blob.failed(err)
	}
	return err
}

// Reopen returns another object, after c.Object, which was cached, could not be read any further because of cause. The
// caller closes both. The error wraps cause where there is no other object.
func (c *Content) Reopen(ctx context.Context, cause error) (cache.Object, error) {
	if c.blob == nil || c.Status.Outcome != cache.Hit {
		return nil, cause
	}
	o, _, err := c.blob.p.cache.Reopen(ctx, c.Object, cause, c.Digest, c.Size, c.blob.source())
	if err != nil {
		return nil, fmt.Errorf("%w; then: %w", cause, err)
	}
	if o.Size() != c.Size {
		_ = o.Close()
		return nil, cause
	}
	return o, nil
}

// Failed says that the object's bytes ended with an error: where they had another digest twice in a row, they are not fetched
// again for a minute. A nil error, and one of the client's own, do nothing.
func (c *Content) Failed(err error) {
	if c.blob != nil && err != nil {
		_ = c.blob.failed(err)
	}
}
