package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/internal/bounded"
)

const (
	// maxChains is how many certificates are remembered as good or bad, and badFor how long a bad one is.
	maxChains = 16_384
	badFor    = 10 * time.Second
	// maxChain is how many certificates a client may send.
	maxChain = 8
	// listGrace is how long a list of revoked certificates counts after its end. After that no certificate of its authority does: one that
	// was revoked meanwhile would not be known.
	listGrace = 7 * 24 * time.Hour
)

// Certificates tell nodes, or operators, by the certificates that they show in the TLS handshake. They are checked with each request, and not in
// the handshake: one that has expired or was revoked ends its right at once, and the client gets an answer that says why.
type Certificates struct {
	section     string // of the configuration, for messages
	nameOf      func(*x509.Certificate) (client.Identity, error)
	authorities *x509.CertPool
	revoked     map[string]bool // issuer and serial number of certificates
	lists       []List
	chains      *bounded.LRU[[sha256.Size]byte, verdict]
	warned      bounded.Expiring[string, struct{}] // issuers, in DER, of the lists of which Warn has spoken lately
}

// List is a list of revoked certificates.
type List struct {
	Setting string    // that names its file: "clients.crl"
	Issuer  string    // the subject of the authority that has signed it
	Ends    time.Time // when its authority makes the next one at the latest; zero: it does not say

	issuer string // in DER
}

// Refused is when the certificates of the list's authority no longer count; zero: that is not known.
func (l List) Refused() time.Time {
	if l.Ends.IsZero() {
		return l.Ends
	}
	return l.Ends.Add(listGrace)
}

// verdict is what is known of a certificate.
type verdict struct {
	who   client.Identity
	err   error
	until time.Time
}

// ParseCertificates reads the certificates, PEM, that sign those of clients, and the lists of revoked ones, PEM. Nil: there are none;
// a text without a list is a mistake.
func ParseCertificates(ca, crl []byte) (*Certificates, error) {
	return parseCertificates("clients", nodeOf, ca, crl)
}

// ParseOperatorCertificates is the same for the certificates of operators, of the section admin.operators: each has the name of a user
// as its common name.
func ParseOperatorCertificates(ca, crl []byte) (*Certificates, error) {
	return parseCertificates("admin.operators", operatorOf, ca, crl)
}

func parseCertificates(section string, nameOf func(*x509.Certificate) (client.Identity, error), ca, crl []byte) (*Certificates, error) {
	c := &Certificates{
		section: section, nameOf: nameOf,
		authorities: x509.NewCertPool(), revoked: make(map[string]bool),
		chains: bounded.NewLRU(bounded.Options[[sha256.Size]byte, verdict]{Budget: maxChains}),
	}
	var all []*x509.Certificate
	err := blocks(ca, "CERTIFICATE", func(der []byte) error {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("a certificate in it can't be read: %w; write it again", err)
		}
		if !cert.IsCA || !cert.BasicConstraintsValid {
			return fmt.Errorf("the certificate of %q signs no others; name the file of the authority that has signed it", cert.Subject)
		}
		all = append(all, cert)
		c.authorities.AddCert(cert)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("it holds no PEM certificate; it should have those that sign the clients'")
	}
	lists := 0
	err = blocks(crl, "X509 CRL", func(der []byte) error { lists++; return c.revoke(der, all) })
	if err == nil && crl != nil && lists == 0 { // else a damaged file would give revoked nodes their rights back
		err = errors.New("it holds no PEM list of revoked certificates; openssl crl -inform DER -out FILE makes one of DER")
	}
	if err != nil {
		return nil, fmt.Errorf("%s.crl: %w", section, err)
	}
	return c, nil
}

// blocks calls take with each block of a type.
func blocks(text []byte, kind string, take func([]byte) error) error {
	for len(text) > 0 {
		var b *pem.Block
		if b, text = pem.Decode(text); b == nil {
			if bytes.Contains(text, []byte("-----BEGIN")) {
				return errors.New("it ends within a block, or a block is damaged; write it again")
			}
			return nil
		}
		if b.Type == kind {
			if err := take(b.Bytes); err != nil {
				return err
			}
		}
	}
	return nil
}

