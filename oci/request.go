package oci

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

const root = "/v2/"

// ParseRequest parses a request under /v2/ from its method and URL, from the right end of its path, since a repository may be
// called "a/manifests" or "tags".
//
// The path is decoded once, where that does not change its form. The namespace is taken out of the query. Lists keep the rest
// of their query, since some registries have parameters of their own for the next page; other kinds keep none. Errors are errcode.Error values: NAME_INVALID, TAG_INVALID,
// DIGEST_INVALID, PAGINATION_NUMBER_INVALID, or UNSUPPORTED for writes and for paths that the mirror does not serve.
func ParseRequest(method string, u *url.URL) (Request, error) {
	if method != http.MethodGet && method != http.MethodHead {
		return Request{}, refuse(errcode.ErrorCodeUnsupported,
			"%s is not supported: the mirror is read-only; push to the registry itself", quote(method))
	}
	path, err := unescapePath(u.EscapedPath())
	if err != nil {
		return Request{}, err
	}
	r := Request{Head: method == http.MethodHead}
	rest, ok := strings.CutPrefix(path, root)
	switch {
	case path == root || path == "/v2":
		r.Kind = KindPing
	case !ok:
		return Request{}, unknownPath(path)
	default:
		if err := r.parsePath(path, rest); err != nil {
			return Request{}, err
		}
	}
	if err := r.parseQuery(u.RawQuery); err != nil {
		return Request{}, err
	}
	if r.Kind != KindPing {
		if err := r.checkName(); err != nil {
			return Request{}, err
		}
	}
	return r, nil
}

// unescapePath decodes a path once. Some clients escape the colon of a digest, or every character that is not a letter. Only
// characters that need no escape in a path are decoded, so the path means the same. Any other escape is refused: of a slash,
// which separates components; of a percent sign, which would be another escape; of characters that names do not have.
func unescapePath(path string) (string, error) {
	if strings.IndexByte(path, '%') < 0 {
		return path, nil
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		c := path[i]
		if c == '%' {
			escape := path[i:min(i+3, len(path))]
			n, err := strconv.ParseUint(strings.TrimPrefix(escape, "%"), 16, 8)
			if c = byte(n); err != nil || len(escape) < 3 || !needsNoEscape(c) {
				return "", refuse(errcode.ErrorCodeNameInvalid,
					"path %s has the escape %s, which is not decoded; send names, tags and digests as they are",
					quote(path), quote(escape))
			}
			i += 2
		}
		b.WriteByte(c)
	}
	return b.String(), nil
}

// needsNoEscape reports whether a path may have a character without an escape: not the slash, and none that names, tags and
// digests do not have.
func needsNoEscape(c byte) bool {
	return isLowerAlnum(c) || 'A' <= c && c <= 'Z' || strings.IndexByte("-._:@+=", c) >= 0
}

// CheckRepository reports a name that is not that of a repository alone, without a host before it. ParseRequest lets a
// host pass, with a port too, since it may be the registry that the query names as well. The error is NAME_INVALID.
func CheckRepository(name string) error {
	if bad, ok := checkName(name, false); !ok {
		return badName(name, bad)
	}
	return nil
}

// Reference is the tag or digest that the request names; empty where its kind has none.
func (r Request) Reference() string {
	if r.Tag != "" {
		return r.Tag
	}
	return string(r.Digest)
}

// parsePath reads NAME/WORD/LAST, the form that all endpoints share. The name is checked later, when it is known whether the
// query names the registry.
func (r *Request) parsePath(path, rest string) (err error) {
	i := strings.LastIndexByte(rest, '/')
	if i < 0 {
		return unknownPath(path)
	}
	head, last := rest[:i], rest[i+1:]
	word := head
	if j := strings.LastIndexByte(head, '/'); j >= 0 {
		r.Name, word = head[:j], head[j+1:]
	}
	switch {
	case word == "manifests" && strings.Contains(last, ":"):
		r.Kind = KindManifest
		r.Digest, err = ParseDigest(last)
	case word == "manifests":
		r.Kind = KindManifest
		r.Tag, err = parseTag(last)
	case word == "blobs":
		r.Kind = KindBlob
		r.Digest, err = ParseDigest(last)
	case word == "referrers":
		r.Kind = KindReferrers
		r.Digest, err = ParseDigest(last)
	case word == "tags" && last == "list":
		r.Kind = KindTags
	default:
		return unknownPath(path)
	}
	return err
}

