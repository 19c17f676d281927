package admin

import (
	"fmt"
	"net/http"
	"time"
)

// UpstreamList is the body of GET /api/v1/upstreams, sorted by name.
type UpstreamList struct {
	Upstreams []Upstream `json:"upstreams"`
	// Continue is the parameter that gets the next page; absent: there is none.
	Continue string `json:"continue,omitempty"`
}

// Upstream is a registry with how it is, as it is configured now.
type Upstream struct {
	Name        string       `json:"name"`
	Access      string       `json:"access"`
	Endpoints   []Endpoint   `json:"endpoints"`
	Credentials []Credential `json:"credentials"`
	Limits      []Limit      `json:"limits"`
}

// Endpoint is a place where a registry is asked. What is unknown is absent.
type Endpoint struct {
	URL         string    `json:"url"` // with the prefix of repositories as a path
	State       string    `json:"state"`
	Since       time.Time `json:"since,omitzero"` // when the state became what it is
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
}

// Credential is who we are to a registry, without the secret. What is unknown is absent.
type Credential struct {
	Name         string    `json:"name"`
	Kind         string    `json:"kind"`
	For          string    `json:"for,omitempty"` // the host for which its source was asked
	Repositories []string  `json:"repositories,omitempty"`
	State        string    `json:"state"`
	Since        time.Time `json:"since,omitzero"` // when the state became what it is
	ExpiresAt    time.Time `json:"expiresAt,omitzero"`
	LastRefresh  time.Time `json:"lastRefresh,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	LastErrorAt  time.Time `json:"lastErrorAt,omitzero"`
}

// Limit is what a registry has last said is left of a limit of requests. What is unknown is absent.
type Limit struct {
	Credential    string    `json:"credential,omitempty"` // whose; absent: of pulls without one
	Source        string    `json:"source,omitempty"`     // the address, or /64 of addresses, that is counted
	Endpoint      string    `json:"endpoint"`             // which has said it
	Limit         int64     `json:"limit,omitempty"`
	Remaining     int64     `json:"remaining"`
	WindowSeconds int64     `json:"windowSeconds,omitempty"`
	ResetAt       time.Time `json:"resetAt,omitzero"` // when there is more
	SaidAt        time.Time `json:"saidAt"`
	Spent         *Spent    `json:"spent,omitempty"`
}

// Spent is who had spent a limit when it was said. What is unknown is absent.
type Spent struct {
	Since        time.Time `json:"since"`               // of SaidAt, as long as the window, or since the mirror runs
	Requests     int64     `json:"requests"`            // that this mirror made
	Repositories []Use     `json:"repositories"`        // of those, the most first, at most ten
	Elsewhere    *int64    `json:"elsewhere,omitempty"` // what others spent who have the same account or address
}

// Use is what was spent on a repository.
type Use struct {
	Repository string `json:"repository"`
	Requests   int64  `json:"requests"`
}

// upstreams answers with what list gives.
func upstreams(list func() []Upstream) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		q := r.URL.Query()
		p, err := pageOf(q)
		if err != nil {
			Problem(w, http.StatusBadRequest, err.Error())
			return
		}
		for name := range q {
			Problem(w, http.StatusBadRequest, fmt.Sprintf("there is no parameter %q; there are limit and continue", name))
			return
		}
		body := UpstreamList{Upstreams: []Upstream{}}
		found, next := cut(p, list(), func(u Upstream) string { return u.Name })
		body.Upstreams, body.Continue = append(body.Upstreams, found...), next
		writeJSON(w, body)
	}
}
