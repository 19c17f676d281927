package admin

import (
	"encoding/json"
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
	// Continue is the parameter that gets the next page; absent: there is none.
	Continue string `json:"continue,omitempty"`
}

// Failures is what the API asks of the record. *journal.Record is the real one.
type Failures interface {
	Failures(journal.Filter) (list []journal.Failure, next string, err error)
	Summary(journal.Filter) journal.Summary
}

const (
	pageSize = 100 // where no limit is given
	pageMost = 1000
)

// filterOf reads the parameters of a query. A mistake is an error that says what is allowed.
func filterOf(q url.Values, now time.Time) (f journal.Filter, err error) {
	for name, values := range q {
		v := values[len(values)-1]
		switch name {
		case "id":
			f.ID = v
		case "reason":
			f.Reason = diagnose.Reason(v)
			err = known("reason", f.Reason, diagnose.Reasons())
		case "class":
			f.Class = diagnose.Class(v)
			err = known("class", f.Class, diagnose.Classes())
		case "image":
			f.Image = v
		case "client":
			f.Client = v
		case "continue":
			f.After = v
		case "since":
			if f.Since, err = Since(v, now); err != nil {
				err = fmt.Errorf("since=%s: %w", v, err)
			}
		case "declined":
			if f.Declined, err = strconv.ParseBool(v); err != nil {
				err = fmt.Errorf("declined=%s: there are true and false", v)
			}
		case "limit":
			f.Limit, err = limitOf(v)
		default:
			err = fmt.Errorf("there is no parameter %q; there are id, reason, class, image, client, since, declined, limit "+
				"and continue", name)
		}
		if err != nil {
			return f, err
		}
	}
	return f, nil
}

// known refuses a word that no failure can have: a list without any would be taken for good news. Empty chooses all.
func known[W ~string](name string, w W, words []W) error {
	if w == "" || slices.Contains(words, w) {
		return nil
	}
	all := make([]string, len(words))
	for i, x := range words {
		all[i] = string(x)
	}
	slices.Sort(all)
	return fmt.Errorf("%s=%s: there is none; there are %s", name, w, strings.Join(all, ", "))
}

var days = regexp.MustCompile(`^([0-9]{1,5})d(.*)$`)

// Since reads a time (RFC 3339), or how long ago it was: a duration, before which days of 24 hours may stand.
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
			return now, fmt.Errorf("it is a duration, as in 1h30m or 7d, or a time, as in %s", now.UTC().Format(time.RFC3339))
		}
		ago += d
	}
	return now.Add(-ago), nil
}

// failures answers with a page of the record.
func failures(record Failures) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := filterOf(r.URL.Query(), time.Now())
		if err != nil {
			Problem(w, http.StatusBadRequest, err.Error())
			return
		}
		if f.Limit == 0 {
			f.Limit = pageSize
		}
		body := FailureList{Failures: []journal.Failure{}}
		list, next, err := record.Failures(f)
		if err != nil {
			Problem(w, http.StatusBadRequest, err.Error()+"; ask without it")
			return
		}
		body.Failures, body.Continue = append(body.Failures, list...), next
		writeJSON(w, body)
	}
}

// summary answers with counts of failed pulls.
func summary(record Failures) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, err := filterOf(r.URL.Query(), time.Now())
		if err != nil {
			Problem(w, http.StatusBadRequest, err.Error())
			return
		}
		writeJSON(w, record.Summary(f))
	}
}

func writeJSON(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}
