package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/journal"
)

// Explanation is the answer to POST /api/v1/explain, the most frequent failure first.
type Explanation struct {
	Failures []Explained `json:"failures"`
	// Classes counts the failures of each class, as often as the text has them.
	Classes map[string]int64 `json:"classes"`
}

// Explained is a failure that a text tells of. Where the text shows the id of a failure that the mirror has recorded,
// it says what the mirror knows.
type Explained struct {
	symptom.Failure
	Evidence []string `json:"evidence,omitempty"` // the mirror's
}

const (
	// maxText is how many bytes of events and logs are read, one text at a time: reading takes many times the memory of
	// what is read. Who comes meanwhile waits for readerPatience, and who sends it has textTime.
	maxText        = 8 << 20
	readerPatience = 10 * time.Second
	textTime       = 30 * time.Second
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
		report, err := symptom.Read(http.MaxBytesReader(w, r.Body, maxText))
		if _, long := errors.AsType[*http.MaxBytesError](err); long {
			Problem(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the text is longer than %d MiB; send it in parts, or use "+
				"mirror explain, which reads 256 MiB by itself", maxText>>20))
			return
		}
		if err != nil {
			Problem(w, http.StatusBadRequest, "the text did not come to its end within "+textTime.String()+"; send it again")
			return
		}
		body := Explanation{Failures: make([]Explained, 0, len(report.Failures)), Classes: make(map[string]int64)}
		for _, f := range report.Failures {
			x := Explained{Failure: f}
			if k, ok := recorded(record, f.ID); ok {
				x.Reason, x.Class, x.Summary, x.Remedy, x.Evidence = k.Reason, k.Class, k.Summary, k.Remedy, k.Evidence
			}
			body.Failures = append(body.Failures, x)
			body.Classes[string(x.Class)] += x.Count
		}
		writeJSON(w, body)
	}
}

// recorded looks a failure up that a text shows the id of.
func recorded(record Failures, id string) (journal.Failure, bool) {
	if record == nil || id == "" {
		return journal.Failure{}, false
	}
	list, _, err := record.Failures(journal.Filter{ID: id, Declined: true, Limit: 1})
	if err != nil || len(list) == 0 {
		return journal.Failure{}, false
	}
	return list[0], true
}
