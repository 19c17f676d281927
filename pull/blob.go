package pull

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// blobType is what registries answer blobs with. A layer's own media type stands in the manifest.
const blobType = "application/octet-stream"

// Blob answers a GET or HEAD of a blob. HEAD never downloads. The content's object may still be on its way: call
// Content.Ready before its first byte is promised to anybody. The error is as for Manifest.
func (p *Puller) Blob(ctx context.Context, a Ask) (*Content, error) {
	start := time.Now()
	st, ref, err := p.admit(a.Request)
	if err != nil {
		return nil, err
	}
	b := blob{
		p: p, st: st, ref: ref, key: st.key(oci.KindBlob, ref.Repo, ref.Digest.String()), start: start, as: blobType,
		client: cmp.Or(a.Peer, a.Client),
	}
	desc, may := p.member(ctx, st, ref.Repo, ref.Digest)
	desc.Descriptor = sized(ref.Digest, desc.Descriptor)
	b.given = may == mayServe && isEmptyConfig(ref.Digest)
	isManifest := desc.Manifest || oci.IsManifest(desc.MediaType)
	if isManifest {
		b.as = cmp.Or(desc.MediaType, blobType)
	}
	n, here := p.cache.Stat(ref.Digest)
	if may == shouldAsk && here {
		kind := oci.KindBlob
		if isManifest { // it is not among the blobs, and must not be forgotten for that
			kind = oci.KindManifest
		}
		if err := p.ask(ctx, st, kind, ref, start); err != nil {
			return nil, err
		}
		may = mayServe
	}
	b.proven = may != mustAsk
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
	// downloaded, that does. A HEAD needs a size, and a GET goes better with one: what it brings is held against it.
	if !b.proven && (here || a.Request.Head || desc.Standing == catalog.Unknown) || !here && desc.Size < 0 {
		var led bool
		if desc.Descriptor, led, err = b.size(ctx); err != nil {
			return nil, err
		}
		if here && !b.proven && desc.Size != n {
			return nil, b.otherSize(n, desc.Size)
		}
		b.proven = true
		s = trip(led)
	}
	if !a.Request.Head {
		// With the size by the manifest, not by the file, which may be what a crash has left of it.
		return b.open(ctx, desc.Size)
	}
	if desc.Size < 0 && here {
		desc.Size = n
	}
	if desc.Size < 0 {
		return nil, b.sizeless()
	}
	return &Content{Ref: ref, Digest: ref.Digest, MediaType: b.as, Size: desc.Size, Status: s}, nil
}

// sized is what is known of a blob. Nothing but the empty blob has no bytes: some registries have said so to a HEAD.
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
	want  int64  // bytes as this client's repository has it, -1 where it does not say
	as    string // the media type of the answer
	given bool   // what the upstream lacks of it is known all the same: it is the empty config, in a repository that may be read
	// proven says that the repository's registry has shown the content, or that it may be served without that. Otherwise
	// a download that this client's own source begins is what shows it.
	proven bool
	client string // that turns and bytes are shared by
}

// confirm asks whether the upstream has a manifest among its blobs too: most have not. containerd asks for a digest there
// when it does not get it as a manifest, and keeps what it gets for an image, by the type that the answer has. Where the
// upstream does not answer, what is here is served, as what it is.
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

// size asks the upstream for the blob's size, and so whether the repository has it: once for all who want to know.
func (b blob) size(ctx context.Context) (desc oci.Descriptor, led bool, err error) {
	p := b.p
	desc, led, err = p.sizing.do(ctx, b.key.String(), b.start.Add(p.wait), func(ctx context.Context) (
		oci.Descriptor, error,
	) {
		// Between a client's look and its turn here another trip may have ended.
		if m, may := p.member(ctx, b.st, b.ref.Repo, b.ref.Digest); may == mayServe && sized(b.ref.Digest, m.Descriptor).Size >= 0 {
			return m.Descriptor, nil
		}
		if err := p.failures.get(b.key); err != nil {
			return oci.Descriptor{}, err
		}
		desc, err := b.st.Upstream.Stat(ctx, b.ref.Name, b.ref.Digest)
		if err != nil {
			p.failures.put(b.key, err)
			p.refused(ctx, b.st, b.ref.Repo, err)
			return desc, err
		}
		p.failures.clear(b.key)
		desc.Digest = b.ref.Digest
		// An answer without the size, or with another one than the content's, shows nothing: any host can send it.
		if n, here := p.cache.Stat(b.ref.Digest); desc.Size < 0 || here && desc.Size != n {
			return desc, nil
		}
		b.learn(ctx, desc.Size)
		return desc, nil
	})
	return desc, led, p.timeout(err, b.key, b.ref, b.start, p.wait)
}

