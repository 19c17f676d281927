package identity_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
)

// signer is an authority of a test.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (s signer) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.cert.Raw})
}

// make509 signs a certificate; nil: with its own key.
func make509(t testing.TB, by *signer, change func(*x509.Certificate)) signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	change(c)
	parent, with := c, key
	if by != nil {
		parent, with = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), with)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return signer{cert, key}
}

func newCA(t testing.TB, name string, by *signer) signer {
	t.Helper()
	return make509(t, by, authorityOf(name, 24*time.Hour))
}

func authorityOf(name string, life time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject.CommonName, c.IsCA, c.BasicConstraintsValid = name, true, true
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageCertSign|x509.KeyUsageCRLSign, nil
		c.NotAfter = time.Now().Add(life)
	}
}

// crl is a list of revoked certificates.
func (s signer) crl(t testing.TB, revoked ...*x509.Certificate) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: time.Now(), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range revoked {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{
			SerialNumber: c.SerialNumber, RevocationTime: time.Now(),
		})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, s.cert, s.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der})
}

// with is a request over a connection with certificates.
func with(t testing.TB, authorization string, chain ...signer) *http.Request {
	t.Helper()
	r := request(t, authorization)
	r.TLS = new(tls.ConnectionState)
	for _, c := range chain {
		r.TLS.PeerCertificates = append(r.TLS.PeerCertificates, c.cert)
	}
	return r
}

func kubelet(name string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		c.Subject = pkix.Name{CommonName: "system:node:" + name, Organization: []string{"system:nodes"}}
	}
}

func common(name string, organization ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name, Organization: organization} }
}

func authorities(t testing.TB, ca, crl []byte) *identity.Certificates {
	t.Helper()
	c, err := identity.ParseCertificates(ca, crl)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Certificates of kubelets, of an authority of one's own, and those that must not make a node.
func TestCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t, "cluster", nil), newCA(t, "cluster", nil) // of the same name
	between := newCA(t, "between", &ca)
	revoked := make509(t, &ca, kubelet("gone"))
	v := newVerifier()
	v.Use(identity.Settings{Certificates: authorities(t, ca.pem(), ca.crl(t, revoked.cert)), Passwords: passwords(t, "alice")})
	one := func(by *signer, change func(*x509.Certificate)) []signer { return []signer{make509(t, by, change)} }
	for _, tt := range []struct {
		name  string
		chain []signer
		want  client.Identity
		note  string
	}{
		{"a kubelet", one(&ca, kubelet("worker-1")), "node:worker-1", ""},
		{"a kubelet on EC2", one(&ca, kubelet("ip-10-0-0-1.eu-west-1.compute.internal")), "node:ip-10-0-0-1.eu-west-1.compute.internal", ""},
		{"a common name", one(&ca, common("worker-1")), "node:worker-1", ""},
		{"a DNS name alone", one(&ca, func(c *x509.Certificate) { c.DNSNames = []string{"worker-1.example"} }), "node:worker-1.example", ""},
		{"a DNS name before the common name", one(&ca, func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "Worker 1", []string{"worker-1"}
		}), "node:worker-1", ""},
		{"several DNS names, one is the common name", one(&ca, func(c *x509.Certificate) {
			c.Subject.CommonName, c.DNSNames = "worker-1", []string{"worker-1.example", "worker-1"}
		}), "node:worker-1", ""},
		{"by an authority between", []signer{make509(t, &between, kubelet("worker-2")), between}, "node:worker-2", ""},

		{"none", nil, "", ""},
		{"the authority between is missing", one(&between, kubelet("worker-2")), "", "unknown authority"},
		{"another authority of the same name", one(&other, kubelet("worker-1")), "", "not valid"},
		{"signed by itself", one(nil, kubelet("worker-1")), "", "not valid"},
		{"expired", one(&ca, func(c *x509.Certificate) { kubelet("worker-1")(c); c.NotAfter = time.Now().Add(-time.Minute) }), "", "expired"},
		{"not valid yet", one(&ca, func(c *x509.Certificate) { kubelet("worker-1")(c); c.NotBefore = time.Now().Add(time.Minute) }), "", "not yet valid"},
		{"revoked", []signer{revoked}, "", "revoked"},
		{"a server's", one(&ca, func(c *x509.Certificate) {
			kubelet("worker-1")(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}), "", "incompatible key usage"},
		{"of no purpose", one(&ca, func(c *x509.Certificate) { kubelet("worker-1")(c); c.ExtKeyUsage = nil }), "", "lacks clientAuth"},
		{"of any purpose", one(&ca, func(c *x509.Certificate) {
			kubelet("worker-1")(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageAny}
		}), "", "lacks clientAuth"},
		{"of both purposes", one(&ca, func(c *x509.Certificate) {
			kubelet("worker-1")(c)
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
		}), "node:worker-1", ""},
		{"a user with the name of a kubelet", one(&ca, common("system:node:worker-1")), "", "not its organization, system:nodes"},
		{"an administrator", one(&ca, common("kubernetes-admin", "system:masters")), "", "is not a node"},
		{"a component", one(&ca, common("system:kube-controller-manager")), "", "is not a node"},
		{"the organization alone", one(&ca, common("worker-1", "system:nodes")), "", "is not a node"},
		{"several DNS names", one(&ca, func(c *x509.Certificate) { c.DNSNames = []string{"a", "b"} }), "", "several DNS names"},
		{"no name", one(&ca, common("")), "", "is not the name of a node"},
		{"capitals", one(&ca, common("Worker")), "", "is not the name of a node"},
		{"a pattern", one(&ca, kubelet("*")), "", "is not the name of a node"},
		{"another kind in it", one(&ca, kubelet("a:b")), "", "is not the name of a node"},
		{"very many", slices.Repeat(one(&ca, kubelet("worker-1")), 9), "", "has sent 9 certificates"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for range 2 { // the second time it is remembered
				who, note, err := v.Identify(with(t, "", tt.chain...), "1", false)
				if err != nil || who != tt.want || !strings.Contains(note, tt.note) || (note == "") != (tt.note == "") {
					t.Errorf("%q %q %v, want %q %q", who, note, err, tt.want, tt.note)
				}
			}
		})
	}
	t.Run("a login beside it", func(t *testing.T) {
		t.Parallel()
		node := make509(t, &ca, kubelet("worker-3"))
		if who, _, err := v.Identify(with(t, basic("alice", "alice1"), node), "1", false); who != "alice" || err != nil {
			t.Errorf("%q %v: a login says more than the node", who, err)
		}
		if _, _, err := v.Identify(with(t, basic("alice", "x"), node), "1", false); err == nil {
			t.Error("a wrong login is hidden by the certificate")
		}
		if who, note, err := v.Identify(with(t, basic("registry", "x"), node), "1", true); who != "node:worker-3" || note == "" || err != nil {
			t.Errorf("with ns: %q %q %v", who, note, err)
		}
	})
}

