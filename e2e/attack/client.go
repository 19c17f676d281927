package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// maxBody is how much of an answer is read.
const maxBody = 64 << 20

// accept is what runtimes send with requests for manifests.
const accept = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, " +
	"application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json, */*"

// The addresses from which the scenes' clients come: all of 127.0.0.0/8 is this machine.
const (
	attackerAddress = "127.0.0.66"
	victimAddress   = "127.0.0.7"
)

// client is one of the mirror's, at an address of its own.
type client struct {
	http *http.Client
	base string
}

// newClient returns a client that asks from an address; empty: any.
func newClient(base, from string, pool *x509.CertPool, h2 bool) *client {
	dialer := &net.Dialer{Timeout: 10 * time.Second}
	if from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	return &client{base: base, http: &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dialer.DialContext, DisableCompression: true, MaxIdleConnsPerHost: 64, ForceAttemptHTTP2: h2,
			TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
		},
	}}
}

// attacker and victim are clients of the mirror at different addresses.
func (m *mirror) attacker() *client { return newClient(m.base, attackerAddress, m.pool, m.http2) }
func (m *mirror) victim() *client   { return newClient(m.base, victimAddress, m.pool, m.http2) }

func (c *client) close() { c.http.CloseIdleConnections() }

// answer is what came back. A code of 0 means that nothing did.
type answer struct {
	code   int
	header http.Header
	body   []byte
	took   time.Duration
	err    error // the request's, or the body's
}

// String is for figures.
func (a answer) String() string {
	switch {
	case a.code == 0:
		return oneLine(a.err)
	case a.err != nil:
		return fmt.Sprintf("%d, then %s", a.code, oneLine(a.err))
	case a.code >= 400:
		return fmt.Sprintf("%d %s", a.code, a.header.Get("Mirror-Reason"))
	}
	return fmt.Sprint(a.code)
}

func (c *client) get(ctx context.Context, path string, header ...string) answer {
	return c.do(ctx, http.MethodGet, path, header...)
}

func (c *client) head(ctx context.Context, path string) answer {
	return c.do(ctx, http.MethodHead, path)
}

// do makes a request with headers in pairs and reads the answer.
func (c *client) do(ctx context.Context, method, path string, header ...string) (a answer) {
	begun := time.Now()
	defer func() { a.took = time.Since(begun) }()
	resp, err := c.open(ctx, method, path, header...)
	if err != nil {
		return answer{err: err}
	}
	defer func() { _ = resp.Body.Close() }()
	a.code, a.header = resp.StatusCode, resp.Header
	a.body, a.err = io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return a
}

// open makes a request and leaves the body to the caller.
func (c *client) open(ctx context.Context, method, path string, header ...string) (*http.Response, error) {
	var body io.Reader
	if method == http.MethodPost {
		body = bytes.NewReader([]byte("{}"))
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	for i := 0; i+1 < len(header); i += 2 {
		if strings.EqualFold(header[i], "Host") {
			req.Host = header[i+1]
			continue
		}
		req.Header.Set(header[i], header[i+1])
	}
	return c.http.Do(req)
}

// sip reads a body at so many bytes a second until the context or the body ends.
func sip(ctx context.Context, body io.Reader, rate int) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if _, err := io.CopyN(io.Discard, body, int64(rate)); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// The paths of a repository behind the mirror.
func manifestPath(repo, ref string) string { return "/v2/" + repo + "/manifests/" + ref }
func blobPath(repo, digest string) string  { return "/v2/" + repo + "/blobs/" + digest }

// slowConnection has so small a buffer that the mirror's end waits for its reader.
func slowConnection(ctx context.Context, host, from string) (net.Conn, error) {
	dialer := &net.Dialer{
		Timeout: 5 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)},
		Control: func(_, _ string, c syscall.RawConn) error {
			var err error
			if e := c.Control(func(fd uintptr) { err = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 4096) }); e != nil {
				return e
			}
			return err
		},
	}
	return dialer.DialContext(ctx, "tcp", host)
}
