package journal

import (
	"cmp"
	"container/list"
	"context"
	"iter"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

const (
	maxOpen = 10_000 // pulls; beyond that, the client with the most of them loses the one idle longest
	// afterComplete is how long after a client has got everything that its image needs the pull is finished.
	afterComplete = 2 * time.Second
)

// repoKey is a client in a repository.
type repoKey struct {
	client string
	repo   oci.Repo
}

// name is a tag or a digest of a client's repository; without a reference, the repository.
type name struct {
	repoKey
	reference string
}

// place is an element of a list of openPulls.byName.
type place struct {
	name    name
	list    *list.List
	element *list.Element
}

// openPulls are the pulls that may go on. Finding the pull of a request takes the same time however many are open.
type openPulls struct {
	byName   map[name]*list.List // of a client's repository, of a tag and of a digest of it, the pull active last in front
	recent   *list.List          // all of them, the one active last in front
	complete *list.List          // those whose clients have everything, in that order
	shares   *shares[*pull]
}

func newOpenPulls() *openPulls {
	return &openPulls{byName: make(map[name]*list.List), recent: list.New(), complete: list.New(), shares: newShares[*pull](maxOpen)}
}

// listed are the places of a pull in the lists of openPulls.
type listed struct {
	names    []place
	recent   *list.Element
	complete *list.Element // nil: its client lacks something
	choice   *list.Element // in inference.waiting; nil: its client has no index to choose from, or has had its time
	chooseBy time.Time     // then the client is taken to want nothing in the index
	share    *share[*pull]
}

// add takes in a pull that begins, and returns the one that has to be closed for it; nil: none has to.
func (o *openPulls) add(p *pull, h holder) (victim *pull) {
	p.recent = o.recent.PushFront(p)
	o.put(p, "")
	if p.ref.Tag != "" {
		o.put(p, p.ref.Tag)
	}
	if p.ref.Digest != "" {
		o.setDigest(p, p.ref.Digest)
	}
	added, displaced := o.shares.add(h, p)
	if p.share = added; displaced != nil {
		return displaced.value
	}
	return nil
}

// put takes in a pull under one of its names.
func (o *openPulls) put(p *pull, reference string) {
	n := name{p.key, reference}
	l := o.byName[n]
	if l == nil {
		l = list.New()
		o.byName[n] = l
	}
	p.names = append(p.names, place{n, l, l.PushFront(p)})
}

// latest is the pull of a name that was active last, nil if there is none.
func (o *openPulls) latest(k repoKey, reference string) *pull {
	if l := o.byName[name{k, reference}]; l != nil {
		return first(l)
	}
	return nil
}

// setDigest records which digest a pull turned out to be of.
func (o *openPulls) setDigest(p *pull, d oci.Digest) {
	p.ref.Digest = d
	o.put(p, d.String())
}

// touch makes a pull the one active last.
func (o *openPulls) touch(p *pull) {
	o.recent.MoveToFront(p.recent)
	o.shares.use(p.share)
	for _, at := range p.names {
		at.list.MoveToFront(at.element)
	}
}

// find returns the pull that a request belongs to, nil if there is none. A tag is a pull of its own. A digest belongs to
// the pull that began with it, else, as a blob does, to the pull active last.
func (o *openPulls) find(k repoKey, r Request) *pull {
	last := o.latest(k, "")
	switch {
	case last == nil || r.Kind != oci.KindManifest:
		return last
	case r.Ref.Tag != "" && last.ref.Tag == r.Ref.Tag, r.Ref.Tag == "" && last.ref.Digest == r.Ref.Digest:
		return last
	case r.Ref.Tag != "":
		return o.latest(k, r.Ref.Tag)
	}
	return cmp.Or(o.latest(k, r.Ref.Digest.String()), last)
}

// remove takes a pull out.
func (o *openPulls) remove(p *pull) {
	o.recent.Remove(p.recent)
	o.unmarkComplete(p)
	o.shares.remove(p.share)
	for _, at := range p.names {
		if at.list.Remove(at.element); at.list.Len() == 0 {
			delete(o.byName, at.name)
		}
	}
}

// fromIdlest yields the pulls, the one idle longest first. The pull that is yielded may be removed.
func (o *openPulls) fromIdlest() iter.Seq[*pull] {
	return func(yield func(*pull) bool) {
		for e := o.recent.Back(); e != nil; {
			before := e.Prev()
			if !yield(e.Value.(*pull)) {
				return
			}
			e = before
		}
	}
}

// markComplete has a pull end soon whose client has everything that its image needs: it is logged then, instead of a
// minute later. A client that had a part of the image before never gets that far.
func (o *openPulls) markComplete(p *pull) {
	if p.missing == nil || len(p.missing) > 0 || p.sending > 0 || p.blobs == 0 || p.complete != nil {
		return
	}
	p.complete = o.complete.PushBack(p)
}

func (o *openPulls) unmarkComplete(p *pull) {
	if p.complete != nil {
		o.complete.Remove(p.complete)
		p.complete = nil
	}
}

// first is the pull in front of a list, nil if there is none.
func first(l *list.List) *pull {
	if e := l.Front(); e != nil {
		return e.Value.(*pull)
	}
	return nil
}

// pullOf finds the pull that an event belongs to, or opens one; nil if it belongs to none.
func (j *Journal) pullOf(ctx context.Context, e event) *pull {
	if e.Ref.Name == "" || e.Kind != oci.KindManifest && e.Kind != oci.KindBlob {
		return nil
	}
	k := repoKey{e.Client, e.Ref.Repo}
	p := j.open.find(k, e.Request)
	if p == nil {
		if e.Kind != oci.KindManifest || catalog.IsArtifactTag(e.Ref.Tag) {
			return nil
		}
		p = &pull{key: k, contents: contents{source: e.holder().source}, ref: e.Ref, upstream: e.Upstream, began: e.At}
		if victim := j.open.add(p, e.holder()); victim != nil {
			j.close(ctx, victim)
		}
	}
	p.lastActive = e.At.Add(e.Took)
	j.open.touch(p)
	return p
}
