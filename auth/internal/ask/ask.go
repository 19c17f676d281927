// Package ask asks the web services of clouds that yield credentials, and metadata servers.
//
// Promise: an answer is bounded in size and time, a redirect is not followed (a secret would go along), and an error
// says which host, what it answered and when it may be asked again, without the secrets of the request.
//
// It does not read answers: what they mean is the services'.
package ask

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/backoff"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
)

// MaxText is how many bytes of what a service says are shown.
const MaxText = 240

const (
	maxAnswer = 1 << 20
	maxError  = 64 << 10
	// maxRetryAfter bounds what a service may ask of us: a mistake in it must not silence us for a day.
	maxRetryAfter = 5 * time.Minute

	defaultLimit = 8 * time.Second // of a request
	attempts     = 3               // at a busy service
)

// busy is how long a busy service is left alone.
var busy = backoff.Backoff{First: 500 * time.Millisecond, Most: time.Second}

// Answer is a whole answer.
type Answer struct {
	Header http.Header
	Body   []byte
	// Date is the time by the service's clock. Zero: it did not send it.
	Date time.Time
}

// Error is an answer that is a refusal.
type Error struct {
	Host   string
	Status int
	Code   string // as the service names it: "ThrottlingException", "invalid_client"
	Text   string // what it says, cleaned
	Date   time.Time
	wait   time.Duration
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s answered %d", e.Host, e.Status)
	if e.Code != "" {
		s += " " + e.Code
	}
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// RetryAfter is how long the service wants to be left alone, 0 where it doesn't say.
func (e *Error) RetryAfter() time.Duration { return e.wait }

// transient reports whether the same request may do better soon.
func (e *Error) transient() bool {
	return e.Status >= 500 || e.Status == http.StatusTooManyRequests || strings.Contains(e.Code, "Throttl")
}

// Client sends requests over rt. Nil: the network, by way of the proxy of the environment.
func Client(rt http.RoundTripper) *http.Client { return client(rt, http.ProxyFromEnvironment) }

// Local sends requests over rt. Nil: the network, without any proxy: a metadata server is this machine's own, and no other
// machine may read what it answers.
func Local(rt http.RoundTripper) *http.Client { return client(rt, nil) }

func client(rt http.RoundTripper, proxy func(*http.Request) (*url.URL, error)) *http.Client {
	if rt == nil {
		rt = &http.Transport{
			Proxy: proxy, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSHandshakeTimeout: 5 * time.Second, ResponseHeaderTimeout: 10 * time.Second,
			// A request in half an hour is not worth a connection that waits for it.
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10,
		}
	}
	return &http.Client{
		Transport:     rt,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Request is what a service is asked. It is a GET, unless it has a Method, a Form or a Body; then it is a POST.
type Request struct {
	Method  string
	URL     string
	Header  http.Header
	Form    url.Values    // instead of Body
	Body    []byte        //
	Limit   time.Duration // how long the answer may take. 0: 8 s
	Secrets []string      // texts that must not be in an error
}

// Do sends a request and reads the answer. A service that says that it is only busy is asked again, up to twice; one that hangs
// is not: there is no time for it. Any status but 2xx is an *Error. It quotes the answer only where the status is 400 or more:
// another answer may hold a secret.
func Do(ctx context.Context, c *http.Client, r Request) (*Answer, error) {
	r.Limit = cmp.Or(r.Limit, defaultLimit)
	if r.Form != nil {
		r.Body = []byte(r.Form.Encode())
		r.Header = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
	}
	if r.Method == "" && r.Body != nil {
		r.Method = http.MethodPost
	}
	for attempt := 1; ; attempt++ {
		a, err := once(ctx, c, r)
		e, refused := errors.AsType[*Error](err)
		if !refused || !e.transient() || attempt == attempts || e.wait > 3*time.Second {
			return a, err
		}
		pause := busy.After(attempt)
		if !backoff.Wait(ctx, max(e.wait, backoff.Between(pause, 2*pause))) {
			return a, err
		}
	}
}

func once(ctx context.Context, c *http.Client, r Request) (*Answer, error) {
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, bytes.NewReader(r.Body))
	if err != nil {
		return nil, err
	}
	if r.Header != nil {
		req.Header = r.Header
	}
	ctx, cancel := context.WithTimeoutCause(ctx, r.Limit, timeout{req.URL.Host, r.Limit})
	defer cancel()
	resp, err := c.Do(req.WithContext(ctx))
	if err != nil {
		return nil, failed(ctx, req, err, r.Secrets)
	}
	defer resp.Body.Close()
	most := int64(maxAnswer)
	succeeded := resp.StatusCode/100 == 2
	if !succeeded {
		most = maxError
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, most+1))
	if err != nil && succeeded {
		return nil, failed(ctx, req, err, r.Secrets)
	}
	date, _ := http.ParseTime(resp.Header.Get("Date"))
	if !succeeded {
		e := &Error{Host: req.URL.Host, Status: resp.StatusCode, Date: date, wait: retryAfter(resp.Header)}
		if e.Status >= http.StatusBadRequest {
			e.Code, e.Text = reason(resp.Header, body[:min(int64(len(body)), maxError)], r.Secrets)
		}
		return nil, e
	}
	if int64(len(body)) > most {
		return nil, fmt.Errorf("%s answered with more than %d bytes", req.URL.Host, most)
	}
	return &Answer{Header: resp.Header, Body: body, Date: date}, nil
}

// skewed is how far our clock may be from a cloud's: beyond five minutes signatures are refused.
const skewed = 4 * time.Minute

// ByClock asks with what was signed at a time: now, and if that is refused and our clock is wrong, by the clock of the answer.
// Event is what the log says then.
func ByClock(ctx context.Context, log *slog.Logger, event string, try func(now time.Time) (*Answer, error)) (*Answer, error) {
	a, err := try(time.Now())
	e, refused := errors.AsType[*Error](err)
	if !refused || e.Date.IsZero() || time.Until(e.Date).Abs() < skewed {
		return a, err
	}
	ahead := time.Until(e.Date)
	off := -ahead.Round(time.Second)
	if a, again := try(time.Now().Add(ahead)); again == nil {
		log.WarnContext(ctx, event, "clock_skew", off)
		return a, nil
	}
	return nil, fmt.Errorf("%w (the clock of this machine is off by %s)", err, off)
}

// timeout is the end of a request that takes too long.
type timeout struct {
	host  string
	limit time.Duration
}

func (e timeout) Error() string { return fmt.Sprintf("%s did not answer within %s", e.host, e.limit) }
func (e timeout) Timeout() bool { return true }

// failed is why there is no answer. The text of a *url.Error has the URL, whose query may hold a secret.
func failed(ctx context.Context, req *http.Request, err error, secrets []string) error {
	if cause := context.Cause(ctx); cause != nil {
		if t, ok := errors.AsType[timeout](cause); ok {
			return t
		}
		return fmt.Errorf("ask %s: %w", req.URL.Host, cause)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if shown := text.Hide(err.Error(), secrets...); shown != err.Error() {
		return fmt.Errorf("ask %s: %s", req.URL.Host, text.FirstLine(shown, MaxText))
	}
	return fmt.Errorf("ask %s: %w", req.URL.Host, err)
}

func retryAfter(h http.Header) time.Duration {
	s := h.Get("Retry-After")
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return min(time.Duration(n)*time.Second, maxRetryAfter)
	}
	if t, err := http.ParseTime(s); err == nil {
		return max(min(time.Until(t), maxRetryAfter), 0)
	}
	return 0
}

// reason finds what a refusal says. AWS has {"__type","message"} or XML with Code and Message; Entra, Google and ACR have
// {"error","error_description"}, {"error":{"status","message"}} or {"errors":[{"code","message"}]}.
func reason(h http.Header, body []byte, secrets []string) (code, message string) {
	var doc struct {
		Type     string          `json:"__type"`
		Code     json.RawMessage `json:"code"` // of some services a number
		Message  string          `json:"message"`
		Message2 string          `json:"Message"`
		Error    json.RawMessage `json:"error"`
		Detail   string          `json:"error_description"`
		Errors   []struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	var x struct {
		Code    string `xml:"Error>Code"`
		Message string `xml:"Error>Message"`
	}
	trimmed := bytes.TrimSpace(body)
	switch {
	case json.Unmarshal(trimmed, &doc) == nil:
		var word, own string
		var named struct{ Status, Message string }
		_ = json.Unmarshal(doc.Error, &word) // it is one of the two
		_ = json.Unmarshal(doc.Error, &named)
		_ = json.Unmarshal(doc.Code, &own)
		code = cmp.Or(named.Status, word, doc.Type, own)
		message = cmp.Or(named.Message, doc.Message, doc.Message2, doc.Detail)
		if len(doc.Errors) > 0 {
			code, message = cmp.Or(code, doc.Errors[0].Code), cmp.Or(message, doc.Errors[0].Message)
		}
	case bytes.HasPrefix(trimmed, []byte("<")) && xml.Unmarshal(trimmed, &x) == nil:
		code, message = x.Code, x.Message
	case bytes.HasPrefix(trimmed, []byte("<")):
		message = "a web page"
	default:
		message = string(trimmed)
	}
	if code == "" {
		code, _, _ = strings.Cut(h.Get("X-Amzn-Errortype"), ":")
	}
	if i := strings.LastIndexByte(code, '#'); i >= 0 { // com.amazonaws.ecr#ServerException
		code = code[i+1:]
	}
	return text.FirstLine(code, MaxText, secrets...), text.FirstLine(message, MaxText, secrets...)
}

// JSON reads an answer into doc. An error has nothing of it, since it may hold a secret.
func (a *Answer) JSON(host string, doc any) error {
	err := json.Unmarshal(a.Body, doc)
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Errorf("%s answered with the wrong type of value in %q", host, e.Field)
	}
	return fmt.Errorf("%s answered with what is not JSON (%s)", host, text.FirstLine(a.Header.Get("Content-Type"), MaxText))
}

// Life is how long something lives that ends at a time of the service's clock.
func (a *Answer) Life(end time.Time) time.Duration {
	if a.Date.IsZero() {
		return time.Until(end)
	}
	return end.Sub(a.Date)
}

// maxSecretFile bounds a file with a token.
const maxSecretFile = 64 << 10

// File reads a token that is mounted, without the white space around it.
func File(path string) (string, error) {
	b, err := regular.Read(path, maxSecretFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("%s is empty", path)
	}
	return token, nil
}
