package journal

import (
	"container/list"
	"context"
	"log/slog"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Outcome is how a pull went.
type Outcome string

// The outcomes of a pull.
const (
	Served   Outcome = "served"   // content was sent
	Stale    Outcome = "stale"    // the same, older than it should be, since the upstream did not answer
	Declined Outcome = "declined" // refused, and the client is free to go on to the registry
	Failed   Outcome = "failed"
	Looked   Outcome = "looked" // manifests only: a check whether a tag has moved, or of what an image is
)

// opened is a pull that may go on.
type opened struct {
	key     key
	ref     oci.Ref // as first asked for; the digest is known once something was answered
	at      string  // upstream, empty where it is none of ours
	first   time.Time
	last    time.Time // when its last request ended or began to send
	end     time.Time // the end of its last answer
	sending int       // blobs that are being sent

	blobs     int
	bytes     int64
	fromCache int64
	stale     bool
	failing   map[part]failure           // parts whose last answer was a failure
	told      map[diagnose.Reason]string // what has been said of it, by reason: the failure's id
	counted   map[diagnose.Reason]counted
	wants     string           // the platform that it wants and there is none for
	index     *index           // that it got, until it asks for something in it
	agent     string           // who got it
	left      map[part]Request // blobs that the client left in the middle of
	closed    bool

	group  *list.Element   // in Journal.open
	recent *list.Element   // in Journal.recent
	same   *list.Element   // in Journal.digests; nil: its digest is not known
	share  *share[*opened] // in Journal.held
}

// name is what a pull of a client in a repository can be found by: a tag or a digest.
type name struct {
	key
	reference string
}

// part is a piece of content as it was asked for.
type part struct {
	kind      oci.Kind
	reference string
}

type failure struct {
	finding *diagnose.Finding
	id      string
}

func partOf(r Request) part {
	if r.Ref.Tag != "" {
		return part{r.Kind, r.Ref.Tag}
	}
	return part{r.Kind, r.Ref.Digest.String()}
}

// pullOf finds the pull that an event belongs to, or opens one; nil if it belongs to none.
func (j *Journal) pullOf(ctx context.Context, e event) *opened {
	if e.Ref.Name == "" || e.Kind != oci.KindManifest && e.Kind != oci.KindBlob {
		return nil
	}
	k := key{e.Client, e.Ref.Repo}
	p := j.find(k, e.Request)
	if p == nil {
		if e.Kind != oci.KindManifest || probe(e.Ref) {
			return nil
		}
		p = j.begin(ctx, k, e)
	}
	p.last = e.At.Add(e.Took)
	j.open[k].MoveToFront(p.group)
	j.recent.MoveToFront(p.recent)
	j.held.use(p.share)
	if p.same != nil {
		j.digests[name{k, p.ref.Digest.String()}].MoveToFront(p.same)
	}
	return p
}

// begin opens a pull. Where too many are open, one of the client that has most of them is closed.
func (j *Journal) begin(ctx context.Context, k key, e event) *opened {
	p := &opened{key: k, at: e.Upstream, first: e.At, last: e.At}
	group := j.open[k]
	if group == nil {
		group = list.New()
		j.open[k] = group
	}
	p.group, p.recent = group.PushFront(p), j.recent.PushFront(p)
	if p.ref = e.Ref; p.ref.Tag != "" {
		j.tags[name{k, p.ref.Tag}] = p
	}
	if p.ref.Digest != "" {
		j.meant(p, p.ref.Digest)
	}
	added, victim := j.held.add(e.holder(), p)
	p.share = added
	if victim != nil {
		j.close(ctx, victim.value)
	}
	return p
}

// meant says which digest a pull turned out to be of.
func (j *Journal) meant(p *opened, d oci.Digest) {
	p.ref.Digest = d
	n := name{p.key, d.String()}
	same := j.digests[n]
	if same == nil {
		same = list.New()
		j.digests[n] = same
	}
	p.same = same.PushFront(p)
}

// find looks for the open pull that a request belongs to. A tag is a pull of its own. A digest is the pull that it
// began with, else, as blobs, a part of the pull active last. It takes the same time however many are open.
func (j *Journal) find(k key, r Request) *opened {
	group := j.open[k]
	if group == nil {
		return nil
	}
	last := group.Front().Value.(*opened)
	if r.Kind != oci.KindManifest {
		return last
	}
	if r.Ref.Tag != "" {
		if last.ref.Tag == r.Ref.Tag {
			return last
		}
		return j.tags[name{k, r.Ref.Tag}]
	}
	if same := j.digests[name{k, r.Ref.Digest.String()}]; last.ref.Digest != r.Ref.Digest && same != nil {
		return same.Front().Value.(*opened)
	}
	return last
}

// probe reports a tag under which signatures and the like are looked for: that it isn't there is the usual case, and
// that it is, is no pull.
func probe(r oci.Ref) bool {
	for _, alg := range [...]struct {
		prefix string
		digits int
	}{{"sha256-", 64}, {"sha512-", 128}} {
		n := len(alg.prefix) + alg.digits
		if len(r.Tag) < n || r.Tag[:len(alg.prefix)] != alg.prefix || len(r.Tag) > n && r.Tag[n] != '.' {
			continue
		}
		for _, c := range []byte(r.Tag[len(alg.prefix):n]) {
			if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
				return false
			}
		}
		return true
	}
	return false
}

