package upstream

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/header"
)

// The limits of lists.
const (
	maxList      = 4 << 20  // bytes of a page that is passed on as it is
	maxListRead  = 64 << 20 // bytes of a page that is read at all
	maxListQuery = 4 << 10  // bytes of the query of a next page
	maxPage      = 1000     // entries of a page that are asked for
)

// Document is a JSON list of an upstream, passed on as it is: tags/list or referrers.
type Document struct {
	Bytes     []byte
	MediaType string
	Next      string // query of the next page ("n=100&last=x"); empty: this is the last one
	Filters   string // OCI-Filters-Applied
}

// Tags gets one page of a repository's tags. The query is passed on: n, which is clamped to 1,000, last, and any other parameter,
// since a registry's own Link may have it.
func (r *Registry) Tags(ctx context.Context, repo string, query url.Values) (*Document, error) {
	c := r.call("tags", repo, "")
	doc, err := anywhere(ctx, c, func(ctx context.Context) (*Document, error) {
		doc, err := c.list(ctx, "/v2/"+c.repository+"/tags/list", "application/json", "tags", query)
		if err == nil && c.ep.Prefix != "" {
			doc.Bytes = withName(doc.Bytes, c.name)
		}
		return doc, err
	})
	return doc, c.Wrap(err)
}

// Referrers gets one page of the referrers of a digest. Where the registry lacks that API, it is the index under the tag of the
// referrers tag schema, unfiltered; where there is no such tag either, an empty index. A digest never refers to itself.
func (r *Registry) Referrers(ctx context.Context, repo string, d oci.Digest, query url.Values) (*Document, error) {
	c := r.call("referrers", repo, d.String())
	doc, err := anywhere(ctx, c, func(ctx context.Context) (*Document, error) {
		doc, err := c.list(ctx, "/v2/"+c.repository+"/referrers/"+d.String(), oci.MediaTypeOCIIndex, "manifests", query)
		switch {
		case err == nil && isReferrers(doc.MediaType, doc.Bytes, d):
			return doc, nil
		case ctx.Err() != nil, err != nil && !lacksReferrers(err) && !elsewhere(err):
			return nil, err
		}
		sure, steps, login := err == nil || lacksReferrers(err), c.trace.Steps, *c.login
		tagged, terr := c.referrersTag(ctx, d)
		switch {
		case tagged != nil:
			return tagged, nil
		case !sure:
			c.trace.Steps, *c.login = steps, login // whether there are any is not known, and the answer of the API says why
			return nil, err
		case terr != nil:
			return nil, terr
		case !c.ep.IsRegistry:
			return nil, errNoReferrers
		}
		return &Document{Bytes: oci.EmptyIndex(), MediaType: oci.MediaTypeOCIIndex}, nil
	})
	return doc, c.Wrap(err)
}

// errNoReferrers is of a mirror of the registry that has no list of referrers: the registry itself may have one.
var errNoReferrers = &fault.ContentError{Kind: fault.ContentNotManifest, Want: "an index of referrers", Got: "another document"}

// isReferrers reports whether a document can be the list of referrers of d. Registries that know tags alone take the digest, or
// the tag of the tag schema, for a reference to the subject, and send that: an index with its own parts.
func isReferrers(mediaType string, b []byte, d oci.Digest) bool {
	var doc struct {
		MediaType string `json:"mediaType"`
	}
	if json.Unmarshal(b, &doc) != nil || oci.VerifyDigest(d, b) {
		return false
	}
	is := cmp.Or(doc.MediaType, mediaType)
	return is == oci.MediaTypeOCIIndex || !strings.Contains(is, "/vnd.") // some say application/json
}

// elsewhere reports whether a request failed at another host, to which the registry redirects.
func elsewhere(err error) bool {
	if f, ok := errors.AsType[*fault.Failure](err); ok && f.Redirected {
		return true
	}
	return fault.Is[*fault.RedirectError](err)
}

