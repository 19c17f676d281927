package admin

import (
	"net/http"
	"time"
)

// UpstreamList is the body of GET /api/v1/upstreams, sorted by name.
type UpstreamList struct {
	Upstreams []Upstream `json:"upstreams"`
	// Continue is the parameter for the next page; absent: this is the last one.
	Continue string `json:"continue,omitempty"`
}

// Upstream is a registry as it is configured now, and its state.
type Upstream struct {
	Name        string       `json:"name"`
	Access      string       `json:"access"`
	Endpoints   []Endpoint   `json:"endpoints"`
	Credentials []Credential `json:"credentials"`
	Limits      []Limit      `json:"limits"`
}

// Endpoint is a URL at which a registry is reached. Unknown values are absent.
type Endpoint struct {
	URL         string    `json:"url"` // its path is the prefix of repositories
	State       string    `json:"state"`
	Since       time.Time `json:"since,omitzero"` // when the state began
	LastError   string    `json:"lastError,omitempty"`
	LastErrorAt time.Time `json:"lastErrorAt,omitzero"`
}

// Credential is a login at a registry, without the secret. Unknown values are absent.
type Credential struct {
	Name         string    `json:"name"`
	Kind         string    `json:"kind"`
	For          string    `json:"for,omitempty"` // the host that its source was asked about
	Repositories []string  `json:"repositories,omitempty"`
	State        string    `json:"state"`
	Since        time.Time `json:"since,omitzero"` // when the state began
	ExpiresAt    time.Time `json:"expiresAt,omitzero"`
	LastRefresh  time.Time `json:"lastRefresh,omitzero"`
	LastError    string    `json:"lastError,omitempty"`
	LastErrorAt  time.Time `json:"lastErrorAt,omitzero"`
}

// Limit is a rate limit as a registry reported it last. Unknown values are absent.
type Limit struct {
	Credential    string    `json:"credential,omitempty"` // that it is for; absent: anonymous pulls
	Source        string    `json:"source,omitempty"`     // the address, or /64 of addresses, that is counted
	Endpoint      string    `json:"endpoint"`             // that reported it
	Limit         int64     `json:"limit,omitempty"`
	Remaining     int64     `json:"remaining"`
	WindowSeconds int64     `json:"windowSeconds,omitempty"`
	ResetAt       time.Time `json:"resetAt,omitzero"` // when more requests are allowed
	SaidAt        time.Time `json:"saidAt"`           // when it was reported
	Spent         *Spent    `json:"spent,omitempty"`
}

// Spent is how a limit was used up when it was reported. Unknown values are absent.
type Spent struct {
	Since        time.Time `json:"since"`               // start of the window before SaidAt, or of the mirror if that was later
	Requests     int64     `json:"requests"`            // that this mirror made
	Repositories []Use     `json:"repositories"`        // of those, the most first, at most ten
	Elsewhere    *int64    `json:"elsewhere,omitempty"` // requests by other clients with the same account or address
}

// Use is the requests spent on a repository.
type Use struct {
	Repository string `json:"repository"`
	Requests   int64  `json:"requests"`
}

// listUpstreams answers with a page of the upstreams.
func (o Options) listUpstreams(_ http.ResponseWriter, r *http.Request) (any, error) {
	p, err := pageOf(r.URL.Query(), maxPage)
	if err != nil {
		return nil, badRequest(err)
	}
	list, next := cut(p, o.Upstreams(), func(u Upstream) string { return u.Name })
	return UpstreamList{Upstreams: list, Continue: next}, nil
}
