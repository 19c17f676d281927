package admin

import (
	"cmp"
	"errors"
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
	Failures []Failure `json:"failures"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// Failure is why pulls failed: the same reason for the same image at the same host is one, with a count. Unknown values
// are absent.
type Failure struct {
	ID        string           `json:"id"` // the fingerprint that the client's error message shows
	Reason    diagnose.Reason  `json:"reason"`
	Class     diagnose.Class   `json:"class"`
	Summary   string           `json:"summary"`
	Remedy    string           `json:"remedy"`
	Evidence  []string         `json:"evidence,omitempty"` // of the last time
	Image     string           `json:"image,omitempty"`
	Platform  string           `json:"platform,omitempty"` // the missing one, where that is the reason
	Upstream  string           `json:"upstream,omitempty"`
	Host      string           `json:"host,omitempty"`
	Stage     string           `json:"stage,omitempty"`  // step of the pull that broke
	Status    int              `json:"status,omitempty"` // the upstream's
	Outcome   journal.Outcome  `json:"outcome"`          // failed or declined
	Client    string           `json:"client,omitempty"` // the last client that met it
	UserAgent string           `json:"userAgent,omitempty"`
	Clients   map[string]int64 `json:"clients,omitempty"` // pulls by client; beyond 16 clients the others are "others"
	Count     int64            `json:"count"`             // pulls
	FirstSeen time.Time        `json:"firstSeen"`
	LastSeen  time.Time        `json:"lastSeen"`
}

// failuresOf are failures of the record as the API shows them.
func failuresOf(list []journal.Failure) []Failure {
	all := make([]Failure, len(list))
	for i, f := range list {
		all[i] = Failure{
			ID: f.ID, Reason: f.Reason, Class: f.Class, Summary: f.Summary, Remedy: f.Remedy, Evidence: f.Evidence, Image: f.Image,
			Platform: f.Platform, Upstream: f.Upstream, Host: f.Host, Stage: f.Stage, Status: f.Status, Outcome: f.Outcome,
			Client: f.Client, UserAgent: f.UserAgent, Clients: f.Clients, Count: f.Count, FirstSeen: f.FirstSeen, LastSeen: f.LastSeen,
		}
	}
	return all
}

// FailureSummary is the body of GET /api/v1/failures/summary: counts of pulls.
type FailureSummary struct {
	Classes map[string]int64 `json:"classes"`
	Reasons map[string]int64 `json:"reasons"`
	Images  map[string]int64 `json:"images"`
	Clients map[string]int64 `json:"clients"`
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
	if err == nil {
		f.Declined, err = flag(q, "declined")
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

// Since reads a time (RFC 3339), or how long ago it was, as Duration reads it.
func Since(text string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	ago, err := Duration(text)
	if err != nil {
		return now, fmt.Errorf("%w, or a time, as in %s", err, now.UTC().Format(time.RFC3339))
	}
	return now.Add(-ago), nil
}

// maxDays is the longest duration.
const maxDays = 36500

var (
	errDuration = errors.New("must be a duration, as in 1h30m or 7d")
	errTooLong  = fmt.Errorf("is too long; write %dd at most", maxDays)
	// long matches a duration that only its length can make wrong.
	long = regexp.MustCompile(`^\d+[dhms]$`)
)

// Duration reads a duration, which may begin with days of 24 hours.
func Duration(text string) (time.Duration, error) {
	all, rest := time.Duration(0), text
	m := days.FindStringSubmatch(text)
	if m != nil {
		n, err := strconv.Atoi(m[1])
		if err != nil || n > maxDays {
			return 0, errTooLong
		}
		all, rest = time.Duration(n)*24*time.Hour, m[2]
	}
	if rest != "" || m == nil {
		d, err := time.ParseDuration(rest)
		switch {
		case err != nil && long.MatchString(rest), d > maxDays*24*time.Hour:
			return 0, errTooLong
		case err != nil || d < 0:
			return 0, errDuration
		}
		all += d
	}
	return all, nil
}

// listFailures answers with a page of the record.
func (o Options) listFailures(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, p, err := filterOf(r.URL.Query(), time.Now())
	if err != nil {
		return nil, badRequest(err)
	}
	f.Sees = seen(r)
	list, next := cut(p, o.Failures.Failures(f), func(f journal.Failure) string {
		return latestFirst(f.LastSeen, f.ID+" "+string(f.Outcome))
	})
	return FailureList{Failures: failuresOf(list), Continue: next}, nil
}

// summarizeFailures answers with counts of failed pulls.
func (o Options) summarizeFailures(_ http.ResponseWriter, r *http.Request) (any, error) {
	f, _, err := filterOf(r.URL.Query(), time.Now())
	if err != nil {
		return nil, badRequest(err)
	}
	f.Sees = seen(r)
	return FailureSummary(o.Failures.Summary(f)), nil
}