// open gets the blob's object from the cache, or from the flight that brings it.
func (b blob) open(ctx context.Context, size int64) (*Content, error) {
	b.want = size
	b.p.leases.renew(b.ref.Digest, b.start)
	ctx, end := b.patient(ctx)
	o, outcome, err := b.p.cache.Open(ctx, b.ref.Digest, size, b.source())
	if err = end(err); err != nil {
		return nil, b.failed(err)
	}
	if _, onItsWay := o.(readier); !onItsWay { // another one's download has ended since it was looked for
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

// source is this client's own: it shares the fate of a fetch with those who ask the same upstream for the same
// repository.
func (b blob) source() cache.Source {
	shows := &showing{b: b}
	return cache.Source{
		Key:      b.sourceKey(),
		Upstream: b.ref.Host,
		Client:   b.client,
		Open:     b.st.by() == catalog.ShownToAll,
		// A reader of a part may have had that, and be gone, when the whole turns out to be wrong.
		Wrong: func(err error) {
			shows.wrong()
			_ = b.failed(err)
		},
		Whole: shows.whole,
		Fetch: func(ctx context.Context, w flight.Want) (flight.Body, error) {
			w.By = b.start.Add(b.p.wait)
			body, err := b.st.Upstream.Blob(ctx, b.ref.Name, b.ref.Digest, w)
			if b.given && isMissing(err) {
				return shows.nothing(w), nil
			}
			if err != nil {
				b.p.refused(ctx, b.st, b.ref.Repo, err)
				if w.Part { // another fetch brings these bytes, so it is not the answer to the next client
					return nil, partError(err)
				}
				b.p.failures.put(b.key, err)
				return nil, err
			}
			return shows.begin(body), nil
		},
	}
}

// partError marks an error that comes from the mirror's own limit of transfers, and not from the upstream.
func partError(err error) error {
	if _, queued := errors.AsType[*upstream.QueueError](err); queued {
		return fmt.Errorf("%w: %w", flight.ErrBusy, err)
	}
	return err
}

func (b blob) sourceKey() string {
	return fmt.Sprintf("%s/%s#%d", b.ref.Host, b.ref.Name, b.st.generation)
}

// learn records that the repository's registry has shown the blob. size is the registry's word, -1 where it gave none.
func (b blob) learn(ctx context.Context, size int64) {
	err := b.p.shown(b.st, b.ref.Repo)
	if err == nil {
		err = b.p.catalog.LearnBlob(b.ref.Repo, oci.Descriptor{Digest: b.ref.Digest, Size: size}, b.st.by())
	}
	if err != nil {
		b.p.log.WarnContext(ctx, "blob can't be recorded", "ref", b.ref.Name, "digest", b.ref.Digest, "err", err)
	}
}

// prove returns nil once the repository's registry has shown the content, else why it does not.
func (b *blob) prove(ctx context.Context) error {
	if b.proven {
		return nil
	}
	m, may := b.p.member(ctx, b.st, b.ref.Repo, b.ref.Digest)
	if may == mustAsk {
		desc, _, err := b.size(ctx)
		if err != nil {
			return err
		}
		if n, here := b.p.cache.Stat(b.ref.Digest); here && n != desc.Size {
			return b.otherSize(n, desc.Size)
		}
		if m.Size >= 0 && desc.Size >= 0 && m.Size != desc.Size {
			return b.otherSize(m.Size, desc.Size)
		}
	}
	b.proven = true
	return nil
}

// otherSize is the answer where a registry has another size for the blob than it has, or none.
func (b blob) otherSize(want, got int64) error {
	if got < 0 {
		return b.sizeless()
	}
	return &upstream.Error{
		Op: "blob", Upstream: b.ref.Host, Repository: b.ref.Name, Reference: b.ref.Digest.String(), Status: 200,
		Err: &upstream.ContentError{
			Kind: upstream.ContentSize, Want: strconv.FormatInt(want, 10) + " bytes", Got: strconv.FormatInt(got, 10) + " bytes",
		},
	}
}

// patient bounds a wait for the upstream by what is left of the client's time. end turns the outcome of the wait into
// the error for the client. The context stays alive after it, since an object may go on using it.
func (b blob) patient(ctx context.Context) (_ context.Context, end func(error) error) {
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

// failed remembers what the next client need not find out again, and returns the error to answer with. What a fetch
// itself ended with is remembered there.
func (b blob) failed(err error) error {
	if m, ok := errors.AsType[*flight.MismatchError](err); ok && !m.FaultOf(b.sourceKey()) {
		return err // the next download comes from this repository alone
	}
	if m, ok := errors.AsType[*flight.MismatchError](err); ok && m.Got == "" && m.Size != b.want {
		return err // another request began the flight, and its manifest gives the blob a wrong size
	} else if ok && m.Got == "" && b.want >= 0 {
		err = b.contradicted(m, err)
	}
	if _, slow := errors.AsType[*TimeoutError](err); slow || wrongContent(err) {
		b.p.failures.put(b.key, err)
	}
	return err
}

// contradicted says whose word a size was that the source has contradicted. Where only the upstream has said it, before
// it sent another one, it is asked for again.
func (b blob) contradicted(m *flight.MismatchError, err error) error {
	repo, d := b.ref.Repo, b.ref.Digest
	if err := b.p.catalog.LearnBlob(repo, oci.Descriptor{Digest: d, Size: -1}, catalog.Named); err != nil {
		b.p.log.Warn("size of a blob can't be forgotten", "ref", b.ref.Name, "digest", d, "err", err)
	}
	desc, _ := b.p.catalog.Member(repo, d)
	if _, said := errors.AsType[*ClaimError](err); said || desc.Standing == catalog.Unknown || desc.Size != m.Size {
		return err
	}
	return &ClaimError{Ref: b.ref, Claim: m.Size, Size: m.GotSize, Host: m.Host, Err: err}
}

// sizeless is the answer to a HEAD where nobody says how large the blob is: one without a size is of no use to clients.
func (b blob) sizeless() error {
	return &upstream.Error{
		Op: "blob", Upstream: b.ref.Host, Repository: b.ref.Name, Reference: b.ref.Digest.String(), Status: 200,
		Err: &upstream.ContentError{Kind: upstream.ContentLength, Want: "a size", Got: "none"},
	}
}

// readier is an object whose bytes may still be on their way. *flight.Reader is one.
type readier interface {
	Ready(ctx context.Context, off, n int64) error
}

// Ready waits until it is certain that n bytes of the object at off can begin, or for the rest of the time that a
// client waits. Its error is the one to answer with. Content that is here is ready at once.
func (c *Content) Ready(ctx context.Context, off, n int64) error {
	r, ok := c.Object.(readier)
	if !ok {
		return nil
	}
	if c.blob == nil {
		return r.Ready(ctx, off, n)
	}
	ctx, end := c.blob.patient(ctx)
	err := r.Ready(ctx, off, n)
	if err == nil {
		err = c.blob.prove(ctx) // the bytes may be another source's
	}
	if err = end(err); err != nil {
		err = c.blob.failed(err)
	}
	return err
}

// Shown waits until the content's own registry has shown it, as an answer needs that says of content that it is there and
// has none of its bytes. Its error is the one to answer with.
func (c *Content) Shown(ctx context.Context) error {
	if c.blob == nil {
		return nil
	}
	ctx, end := c.blob.patient(ctx)
	err := end(c.blob.prove(ctx))
	if err != nil {
		err = c.blob.failed(err)
	}
	return err
}

// reopener is a cache that can replace stored content that can't be read. *cache.Cache is one.
type reopener interface {
	Reopen(ctx context.Context, o cache.Object, err error, d oci.Digest, size int64, src cache.Source) (
		cache.Object, cache.Outcome, error)
}

// Again returns another object, after c.Object, which was here, could not be read any further because of cause. The
// caller closes both. The error is cause where nobody can help.
func (c *Content) Again(ctx context.Context, cause error) (cache.Object, error) {
	if c.blob == nil || c.Status.Outcome != cache.Hit {
		return nil, cause
	}
	r, ok := c.blob.p.cache.(reopener)
	if !ok {
		return nil, cause
	}
	o, _, err := r.Reopen(ctx, c.Object, cause, c.Digest, c.Size, c.blob.source())
	if err != nil {
		return nil, fmt.Errorf("%w; then: %w", cause, err)
	}
	if o.Size() != c.Size {
		_ = o.Close()
		return nil, cause
	}
	return o, nil
}

// Failed tells that the object's bytes ended with an error: where they were not what their digest says, twice in a row,
// nobody is sent for them again for a minute. A nil error, and one of the client's own, do nothing.
func (c *Content) Failed(err error) {
	if c.blob != nil && err != nil {
		_ = c.blob.failed(err)
	}
}
