package admin

import (
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/limit"
)

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

// ViewCache is the cache as the API shows it, with the bytes received from upstreams, and sent to clients.
func ViewCache(s cache.Stats, upstreamBytes, clientBytes int64) Cache {
	return Cache{
		Disk: &CacheDisk{
			State: string(s.Disk.State), Since: s.Disk.Since.UTC(), Text: s.Disk.String(), Free: s.Disk.Space.Free,
			Total: s.Disk.Space.Total, Floor: s.Disk.Floor,
		},
		Bytes: s.Bytes, Size: s.Size, Reserved: s.Reserved, Objects: s.Objects, Parked: s.Parked, Degraded: s.Degraded,
		Hits: s.Hits, Misses: s.Misses, Joined: s.Joined, Uncached: s.Uncached, Evicted: s.Evicted, EvictedBytes: s.EvictedBytes,
		UpstreamBytes: upstreamBytes, ClientBytes: clientBytes,
	}
}
