package journal

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/guard"
	"github.com/registrymirror/mirror/oci"
)

const (
	maxLogged   = 4096        // failures that are remembered for not being logged again
	repeatAfter = time.Minute // after its last line a failure is logged again

	// maxLines is how many lines about failing pulls are logged within a window; the others are counted. A broken
	// deployment fails ten thousand pulls a second, and the record has what there is to know of them.
	lineWindow = 10 * time.Second
	maxLines   = 500
	// ownLines are the first lines of each source, which no other source's use up, up to maxLines of all sources.
	ownLines = 5
)

// pullLog writes one line for each pull, and for each failure at once. Lines about failures are bounded.
type pullLog struct {
	log    *slog.Logger
	logged map[string]*share[*logged] // by failure id
	shares *shares[*logged]

	window     time.Time      // when counting of the fields below began
	lines      int            // logged in the window, own lines apart
	own        map[string]int // own lines of each source in the window
	ownTotal   int            // own lines of all sources in the window
	suppressed int            // lines not logged, and not reported yet
}

// logged is a failure that has been logged.
type logged struct {
	id      string
	at      time.Time
	repeats int // how often it came since
}

func newPullLog(log *slog.Logger) *pullLog {
	return &pullLog{
		log: log, logged: make(map[string]*share[*logged]), shares: newShares[*logged](maxLogged), own: make(map[string]int),
	}
}

// due reports whether a failure is to be logged, since it was not in the last minute, and how often it came since it was.
func (l *pullLog) due(r Request) (repeats int, due bool) {
	e := l.logged[r.ID]
	if e == nil {
		return 0, true
	}
	l.shares.recharge(e, r.holder())
	if time.Since(e.value.at) < repeatAfter {
		e.value.repeats++
		return 0, false
	}
	l.forget(e)
	return e.value.repeats, true
}

func (l *pullLog) forget(e *share[*logged]) {
	l.shares.remove(e)
	delete(l.logged, e.value.id)
}

// failure logs why a request failed.
func (l *pullLog) failure(ctx context.Context, ref string, r Request, repeats int) {
	added, victim := l.shares.add(r.holder(), &logged{id: r.ID, at: time.Now()})
	if l.logged[r.ID] = added; victim != nil {
		l.forget(victim)
	}
	f := r.Finding
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
		slog.String("upstream", cmp.Or(f.Upstream, r.Ref.Host)), slog.Int("status", r.Status), // the client's
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
	if repeats > 0 {
		attrs = append(attrs, slog.Int("repeats", repeats))
	}
	l.line(ctx, r.holder().source, level, msg, attrs...)
}

// pull writes the one line of a finished pull.
func (l *pullLog) pull(ctx context.Context, source string, p Pull) {
	attrs := []slog.Attr{
		slog.String("ref", tagged(p.Ref)),
		slog.String("digest", p.Ref.Digest.String()),
		slog.String("upstream", p.Ref.Host),
		slog.String("client", p.Client),
		slog.String("outcome", string(p.Outcome)),
		slog.Int64("bytes", p.Bytes),
		slog.Int64("from_cache", p.FromCache),
		slog.Duration("took", p.Took),
	}
	if p.Finding != nil {
		attrs = append(attrs, slog.String("reason", string(p.Finding.Reason)),
			slog.String("class", string(p.Finding.Class)), slog.String("id", p.ID))
	}
	if p.Outcome == Failed || p.Outcome == Declined {
		l.line(ctx, source, slog.LevelInfo, "pull", attrs...)
		return
	}
	l.log.LogAttrs(ctx, slog.LevelInfo, "pull", attrs...)
}

// line logs a line about a failing pull of a source, unless there were too many of late. The first few lines of each
// source are its own, so that a source that floods the log leaves room for the others.
func (l *pullLog) line(ctx context.Context, source string, level slog.Level, msg string, attrs ...slog.Attr) {
	if now := time.Now(); now.Sub(l.window) >= lineWindow {
		l.window, l.lines, l.ownTotal = now, 0, 0
		clear(l.own)
	}
	switch {
	case guard.Share && l.ownTotal < maxLines && l.own[source] < ownLines:
		l.own[source]++
		l.ownTotal++
	case l.lines < maxLines:
		l.lines++
	default:
		l.suppressed++
		return
	}
	l.log.LogAttrs(ctx, level, msg, attrs...)
}

// reportLoss logs what was not recorded or logged.
func (l *pullLog) reportLoss(ctx context.Context, lost int64) {
	if lost > 0 {
		l.log.WarnContext(ctx, "journal is overloaded; some requests are not recorded", "count", lost)
	}
	if l.suppressed > 0 {
		l.log.WarnContext(ctx, "too many failing pulls to log each; run mirror failures", "suppressed", l.suppressed)
		l.suppressed = 0
	}
}

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
