package authority_test

import (
	"crypto/tls"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/authority"
)

const year = 365 * 24 * time.Hour

// What an authority signs is for one purpose, ends with it, and keeps its form over a restart.
func TestAuthority(t *testing.T) {
	t.Parallel()
	now := time.Now()
	_, pair, err := authority.New("mirror", now)
	if err != nil {
		t.Fatal(err)
	}
	a, err := authority.Load(pair)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pair.Cert)
	leaf := func(p authority.Pair, err error) *x509.Certificate {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		c, err := tls.X509KeyPair(p.Cert, p.Key)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf
	}
	verify := func(c *x509.Certificate, use x509.ExtKeyUsage) error {
		_, err := c.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{use}})
		return err
	}
	mirror := leaf(a.Mirror([]string{"mirror.example", "10.0.0.7", "::1", "*.mirror.example"}, now, year))
	for _, host := range []string{"mirror.example", "10.0.0.7", "::1", "a.mirror.example"} {
		if err := mirror.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if err := verify(mirror, x509.ExtKeyUsageServerAuth); err != nil {
		t.Error(err)
	}
	if verify(mirror, x509.ExtKeyUsageClientAuth) == nil {
		t.Error("the mirror's certificate could be a node's")
	}
	node := leaf(a.Node("worker-1", now, 100*year))
	if err := verify(node, x509.ExtKeyUsageClientAuth); err != nil {
		t.Error(err)
	}
	if verify(node, x509.ExtKeyUsageServerAuth) == nil {
		t.Error("a node's certificate could be the mirror's")
	}
	if node.Subject.CommonName != "system:node:worker-1" || node.NotAfter.After(a.Ends()) || node.IsCA {
		t.Errorf("%v, until %v", node.Subject, node.NotAfter)
	}
	long := strings.Repeat("a", 60) + ".example"
	if c := leaf(a.Node(long, now, year)); c.Subject.CommonName != "" || len(c.DNSNames) != 1 || c.DNSNames[0] != long {
		t.Errorf("a long name: %v %v", c.Subject, c.DNSNames)
	}
	if c := leaf(a.Mirror([]string{long + "." + long}, now, year)); c.VerifyHostname(long+"."+long) != nil {
		t.Error("a long name of the mirror")
	}
	other, otherPair, err := authority.New("mirror", now)
	if err != nil || other == nil {
		t.Fatal(err)
	}
	n, err := a.Node("a", now, year)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]authority.Pair{
		"another key": {Cert: pair.Cert, Key: otherPair.Key}, "no certificate": {Cert: pair.Key, Key: pair.Key}, "no key": {Cert: pair.Cert},
		"nothing": {}, "not an authority": n,
	} {
		if _, err := authority.Load(p); err == nil {
			t.Errorf("%s: is loaded", name)
		}
	}
}
