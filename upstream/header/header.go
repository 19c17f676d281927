// Package header reads the headers of registries: challenges, ranges, links to the next page, codings, media types. It is
// pure. It is lenient where registries are known to be careless, and strict where a wrong reading would yield wrong bytes.
package header

import (
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Range is the range of a 206: bytes From to End, exclusive, of Size; -1 where that is "*".
type Range struct{ From, End, Size int64 }

// ParseRange reads "bytes 0-99/200" and "bytes 0-99/*" (RFC 9110, section 14.4), strictly.
func ParseRange(v string) (Range, bool) {
	unit, rest, _ := strings.Cut(v, " ")
	span, total, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	from, ok := parseDigits(first)
	end, ok2 := parseDigits(last)
	if !strings.EqualFold(unit, "bytes") || !ok || !ok2 || end < from || end == 1<<63-1 {
		return Range{}, false
	}
	c := Range{From: from, End: end + 1, Size: -1}
	if total == "*" {
		return c, true
	}
	if c.Size, ok = parseDigits(total); !ok || c.Size < c.End {
		return Range{}, false
	}
	return c, true
}

// ParseUnsatisfied reads the size out of the "bytes */200" of a 416.
func ParseUnsatisfied(v string) (int64, bool) {
	rest, ok := strings.CutPrefix(v, "bytes */")
	if !ok {
		return 0, false
	}
	return parseDigits(rest)
}

func parseDigits(s string) (int64, bool) {
	n, err := strconv.ParseUint(s, 10, 63)
	return int64(n), err == nil
}

// NextLink finds the target of rel="next" in Link headers (RFC 8288) and resolves it. False: there is no such link. Nil and
// true: its target is not a URL.
func NextLink(values []string, at *url.URL) (next *url.URL, is bool) {
	for _, v := range values {
		links, end := v, ";" // some leave the brackets out
		if _, bracketed, ok := strings.Cut(v, "<"); ok {
			links, end = bracketed, ">"
		}
		for link := range strings.SplitSeq(links, "<") {
			if target, params, _ := strings.Cut(link, end); relNext(params) {
				u, _ := at.Parse(strings.TrimSpace(target))
				return u, true
			}
		}
	}
	return nil, false
}

func relNext(params string) bool {
	for p := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ';' || r == ',' }) {
		name, value, _ := strings.Cut(p, "=")
		rels := strings.Fields(strings.Trim(strings.TrimSpace(value), `"'`))
		if strings.EqualFold(strings.TrimSpace(name), "rel") &&
			slices.ContainsFunc(rels, func(rel string) bool { return strings.EqualFold(rel, "next") }) {
			return true
		}
	}
	return false
}

// IsHTML reports whether the Content-Type of an answer is that of a web page.
func IsHTML(h http.Header) bool {
	t := strings.ToLower(MediaType(h))
	return t == "text/html" || t == "application/xhtml+xml"
}

// Coding is the coding that an answer names for its bytes; empty: none. Object stores repeat the header with which an object
// was put, whatever its bytes are: aws-chunked, x-gzip, utf-8. Values that are not a coding are ignored, and whether the
// bytes are in a coding is decided by their digest.
func Coding(h http.Header) string {
	for _, v := range h.Values("Content-Encoding") {
		for coding := range strings.SplitSeq(v, ",") {
			switch coding = strings.ToLower(strings.TrimSpace(coding)); coding {
			case "gzip", "x-gzip", "compress", "x-compress", "deflate", "br", "zstd", "dcb", "dcz":
				return coding
			}
		}
	}
	return ""
}

// MediaType is the Content-Type without its parameters.
func MediaType(h http.Header) string {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	return strings.TrimSpace(t)
}