// revoke takes in a list of revoked certificates, which one of the authorities must have signed.
func (c *Certificates) revoke(der []byte, authorities []*x509.Certificate) error {
	list, err := x509.ParseRevocationList(der)
	if err != nil {
		return fmt.Errorf("a list of revoked certificates can't be read: %w; write it again", err)
	}
	if !slices.ContainsFunc(authorities, func(a *x509.Certificate) bool {
		return bytes.Equal(a.RawSubject, list.RawIssuer) && list.CheckSignatureFrom(a) == nil
	}) {
		return fmt.Errorf("the list of revoked certificates of %q is signed by none of the authorities in %s.ca; add that authority, "+
			"or remove the list", list.Issuer, c.section)
	}
	for _, r := range list.RevokedCertificateEntries {
		c.revoked[string(list.RawIssuer)+r.SerialNumber.String()] = true
	}
	c.newest(List{Setting: c.section + ".crl", Issuer: list.Issuer.String(), Ends: list.NextUpdate, issuer: string(list.RawIssuer)})
	return nil
}

// newest keeps of the lists of an authority the one that ends last.
func (c *Certificates) newest(l List) {
	for i, known := range c.lists {
		if known.issuer == l.issuer {
			if l.Ends.IsZero() || !known.Ends.IsZero() && l.Ends.After(known.Ends) {
				c.lists[i] = l
			}
			return
		}
	}
	c.lists = append(c.lists, l)
}

// Lists are the lists of revoked certificates, of each authority the one that ends last. A nil *Certificates has none.
func (c *Certificates) Lists() []List {
	if c == nil {
		return nil
	}
	return c.lists
}

// Outdated are the lists that have ended.
func (c *Certificates) Outdated(now time.Time) []List {
	return slices.DeleteFunc(slices.Clone(c.Lists()), func(l List) bool { return l.Ends.IsZero() || now.Before(l.Ends) })
}

// Warn logs which lists have ended, each about once in an hour. It is for any number of goroutines.
func (c *Certificates) Warn(ctx context.Context, log *slog.Logger) {
	for _, l := range c.Outdated(time.Now()) {
		if c.warned.Has(l.issuer) {
			continue
		}
		c.warned.Put(l.issuer, struct{}{}, time.Hour, 1000)
		log.WarnContext(ctx, "list of revoked certificates is outdated; certificates of its authority count until seven days after its end",
			"name", l.Issuer, "expires_at", l.Ends)
	}
}

// Authorities are the certificates that sign those of clients, for the handshake.
func (c *Certificates) Authorities() *x509.CertPool { return c.authorities }

// Identify returns the identity that a certificate gives, with those that came with it.
func (c *Certificates) Identify(chain []*x509.Certificate, now time.Time) (client.Identity, error) {
	who, _, err := c.identify(chain, now)
	return who, err
}

// identify returns the identity that a certificate gives, with those that came with it. checked says that it was not remembered.
func (c *Certificates) identify(chain []*x509.Certificate, now time.Time) (who client.Identity, checked bool, err error) {
	if len(chain) > maxChain {
		return "", true, fmt.Errorf("the client has sent %d certificates", len(chain))
	}
	h := sha256.New()
	for _, cert := range chain {
		sum := sha256.Sum256(cert.Raw)
		_, _ = h.Write(sum[:])
	}
	key := [sha256.Size]byte(h.Sum(nil))
	if v, ok := c.chains.Get(key); ok && now.Before(v.until) {
		return v.who, false, v.err
	}
	v := c.judge(chain, now)
	c.chains.Put(key, v, 1)
	return v.who, true, v.err
}

