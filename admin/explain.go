package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

// Explanation is the answer to POST /api/v1/explain, the most frequent failure first.
type Explanation struct {
	Failures []Explained `json:"failures"`
	// Classes counts the failures of each class, as often as the text has them.
	Classes map[string]int64 `json:"classes"`
}

// Explained is a failure that a text tells of. Where the mirror has recorded it, it says what the mirror knows.
type Explained struct {
	symptom.Failure
	Evidence []string `json:"evidence,omitempty"` // the mirror's
	// TextReason is what the text says where the mirror knows another reason.
	TextReason diagnose.Reason `json:"textReason,omitempty"`
}

// Join puts what a mirror has recorded in the place of what a text says.
func (x *Explained) Join(k journal.Failure) {
	if k.Reason != x.Reason && x.Reason != diagnose.Unknown {
		x.TextReason = x.Reason
	}
	x.Reason, x.Class, x.Summary, x.Remedy, x.Evidence = k.Reason, k.Class, k.Summary, k.Remedy, k.Evidence
	x.Command, x.Page, x.ID = "", k.Reason.Page(), k.ID
	if k.Host != "" {
		x.Host = k.Host
	}
}

const (
	// maxText is how many bytes of events and logs are read, one text at a time: reading takes many times the memory of
	// what is read. The next text waits for readerPatience, has textTime to arrive, and readTime to arrive and be read.
	maxText        = 8 << 20
	readerPatience = 10 * time.Second
	textTime       = 30 * time.Second
	readTime       = time.Minute
	// mostLooked is how many failures of one text are looked up in the mirror's record, the most frequent first.
	mostLooked = 1000
)

// explain answers with why the pulls failed that a text tells of. Nil for record: there is no evidence of our own.
func explain(record Failures) http.HandlerFunc {
	turns := make(chan struct{}, 1)
	return func(w http.ResponseWriter, r *http.Request) {
		if e := r.Header.Get("Content-Encoding"); e != "" && e != "identity" {
			Problem(w, http.StatusUnsupportedMediaType, "send the text as it is, without a Content-Encoding")
			return
		}
		patience := time.NewTimer(readerPatience)
		defer patience.Stop()
		select {
		case turns <- struct{}{}:
			defer func() { <-turns }()
		case <-r.Context().Done():
			return
		case <-patience.C:
			w.Header().Set("Retry-After", "10")
			Problem(w, http.StatusServiceUnavailable, "another text is being read; send it again in a moment")
			return
		}
		_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(textTime)) // HTTP/1.1 has it
		ctx, cancel := context.WithTimeout(r.Context(), readTime)
		defer cancel()
		report, err := symptom.ReadContext(ctx, http.MaxBytesReader(w, r.Body, maxText))
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			Problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the text is longer than %d MiB; send it in parts, or use "+
				"mirror explain, which reads 256 MiB by itself", maxText>>20))
			return
		}
		if r.Context().Err() != nil { // the client has left
			return
		}
		if ctx.Err() != nil {
			w.Header().Set("Retry-After", "10")
			Problem(w, http.StatusServiceUnavailable, "the text was not read within "+readTime.String()+"; send it in parts, or use "+
				"mirror explain, which takes its time")
			return
		}
		if err != nil {
			Problem(w, http.StatusBadRequest, "the text did not come to its end within "+textTime.String()+"; send it again")
			return
		}
		body := Explanation{Failures: make([]Explained, 0, len(report.Failures)), Classes: make(map[string]int64)}
		for i, f := range report.Failures {
			x := Explained{Failure: f}
			if i < mostLooked && ctx.Err() == nil {
				if k, ok := recorded(record, f); ok {
					x.Join(k)
				}
			}
			body.Failures = append(body.Failures, x)
			body.Classes[string(x.Class)] += x.Count
		}
		writeJSON(w, body)
	}
}

// recorded looks up what the mirror knows of a failure that a text tells of.
func recorded(record Failures, f symptom.Failure) (journal.Failure, bool) {
	if record == nil {
		return journal.Failure{}, false
	}
	for _, q := range Lookups(f) {
		q.Declined, q.Limit = true, mostCandidates
		if list, _, err := record.Failures(q); err == nil {
			if k, ok := Same(f, list, time.Now()); ok {
				return k, true
			}
		}
	}
	return journal.Failure{}, false
}

const (
	mostCandidates = 20
	// slack is how far the clocks of a node and of the mirror, and the ends of a long pull, may be apart.
	slack = 15 * time.Minute
	// undated is how old a record may be for a text without times.
	undated = 24 * time.Hour
)

// Lookups are the questions to a record, of which the first with an answer finds a failure: by the id that the text shows,
// else by the image. What the node met by itself is in no record.
func Lookups(f symptom.Failure) (all []journal.Filter) {
	if f.ID != "" {
		all = append(all, journal.Filter{ID: f.ID})
	}
	if ref, err := oci.ParseRef(f.Image); err == nil && (f.Class != diagnose.ClassClient || f.Reason == diagnose.ClientGone) {
		if ref.Digest != "" {
			ref.Tag = ""
		}
		all = append(all, journal.Filter{Image: ref.String()})
	}
	return all
}

// Same is the record of a failure that a text tells of: that of its id, else the one of its image that was seen next to
// the time of the text.
func Same(f symptom.Failure, list []journal.Failure, now time.Time) (best journal.Failure, found bool) {
	ref, err := oci.ParseRef(f.Image)
	if ref.Digest != "" {
		ref.Tag = ""
	}
	near := time.Duration(-1)
	for _, k := range list {
		if f.ID != "" && k.ID == f.ID {
			return k, true
		}
		if err != nil || k.Image != ref.String() {
			continue
		}
		away, ok := apart(f, k, now)
		if ok && (near < 0 || away < near) {
			best, near = k, away
		}
	}
	return best, near >= 0
}

// apart is how long before or after a text a record was seen, and whether both may be one failure.
func apart(f symptom.Failure, k journal.Failure, now time.Time) (time.Duration, bool) {
	if f.Last.IsZero() {
		away := now.Sub(k.LastSeen)
		return max(away, 0), away <= undated
	}
	away := max(k.FirstSeen.Sub(f.Last), f.First.Sub(k.LastSeen), 0)
	return away, away <= slack
}
