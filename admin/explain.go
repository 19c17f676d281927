package admin

import (
	"cmp"
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
	Failures []Explained      `json:"failures"`
	Classes  map[string]int64 `json:"classes"` // failures by class, as often as the text has them
}

// Explained is a failure that a text reports. Where the mirror has recorded the failure, it is what the mirror knows.
// Unknown values are absent.
type Explained struct {
	Reason   diagnose.Reason `json:"reason"`
	Class    diagnose.Class  `json:"class"`
	Summary  string          `json:"summary"`
	Remedy   string          `json:"remedy"`
	Image    string          `json:"image,omitempty"`
	Host     string          `json:"host,omitempty"`    // at which it broke, as far as the text says
	Command  string          `json:"command,omitempty"` // shows or corrects it
	Page     string          `json:"page,omitempty"`    // about the reason; mirror explain REASON prints it
	ID       string          `json:"id,omitempty"`      // of the mirror's record
	Count    int64           `json:"count"`
	Text     string          `json:"text,omitempty"` // the line of the text that says so, without secrets
	First    time.Time       `json:"first,omitzero"` // first time in the text; absent: the text has no times
	Last     time.Time       `json:"last,omitzero"`  // last time in the text
	Evidence []string        `json:"evidence,omitempty"`
	// TextReason is the reason according to the text, where the mirror knows another one.
	TextReason diagnose.Reason `json:"textReason,omitempty"`
}

// Explain is what a report says. Where a mirror has recorded a failure, find returns the candidates from its record; it is
// called for the most frequent failures first, and no more after an error, which comes with the answer.
func Explain(r *symptom.Report, find func(journal.Filter) ([]Failure, error)) (_ Explanation, err error) {
	x := Explanation{Failures: make([]Explained, len(r.Failures)), Classes: make(map[string]int64)}
	for i, f := range r.Failures {
		e := Explained{
			Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy, Image: f.Image, Host: f.Host, Command: f.Command,
			Page: f.Page, ID: f.ID, Count: f.Count, Text: f.Text, First: f.First, Last: f.Last,
		}
		for _, q := range lookups(f) {
			var list []Failure
			if err == nil {
				list, err = find(q)
			}
			if k, ok := same(f, list, time.Now()); ok {
				e.join(k)
				break
			}
		}
		x.Failures[i] = e
		x.Classes[string(e.Class)] += e.Count
	}
	return x, err
}

// join replaces what the text says by what a mirror has recorded.
func (x *Explained) join(k Failure) {
	if k.Reason != x.Reason && x.Reason != diagnose.Unknown {
		x.TextReason = x.Reason
	}
	x.Reason, x.Class, x.Summary, x.Remedy, x.Evidence = k.Reason, k.Class, k.Summary, k.Remedy, k.Evidence
	x.Command, x.Page, x.ID = "", k.Reason.Page(), k.ID
	x.Host = cmp.Or(k.Host, x.Host)
}

const (
	// maxText is how many bytes of events and logs are read, one text at a time: reading takes many times the memory of the
	// text. Other requests wait up to readerPatience; a client has textTime to send its text, and readTime to send it and
	// have it read.
	maxText        = 8 << 20
	readerPatience = 10 * time.Second
	textTime       = 30 * time.Second
	readTime       = time.Minute
	maxLookups     = 1000 // look-ups in the mirror's record for the failures of one text, the most frequent first
)

// explainer answers with why the pulls of a text failed.
type explainer struct {
	record Record        // nil: there is no evidence of the mirror's own
	turn   chan struct{} // its one place is taken by the text that is being read
}

func (x *explainer) explain(w http.ResponseWriter, r *http.Request) (any, error) {
	if err := unencoded(r, "text"); err != nil {
		return nil, err
	}
	end, err := turnToRead(r, x.turn, "another text is being read; send it again in a moment")
	if err != nil {
		return nil, err
	}
	defer end()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(textTime)) // HTTP/1.1 has it
	ctx, cancel := context.WithTimeout(r.Context(), readTime)
	defer cancel()
	report, err := symptom.ReadContext(ctx, http.MaxBytesReader(w, r.Body, maxText))
	_, long := errors.AsType[*http.MaxBytesError](err)
	switch {
	case long:
		return nil, &refusal{status: http.StatusRequestEntityTooLarge, detail: fmt.Sprintf("the text is longer than %d MiB; send it in "+
			"parts, or use mirror explain, which reads 256 MiB by itself", maxText>>20)}
	case r.Context().Err() != nil:
		return nil, errGone
	case ctx.Err() != nil:
		return nil, busy("the text was not read within " + readTime.String() + "; send it in parts, or use mirror explain, which has " +
			"no time limit")
	case err != nil:
		return nil, badRequest(fmt.Errorf("the text did not arrive whole within %s; send it again", textTime))
	}
	lookedUp := 0
	body, _ := Explain(report, func(q journal.Filter) ([]Failure, error) {
		if lookedUp++; x.record == nil || lookedUp > maxLookups || ctx.Err() != nil {
			return nil, nil
		}
		q.Declined, q.Sees = true, seen(r)
		list := x.record.Failures(q)
		return failuresOf(list[:min(len(list), maxCandidates)]), nil
	})
	return body, nil
}

const (
	maxCandidates = 20 // failures of the record that are compared with one of the text
	// slack is how far the clocks of a node and of the mirror, and the ends of a long pull, may be apart.
	slack = 15 * time.Minute
	// undated is how old a recorded failure may be for a text without times.
	undated = 24 * time.Hour
)

// lookups are the filters with which a failure is looked up in a record, in order: by the id that the text shows, else by
// the image. A failure of the node itself is not in the record.
func lookups(f symptom.Failure) (all []journal.Filter) {
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

// same is the recorded failure that a text reports: the one with its id, else the one of its image that was seen nearest to
// the time of the text.
func same(f symptom.Failure, list []Failure, now time.Time) (best Failure, found bool) {
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

// apart is how long before or after a text a failure was recorded, and whether both may be the same.
func apart(f symptom.Failure, k Failure, now time.Time) (time.Duration, bool) {
	if f.Last.IsZero() {
		away := now.Sub(k.LastSeen)
		return max(away, 0), away <= undated
	}
	away := max(k.FirstSeen.Sub(f.Last), f.First.Sub(k.LastSeen), 0)
	return away, away <= slack
}
