package admin

import (
	"cmp"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
)

// FailureList is the body of GET /api/v1/failures, the failure seen last first.
type FailureList struct {
	Failures []journal.Failure `json:"failures"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// Record is the record of failures that the API shows. *journal.Record is the real one.
type Record interface {
	Failures(f journal.Filter) []journal.Failure
	Summary(f journal.Filter) journal.Summary
}

const failuresPage = 100 // failures of a page, where no limit is given

// filterOf reads the parameters of a query. The error says what is allowed.
func filterOf(q url.Values, now time.Time) (f journal.Filter, p page, err error) {
	if p, err = pageOf(q, failuresPage, "id", "reason", "class", "image", "client", "since", "declined"); err != nil {
		return f, p, err
	}
	f = journal.Filter{
		ID: q.Get("id"), Reason: diagnose.Reason(q.Get("reason")), Class: diagnose.Class(q.Get("class")), Image: q.Get("image"),
		Client: q.Get("client"),
	}
	err = cmp.Or(known("reason", f.Reason, diagnose.Reasons()), known("class", f.Class, diagnose.Classes()))
	if since := q.Get("since"); err == nil && q.Has("since") {
		if f.Since, err = Since(since, now); err != nil {
			err = fmt.Errorf("since=%s: %w", since, err)
		}
	}
	if declined := q.Get("declined"); err == nil && q.Has("declined") {
		if f.Declined, err = strconv.ParseBool(declined); err != nil {
			err = fmt.Errorf("declined=%s: must be true or false", declined)
		}
	}
	return f, p, err
}

// known refuses a word that no failure can have: an empty list would be taken for good news. Empty chooses all.
func known[W ~string](name string, w W, words []W) error {
	if w == "" || slices.Contains(words, w) {
		return nil
	}
	all := make([]string, len(words))
	for i, x := range words {
		all[i] = string(x)
	}
	slices.Sort(all)
	return fmt.Errorf("%s=%s: must be one of %s", name, w, strings.Join(all, ", "))
}

var days = regexp.MustCompile(`^([0-9]{1,5})d(.*)$`)

// Since reads a time (RFC 3339), or how long ago it was: a duration, which may begin with days of 24 hours.
func Since(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	ago, rest := time.Duration(0), text
	m := days.FindStringSubmatch(text)
	if m != nil {
		n, _ := strconv.Atoi(m[1]) // of digits
		ago, rest = time.Duration(n)*24*time.Hour, m[2]
	}
	if rest != "" || m == nil {
		d, err := time.ParseDuration(rest)
		if err != nil || d < 0 {
			return now, fmt.Errorf("must be a duration, as in 1h30m or 7d, or a time, as in %s", now.UTC().Format(time.RFC3339))
		}
		ago += d
	}
	return now.Add(-ago), nil
}

// listFailures answers with a page of the record.
func (o Options) listFailures(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, p, err := filterOf(r.URL.Query(), time.Now())
	if err != nil {
		return nil, badRequest(err)
	}
	list, next := cut(p, o.Failures.Failures(f), func(f journal.Failure) string {
		return latestFirst(f.LastSeen, f.ID+" "+string(f.Outcome))
	})
	return FailureList{Failures: list, Continue: next}, nil
}

// summarizeFailures answers with counts of failed pulls.
func (o Options) summarizeFailures(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, _, err := filterOf(r.URL.Query(), time.Now())
	if err != nil {
		return nil, badRequest(err)
	}
	return o.Failures.Summary(f), nil
}
