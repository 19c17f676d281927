package admin

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/limit"
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

// ViewUpstream is a registry in use as the API shows it.
func ViewUpstream(name, access string, endpoints []endpoint.Status, credentials []upstream.CredentialStatus) Upstream {
	u := Upstream{Name: name, Access: access, Endpoints: []Endpoint{}, Credentials: []Credential{}, Limits: []Limit{}}
	for _, e := range endpoints {
		u.Endpoints = append(u.Endpoints, Endpoint{
			URL: e.URL, State: string(e.State), Since: e.Since.UTC(), LastError: e.LastError, LastErrorAt: e.LastErrorAt.UTC(),
		})
		for _, b := range e.Budgets {
			u.Limits = append(u.Limits, viewLimit(e, b))
		}
	}
	for _, st := range credentials {
		u.Credentials = append(u.Credentials, Credential{
			Name: st.Name, Kind: st.Kind, For: st.For, State: string(st.State), Since: st.Since.UTC(),
			ExpiresAt: st.Expires.UTC(), LastRefresh: st.LastRefresh.UTC(), LastError: st.LastError, LastErrorAt: st.LastErrorAt.UTC(),
		})
	}
	return u
}

func viewLimit(e endpoint.Status, b limit.Budget) Limit {
	l := Limit{
		Credential: b.Credential, Source: b.Source, Endpoint: e.URL, Limit: max(b.Limit, 0), Remaining: b.Remaining,
		WindowSeconds: int64(b.Window.Seconds()), ResetAt: b.Reset.UTC(), SaidAt: b.At.UTC(),
	}
	if b.Spent.Since.IsZero() { // another limit of the same credential has it
		return l
	}
	l.Spent = &Spent{Since: b.Spent.Since.UTC(), Requests: b.Spent.Requests, Repositories: []Use{}}
	for _, use := range b.Spent.By {
		l.Spent.Repositories = append(l.Spent.Repositories, Use(use))
	}
	if b.Spent.Elsewhere >= 0 {
		l.Spent.Elsewhere = &b.Spent.Elsewhere
	}
	return l
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

// ResetRequest is the body of POST /api/v1/upstreams/reset.
type ResetRequest struct {
	Upstream string `json:"upstream"` // a name or alias of the configuration, a pattern, or a host that fits one
}

// ResetAnswer is the answer to it.
type ResetAnswer struct {
	Upstreams []string `json:"upstreams"` // those that were reset, sorted
}

// resetUpstream forgets what is believed of an upstream.
func (o Options) resetUpstream(_ http.ResponseWriter, r *http.Request) (any, error) {
	var q ResetRequest
	if err := readJSON(r, &q); err != nil || q.Upstream == "" {
		return nil, badRequest(errors.New("the body must be {\"upstream\":\"NAME\"}"))
	}
	names := o.Reset(q.Upstream)
	if len(names) == 0 {
		return nil, &refusal{status: http.StatusNotFound, detail: fmt.Sprintf("%q is not an upstream of this mirror, or no client "+
			"has pulled from it yet; mirror upstreams lists the upstreams", q.Upstream)}
	}
	audit(r, o.Log, "upstream reset", "upstream", names)
	return ResetAnswer{Upstreams: names}, nil
}
