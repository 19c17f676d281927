package journal

import (
	"context"
	"log/slog"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// said is a failure that has been logged.
type said struct {
	id    string
	at    time.Time // when
	again int       // how often it came since
}

// failed says why a request failed, unless that has just been said: of one pull each reason once, and of one failure no
// more than a line a minute, however many clients meet it.
func (j *Journal) failed(ctx context.Context, p *opened, r Request) {
	f := r.Finding
	if f.Reason == diagnose.ClientGone || f.Class == diagnose.ClassMissing && probe(r.Ref) || lookup(r) {
		return
	}
	j.tell(ctx, p, r)
}

// lookup reports the answer "there is none" to somebody who wanted to know just that: crane digest, or what watches tags
// for drift. A runtime asks by HEAD too, and pulls nothing after that answer.
func lookup(r Request) bool {
	return r.Head && r.Finding != nil && r.Finding.Class == diagnose.ClassMissing && !isRuntime(r.UserAgent)
}

// tell counts a failure, and says it once.
func (j *Journal) tell(ctx context.Context, p *opened, r Request) {
	f := r.Finding
	j.count(p, r)
	now, again := time.Now(), 0
	if e := j.seen[r.ID]; e != nil {
		if j.said.lighten(e, r.holder()); now.Sub(e.value.at) < sayAgain {
			e.value.again++
			return
		}
		again = e.value.again
		j.said.remove(e)
		delete(j.seen, r.ID)
	}
	ref := tagged(r.Ref)
	if p != nil {
		if _, ok := p.told[f.Reason]; ok {
			return
		}
		if p.told == nil {
			p.told = make(map[diagnose.Reason]string)
		}
		p.told[f.Reason] = r.ID
		ref = tagged(p.ref)
	}
	added, victim := j.said.add(r.holder(), &said{id: r.ID, at: now})
	if j.seen[r.ID] = added; victim != nil {
		j.said.remove(victim)
		delete(j.seen, victim.value.id)
	}

	level, msg := slog.LevelWarn, "pull failed"
	switch {
	case f.Declined:
		level, msg = slog.LevelInfo, "pull left to the node"
	case r.Kind == oci.KindTags || r.Kind == oci.KindReferrers:
		msg = "list failed"
	case r.Kind == 0:
		msg = "request refused"
	}
	attrs := []slog.Attr{
		slog.String("ref", ref), slog.String("reason", string(f.Reason)), slog.String("class", string(f.Class)),
		slog.String("id", r.ID), slog.String("summary", f.Summary), slog.String("remedy", f.Remedy),
		slog.String("upstream", orElse(f.Upstream, r.Ref.Host)), slog.Int("status", r.Status), // that the client got
		slog.String("client", r.Client),
	}
	if f.Status > 0 {
		attrs = append(attrs, slog.Int("upstream_status", f.Status))
	}
	if f.Host != "" && f.Host != f.Upstream {
		attrs = append(attrs, slog.String("host", f.Host))
	}
	if len(f.Evidence) > 0 {
		attrs = append(attrs, slog.Any("evidence", f.Evidence))
	}
	if again > 0 {
		attrs = append(attrs, slog.Int("again", again))
	}
	j.line(ctx, r.holder().source, level, msg, attrs...)
}

// count records a failure, of one pull each reason once. What is no pull is not recorded: lists, and requests that no
// client of a registry sends.
func (j *Journal) count(p *opened, r Request) {
	f := r.Finding
	pulling := r.Kind == oci.KindManifest || r.Kind == oci.KindBlob
	wrongProtocol := f.Reason == diagnose.HTTPNotHTTPS || f.Reason == diagnose.HTTPSNotHTTP
	if !pulling && (r.Kind != 0 || !wrongProtocol && (f.Class != diagnose.ClassMirror || f.Reason == diagnose.BadRequest)) {
		return
	}
	x := Failure{
		ID: r.ID, Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy, Evidence: f.Evidence,
		Upstream: orElse(f.Upstream, r.Ref.Host), Host: f.Host, Stage: f.Stage, Status: f.Status, Outcome: Failed,
		Client: r.Client, UserAgent: r.UserAgent, LastSeen: r.At.Add(r.Took),
	}
	if f.Declined {
		x.Outcome = Declined
	}
	if r.Ref.Name != "" {
		x.Image = tagged(r.Ref)
	}
	if p != nil {
		if _, ok := p.counted[f.Reason]; ok {
			return
		}
		if p.counted == nil {
			p.counted = make(map[diagnose.Reason]counted)
		}
		p.counted[f.Reason] = counted{x.Outcome, x.ID}
		x.Image, x.Platform = tagged(p.ref), p.wants
	}
	j.record.add(x, r.holder())
	j.onFail(x)
}

// counted is a failure that a pull has counted.
type counted struct {
	outcome Outcome
	id      string
}

// recovered takes back what a pull has counted of a reason that has gone.
func (j *Journal) recovered(p *opened, r diagnose.Reason) {
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
	j.record.retract(c.outcome, c.id, p.key.client)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
