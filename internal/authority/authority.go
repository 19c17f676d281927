// Package authority makes the certificates of a cluster: those of an authority of its own, of the mirror, and of nodes.
//
// Promise: a key that it makes never leaves the machine but by its file, which its owner alone can read. A certificate of the mirror
// can't show a node's identity, nor the other way round.
//
// Not here: which files there are, and what happens with those that exist (cmd/mirror).
package authority

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"
)

// life is how long an authority lasts. Certificates that it signs end before it does.
const life = 10 * 365 * 24 * time.Hour

// maxCommonName is how many characters a common name may have (RFC 5280, A.1).
const maxCommonName = 64

// skew is by how much the clock of a client may be behind.
const skew = 5 * time.Minute

// Pair is a certificate with its key, both PEM.
type Pair struct{ Cert, Key []byte }

// Authority signs certificates.
type Authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// New makes an authority.
func New(name string, now time.Time) (*Authority, Pair, error) {
	t := template(pkix.Name{CommonName: name}, now, life)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, Pair{}, fmt.Errorf("make a key: %w", err)
	}
	pair, err := sign(t, t, key, key)
	if err != nil {
		return nil, Pair{}, err
	}
	a, err := Load(pair)
	return a, pair, err
}

// Load is the authority of a certificate and its key.
func Load(p Pair) (*Authority, error) {
	block, _ := pem.Decode(p.Cert)
	if block == nil || block.Type != "CERTIFICATE" {
		return nil, errors.New("the certificate of the authority is not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the certificate of the authority: %w", err)
	}
	if block, _ = pem.Decode(p.Key); block == nil {
		return nil, errors.New("the key of the authority is not PEM")
	}
	key, err := parseKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the key of the authority: %w", err)
	}
	if public, ok := cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(key.Public()) {
		return nil, errors.New("the key is not that of the authority's certificate")
	}
	if !cert.IsCA {
		return nil, errors.New("the certificate is not that of an authority")
	}
	return &Authority{cert: cert, key: key}, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	if key, err := x509.ParseECPrivateKey(der); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("it signs nothing")
	}
	return signer, nil
}

// Ends is when the authority does.
func (a *Authority) Ends() time.Time { return a.cert.NotAfter }

// Mirror makes a certificate with which the mirror answers by these names and addresses.
func (a *Authority) Mirror(hosts []string, now time.Time, valid time.Duration) (Pair, error) {
	t := template(pkix.Name{}, now, valid)
	if len(hosts[0]) <= maxCommonName {
		t.Subject.CommonName = hosts[0]
	}
	for _, host := range hosts {
		if ip, err := netip.ParseAddr(host); err == nil {
			t.IPAddresses = append(t.IPAddresses, net.IP(ip.AsSlice()))
		} else {
			t.DNSNames = append(t.DNSNames, host)
		}
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	return a.issue(t)
}

// Node makes a certificate by which a node shows that it is one, in the form of a kubelet's. A name that is too long for that is its
// DNS name.
func (a *Authority) Node(name string, now time.Time, valid time.Duration) (Pair, error) {
	t := template(pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}, now, valid)
	if len(t.Subject.CommonName) > maxCommonName {
		t.Subject, t.DNSNames = pkix.Name{}, []string{name}
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(t)
}

// Operator makes a certificate by which an operator shows its name to the admin listener. Its organization begins with system:, so
// that it is not a node's.
func (a *Authority) Operator(name string, now time.Time, valid time.Duration) (Pair, error) {
	t := template(pkix.Name{CommonName: name, Organization: []string{"system:mirror-operators"}}, now, valid)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	return a.issue(t)
}

// issue signs a certificate with a new key.
func (a *Authority) issue(t *x509.Certificate) (Pair, error) {
	if t.NotAfter.After(a.cert.NotAfter) {
		t.NotAfter = a.cert.NotAfter
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, fmt.Errorf("make a key: %w", err)
	}
	return sign(t, a.cert, key, a.key)
}

// template is a certificate without its purpose.
func template(subject pkix.Name, now time.Time, valid time.Duration) *x509.Certificate {
	return &x509.Certificate{Subject: subject, NotBefore: now.Add(-skew), NotAfter: now.Add(valid)}
}

// sign signs a certificate of a key. Its serial number is random.
func sign(t, parent *x509.Certificate, key *ecdsa.PrivateKey, by crypto.Signer) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, parent, key.Public(), by)
	if err != nil {
		return Pair{}, fmt.Errorf("sign the certificate of %s: %w", t.Subject, err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Pair{}, fmt.Errorf("write the key of %s: %w", t.Subject, err)
	}
	return Pair{
		Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}),
	}, nil
}
