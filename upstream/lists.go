package upstream

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/oci"
)

// The limits of lists.
const (
	maxList      = 4 << 20  // bytes of a page that is passed on as it is
	maxListRead  = 64 << 20 // of one that is read at all
	maxListQuery = 4 << 10
	maxPage      = 1000 // entries asked for
)

// Tags gets one page of a repository's tags. The query is passed on: n, which is clamped to 1,000, last, and what
// else a registry's own Link asked for.
func (r *Registry) Tags(ctx context.Context, repo string, query url.Values) (*Document, error) {
	c := r.call("tags", repo, "")
	doc, err := anywhere(ctx, c, func(ctx context.Context) (*Document, error) {
		doc, err := c.list(ctx, "/v2/"+c.repository+"/tags/list", "application/json", "tags", query)
		if err == nil && c.ep.prefix != "" {
			doc.Bytes = withName(doc.Bytes, c.name)
		}
		return doc, err
	})
	return doc, c.wrap(err)
}

// Referrers gets one page of what refers to a digest. Where the registry lacks that API, it is what the tag of the
// referrers tag schema says, unfiltered; where there is no such tag either, an empty index.
func (r *Registry) Referrers(ctx context.Context, repo string, d oci.Digest, query url.Values) (*Document, error) {
	c := r.call("referrers", repo, d.String())
	doc, err := anywhere(ctx, c, func(ctx context.Context) (*Document, error) {
		doc, err := c.list(ctx, "/v2/"+c.repository+"/referrers/"+d.String(), oci.MediaTypeOCIIndex, "manifests", query)
		if refused, ok := refusalIn(err); ok && lacksReferrers(refused.status) {
			doc, err = c.referrersTag(ctx, d)
		}
		return doc, err
	})
	return doc, c.wrap(err)
}

// lacksReferrers reports whether a status is what registries without the API answer. The spec knows 404 only.
func lacksReferrers(status int) bool {
	switch status {
	case http.StatusNotFound, http.StatusGone, http.StatusBadRequest, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	}
	return false
}

func (c *call) referrersTag(ctx context.Context, d oci.Digest) (*Document, error) {
	t := *c
	t.reference, t.steps = oci.ReferrersTag(d), nil
	m, err := t.manifest(ctx)
	c.trace(t.steps...)
	c.cred, c.sourceErr = t.cred, t.sourceErr
	// A mirror that knows of none may just not have them.
	if r, ok := refusalIn(err); ok && c.ep.itself &&
		(r.status == http.StatusNotFound || r.status == http.StatusGone) {
		return &Document{Bytes: oci.EmptyIndex(), MediaType: oci.MediaTypeOCIIndex}, nil
	}
	if err != nil {
		return nil, err
	}
	if !oci.IsIndex(m.MediaType) {
		return nil, &ContentError{Kind: ContentNotManifest, Want: "an index", Got: oneLine(m.MediaType, 80)}
	}
	return &Document{Bytes: m.Bytes, MediaType: m.MediaType}, nil
}

// list gets a JSON object that has a list at a key.
func (c *call) list(ctx context.Context, path, accept, key string, query url.Values) (*Document, error) {
	a := ask{
		step: StepList, method: http.MethodGet, url: c.ep.at(path, listQuery(query)),
		header: http.Header{"Accept": {accept}},
	}
	resp, err := c.follow(ctx, a)
	if err != nil {
		return nil, err
	}
	b, err := c.page(ctx, resp, key)
	if err != nil {
		return nil, err
	}
	return &Document{
		Bytes: b, MediaType: mediaType(resp.Header), Next: c.next(resp, a.url),
		Filters: oneLine(resp.Header.Get("OCI-Filters-Applied"), 200),
	}, nil
}

// listQuery is the query to pass on.
func listQuery(query url.Values) string {
	q := make(url.Values, len(query))
	for name, values := range query {
		if name != "ns" { // what it means is between our clients and us
			q[name] = values
		}
	}
	if s := q.Get("n"); s != "" {
		if n, err := strconv.ParseUint(s, 10, 64); err != nil && strings.Trim(s, "0123456789") == "" || n > maxPage {
			q.Set("n", strconv.Itoa(maxPage))
		}
	}
	return q.Encode()
}

// next is the query of the next page. A Link to somebody else is none: what it would list is not this upstream's.
func (c *call) next(resp *answer, asked *url.URL) string {
	u := nextLink(resp.Header.Values("Link"), asked)
	if u == nil || !strings.EqualFold(u.Host, asked.Host) || len(u.RawQuery) > maxListQuery {
		return ""
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return ""
	}
	// The rest is kept as it is written. ns would lead our client to another upstream.
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, _ = url.QueryUnescape(name); name != "ns" && pair != "" {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}
