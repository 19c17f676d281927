package pull

import (
	"cmp"
	"context"
	"net/url"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// maxLists is how many bytes of lists are remembered, for when their upstream does not answer.
const maxLists = 16 << 20

// lastList is the last good answer to a question for tags or referrers.
type lastList struct {
	*upstream.Document
	at time.Time
}

// young reports whether it is a good answer to a request at a time: a list may be as old as a tag may be.
func (l *lastList) young(st *site, now time.Time) bool {
	age := st.Tags.Base.MaxAge
	switch {
	case st.isOwn():
		age = min(age, st.Own.MaxAge)
	case st.Own != nil:
		age = min(age, openLife)
	}
	return now.Sub(l.at) < age
}

// usable reports whether it may be the answer where the upstream gives none.
func (l *lastList) usable(st *site, now time.Time) bool {
	age := st.Tags.Base.StaleIfError
	if st.isOwn() {
		age = min(age, st.Own.MaxAge+st.Own.StaleIfError)
	}
	return now.Sub(l.at) <= age
}

// Tags answers a GET or HEAD of tags/list: with the upstream's last answer to the same question, for as long as a tag is not
// checked. Then the upstream is asked, once for all requests for the same list. If it does not answer, its last answer is
// served for as long as a tag would be. The error is as for Manifest.
func (p *Puller) Tags(ctx context.Context, a Ask) (*Content, error) {
	return p.list(ctx, a, "", func(ctx context.Context, st *site, ref oci.Ref, q url.Values) (*upstream.Document, error) {
		return st.Upstream.Tags(ctx, ref.Name, q)
	})
}

// Referrers answers a GET or HEAD of referrers, in the same way.
func (p *Puller) Referrers(ctx context.Context, a Ask) (*Content, error) {
	of := a.Request.Digest.String()
	return p.list(ctx, a, of, func(ctx context.Context, st *site, ref oci.Ref, q url.Values) (*upstream.Document, error) {
		return st.Upstream.Referrers(ctx, ref.Name, ref.Digest, q)
	})
}

// asklist asks an upstream for a list.
type asklist func(ctx context.Context, st *site, ref oci.Ref, query url.Values) (*upstream.Document, error)

func (p *Puller) list(ctx context.Context, a Ask, of string, ask asklist) (*Content, error) {
	ctx = memory.By(ctx, cmp.Or(a.Peer, a.Client))
	return p.as(ctx, a, func(ctx context.Context, st *site, ref oci.Ref) (*Content, error) {
		return p.listOf(ctx, a, st, ref, of, ask)
	})
}

// listOf is list at a site.
func (p *Puller) listOf(ctx context.Context, a Ask, st *site, ref oci.Ref, of string, ask asklist) (*Content, error) {
	start := time.Now()
	query := st.linked.known(a.Request.Query)
	// A query has any length; its digest has not.
	k := st.key(a.Request.Kind, ref.Repo, of+"?"+digest.FromString(query.Encode()).String())
	wait := p.wait
	old, ok := p.lists.Get(k)
	if ok && old.young(st, start) {
		return p.document(ctx, ref, old.Document, Status{Outcome: cache.Hit, Age: start.Sub(old.at)})
	}
	if ok = ok && old.usable(st, start); ok {
		wait = p.patience(st, st.Tags.Base)
	}
	c, err := p.newList(ctx, st, k, ref, start, wait, func(ctx context.Context) (*upstream.Document, error) {
		return ask(ctx, st, ref, query)
	})
	if err == nil {
		return c, nil
	}
	if !ok || ctx.Err() != nil || isMissing(err) || st.refuses(err) {
		return nil, err
	}
	return p.document(ctx, ref, old.Document, Status{
		Outcome: cache.Hit, Stale: true, Age: start.Sub(old.at), Reason: err,
	})
}

// newList asks the upstream, once for all clients that want the same list.
func (p *Puller) newList(ctx context.Context, st *site, k key, ref oci.Ref, start time.Time, wait time.Duration,
	ask func(context.Context) (*upstream.Document, error),
) (*Content, error) {
	if err := p.failures.get(k); err != nil {
		return nil, err
	}
	leave := func() {} // set by the trip, if it is this client's
	doc, led, err := p.listing.do(ctx, k.String(), start.Add(wait), func(ctx context.Context) (
		*upstream.Document, error,
	) {
		// Between a client's look and its turn here another trip may have ended.
		if last, ok := p.lists.Get(k); ok && last.young(st, start) {
			return last.Document, nil
		}
		end, err := p.beginLogin(ctx, st, k.kind, ref)
		if err != nil {
			return nil, err
		}
		ctx, hold := p.memory.Enter(ctx, memory.Answer)
		doc, err := ask(ctx)
		end(err)
		if err != nil {
			hold.Release()
			p.failures.put(k, err)
			return nil, err
		}
		p.failures.clear(k)
		st.linked.learn(doc.Next)
		p.lists.Put(k, &lastList{Document: doc, at: time.Now()}, int64(len(doc.Bytes)+len(doc.Next)+256))
		// It keeps its memory until the requests that waited have begun to take it: else each of them would wait for memory for
		// a document that is there already.
		hold.Shrink(int64(len(doc.Bytes)))
		leave = p.sending.offer(doc.Bytes, hold.Release)
		time.AfterFunc(handOver, leave)
		return doc, nil
	})
	if err != nil {
		return nil, p.timeout(err, k, ref, start, wait)
	}
	c, err := p.document(ctx, ref, doc, fetchStatus(led))
	if led {
		leave()
	}
	return c, err
}
