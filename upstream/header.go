package upstream

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxRetryAfter is the longest wait that we believe. Docker Hub's window, the longest one known, is six hours.
const maxRetryAfter = 6 * time.Hour

// parseRetryAfter reads seconds or a date (RFC 9110, section 10.2.3). 0: not said, or over.
func parseRetryAfter(v string, now time.Time) time.Duration {
	v = strings.TrimSpace(v)
	if v == "" {
		return 0
	}
	if strings.Trim(v, "0123456789") == "" {
		n, err := strconv.ParseInt(v, 10, 64)
		if err != nil || n > int64(maxRetryAfter/time.Second) {
			return maxRetryAfter
		}
		return time.Duration(n) * time.Second
	}
	t, err := http.ParseTime(v)
	if err != nil {
		return 0
	}
	return min(max(t.Sub(now), 0), maxRetryAfter)
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

// nextLink finds the target of rel="next" in Link headers (RFC 8288) and resolves it. Nil: there is none.
func nextLink(values []string, at *url.URL) *url.URL {
	for _, v := range values {
		for v != "" {
			start := strings.IndexByte(v, '<')
			if start < 0 {
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
			if u, err := at.Parse(target); err == nil {
				return u
			}
		}
	}
	return nil
}

func relNext(params string) bool {
	for p := range strings.FieldsFuncSeq(params, func(r rune) bool { return r == ';' || r == ',' }) {
		name, value, _ := strings.Cut(p, "=")
		if strings.EqualFold(strings.TrimSpace(name), "rel") {
			for rel := range strings.FieldsSeq(strings.Trim(strings.TrimSpace(value), `"`)) {
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

// isIdentity reports whether an answer's bytes are the content itself.
func isIdentity(h http.Header) bool {
	for _, v := range h.Values("Content-Encoding") {
		if v = strings.TrimSpace(v); v != "" && !strings.EqualFold(v, "identity") {
			return false
		}
	}
	return true
}