// A certificate ends its right when it expires, also on a connection that stays open.
func TestCertificateExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ca := newCA(t, "cluster", nil)
		node := make509(t, &ca, kubelet("worker-1"))
		v := newVerifier()
		v.Use(identity.Settings{Certificates: authorities(t, ca.pem(), nil)})
		for range 10 {
			if who, _, _ := v.Identify(with(t, "", node), "1", false); who != "node:worker-1" {
				t.Fatal(who)
			}
		}
		if n := v.take()["certificate accepted"]; n != 1 {
			t.Errorf("checked %d times", n)
		}
		time.Sleep(2 * time.Hour) // in the bubble
		if who, note, _ := v.Identify(with(t, "", node), "1", false); who != "" || !strings.Contains(note, "expired") {
			t.Errorf("%q %q", who, note)
		}
	})
}

// Seven days after the end of a list no certificate of its authority counts, one that was remembered neither; until then the list is used,
// and the log says that it is outdated. The newest list of an authority decides, and other authorities are not touched.
func TestOutdatedList(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		ca := make509(t, nil, authorityOf("cluster", 365*day))
		other := make509(t, nil, authorityOf("other", 365*day))
		long := func(c *x509.Certificate) { kubelet("worker-1")(c); c.NotAfter = time.Now().Add(100 * day) }
		node, revoked, elsewhere := make509(t, &ca, long), make509(t, &ca, long), make509(t, &other, long)
		var log strings.Builder
		v := identity.New(identity.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		use := func(lists ...[]byte) *identity.Certificates {
			c := authorities(t, slices.Concat(ca.pem(), other.pem()), slices.Concat(lists...))
			v.Use(identity.Settings{Certificates: c})
			return c
		}
		check := func(when string, n signer, want client.Identity, note string) {
			t.Helper()
			for range 2 {
				who, got, err := v.Identify(with(t, "", n), "1", false)
				if err != nil || who != want || !strings.Contains(got, note) || (got == "") != (note == "") {
					t.Errorf("%s: %q %q %v, want %q %q", when, who, got, err, want, note)
				}
			}
		}
		old := ca.crl(t, revoked.cert) // ends in an hour
		c := use(old)
		check("before its end", node, "node:worker-1", "")
		if list := c.Lists(); len(list) != 1 || list[0].Issuer != "CN=cluster" || len(c.Outdated(time.Now())) != 0 || strings.Contains(log.String(), "outdated") {
			t.Errorf("%v; %s", list, log.String())
		}
		time.Sleep(2 * time.Hour) // in the bubble
		check("after its end", node, "node:worker-1", "")
		check("after its end, revoked", revoked, "", "revoked")
		if n := strings.Count(log.String(), "list of revoked certificates is outdated"); n != 1 || len(c.Outdated(time.Now())) != 1 {
			t.Errorf("said %d times: %s", n, log.String())
		}
		time.Sleep(6 * day)
		check("six days later", node, "node:worker-1", "")
		time.Sleep(day)
		check("seven days after its end", node, "", "write a new one to clients.crl")
		check("of an authority without a list", elsewhere, "node:worker-1", "")
		use(ca.crl(t, revoked.cert), old)
		check("with a new list beside the old one", node, "node:worker-1", "")
		check("revoked in both", revoked, "", "revoked")
	})
}