// add counts an answer.
func (j *Journal) add(p *opened, r Request) {
	p.end = r.At.Add(r.Took)
	j.choice(p, r)
	p.leaving(r)
	if r.Status/100 == 2 { // a refusal's text is no content
		p.bytes += r.Bytes
		if r.Outcome == cache.Hit {
			p.fromCache += r.Bytes
		}
	}
	p.stale = p.stale || r.Stale
	if r.Kind == oci.KindBlob && !r.Head {
		if p.sending > 0 && r.Status/100 == 2 {
			p.sending--
		}
		p.blobs++
	}
	if r.Finding == nil {
		if r.Status/100 == 2 || r.Status == 304 {
			if f, ok := p.failing[partOf(r)]; ok && !r.Aborted { // it went well after all
				delete(p.failing, partOf(r))
				j.recovered(p, f.finding.Reason)
			}
			if p.ref.Digest == "" && r.Ref.Digest != "" && r.Ref.Tag == p.ref.Tag {
				j.meant(p, r.Ref.Digest)
			}
		}
		return
	}
	if lookup(r) {
		return
	}
	if p.failing == nil {
		p.failing = make(map[part]failure)
	}
	if len(p.failing) < maxUnsure {
		p.failing[partOf(r)] = failure{r.Finding, r.ID}
	}
}

// outcome says how the pull went, and why if it did not go well. Among several failures one that is not declined
// counts.
func (p *opened) outcome() (Outcome, failure) {
	var worst failure
	for _, f := range p.failing {
		if worst.finding == nil || worst.finding.Declined && !f.finding.Declined ||
			worst.finding.Declined == f.finding.Declined && f.id < worst.id {
			worst = f
		}
	}
	switch {
	case worst.finding != nil && worst.finding.Declined:
		return Declined, worst
	case worst.finding != nil:
		return Failed, worst
	case p.stale:
		return Stale, failure{}
	case p.blobs > 0:
		return Served, failure{}
	}
	return Looked, failure{}
}

// close ends a pull and says how it went.
func (j *Journal) close(ctx context.Context, p *opened) {
	if !j.ending { // who is cut off by our stop has not left
		j.gone(ctx, p)
	}
	p.closed = true
	group := j.open[p.key]
	group.Remove(p.group)
	if group.Len() == 0 {
		delete(j.open, p.key)
	}
	j.recent.Remove(p.recent)
	h := p.share.holder()
	j.held.remove(p.share)
	if n := (name{p.key, p.ref.Tag}); p.ref.Tag != "" && j.tags[n] == p {
		delete(j.tags, n)
	}
	if p.same != nil {
		n := name{p.key, p.ref.Digest.String()}
		same := j.digests[n]
		if same.Remove(p.same); same.Len() == 0 {
			delete(j.digests, n)
		}
	}

	done := p.sum()
	j.remember(h, done)
	j.say(ctx, h.source, done)
	j.onPull(done)
}

// say writes the one line of a pull.
func (j *Journal) say(ctx context.Context, source string, p Pull) {
	attrs := []slog.Attr{
		slog.String("ref", tagged(p.Ref)),
		slog.String("digest", p.Ref.Digest.String()),
		slog.String("upstream", p.Ref.Host),
		slog.String("client", p.Client),
		slog.String("outcome", string(p.Outcome)),
		slog.Int64("bytes", p.Bytes),
		slog.Int64("fromCache", p.FromCache),
		slog.Duration("took", p.Took),
	}
	if p.Finding != nil {
		attrs = append(attrs, slog.String("reason", string(p.Finding.Reason)),
			slog.String("class", string(p.Finding.Class)), slog.String("id", p.ID))
	}
	if p.Outcome == Failed || p.Outcome == Declined {
		j.line(ctx, source, slog.LevelInfo, "pull", attrs...)
		return
	}
	j.log.LogAttrs(ctx, slog.LevelInfo, "pull", attrs...)
}

// tagged is the reference as people write it: with the tag where there is one, else with the digest.
func tagged(r oci.Ref) string {
	if r.Tag != "" {
		r.Digest = ""
	}
	return r.String()
}
