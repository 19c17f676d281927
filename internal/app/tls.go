package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"sync/atomic"
)

// certificate is a listener's, reloaded when its files change.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
}

func loadCertificate(cert, key string) (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w; they must be PEM files that belong together and that "+
			"this user can read", cert, key, err)
	}
	return &pair, nil
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current.Load(), nil
		},
	}
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
