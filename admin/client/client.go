// Package client sends requests to the admin listener of a running mirror, for the command line.
//
// Promise: an error says whether no mirror answered (ErrUnreachable) or the mirror refused the request, and what to do. The
// token goes to the given URL and nowhere else: redirects are not followed.
package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// ErrUnreachable is wrapped by the errors of requests that were not answered.
var ErrUnreachable = errors.New("no mirror answers")

// ErrCA says that Options.CA has no certificate.
var ErrCA = errors.New("it has no PEM certificate, which begins with -----BEGIN CERTIFICATE-----")

// maxBody bounds an answer.
const maxBody = 64 << 20

// Options of a Client.
type Options struct {
	URL   string // of the admin listener, as in http://127.0.0.1:5001; HOST:PORT is plain HTTP
	Token string // empty: no token is sent
	// CA is PEM certificates that may have signed that of the listener, besides those of the system; or the listener's own.
	// Empty: those of the system alone.
	CA []byte
	// Certificate is the operator's, for a listener that asks for one. Nil: none is shown.
	Certificate *tls.Certificate
	// Dial connects to the mirror. Nil: by the host and port of URL.
	Dial func(context.Context) (net.Conn, error)
	// ServerName is the name that the listener's certificate must have. Empty: the host of URL.
	ServerName string
}

// Client sends requests to one mirror. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New makes a Client. It sends nothing yet.
func New(o Options) (*Client, error) {
	where := o.URL
	if host, port, err := net.SplitHostPort(where); err == nil && host != "" && port != "" && !strings.ContainsAny(where, "/?#@") {
		where = "http://" + where
	}
	u, err := url.Parse(where)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("the address of the mirror's admin listener must be a URL or HOST:PORT, as in http://127.0.0.1:5001")
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.ServerName}
	if o.Certificate != nil {
		t.TLSClientConfig.Certificates = []tls.Certificate{*o.Certificate}
	}
	if o.Dial != nil {
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return o.Dial(ctx) }
	}
	if len(o.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool() // the machine has none: the operator's are enough
		}
		if !pool.AppendCertsFromPEM(o.CA) {
			return nil, ErrCA
		}
		t.TLSClientConfig.RootCAs = pool
	}
	return &Client{base: u, token: o.Token, http: &http.Client{
		Transport:     t,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Get requests /api/v1/PATH, and returns the body as it came.
func (c *Client) Get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return c.Do(ctx, http.MethodGet, path, query, nil)
}

// Do sends a request to /api/v1/PATH, with a body that is JSON or nil, and returns the body of the answer as it came; empty:
// it has none. The context limits how long that may take.
func (c *Client) Do(ctx context.Context, method, path string, query url.Values, body []byte) ([]byte, error) {
	u := c.base.JoinPath("api/v1", path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	defer c.http.CloseIdleConnections()
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	return c.read(resp)
}

// send sends a request. The body of the answer, which is not a refusal, is the caller's.
func (c *Client) send(req *http.Request) (*http.Response, error) {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if _, untrusted := errors.AsType[*tls.CertificateVerificationError](err); untrusted {
		return nil, fmt.Errorf("%w at %s with a trusted certificate: %w; give the certificate that signed it with --admin-ca or "+
			"MIRROR_ADMIN_CA", ErrUnreachable, c.base, errors.Unwrap(err))
	}
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("%w at %s: %w; start it, or give its address with --admin or MIRROR_ADMIN", ErrUnreachable, c.base,
			err)
	}
	switch resp.StatusCode {
	case http.StatusOK, http.StatusAccepted, http.StatusNoContent:
		return resp, nil
	}
	defer resp.Body.Close()
	body, err := c.read(resp)
	switch {
	case err != nil:
		return nil, err
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s requires a token%s; give its file with --admin-token-file or MIRROR_ADMIN_TOKEN_FILE, or an operator's "+
			"certificate with --admin-cert and --admin-key", c.base, because(body))
	}
	refused := &Refused{Base: c.base.String(), Status: resp.Status, Code: resp.StatusCode}
	_ = json.Unmarshal(body, refused) // a body that is not our document has no detail
	if resp.StatusCode == http.StatusBadRequest && c.base.Scheme == "http" && refused.Detail == "" {
		return nil, fmt.Errorf("%s answered %s; if it uses TLS (admin.tls), write https://", c.base, resp.Status)
	}
	return nil, refused
}

// because is what a mirror says of the token or certificate that it was shown; empty: it was shown none.
func because(body []byte) string {
	var refused Refused
	if json.Unmarshal(body, &refused) != nil || refused.Detail == "" || strings.HasPrefix(refused.Detail, "this listener requires ") {
		return ""
	}
	line, _, _ := strings.Cut(refused.Detail, "\n")
	detail, _, _ := strings.Cut(line, ";")
	return " (" + detail + ")"
}

// read reads the body of an answer.
func (c *Client) read(resp *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w to the end at %s: %w", ErrUnreachable, c.base, err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("%s answered with more than %d MiB", c.base, maxBody>>20)
	}
	return body, nil
}

// Refused is the answer of a mirror that refuses a request.
type Refused struct {
	Base     string   `json:"-"` // the URL of the mirror
	Status   string   `json:"-"` // of the answer, with Code
	Code     int      `json:"-"`
	Detail   string   `json:"detail"`
	Problems []string `json:"problems"` // each problem, where there are several
}

// Error is one line.
func (e *Refused) Error() string {
	text := e.Base + " answered " + e.Status
	if line, _, _ := strings.Cut(e.Detail, "\n"); line != "" {
		text += ": " + line
	}
	return text
}