// lacksReferrers reports whether an error is the answer of a registry without the API. The spec has 404 only; some registries
// redirect to a web site, which has a page, a login or a limit of its own.
func lacksReferrers(err error) bool {
	if e, ok := errors.AsType[*fault.ContentError](err); ok {
		return e.Kind == fault.ContentNotRegistry
	}
	r, _ := fault.RefusalIn(err)
	switch r.Status {
	case http.StatusNotFound, http.StatusGone, http.StatusBadRequest, http.StatusMethodNotAllowed,
		http.StatusNotAcceptable, http.StatusNotImplemented:
		return true
	case http.StatusTooManyRequests:
		return elsewhere(err)
	}
	return false
}

// referrersTag gets the index under the tag of the referrers tag schema. Nil without an error: the registry has none.
func (c *call) referrersTag(ctx context.Context, d oci.Digest) (*Document, error) {
	t := *c
	t.reference = oci.ReferrersTag(d)
	m, err := t.manifest(ctx)
	if r, ok := fault.RefusalIn(err); ok && (r.Status == http.StatusNotFound || r.Status == http.StatusGone) {
		if c.ep.IsRegistry {
			return nil, nil
		}
		return nil, err // a mirror without the tag may lack what the registry has
	}
	if err != nil {
		return nil, err
	}
	if m.MediaType != oci.MediaTypeOCIIndex || !isReferrers(m.MediaType, m.Bytes, d) {
		return nil, nil // the subject itself, or other content with that tag
	}
	return &Document{Bytes: m.Bytes, MediaType: m.MediaType}, nil
}

// list gets a JSON object that has a list at a key.
func (c *call) list(ctx context.Context, path, accept, key string, q url.Values) (*Document, error) {
	a := endpoint.Request{
		Step: fault.StepList, Method: http.MethodGet, URL: c.ep.At(path, listQuery(q)),
		Header: http.Header{"Accept": {accept}},
	}
	resp, err := c.follow(ctx, a)
	if err != nil {
		return nil, err
	}
	b, err := c.page(ctx, resp, key)
	query := ""
	if err == nil {
		query, err = next(resp)
	}
	if fault.Is[*memory.FullError](err) {
		return nil, err
	}
	if err != nil {
		f, ok := errors.AsType[*fault.Failure](err)
		if !ok {
			f = &fault.Failure{Err: err, Step: *c.trace.Last(), Stage: fault.StepList}
		}
		f.Redirected = resp.Host != c.ep.Origin.String()
		return nil, f
	}
	return &Document{
		Bytes: b, MediaType: header.MediaType(resp.Header), Next: query,
		Filters: text.Line(resp.Header.Get("OCI-Filters-Applied"), 200),
	}, nil
}

// listQuery is the query to pass on.
func listQuery(query url.Values) string {
	q := make(url.Values, len(query))
	for name, values := range query {
		if name != "ns" { // it is for this mirror alone
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

// next is the query of the next page, empty where there is none. Registries behind proxies often write their internal host,
// scheme or port. The query alone is used, at the same endpoint, so that no Link leads anywhere else. A Link that can't be
// followed is an error: a list that ends there would look complete.
func next(resp *endpoint.Answer) (string, error) {
	u, found := header.NextLink(resp.Header.Values("Link"), resp.URL)
	if !found {
		return "", nil
	}
	bad := &fault.ContentError{
		Kind: fault.ContentNextPage, Want: "the query of another page", Got: text.Line(strings.Join(resp.Header.Values("Link"), ", "), 100),
	}
	if u == nil || len(u.RawQuery) > maxListQuery {
		return "", bad
	}
	if _, err := url.ParseQuery(u.RawQuery); err != nil {
		return "", bad
	}
	// The other parameters are kept as they are written. ns would lead the client to another upstream.
	var kept []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		name, _, _ := strings.Cut(pair, "=")
		if name, _ = url.QueryUnescape(name); name != "ns" && pair != "" {
			kept = append(kept, pair)
		}
	}
	query := strings.Join(kept, "&")
	if query == "" {
		return "", bad // the first page again
	}
	return query, nil
}
