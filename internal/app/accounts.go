package app

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/kube"
)

// accounts are those that tell service accounts, with the settings that they were made of: a reload that does not change them keeps
// what they remember.
type accounts struct {
	of    config.ClientsKubernetes
	files accountFiles
	made  *identity.Accounts
}

// accountsOf makes what tells service accounts by their tokens; nil where none are accepted.
func (a *App) accountsOf(c *config.Config) (*identity.Accounts, error) {
	k := c.Clients.Kubernetes
	if k.Audience == "" {
		a.accounts = accounts{}
		return nil, nil
	}
	files, err := readAccountFiles(k)
	if err != nil {
		return nil, err
	}
	if a.accounts.made != nil && a.accounts.of == k && a.accounts.files == files {
		return a.accounts.made, nil
	}
	o := identity.AccountOptions{Audience: k.Audience, Issuer: k.Issuer}
	if k.Issuer == "" {
		cluster, err := newKube(a.o.Config.Kubernetes)
		if err != nil {
			return nil, fmt.Errorf("clients.kubernetes: %w; outside of a cluster set its issuer, and jwks or jwksFile", err)
		}
		o.Reviewer, o.Keys = cluster, identity.NewRemoteKeys(cluster.Keys, a.log)
	} else if o.Keys, err = a.keysOf(k, files); err != nil {
		return nil, err
	}
	a.accounts = accounts{k, files, identity.NewAccounts(o)}
	return a.accounts.made, nil
}

// newKube is a client of the API server.
func newKube(k config.Kubernetes) (*kube.Client, error) {
	return kube.NewClient(kube.ClientOptions{Server: k.Server, TokenFile: k.TokenFile, CAFile: k.CAFile})
}

// accountFiles are the contents of the files that a configuration of service accounts names.
type accountFiles struct{ keys, ca string }

func readAccountFiles(k config.ClientsKubernetes) (f accountFiles, err error) {
	for _, file := range []struct {
		setting, path, holds string
		to                   *string
	}{{"jwksFile", k.JWKSFile, "with the keys of a cluster, as JSON", &f.keys}, {"ca", k.CA, "with certificates, PEM", &f.ca}} {
		if file.path == "" {
			continue
		}
		b, err := readFile("clients.kubernetes."+file.setting, file.path, file.holds)
		if err != nil {
			return f, err
		}
		*file.to = string(b)
	}
	return f, nil
}

// keysOf are the keys of a cluster: in a file, at a URL, or both.
func (a *App) keysOf(k config.ClientsKubernetes, files accountFiles) (identity.Keys, error) {
	var set identity.KeySet
	if k.JWKSFile != "" {
		var err error
		if set, err = identity.ParseKeys([]byte(files.keys)); err != nil {
			return nil, fmt.Errorf("clients.kubernetes.jwksFile: %s: %w", k.JWKSFile, err)
		}
	}
	if k.JWKS == "" {
		return set, nil
	}
	transport, err := keyTransport(k, files.ca)
	if err != nil {
		return nil, err
	}
	return identity.Beside{File: set, Remote: identity.NewRemoteKeys(identity.KeysAt(k.JWKS, transport), a.log)}, nil
}

// keyTransport is the way to the server of keys.
func keyTransport(k config.ClientsKubernetes, ca string) (*http.Transport, error) {
	t := &http.Transport{
		Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 5 * time.Second}).DialContext, TLSHandshakeTimeout: 5 * time.Second,
		TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12}, MaxResponseHeaderBytes: 64 << 10, DisableKeepAlives: true,
	}
	if ca == "" {
		return t, nil
	}
	t.TLSClientConfig.RootCAs = x509.NewCertPool()
	if !t.TLSClientConfig.RootCAs.AppendCertsFromPEM([]byte(ca)) {
		return nil, fmt.Errorf("clients.kubernetes.ca: %s holds no PEM certificate; it should have those that sign the certificate of jwks", k.CA)
	}
	return t, nil
}
