package app_test

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/authority"
	"github.com/registrymirror/mirror/internal/origin"
)

// keyed is a mirror over TLS that asks nodes for certificates.
func keyed(t *testing.T, dir string, o *origin.Origin, more string) *config.Config {
	t.Helper()
	return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], access: rules}\ntls: {cert: tls.crt, key: tls.key}\nclients: {ca: ca.crt%s}\n"+
		"rules: [{who: ['node:worker-*'], pull: ['**']}]\n", nameOf(o), o.URL(), more))
}

// newAuthority writes ca.crt and a certificate of the mirror by it.
func newAuthority(t *testing.T, dir string) *authority.Authority {
	t.Helper()
	a, pair, err := authority.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	own, err := a.Mirror([]string{"127.0.0.1"}, time.Now(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{"ca.crt": pair.Cert, "ca.key": pair.Key, "tls.crt": own.Cert, "tls.key": own.Key} {
		write(t, filepath.Join(dir, name), string(text))
	}
	return a
}

// certified is a client with a certificate, and the number of connections that it has made.
type certified struct {
	*http.Client
	made int
}

func newNode(t *testing.T, a *authority.Authority, name string, version uint16) *certified {
	t.Helper()
	n := new(certified)
	c := &tls.Config{InsecureSkipVerify: true, MinVersion: version, MaxVersion: version} //nolint:gosec // the mirror is not what is tested
	if a != nil {
		pair, err := a.Node(name, time.Now(), time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := tls.X509KeyPair(pair.Cert, pair.Key)
		if err != nil {
			t.Fatal(err)
		}
		// Whatever authorities the mirror names, as containerd does.
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	}
	tr := &http.Transport{TLSClientConfig: c, DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		n.made++
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	n.Client = &http.Client{Transport: tr}
	return n
}

// ask is the status of a manifest, and of the pages that every client may read.
func (n *certified) ask(t *testing.T, r *running, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "https://"+r.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := n.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, res.Body)
	return res.Status
}

// A node has the rights of its certificate; one that is revoked, and one of an authority that is no longer trusted, has none from the next
// request on, and no connection is closed for that. A client without a certificate, or with a foreign one, can connect.
func TestCertificatesReload(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		t.Run(tls.VersionName(version), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := origin.Start(t, origin.Options{})
			o.AddImage("acme/app", "1", origin.Image{})
			first := newAuthority(t, dir)
			r := run(t, keyed(t, dir, o, ""))
			path := "/v2/" + nameOf(o) + "/acme/app/manifests/1"
			check := func(what string, n *certified, status string, made int) {
				t.Helper()
				if got := n.ask(t, r, path); !strings.HasPrefix(got, status+" ") {
					t.Errorf("%s: %s, want %s", what, got, status)
				}
				if n.made != made {
					t.Errorf("%s: %d connections, want %d", what, n.made, made)
				}
			}
			worker, stranger, none := newNode(t, first, "worker-1", version), newNode(t, first, "stranger", version), newNode(t, nil, "", version)
			check("a node with a rule", worker, "200", 1)
			check("again", worker, "200", 1)
			check("a node without a rule", stranger, "403", 1)
			check("no certificate", none, "401", 1)
			if got := none.ask(t, r, "/healthz"); !strings.HasPrefix(got, "200 ") {
				t.Errorf("health without a certificate: %s", got)
			}

			second := newAuthority(t, dir) // replaces ca.crt, tls.crt and tls.key
			if err := r.Reload(keyed(t, dir, o, "")); err != nil {
				t.Fatal(err)
			}
			// The refusal itself ends a connection: its explanation is in the status line.
			check("of the old authority, on its old connection", worker, "401", 1)
			check("of the new one", newNode(t, second, "worker-1", version), "200", 1)
			check("of the old one, on a new connection", newNode(t, first, "worker-1", version), "401", 1)

			revoked := newNode(t, second, "worker-2", version)
			check("before it is revoked", revoked, "200", 1)
			write(t, filepath.Join(dir, "crl"), revocation(t, dir, revoked))
			if err := r.Reload(keyed(t, dir, o, ", crl: crl")); err != nil {
				t.Fatal(err)
			}
			check("revoked", revoked, "401", 1)
			check("another", newNode(t, second, "worker-3", version), "200", 1)
			write(t, filepath.Join(dir, "ca.crt"), "nothing")
			if err := r.Reload(keyed(t, dir, o, "")); err == nil || !strings.Contains(err.Error(), "clients.ca") {
				t.Errorf("an authority that can't be read: %v", err)
			}
		})
	}
}

// revocation is a list with the certificate of a node, signed by the authority in a folder.
func revocation(t *testing.T, dir string, n *certified) string {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := n.Transport.(*http.Transport).TLSClientConfig.GetClientCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return crl(t, ca, cert.Leaf.SerialNumber, time.Now().Add(time.Hour))
}

// listThatEnds is a list of revoked certificates, signed by the authority in a folder.
func listThatEnds(t *testing.T, dir string, end time.Time) string {
	t.Helper()
	ca, err := tls.LoadX509KeyPair(filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	return crl(t, ca, big.NewInt(7), end)
}

func crl(t *testing.T, ca tls.Certificate, revoked *big.Int, end time.Time) string {
	t.Helper()
	list := &x509.RevocationList{
		Number: revoked, ThisUpdate: end.Add(-time.Hour), NextUpdate: end,
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: revoked, RevocationTime: time.Now()}},
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, ca.Leaf, ca.PrivateKey.(crypto.Signer))
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}
