package upstream

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"html"
	"io"
	"mime"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/limit"
)

// byteOrderMark is what some put before JSON.
const byteOrderMark = "\xef\xbb\xbf"

// maxErrorBody is how much of an error's body is read, in bytes.
const maxErrorBody = 64 << 10

// refusal is a failed answer as far as it explains itself.
type refusal struct {
	status     int
	code       string
	message    string
	kind       BodyKind
	challenge  string
	challenges []challenge
	retryAfter time.Duration
	unsaid     bool   // retryAfter is how long we obey what did not say how long
	mirror     string // the reason of another mirror, or of this one
	size       int64  // of what a range asked for lies beyond; -1: not said
}

// readRefusal reads what a failed answer says. It does not close the body. tokens says that it came from a token service.
func readRefusal(resp *http.Response, known []auth.Credential, tokens bool) refusal {
	values := resp.Header.Values("WWW-Authenticate")
	size, ok := parseUnsatisfied(resp.Header.Get("Content-Range"))
	if !ok || resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		size = -1
	}
	r := refusal{
		size:       size,
		status:     resp.StatusCode,
		challenge:  tidy(strings.Join(values, ", "), maxChallenge, known...),
		challenges: parseChallenges(values),
		retryAfter: limit.ParseRetryAfter(resp.Header.Get("Retry-After"), limit.ServerTime(resp.Header, time.Now())),
	}
	reason, _, _ := strings.Cut(resp.Header.Get("Mirror-Reason"), ";")
	r.mirror = oneLine(reason, 40)
	if resp.Body == nil || resp.Request != nil && resp.Request.Method == http.MethodHead {
		return r
	}
	if tokens && resp.StatusCode < http.StatusBadRequest {
		return r // what is in it may be a token
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, maxErrorBody)) // what arrived before a break explains as well
	r.kind, r.code, r.message = readErrorBody(b, resp.Header.Get("Content-Type"))
	known = append(known, tokensIn(b)...)
	if tokens {
		r.code, r.message, r.challenge = withoutOpaque(r.code), withoutOpaque(r.message), withoutOpaque(r.challenge)
	}
	r.challenge = redact(r.challenge, known...)
	r.code = tidy(r.code, 80, known...)
	r.message = tidy(r.message, maxMessage, known...)
	return r
}

// says reports whether the message has one of the words, which are in lower case.
func (r refusal) says(words ...string) bool {
	m := strings.ToLower(r.message)
	for _, w := range words {
		if strings.Contains(m, w) {
			return true
		}
	}
	return false
}

// readErrorBody tells the shapes apart by what the body is, since its Content-Type is often wrong.
func readErrorBody(b []byte, contentType string) (kind BodyKind, code, message string) {
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte(byteOrderMark)))
	if len(b) == 0 {
		return BodyNone, "", ""
	}
	if b[0] == '{' {
		if kind, code, message = readErrorJSON(b); kind != BodyNone {
			return kind, code, message
		}
	}
	t, _, _ := mime.ParseMediaType(contentType)
	switch {
	case b[0] != '<':
		return BodyText, "", string(b)
	case t == "text/html" || isHTMLBody(b):
		return BodyHTML, "", htmlText(b)
	default:
		code, message = readErrorXML(b)
		return BodyXML, code, message
	}
}

func readErrorJSON(b []byte) (kind BodyKind, code, message string) {
	var doc struct {
		Errors []struct {
			Code    json.RawMessage `json:"code"` // a number from some
			Message string          `json:"message"`
			Detail  json.RawMessage `json:"detail"`
		} `json:"errors"`
		Details json.RawMessage `json:"details"`
		Message json.RawMessage `json:"message"`
		Error   json.RawMessage `json:"error"`             // OAuth 2: {"error":"invalid_grant",
		Desc    string          `json:"error_description"` // "error_description":"..."}
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return BodyNone, "", ""
	}
	switch {
	case len(doc.Errors) > 0:
		e := doc.Errors[0]
		message = e.Message
		if message == "" {
			message = jsonText(e.Detail)
		}
		return BodyErrors, jsonText(e.Code), message
	case jsonText(doc.Details) != "":
		return BodyDetails, "", jsonText(doc.Details)
	case jsonText(doc.Message) != "":
		return BodyMessage, "", jsonText(doc.Message)
	case jsonText(doc.Error) != "":
		return BodyMessage, "", strings.TrimSpace(jsonText(doc.Error) + " " + doc.Desc)
	}
	return BodyNone, "", ""
}

// jsonText is a JSON string's text, and any other value as it is written; empty for what says nothing.
func jsonText(v json.RawMessage) string {
	var s string
	if json.Unmarshal(v, &s) == nil {
		return s
	}
	switch s = string(v); s {
	case "null", "{}", "[]":
		return ""
	}
	return s
}

func readErrorXML(b []byte) (code, message string) {
	var doc struct {
		Code    string `xml:"Code"`
		Message string `xml:"Message"`
	}
	if err := xml.Unmarshal(b, &doc); err != nil {
		return "", htmlText(b)
	}
	return doc.Code, doc.Message
}

func isHTMLBody(b []byte) bool {
	head := bytes.ToLower(b[:min(len(b), 512)])
	for _, mark := range []string{"<!doctype html", "<html", "<head", "<body", "<title", "<center", "<h1"} {
		if bytes.HasPrefix(head, []byte(mark)) || bytes.HasPrefix(head, []byte("<!--")) && bytes.Contains(head,
			[]byte(mark)) {
			return true
		}
	}
	return false
}

var (
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	htmlSkip  = regexp.MustCompile(`(?is)<!--.*?-->|<(script|style)\b.*?</(script|style)>|<[^>]*>`)
)

// htmlText is a page's title, else its text.
func htmlText(b []byte) string {
	if m := htmlTitle.FindSubmatch(b); m != nil && len(bytes.TrimSpace(m[1])) > 0 {
		return html.UnescapeString(string(m[1]))
	}
	return html.UnescapeString(string(htmlSkip.ReplaceAll(b, []byte(" "))))
}
