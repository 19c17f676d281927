package origin

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"time"
)

// Certificate says in which way the server's certificate is wrong. The zero value is right.
type Certificate struct {
	Expired   bool     // it ended an hour ago
	NotYet    bool     // it begins in an hour
	WrongName bool     // it is for registry.invalid
	Issuer    string   // common name of the authority, empty: "origin CA"
	Names     []string // further DNS names; 127.0.0.1 and localhost are always there
}

// authority is a CA made for one Origin, and the certificate that it signed.
type authority struct {
	pem  []byte
	leaf tls.Certificate
}

func newAuthority(o Certificate) (*authority, error) {
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	if o.Issuer == "" {
		o.Issuer = "origin CA"
	}
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: o.Issuer},
		NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a CA: %w", err)
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano() + 1), Subject: pkix.Name{CommonName: "origin"},
		NotBefore: now.Add(-24 * time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames: append([]string{"localhost"}, o.Names...), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	switch {
	case o.Expired:
		leaf.NotAfter = now.Add(-time.Hour)
	case o.NotYet:
		leaf.NotBefore = now.Add(time.Hour)
	}
	if o.WrongName {
		leaf.DNSNames, leaf.IPAddresses = []string{"registry.invalid"}, nil
	}
	leafKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, leafKey.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	return &authority{
		pem:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		leaf: tls.Certificate{Certificate: [][]byte{leafDER}, PrivateKey: leafKey},
	}, nil
}
