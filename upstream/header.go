package upstream

import (
	"errors"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter is the longest wait that is taken as it is said. Docker Hub's window, the longest one known, is six hours.
const maxRetryAfter = 6 * time.Hour

// parseRetryAfter reads a Retry-After, RFC 9110, section 10.2.3. 0: not said, or over.
func parseRetryAfter(v string, now time.Time) time.Duration {
	d, _ := parseWait(v, now)
	return min(d, maxRetryAfter)
}

// parseWait reads how long it is until something: seconds, or a time. Registries write times where seconds belong, too, as
// seconds since 1970 or in a smaller unit; no wait is as long as that number of seconds. False: it is not said, or over.
func parseWait(v string, now time.Time) (time.Duration, bool) {
	v = strings.Trim(v, " \t\"")
	if n, err := strconv.ParseFloat(v, 64); err == nil || errors.Is(err, strconv.ErrRange) {
		return waitOf(n, now)
	}
	if d, err := time.ParseDuration(v); err == nil {
		return d, d >= 0
	}
	t, err := http.ParseTime(v)
	for _, layout := range []string{time.RFC3339, time.RFC1123Z, time.RFC1123} {
		if err != nil {
			t, err = time.Parse(layout, v)
		}
	}
	if err != nil {
		return 0, false
	}
	return until(t, now)
}

// The least numbers that are times since 1970, each in its unit: 1973 and later. As a wait it would be three years.
const (
	unixSeconds = 1e8
	unixMillis  = 1e11
	unixMicros  = 1e14
	unixNanos   = 1e17
	unixEnd     = 1e20 // no time in any unit
)

// waitOf is what a number says. NaN and negative ones say nothing.
func waitOf(n float64, now time.Time) (time.Duration, bool) {
	second := float64(time.Second)
	switch {
	case !(n >= 0): // NaN, too
		return 0, false
	case n < unixSeconds:
		return time.Duration(math.Ceil(n*1000)) * time.Millisecond, true
	case n < unixMillis:
		return until(time.Unix(int64(n), 0), now)
	case n < unixMicros:
		return until(time.UnixMilli(int64(n)), now)
	case n < unixNanos:
		return until(time.UnixMicro(int64(n)), now)
	case n < unixEnd:
		return until(time.Unix(int64(n/second), 0), now)
	}
	return math.MaxInt64, true
}

func until(t, now time.Time) (time.Duration, bool) {
	d := t.Sub(now)
	return max(d, 0), d >= 0
}

// longestSkew is by how much the clock of a registry may differ from ours to be believed.
const longestSkew = 24 * time.Hour

// clockOf is the time by the clock of the server that sent an answer, for the times in it; ours where the answer does not say.
func clockOf(h http.Header, now time.Time) time.Time {
	if t, err := http.ParseTime(h.Get("Date")); err == nil && t.Sub(now).Abs() < longestSkew {
		return t
	}
	return now
}

// contentRange is what a 206 says that it is: bytes from to end, exclusive, of size.
type contentRange struct{ from, end, size int64 } // size is -1 where it is "*"

// parseContentRange reads "bytes 0-99/200" and "bytes 0-99/*" (RFC 9110, section 14.4), strictly.
func parseContentRange(v string) (contentRange, bool) {
	unit, rest, ok := strings.Cut(v, " ")
	if !ok || !strings.EqualFold(unit, "bytes") {
		return contentRange{}, false
	}
	span, total, ok := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(span, "-")
	if !ok || !ok2 {
		return contentRange{}, false
	}
	from, ok := parseDigits(first)
	end, ok2 := parseDigits(last)
	if !ok || !ok2 || end < from || end == 1<<63-1 {
		return contentRange{}, false
	}
	c := contentRange{from: from, end: end + 1, size: -1}
	if total == "*" {
		return c, true
	}
	if c.size, ok = parseDigits(total); !ok || c.size < c.end {
		return contentRange{}, false
	}
	return c, true
}

// parseUnsatisfied reads the size out of the "bytes */200" of a 416.
func parseUnsatisfied(v string) (int64, bool) {
	rest, ok := strings.CutPrefix(v, "bytes */")
	if !ok {
		return 0, false
	}
	return parseDigits(rest)
}

func parseDigits(s string) (int64, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}

// nextLink finds the target of rel="next" in Link headers (RFC 8288) and resolves it. Nil: there is none. True: there is one,
// which may be no URL.
func nextLink(values []string, at *url.URL) (next *url.URL, is bool) {
	for _, v := range values {
		for v != "" {
			start := strings.IndexByte(v, '<')
			if start < 0 { // some leave the brackets out
				target, params, _ := strings.Cut(v, ";")
				if relNext(params) {
					u, _ := at.Parse(strings.TrimSpace(target))
					return u, true
				}
				break
			}
			end := strings.IndexByte(v[start:], '>')
			if end < 0 {
				break
			}
			target := v[start+1 : start+end]
			params := v[start+end+1:]
			v = ""
			if i := strings.IndexByte(params, '<'); i >= 0 {
				params, v = params[:i], params[i:]
			}
			if !relNext(params) {
				continue
			}
			u, _ := at.Parse(strings.TrimSpace(target))
			return u, true
		}
	}
	return nil, false
}

func relNext(params string) bool {
	for p := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ';' || r == ',' }) {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") {
			for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"'`)) {
				if strings.EqualFold(rel, "next") {
					return true
				}
			}
		}
	}
	return false
}

// isHTML reports whether an answer says that it is a web page.
func isHTML(h http.Header) bool {
	t, _, _ := strings.Cut(h.Get("Content-Type"), ";")
	t = strings.ToLower(strings.TrimSpace(t))
	return t == "text/html" || t == "application/xhtml+xml"
}

// encoding is the coding that an answer says its bytes are in, empty for the content itself. Object stores keep what was said
// when the object was put, and say it with right bytes: aws-chunked, x-gzip, utf-8. Of those only what is a coding counts,
// and whether the bytes are in it is for their digest to say.
func encoding(h http.Header) string {
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

// wrongEncoding is the error for bytes that are not the content, and said to be in a coding.
func wrongEncoding(h http.Header) error {
	return &ContentError{Kind: ContentEncoding, Want: "identity", Got: oneLine(h.Get("Content-Encoding"), 80)}
}
