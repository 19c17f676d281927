package pull

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/guard"
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
	}
	desc, member, err := p.member(st, ref.Repo, ref.Digest)
	if err != nil {
		p.log.WarnContext(ctx, "catalog can't be read", "ref", ref.Name, "digest", ref.Digest, "err", err)
		member = false
	}
	desc = sized(ref.Digest, desc)
	n, here := p.cache.Stat(ref.Digest)
	if !member || !here {
		if err := p.failures.get(b.key); err != nil {
			return nil, err
		}
	}
	s := Status{Outcome: cache.Hit}
	if member && oci.IsManifest(desc.MediaType) {
		if err := b.confirm(ctx, here); err != nil {
			return nil, err
		}
		b.as = desc.MediaType
	}
	// Being cached is no right to read, so who does not belong asks first. And a HEAD needs a size, as a GET is better off
	// with one: what the answer to that says is held against it.
	if guard.Membership && !member || !here && desc.Size < 0 {
		var led bool
		if desc, led, err = b.size(ctx); err != nil {
			return nil, err
		}
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
		if desc, ok, err := p.member(b.st, b.ref.Repo, b.ref.Digest); err == nil && ok && sized(b.ref.Digest, desc).Size >= 0 {
			return desc, nil
		}
		if err := p.failures.get(b.key); err != nil {
			return oci.Descriptor{}, err
		}
		desc, err := b.st.Upstream.Stat(ctx, b.ref.Name, b.ref.Digest)
		if err != nil {
			p.failures.put(b.key, err)
			return desc, err
		}
		p.failures.clear(b.key)
		desc.Digest = b.ref.Digest
		err = p.shown(b.st, b.ref.Repo)
		if err == nil {
			err = p.catalog.LearnBlob(b.ref.Repo, desc)
		}
		if err != nil {
			p.log.WarnContext(ctx, "blob can't be recorded", "ref", b.ref.Name, "digest", b.ref.Digest, "err", err)
		}
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
		b.failed(err)
		return nil, err
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
	return cache.Source{
		Key:  fmt.Sprintf("%s/%s#%d", b.ref.Host, b.ref.Name, b.st.generation),
		Live: true,
		// Who wanted a part of it may have had that, and be gone, when the whole turns out to be wrong.
		Wrong: b.failed,
		Fetch: func(ctx context.Context, w flight.Want) (flight.Body, error) {
			w.By = b.start.Add(b.p.wait)
			body, err := b.st.Upstream.Blob(ctx, b.ref.Name, b.ref.Digest, w)
			if isMissing(err) && oci.VerifyDigest(b.ref.Digest, []byte(emptyConfig)) {
				return newEmptyConfig(w), nil
			}
			if err != nil {
				b.p.failures.put(b.key, err)
				return nil, err
			}
			return body, nil
		},
	}
}

// emptyConfig is the content of configs that nothing is said in. Tools refer to it by its digest, and some registries do not
// have it: it is answered as the HEAD of it is, by what the manifest says.
const emptyConfig = "{}"

type emptyConfigBody struct{ io.ReadCloser }

func newEmptyConfig(w flight.Want) flight.Body {
	to := int64(len(emptyConfig))
	if w.To >= 0 {
		to = min(w.To, to)
	}
	return emptyConfigBody{io.NopCloser(strings.NewReader(emptyConfig[min(w.From, to):to]))}
}

func (emptyConfigBody) Size() int64  { return int64(len(emptyConfig)) }
func (emptyConfigBody) Host() string { return "" }

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

// failed remembers what the next client need not find out again. What a fetch itself ended with is remembered there.
func (b blob) failed(err error) {
	if m, ok := errors.AsType[*flight.MismatchError](err); ok && m.Got == "" && m.Size != b.want {
		return // a flight that somebody else began, whose manifest gives the blob a wrong size
	} else if ok && m.Got == "" && b.want >= 0 {
		// Or ours is wrong. Where only the upstream has said it, before it sent another one, it is asked for again.
		if err := b.p.catalog.LearnBlob(b.ref.Repo, oci.Descriptor{Digest: b.ref.Digest, Size: -1}); err != nil {
			b.p.log.Warn("size of a blob can't be forgotten", "ref", b.ref.Name, "digest", b.ref.Digest, "err", err)
		}
	}
	if _, slow := errors.AsType[*TimeoutError](err); slow || wrongContent(err) {
		b.p.failures.put(b.key, err)
	}
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
	err := end(r.Ready(ctx, off, n))
	if err != nil {
		c.blob.failed(err)
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
		c.blob.failed(err)
	}
}