// parseQuery takes the namespace out of the query, and keeps the rest for lists.
func (r *Request) parseQuery(raw string) error {
	named := false
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		key, value, err := unescapePair(pair)
		if err != nil {
			return err
		}
		if key != "ns" {
			if r.Kind == KindTags || r.Kind == KindReferrers {
				if err := r.addQuery(key, value); err != nil {
					return err
				}
			}
			continue
		}
		switch {
		case named:
			return refuse(errcode.ErrorCodeNameInvalid,
				"the query has two ns parameters, the second is %s; send one that names the registry", quote(value))
		case value == "":
			return refuse(errcode.ErrorCodeNameInvalid,
				"the ns parameter is empty; send the registry's name in it (ns=docker.io), or leave it out")
		case len(value) > maxNamespace || !IsHostText(value):
			return refuse(errcode.ErrorCodeNameInvalid,
				"the ns parameter %s is not the name of a registry; send HOST or HOST:PORT (ns=docker.io)", quote(value))
		}
		named, r.Namespace = true, value
	}
	return nil
}

// addQuery keeps a parameter of a list. It checks the number of entries, since each upstream refuses a bad number in its own
// way.
func (r *Request) addQuery(key, value string) error {
	if key == "n" && (strings.Trim(value, "0123456789") != "" || r.Query.Has("n")) {
		return refuse(errcode.ErrorCodePaginationNumberInvalid,
			"the n parameter %s is not one number of entries; send one such as n=100, or leave it out", quote(value))
	}
	if r.Query == nil {
		r.Query = make(url.Values)
	}
	r.Query.Add(key, value)
	return nil
}

func unescapePair(pair string) (key, value string, err error) {
	key, value, _ = strings.Cut(pair, "=")
	if key, err = url.QueryUnescape(key); err == nil {
		value, err = url.QueryUnescape(value)
	}
	if err != nil || strings.Contains(pair, ";") {
		return "", "", refuse(errcode.ErrorCodeNameInvalid,
			"the query has %s, which is not name=value with valid escapes; correct it", quote(pair))
	}
	return key, value, nil
}

func (r *Request) checkName() error {
	if r.Name == "" {
		return refuse(errcode.ErrorCodeNameInvalid,
			"the path names no repository; ask for /v2/REPOSITORY/..., for example /v2/library/nginx/manifests/latest")
	}
	if len(r.Name) > maxName {
		return refuse(errcode.ErrorCodeNameInvalid,
			"repository name %s has %d bytes, at most %d are allowed; correct the image name", quote(r.Name), len(r.Name),
			maxName)
	}
	if bad, ok := checkName(r.Name, true); !ok {
		return badName(r.Name, bad)
	}
	return nil
}

func parseTag(s string) (string, error) {
	if !IsTag(s) {
		return "", refuse(errcode.ErrorCodeTagInvalid,
			"tag %s is not valid: 1 to %d letters, digits, _ . or -, and no . or - first; correct the tag",
			quote(s), maxTag)
	}
	return s, nil
}

func badName(name, component string) error {
	if component == "" {
		return refuse(errcode.ErrorCodeNameInvalid,
			"repository name %s has an empty component; remove the extra slash", quote(name))
	}
	return refuse(errcode.ErrorCodeNameInvalid,
		"repository name %s: %s may have lower-case letters and digits only, with . _ __ or - between them; correct it",
		quote(name), quote(component))
}

func unknownPath(path string) error {
	return refuse(errcode.ErrorCodeUnsupported,
		"%s is not served: the mirror answers /v2/, manifests, blobs, tags/list and referrers; ask the registry itself",
		quote(path))
}