func TestParseCertificates(t *testing.T) {
	t.Parallel()
	ca, other := newCA(t, "cluster", nil), newCA(t, "other", nil)
	leaf := make509(t, &ca, kubelet("a"))
	for _, tt := range []struct {
		name    string
		ca, crl []byte
		want    string
	}{
		{"one", ca.pem(), nil, ""},
		{"two, with text between", slices.Concat([]byte("# ours\n"), ca.pem(), []byte("\n# theirs\n"), other.pem()), nil, ""},
		{"lines of Windows", []byte(strings.ReplaceAll(string(ca.pem()), "\n", "\r\n")), nil, ""},
		{"lists of both", slices.Concat(ca.pem(), other.pem()), slices.Concat(ca.crl(t), other.crl(t)), ""},
		{"nothing", nil, nil, "it holds no PEM certificate"},
		{"a node's", leaf.pem(), nil, "signs no others; name the file of the authority"},
		{"damaged", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), nil, "can't be read"},
		{"a list of another", ca.pem(), other.crl(t), "signed by none of the authorities"},
		{"an empty file of lists", ca.pem(), []byte{}, "clients.crl: it holds no PEM list"},
		{"a list in DER", ca.pem(), crlDER(ca.crl(t)), "openssl crl -inform DER"},
		{"a list that is cut off", ca.pem(), ca.crl(t)[:100], "clients.crl: it ends within a block"},
		{"a second list that is cut off", slices.Concat(ca.pem(), other.pem()), slices.Concat(ca.crl(t), other.crl(t)[:100]), "it ends within a block"},
		{"a list of another type", ca.pem(), []byte(strings.ReplaceAll(string(ca.crl(t)), "X509 CRL", "CRL")), "it holds no PEM list"},
		{"authorities that are cut off", slices.Concat(ca.pem(), other.pem()[:100]), nil, "it ends within a block"},
		{"a damaged list", ca.pem(), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")}), "list of revoked certificates can't be read"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := identity.ParseCertificates(tt.ca, tt.crl); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func crlDER(text []byte) []byte {
	b, _ := pem.Decode(text)
	return b.Bytes
}

// The certificate of an operator has the name of a user; those of nodes and components of Kubernetes name none.
func TestOperatorCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthorityOf(t)
	other := newAuthorityOf(t)
	c, err := identity.ParseOperatorCertificates(ca.pem(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		by     signer
		change func(*x509.Certificate)
		want   client.Identity // empty: refused
	}{
		{"a user", ca, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "alice"} }, "alice"},
		{"as setup tls makes it", ca, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "alice", Organization: []string{"system:mirror-operators"}}
		}, "alice"},
		{"a kubelet", ca, func(c *x509.Certificate) {
			c.Subject = pkix.Name{CommonName: "system:node:alice", Organization: []string{"system:nodes"}}
		}, ""},
		{"a name in the DNS alone", ca, func(c *x509.Certificate) { c.DNSNames = []string{"alice"} }, ""},
		{"anonymous", ca, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "anonymous"} }, ""},
		{"a pattern", ca, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "*"} }, ""},
		{"a line break", ca, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "alice\nlevel=INFO"} }, ""},
		{"another authority", other, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "alice"} }, ""},
		{"a server's", ca, func(c *x509.Certificate) {
			c.Subject, c.ExtKeyUsage = pkix.Name{CommonName: "alice"}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		}, ""},
		{"expired", ca, func(c *x509.Certificate) {
			c.Subject, c.NotAfter = pkix.Name{CommonName: "alice"}, time.Now().Add(-time.Minute)
		}, ""},
	} {
		cert := make509(t, &tt.by, tt.change)
		if got, err := c.Identify([]*x509.Certificate{cert.cert}, time.Now()); got != tt.want || (err == nil) != (tt.want != "") {
			t.Errorf("%s: %q, %v", tt.name, got, err)
		}
	}
	if _, err := identity.ParseOperatorCertificates(ca.pem(), []byte("no list")); err == nil || !strings.Contains(err.Error(), "admin.operators.crl") {
		t.Errorf("a list that is none: %v", err)
	}
}

