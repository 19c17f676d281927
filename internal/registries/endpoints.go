package registries

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/url"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/upstream"
)

// endpointOf builds an endpoint. files are the contents of the files that its settings name.
func endpointOf(u config.Upstream, e config.Endpoint) (_ upstream.Endpoint, files [][]byte, err error) {
	read := func(key, path string) (b []byte) {
		if path == "" || err != nil {
			return nil
		}
		if b, err = regular.Read(path, config.MaxFile); err != nil {
			err = fmt.Errorf("%s of %s: %w; it names a PEM file that this user can read", key, e.URL, err)
		}
		files = append(files, b)
		return b
	}
	where, err := url.Parse(e.URL)
	if err != nil {
		return upstream.Endpoint{}, nil, fmt.Errorf("endpoint: %w", err)
	}
	endpoint := upstream.Endpoint{URL: where, Prefix: e.Prefix, Registry: u.Itself(e), AuthHosts: e.AuthHosts}
	ca, cert, key := read("ca", e.CA), read("clientCert", e.ClientCert), read("clientKey", e.ClientKey)
	if err != nil {
		return upstream.Endpoint{}, nil, err
	}
	if e.CA != "" {
		if endpoint.RootCAs, err = withCA(e.CA, ca); err != nil {
			return upstream.Endpoint{}, nil, err
		}
	}
	if e.ClientCert != "" {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return upstream.Endpoint{}, nil, fmt.Errorf("clientCert %s with clientKey %s: %w; they must be PEM files that "+
				"belong together", e.ClientCert, e.ClientKey, err)
		}
		endpoint.Certificate = &pair
	}
	switch e.Proxy {
	case "":
	case "none":
		endpoint.Proxy = func(*url.URL) (*url.URL, error) { return nil, nil }
	default:
		proxy, err := url.Parse(e.Proxy)
		if err != nil {
			return upstream.Endpoint{}, nil, fmt.Errorf("proxy of %s: %w", e.URL, err)
		}
		endpoint.Proxy = func(*url.URL) (*url.URL, error) { return proxy, nil }
	}
	return endpoint, files, nil
}

// withCA returns the system's certificates and those of an operator's file.
func withCA(path string, pem []byte) (*x509.CertPool, error) {
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool() // a machine without any: the operator's are enough
	}
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("ca %s holds no PEM certificate; one begins with -----BEGIN CERTIFICATE-----", path)
	}
	return pool, nil
}
