package admin

import (
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/registrymirror/mirror/journal"
)

// PullList is the body of GET /api/v1/pulls: those that go on, or those that are over, the one that began last first.
type PullList struct {
	Pulls []Pull `json:"pulls"`
	// Continue is the parameter that gets the next page; absent: there is none.
	Continue string `json:"continue,omitempty"`
}

// Pull is what one client asks of one image. What is unknown is absent.
type Pull struct {
	Image     string          `json:"image"`
	Digest    string          `json:"digest,omitempty"`
	Client    string          `json:"client"`
	Outcome   journal.Outcome `json:"outcome"` // of one that goes on: if it ended now
	Bytes     int64           `json:"bytes"`
	FromCache int64           `json:"fromCache"`
	StartedAt time.Time       `json:"startedAt"`
	Took      string          `json:"took"`
	FailureID string          `json:"failureId,omitempty"`
}

// pulls answers with what list gives.
func pulls(list func(ctx context.Context, active bool) ([]journal.Pull, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		p, err := pageOf(q)
		if err != nil {
			Problem(w, http.StatusBadRequest, err.Error())
			return
		}
		active := true
		for name, v := range q {
			if active, err = strconv.ParseBool(v[0]); err != nil || name != "active" {
				Problem(w, http.StatusBadRequest, "there are the parameters active (true for the pulls that go on, which is the "+
					"default, and false for those that are over), limit and continue")
				return
			}
		}
		ctx, cancel := context.WithTimeout(r.Context(), 5*time.Second)
		defer cancel()
		found, err := list(ctx, active)
		if err != nil {
			Problem(w, http.StatusServiceUnavailable, "the journal does not answer; ask again in a moment")
			return
		}
		found, next := cut(p, found, func(p journal.Pull) string { // the last first; a client may begin two at a time
			return fmt.Sprintf("%020d %s %s", math.MaxInt64-p.Began.UnixNano(), p.Client, p.Ref)
		})
		body := PullList{Pulls: make([]Pull, 0, len(found)), Continue: next}
		for _, p := range found {
			digest := p.Ref.Digest.String()
			if p.Ref.Tag != "" {
				p.Ref.Digest = ""
			}
			body.Pulls = append(body.Pulls, Pull{
				Image: p.Ref.String(), Digest: digest, Client: p.Client, Outcome: p.Outcome, Bytes: p.Bytes, FromCache: p.FromCache,
				StartedAt: p.Began.UTC(), Took: p.Took.Round(time.Millisecond).String(), FailureID: p.ID,
			})
		}
		writeJSON(w, body)
	}
}
