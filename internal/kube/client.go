package kube

import (
	"bytes"
	"cmp"
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
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
)

const (
	// maxAnswer bounds one answer: 500 pods of 16 KiB are 8 MiB.
	maxAnswer  = 32 << 20
	maxRefusal = 64 << 10
	askLimit   = 10 * time.Second
	maxToken   = 64 << 10 // the file of the token; tokens have some thousands of bytes
	maxCA      = 4 << 20
)

// ClientOptions are the address of the API server and our login.
type ClientOptions struct {
	// Server is its URL, https://HOST:PORT. Empty: that of the cluster whose pod this is, by the environment variables
	// KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT.
	Server string
	// TokenFile holds the bearer token. It is read for each request, since the kubelet replaces it. Empty: that of the pod.
	TokenFile string
	// CAFile holds the certificates, PEM, that sign the server's. Empty: that of the pod.
	CAFile string
	// Transport replaces the network, for tests.
	Transport http.RoundTripper
}

// Client asks an API server. It is safe for concurrent use.
type Client struct {
	base      *url.URL
	tokenFile string
	http      *http.Client
}

// Where a pod finds what it needs to speak to its API server.
const (
	podTokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token" //nolint:gosec // a path
	podCAFile    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// NewClient reads the files that the options name; nothing is asked yet. Its errors say which of them to mend.
func NewClient(o ClientOptions) (*Client, error) {
	o.TokenFile, o.CAFile = cmp.Or(o.TokenFile, podTokenFile), cmp.Or(o.CAFile, podCAFile)
	base, err := server(o.Server)
	if err != nil {
		return nil, err
	}
	if _, err := readToken(o.TokenFile); err != nil {
		return nil, err
	}
	if o.Transport == nil {
		pem, err := regular.Read(o.CAFile, maxCA)
		if err != nil {
			return nil, fmt.Errorf("read the certificates of the API server: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate; it should be the one that signs the API server's", o.CAFile)
		}
		o.Transport = &http.Transport{
			// No proxy: an API server is near, and no other host may see its token.
			DialContext:            (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
			TLSClientConfig:        &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    5 * time.Second,
			IdleConnTimeout:        90 * time.Second,
			MaxIdleConns:           2,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
			// The headers of a watch may come late. A connection that is dead is found by pings.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		}
	}
	return &Client{base: base, tokenFile: o.TokenFile, http: &http.Client{
		Transport:     o.Transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

func server(s string) (*url.URL, error) {
	if s == "" {
		host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
		if host == "" || port == "" {
			return nil, errors.New("this is not a pod: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; " +
				"set kubernetes.server to the URL of the API server")
		}
		s = "https://" + net.JoinHostPort(host, port)
	}
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil || strings.Trim(u.Path, "/") != "" {
		return nil, fmt.Errorf("the API server %q is not https://HOST:PORT; correct it", s)
	}
	return u, nil
}

func readToken(file string) (string, error) {
	b, err := regular.Read(file, maxToken)
	if err != nil {
		return "", fmt.Errorf("read the token for the API server: %w", err)
	}
	token := strings.TrimSpace(string(b))
	if token == "" || strings.ContainsAny(token, " \r\n\t") {
		return "", fmt.Errorf("%s holds no bearer token: it should be one line of text", file)
	}
	return token, nil
}

// APIError is a refusal of the API server.
type APIError struct {
	Op         string // "list pods", "watch pods", "create event", "update event"
	Status     int
	Reason     string // as the server names it: "Forbidden", "AlreadyExists"
	Message    string
	RetryAfter time.Duration // 0: not said
}

func (e *APIError) Error() string {
	s := fmt.Sprintf("%s: API server answered %d", e.Op, e.Status)
	if e.Reason != "" {
		s += " " + e.Reason
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// refusedWith is the status with which the API server refused a request. 0: err is not a refusal.
func refusedWith(err error) int {
	if e, ok := errors.AsType[*APIError](err); ok {
		return e.Status
	}
	return 0
}

// final reports whether asking again is of no use.
func (e *APIError) final() bool {
	return e.Status/100 == 4 && e.Status != http.StatusUnauthorized && e.Status != http.StatusTooManyRequests
}

// remedy says what helps against a refusal, or against no answer at all (nil). rights are those that the request needs.
func (e *APIError) remedy(rights string) string {
	switch {
	case e == nil || e.Status/100 != 4 || e.Status == http.StatusTooManyRequests:
		return "see whether the API server can be reached from here; it is asked again"
	case e.Status == http.StatusUnauthorized:
		return "the token in kubernetes.tokenFile is refused: see that it is this cluster's and has not expired"
	case e.Status == http.StatusForbidden:
		return rights
	}
	return "see that kubernetes.server is the API server"
}

// ask sends one request and reads a JSON answer into out, unless that is nil. A refusal is an *APIError.
func (c *Client) ask(ctx context.Context, op, method, path string, query url.Values, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	resp, err := c.send(ctx, op, method, path, query, in)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s: read the answer: %w", op, err)
	case len(b) > maxAnswer:
		return fmt.Errorf("%s: the answer is larger than %d bytes", op, maxAnswer)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(b, out); err != nil {
		return fmt.Errorf("%s: read the answer: %w", op, err)
	}
	return nil
}

// send sends one request. The caller closes the body of the answer. A refusal is an *APIError.
func (c *Client) send(ctx context.Context, op, method, path string, query url.Values, in any) (*http.Response, error) {
	token, err := readToken(c.tokenFile)
	if err != nil {
		return nil, err
	}
	u := c.base.JoinPath(path)
	u.RawQuery = query.Encode()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", op, err)
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	req.Header.Set("Accept", "application/json, */*") // keys of service accounts come as application/jwk-set+json alone
	req.Header.Set("User-Agent", "mirror")
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	} else if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	if resp.StatusCode/100 != 2 {
		defer resp.Body.Close()
		b, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
		return nil, refusal(op, resp, b)
	}
	return resp, nil
}

// refusal reads a metav1.Status, where the answer is one.
func refusal(op string, resp *http.Response, body []byte) error {
	e := statusError(op, body)
	e.Status = resp.StatusCode
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		e.RetryAfter = pauseOf(n)
	}
	return e
}

// statusError reads a metav1.Status: the body of a refusal, or the object of an ERROR event.
func statusError(op string, body []byte) *APIError {
	var st struct {
		Code            int
		Reason, Message string
		Details         struct{ RetryAfterSeconds int }
	}
	if json.Unmarshal(body, &st) != nil {
		return &APIError{Op: op}
	}
	return &APIError{
		Op: op, Status: st.Code, Reason: text.Line(st.Reason, 60), Message: text.Line(st.Message, 300),
		RetryAfter: pauseOf(st.Details.RetryAfterSeconds),
	}
}

// pauseOf is how long to wait where the server asks for so many seconds.
func pauseOf(seconds int) time.Duration {
	return time.Duration(min(max(seconds, 0), int(maxPause/time.Second))) * time.Second
}

// Ready asks whether the API server lets us list pods: an error of Poster, before it matters.
func (c *Client) Ready(ctx context.Context) error {
	query := url.Values{"fieldSelector": {"status.phase=Pending"}, "limit": {"1"}}
	return c.ask(ctx, "list pods", http.MethodGet, "/api/v1/pods", query, nil, nil)
}

// Allowed asks whether our account may do something with a kind of objects in all namespaces. Each account may ask that of itself.
func (c *Client) Allowed(ctx context.Context, verb, group, resource string) (bool, error) {
	type attributes struct {
		Verb     string `json:"verb"`
		Group    string `json:"group"`
		Resource string `json:"resource"`
	}
	type review struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Spec       struct {
			Attributes attributes `json:"resourceAttributes"`
		} `json:"spec"`
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	in, out := review{APIVersion: "authorization.k8s.io/v1", Kind: "SelfSubjectAccessReview"}, review{}
	in.Spec.Attributes = attributes{verb, group, resource}
	err := c.ask(ctx, "ask for our rights", http.MethodPost, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", nil, in, &out)
	return out.Status.Allowed, err
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
