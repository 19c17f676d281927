package endpoint

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/registrymirror/mirror/upstream/fault"
)

// newTransport makes connections of one kind. They speak HTTP/1.1: registries that keep their blobs send them over
// the same connections as manifests, and one stream of Go's HTTP/2 is slower and stops at its window of 4 MiB per
// round trip.
func newTransport(e *Endpoint) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  func(r *http.Request) (*url.URL, error) { return e.Proxy(r.URL) },
		OnProxyConnectResponse: refusedByProxy,
		DialContext:            e.o.Dialer.Dial,
		TLSClientConfig:        &tls.Config{RootCAs: e.o.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    10 * time.Second,
		ResponseHeaderTimeout:  e.o.HeaderTimeout,
		// The digest of a blob is of the bytes as they are stored: the transport must not decompress them.
		DisableCompression:     true,
		Protocols:              protocols,
		MaxIdleConnsPerHost:    64,
		IdleConnTimeout:        60 * time.Second,
		MaxResponseHeaderBytes: 128 << 10,
		ReadBufferSize:         64 << 10,
	}
}

func refusedByProxy(_ context.Context, proxy *url.URL, req *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &fault.ProxyError{Proxy: proxy.Host, Target: req.Host, Status: resp.StatusCode}
}

// bare refuses requests with credentials. Requests to where a registry redirects go over it.
type bare struct{ http.RoundTripper }

var errNotBare = errors.New("a request with credentials for a host that gets none")

func (b bare) RoundTrip(r *http.Request) (*http.Response, error) {
	for _, name := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
		if len(r.Header.Values(name)) > 0 {
			return nil, errNotBare
		}
	}
	return b.RoundTripper.RoundTrip(r)
}
