// Package client asks a running mirror's admin listener, for the command line.
//
// Promise: an error says whether nobody answered (ErrUnreachable) or the mirror refused, and what to do. The token goes
// to the URL that was given and nowhere else: redirects are not followed.
package client

import (
	"bytes"
	"context"
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

// ErrUnreachable is wrapped by errors that say that nobody answered.
var ErrUnreachable = errors.New("no mirror answers")

// maxBody bounds an answer.
const maxBody = 64 << 20

// Options say which mirror is asked.
type Options struct {
	URL   string // of the admin listener, as in http://127.0.0.1:5001; HOST:PORT is plain HTTP
	Token string // empty: none
}

// Client asks one mirror. It is safe for concurrent use.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
}

// New makes a Client. It asks nobody yet.
func New(o Options) (*Client, error) {
	where := o.URL
	if host, port, err := net.SplitHostPort(where); err == nil && host != "" && port != "" && !strings.ContainsAny(where, "/?#@") {
		where = "http://" + where
	}
	u, err := url.Parse(where)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.RawQuery != "" {
		return nil, errors.New("the address of the mirror's admin listener must be a URL or HOST:PORT, as in http://127.0.0.1:5001")
	}
	return &Client{base: u, token: o.Token, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Get reads /api/v1/PATH. It gives the body as it came.
func (c *Client) Get(ctx context.Context, path string, query url.Values) ([]byte, error) {
	u := c.base.JoinPath("api/v1", path)
	u.RawQuery = query.Encode()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	return c.do(req)
}

// Post sends JSON to /api/v1/PATH. It gives the body as it came. The context says how long it may take.
func (c *Client) Post(ctx context.Context, path string, body []byte) ([]byte, error) {
	u := c.base.JoinPath("api/v1", path)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, u.String(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json")
	return c.do(req)
}

func (c *Client) do(req *http.Request) ([]byte, error) {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err
		}
		return nil, fmt.Errorf("%w at %s: %w; start it, or say where it is with --admin or MIRROR_ADMIN", ErrUnreachable, c.base,
			err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w to the end at %s: %w", ErrUnreachable, c.base, err)
	case len(body) > maxBody:
		return nil, fmt.Errorf("%s answered with more than %d MiB", c.base, maxBody>>20)
	case resp.StatusCode == http.StatusUnauthorized:
		return nil, fmt.Errorf("%s wants a token; give its file with --admin-token-file or MIRROR_ADMIN_TOKEN_FILE", c.base)
	case resp.StatusCode != http.StatusOK:
		refused := &Refused{Base: c.base.String(), Status: resp.Status}
		_ = json.Unmarshal(body, refused) // what is no document of ours has no detail
		return nil, refused
	}
	return body, nil
}

// Refused is the answer of a mirror that does not do what it was asked.
type Refused struct {
	Base     string   `json:"-"` // the URL of the mirror
	Status   string   `json:"-"` // of the answer
	Detail   string   `json:"detail"`
	Problems []string `json:"problems"` // one by one, where there are several
}

// Error is one line.
func (e *Refused) Error() string {
	text := e.Base + " answered " + e.Status
	if line, _, _ := strings.Cut(e.Detail, "\n"); line != "" {
		text += ": " + line
	}
	return text
}