// judge checks a certificate.
func (c *Certificates) judge(chain []*x509.Certificate, now time.Time) verdict {
	leaf, between := chain[0], x509.NewCertPool()
	for _, cert := range chain[1:] {
		between.AddCert(cert)
	}
	bad := func(err error) verdict { return verdict{err: err, until: now.Add(badFor)} }
	ways, err := leaf.Verify(x509.VerifyOptions{
		Roots: c.authorities, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return bad(fmt.Errorf("the client's certificate is not valid: %w", err))
	}
	// Verify takes a certificate that names no purpose for one of each.
	if !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth) {
		return bad(errors.New("the client's certificate is not for clients: its extended key usage lacks clientAuth"))
	}
	who, err := c.nameOf(leaf)
	if err != nil {
		return bad(err)
	}
	good := verdict{who: who}
	for _, way := range ways {
		end, wrong := c.validUntil(way, now)
		if wrong != nil {
			err = wrong
		} else if end.After(good.until) {
			good.until = end
		}
	}
	if good.until.IsZero() {
		return bad(err)
	}
	return good
}

// validUntil is until when a chain is good without a further look: the first certificate of it ends, or a list. The error says that one of
// them was revoked, or that a list is outdated.
func (c *Certificates) validUntil(way []*x509.Certificate, now time.Time) (end time.Time, err error) {
	sooner := func(t time.Time) {
		if now.Before(t) && (end.IsZero() || t.Before(end)) {
			end = t
		}
	}
	for _, cert := range way {
		if c.revoked[string(cert.RawIssuer)+cert.SerialNumber.String()] {
			return time.Time{}, errors.New("the client's certificate, or one that signs it, was revoked")
		}
		sooner(cert.NotAfter)
	}
	for _, l := range c.lists {
		if !slices.ContainsFunc(way, func(cert *x509.Certificate) bool { return string(cert.RawIssuer) == l.issuer }) {
			continue
		}
		if refused := l.Refused(); !refused.IsZero() && !now.Before(refused) {
			return time.Time{}, fmt.Errorf("the list of revoked certificates of %q ended on %s, more than %d days ago; write a new one to %s",
				l.Issuer, l.Ends.UTC().Format(time.DateOnly), listGrace/(24*time.Hour), l.Setting)
		}
		sooner(l.Ends)
		sooner(l.Refused())
	}
	return end, nil
}

// nodeName is the name of a host, in lower case.
var nodeName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// nodeOf is the name of the node that a certificate is for: in a kubelet's, what follows system:node: in the common name, if the
// organization is system:nodes; in any other, its only DNS name, or else its common name. Other certificates that an authority of
// Kubernetes has signed, of users and components, are not nodes'.
func nodeOf(cert *x509.Certificate) (client.Identity, error) {
	subject := cert.Subject
	name, kubelet := strings.CutPrefix(subject.CommonName, "system:node:")
	switch {
	case kubelet && !slices.Contains(subject.Organization, "system:nodes"):
		return "", errors.New("the client's certificate has the name of a kubelet, and not its organization, system:nodes")
	case kubelet:
	case strings.HasPrefix(subject.CommonName, "system:") || slices.ContainsFunc(subject.Organization, isSystem):
		return "", fmt.Errorf("the client's certificate is of %q, which is not a node", subject)
	case len(cert.DNSNames) == 1:
		name = cert.DNSNames[0]
	case len(cert.DNSNames) > 1 && !slices.Contains(cert.DNSNames, name):
		return "", errors.New("the client's certificate has several DNS names, and its common name is none of them")
	}
	if !IsNodeName(name) {
		return "", fmt.Errorf("the client's certificate names %q, which is not the name of a node", name)
	}
	return client.Node(name), nil
}

// operatorOf is the user that a certificate is for: its common name. Those of kubelets and components of Kubernetes begin with system:
// and name none.
func operatorOf(cert *x509.Certificate) (client.Identity, error) {
	name := cert.Subject.CommonName
	if CheckName(name) != nil {
		return "", fmt.Errorf("the common name of the certificate, %q, is not the name of a user", name)
	}
	return client.Identity(name), nil
}

// IsNodeName reports whether a certificate may name a node so: as a host, in lower case.
func IsNodeName(name string) bool { return nodeName.MatchString(name) }

func isSystem(organization string) bool { return strings.HasPrefix(organization, "system:") }