func newAuthorityOf(t *testing.T) signer {
	t.Helper()
	return make509(t, nil, func(c *x509.Certificate) {
		c.Subject, c.IsCA, c.BasicConstraintsValid, c.KeyUsage = pkix.Name{CommonName: "ca"}, true, true, x509.KeyUsageCertSign
	})
}

// No text brings the readers of authorities and lists down. What they accept has an authority, and lists that one of them has signed.
func FuzzParseCertificates(f *testing.F) {
	ca, other := newCA(f, "cluster", nil), newCA(f, "other", nil)
	leaf := make509(f, &ca, kubelet("a"))
	f.Add(ca.pem(), []byte(nil))
	f.Add(ca.pem(), ca.crl(f, leaf.cert))
	f.Add(slices.Concat(ca.pem(), other.pem()), slices.Concat(ca.crl(f), other.crl(f)))
	f.Add(leaf.pem(), other.crl(f))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n"), []byte("-----BEGIN X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, authority, list []byte) {
		c, err := identity.ParseCertificates(authority, list)
		if (c == nil) == (err == nil) {
			t.Fatalf("%v, %v", c, err)
		}
		if err != nil {
			return
		}
		if len(list) > 0 && len(c.Lists()) == 0 {
			t.Error("a text without a list is accepted")
		}
		for _, l := range c.Lists() {
			if !l.Ends.IsZero() && !l.Refused().After(l.Ends) || len(c.Outdated(l.Ends.Add(-1))) > len(c.Lists()) {
				t.Errorf("%+v", l)
			}
		}
	})
}

// Whatever names an authority has signed, an identity is that of a node by its own name, and never that of a user or component of Kubernetes.
func FuzzNode(f *testing.F) {
	for _, s := range [][3]string{
		{"system:node:a", "system:nodes", ""},
		{"system:node:a", "", ""},
		{"worker-1", "", ""},
		{"kubernetes-admin", "system:masters", ""},
		{"", "", "worker.example"},
		{"*", "", "*"},
		{"a:b", "system:nodes", "c"},
		{"system:node:", "system:nodes", "x"},
		{"Worker", "", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	ca := newCA(f, "cluster", nil)
	v := identity.New(identity.Options{})
	v.Use(identity.Settings{Certificates: authorities(f, ca.pem(), nil)})
	f.Fuzz(func(t *testing.T, cn, organization, dns string) {
		der := tryToSign(&ca, &x509.Certificate{
			SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
			Subject: pkix.Name{CommonName: cn, Organization: []string{organization}}, DNSNames: []string{dns},
			ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Skip("such a certificate can't be made or read")
		}
		who, note, err := v.Identify(with(t, "", signer{cert: cert}), "1", false)
		if err != nil || (who == "") != (note != "") {
			t.Fatalf("%q %q %v", who, note, err)
		}
		kind, name := who.Kind()
		kubelets := cn == "system:node:"+name && organization == "system:nodes"
		plain := (dns == name || cn == name) && !strings.HasPrefix(cn, "system:") && !strings.HasPrefix(organization, "system:")
		if who != "" && (kind != "node" || !identity.IsNodeName(name) || !kubelets && !plain) {
			t.Errorf("CN=%q O=%q DNS=%q is %q", cn, organization, dns, who)
		}
	})
}

// tryToSign is a certificate in DER, of the authority's own key; nil where x509 can't write it.
func tryToSign(ca *signer, c *x509.Certificate) []byte {
	der, err := x509.CreateCertificate(rand.Reader, c, ca.cert, ca.key.Public(), ca.key)
	if err != nil {
		return nil
	}
	return der
}
