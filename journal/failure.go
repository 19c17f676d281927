package journal

import (
	"cmp"
	"context"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// ignored reports a failing request that is not a failure of a pull.
func ignored(r Request) bool {
	return r.Finding.Reason == diagnose.ClientGone || r.Finding.Class == diagnose.ClassMissing && catalog.IsArtifactTag(r.Ref.Tag) || isLookup(r)
}

// isLookup reports a HEAD for content that does not exist, from a client that wants to know just that: crane digest, or a
// watcher of tags. A runtime sends HEAD too, and pulls nothing after that answer.
func isLookup(r Request) bool {
	return r.Head && r.Finding != nil && r.Finding.Class == diagnose.ClassMissing && !isRuntime(r.UserAgent)
}

// fail counts a failure and logs it, unless the log has it already: each reason of a pull once, and each failure at
// most once a minute, however many clients meet it.
func (j *Journal) fail(ctx context.Context, p *pull, r Request) {
	j.count(p, r)
	repeats, due := j.log.due(r)
	if !due {
		return
	}
	ref := r.Ref
	if p != nil {
		if p.logged[r.Finding.Reason] {
			return
		}
		if p.logged == nil {
			p.logged = make(map[diagnose.Reason]bool)
		}
		p.logged[r.Finding.Reason] = true
		ref = p.ref
	}
	j.log.failure(ctx, tagged(ref), r, repeats)
}

// count records a failure, of one pull each reason once. Requests that are not pulls are not recorded: lists, and requests
// that no registry's client sends.
func (j *Journal) count(p *pull, r Request) {
	f := r.Finding
	pulling := r.Kind == oci.KindManifest || r.Kind == oci.KindBlob
	wrongProtocol := f.Reason == diagnose.HTTPNotHTTPS || f.Reason == diagnose.HTTPSNotHTTP
	if !pulling && (r.Kind != 0 || !wrongProtocol && (f.Class != diagnose.ClassMirror || f.Reason == diagnose.BadRequest)) {
		return
	}
	x := Failure{
		Finding: *f, ID: r.ID, Outcome: outcomeOf(f), Client: r.Client, UserAgent: r.UserAgent, LastSeen: r.At.Add(r.Took),
	}
	x.Upstream = cmp.Or(f.Upstream, r.Ref.Host)
	if r.Ref.Name != "" {
		x.Image = tagged(r.Ref)
	}
	if p != nil {
		if _, ok := p.counted[f.Reason]; ok {
			return
		}
		if p.counted == nil {
			p.counted = make(map[diagnose.Reason]cause)
		}
		p.counted[f.Reason] = cause{f, x.ID}
		x.Image, x.Platform = tagged(p.ref), p.platform
	}
	j.o.Record.add(x, r.holder())
	j.o.OnFailure(x)
}

// retract takes back what a pull has counted of a reason, once no part of it fails for that reason.
func (j *Journal) retract(p *pull, r diagnose.Reason) {
	c, ok := p.counted[r]
	if !ok {
		return
	}
	for _, f := range p.failing {
		if f.finding.Reason == r {
			return
		}
	}
	delete(p.counted, r)
	j.o.Record.retract(outcomeOf(c.finding), c.id, p.key.client)
}
