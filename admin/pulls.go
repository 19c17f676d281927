package admin

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/registrymirror/mirror/journal"
)

// PullList is the body of GET /api/v1/pulls: the running pulls, or the finished ones, the one that began last first.
type PullList struct {
	Pulls []Pull `json:"pulls"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// Pull is one client fetching one image. Unknown values are absent.
type Pull struct {
	Image     string          `json:"image"`
	Digest    string          `json:"digest,omitempty"`
	Client    string          `json:"client"`
	Outcome   journal.Outcome `json:"outcome"` // of a running one: if it ended now
	Bytes     int64           `json:"bytes"`
	FromCache int64           `json:"fromCache"`
	StartedAt time.Time       `json:"startedAt"`
	Took      string          `json:"took"`
	FailureID string          `json:"failureId,omitempty"`
}

func pullOf(p journal.Pull) Pull {
	digest := p.Ref.Digest.String()
	if p.Ref.Tag != "" {
		p.Ref.Digest = ""
	}
	return Pull{
		Image: p.Ref.String(), Digest: digest, Client: p.Client, Outcome: p.Outcome, Bytes: p.Bytes, FromCache: p.FromCache,
		StartedAt: p.Began.UTC(), Took: p.Took.Round(time.Millisecond).String(), FailureID: p.ID,
	}
}

// journalPatience is how long the journal may take to answer.
const journalPatience = 5 * time.Second

// listPulls answers with a page of the pulls.
func (o Options) listPulls(_ http.ResponseWriter, r *http.Request) (any, error) {
	q := r.URL.Query()
	p, err := pageOf(q, maxPage, "active")
	if err != nil {
		return nil, badRequest(err)
	}
	active := true
	if q.Has("active") {
		if active, err = strconv.ParseBool(q.Get("active")); err != nil {
			return nil, badRequest(fmt.Errorf("active=%s: must be true (the running pulls) or false (the finished ones)", q.Get("active")))
		}
	}
	ctx, cancel := context.WithTimeout(r.Context(), journalPatience)
	defer cancel()
	found, err := o.Pulls(ctx, active)
	if err != nil {
		return nil, &refusal{status: http.StatusServiceUnavailable, detail: "the journal does not answer; ask again in a moment"}
	}
	if c := callerOf(r); !c.seesAll() {
		found = slices.DeleteFunc(slices.Clone(found), func(p journal.Pull) bool { return !c.sees(p.Ref.Repo) })
	}
	list, next := cut(p, found, func(p journal.Pull) string { // a client may begin two at a time
		return latestFirst(p.Began, p.Client+" "+p.Ref.String())
	})
	body := PullList{Pulls: make([]Pull, len(list)), Continue: next}
	for i, p := range list {
		body.Pulls[i] = pullOf(p)
	}
	return body, nil
}
