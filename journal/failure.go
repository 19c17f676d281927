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
	if f.Reason == diagnose.ClientGone || f.Class == diagnose.ClassMissing && probe(r.Ref) {
		return
	}
	now, again := time.Now(), 0
	if e := j.seen[r.ID]; e != nil {
		s := e.Value.(*said)
		if now.Sub(s.at) < sayAgain {
			s.again++
			return
		}
		again = s.again
		j.said.Remove(e)
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
	j.seen[r.ID] = j.said.PushFront(&said{id: r.ID, at: now})
	if j.said.Len() > maxSeen {
		oldest := j.said.Back()
		delete(j.seen, j.said.Remove(oldest).(*said).id)
	}

	level, msg := slog.LevelWarn, "pull failed"
	switch {
	case f.Declined:
		level, msg = slog.LevelInfo, "pull declined"
	case r.Kind == oci.KindTags || r.Kind == oci.KindReferrers:
		msg = "list failed"
	case r.Kind == 0:
		msg = "request refused"
	}
	attrs := []slog.Attr{
		slog.String("ref", ref), slog.String("reason", string(f.Reason)), slog.String("class", string(f.Class)),
		slog.String("id", r.ID), slog.String("summary", f.Summary), slog.String("remedy", f.Remedy),
		slog.String("upstream", orElse(f.Upstream, r.Ref.Host)), slog.Int("status", f.Status),
		slog.String("client", r.Client),
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
	j.log.LogAttrs(ctx, level, msg, attrs...)
}

func orElse(s, other string) string {
	if s == "" {
		return other
	}
	return s
}
