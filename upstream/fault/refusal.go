package fault

import (
	"bytes"
	"cmp"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"html"
	"io"
	"mime"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/upstream/header"
	"github.com/registrymirror/mirror/upstream/limit"
)

// ByteOrderMark stands before the JSON of some services.
const ByteOrderMark = "\xef\xbb\xbf"

// MaxErrorBody is how much of an error's body is read, in bytes.
const MaxErrorBody = 64 << 10

// Refusal is what a failed answer says.
type Refusal struct {
	Status     int
	Code       string
	Message    string
	BodyKind   BodyKind
	Challenge  string
	Challenges []header.Challenge
	RetryAfter time.Duration // 0: not said
	Assumed    bool          // RetryAfter is our own guess: the answer names no time
	Mirror     string        // its Mirror-Reason, if it came from a mirror, perhaps from this one
	Size       int64         // of the blob, where a range lies behind its end; -1: not said
}

// ReadRefusal reads a failed answer. It does not close the body. Known are the secrets to keep out of its texts; tokens says
// that it came from a token service.
func ReadRefusal(resp *http.Response, known []auth.Credential, tokens bool) Refusal {
	values := resp.Header.Values("WWW-Authenticate")
	size, ok := header.ParseUnsatisfied(resp.Header.Get("Content-Range"))
	if !ok || resp.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		size = -1
	}
	r := Refusal{
		Size:       size,
		Status:     resp.StatusCode,
		Challenge:  Tidy(strings.Join(values, ", "), maxChallenge, known...),
		Challenges: header.ParseChallenges(values),
		RetryAfter: limit.ParseRetryAfter(resp.Header.Get("Retry-After"), limit.ServerTime(resp.Header, time.Now())),
	}
	reason, _, _ := strings.Cut(resp.Header.Get("Mirror-Reason"), ";")
	r.Mirror = text.Line(reason, 40)
	if resp.Body == nil || resp.Request != nil && resp.Request.Method == http.MethodHead {
		return r
	}
	if tokens && resp.StatusCode < http.StatusBadRequest {
		return r // what is in it may be a token
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, MaxErrorBody)) // what arrived before a break explains as well
	r.BodyKind, r.Code, r.Message = ReadErrorBody(b, resp.Header.Get("Content-Type"))
	known = append(known, TokensIn(b)...)
	if tokens {
		r.Code, r.Message, r.Challenge = withoutOpaque(r.Code), withoutOpaque(r.Message), withoutOpaque(r.Challenge)
	}
	r.Challenge = redact(r.Challenge, known...)
	r.Code = Tidy(r.Code, 80, known...)
	r.Message = Tidy(r.Message, MaxMessage, known...)
	return r
}

// Says reports whether the message has one of the words, which are in lower case.
func (r Refusal) Says(words ...string) bool {
	m := strings.ToLower(r.Message)
	return slices.ContainsFunc(words, func(w string) bool { return strings.Contains(m, w) })
}

// ReadErrorBody tells the shapes apart by the body itself, since its Content-Type is often wrong.
func ReadErrorBody(b []byte, contentType string) (kind BodyKind, code, message string) {
	b = bytes.TrimSpace(bytes.TrimPrefix(b, []byte(ByteOrderMark)))
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
	}
	var doc struct{ Code, Message string }
	if xml.Unmarshal(b, &doc) != nil {
		doc.Message = htmlText(b)
	}
	return BodyXML, doc.Code, doc.Message
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
		return BodyErrors, JSONText(e.Code), cmp.Or(e.Message, JSONText(e.Detail))
	case JSONText(doc.Details) != "":
		return BodyDetails, "", JSONText(doc.Details)
	case JSONText(doc.Message) != "":
		return BodyMessage, "", JSONText(doc.Message)
	case JSONText(doc.Error) != "":
		return BodyMessage, "", strings.TrimSpace(JSONText(doc.Error) + " " + doc.Desc)
	}
	return BodyNone, "", ""
}

// JSONText is the text of a JSON string, and any other value as it is written; empty for null and for an empty value.
func JSONText(v json.RawMessage) string {
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

func isHTMLBody(b []byte) bool { return htmlStart.Match(b[:min(len(b), 512)]) }

var (
	htmlStart = regexp.MustCompile(`(?is)^(<!--.*)?<(!doctype html|html|head|body|title|center|h1)`)
	htmlTitle = regexp.MustCompile(`(?is)<title[^>]*>(.*?)</title>`)
	htmlSkip  = regexp.MustCompile(`(?is)<!--.*?-->|<(script|style)\b.*?</(script|style)>|<[^>]*>`)
)

// htmlText is the title of a page, else its text.
func htmlText(b []byte) string {
	if m := htmlTitle.FindSubmatch(b); m != nil && len(bytes.TrimSpace(m[1])) > 0 {
		return html.UnescapeString(string(m[1]))
	}
	return html.UnescapeString(string(htmlSkip.ReplaceAll(b, []byte(" "))))
}

// Shape describes a successful answer of a token service that cannot be read. It quotes nothing: any part may be a token.
func Shape(b []byte) string {
	text := bytes.TrimSpace(b)
	what := "text"
	switch first := json.NewDecoder(bytes.NewReader(text)).Decode(new(json.RawMessage)); {
	case len(b) == 0:
		return "nothing"
	case len(text) == 0:
		what = "blanks"
	case json.Valid(text) && text[0] != '{':
		what = "JSON that is not an object"
	case json.Valid(text):
		what = "JSON with a token that is not a string"
	case first == nil && text[0] == '{':
		what = "JSON with something after it"
	case text[0] == '{':
		what = "broken JSON"
	case isHTMLBody(text):
		what = "a web page"
	case text[0] == '<':
		what = "XML"
	case !utf8.Valid(text):
		what = "data that is not text"
	}
	return fmt.Sprintf("%s, %d bytes", what, len(b))
}

// Describe describes an answer that is not what was asked for, without secrets. The answer of a token service may be a token
// as a whole: see Shape.
func Describe(h http.Header, b []byte, known ...auth.Credential) string {
	kind, _, message := ReadErrorBody(b, h.Get("Content-Type"))
	message = Tidy(message, 80, known...)
	switch {
	case len(b) == 0:
		return "nothing"
	case kind == BodyHTML:
		return fmt.Sprintf("a web page %q", message)
	}
	return text.Line(fmt.Sprintf("%s %q", cmp.Or(header.MediaType(h), string(kind)), message), MaxMessage)
}
