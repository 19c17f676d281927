package app

import (
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"sync/atomic"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/webhook"
)

// files are the contents of the files that a configuration names for its listeners.
type files struct {
	cert      *tls.Certificate // nil: the configuration has no TLS
	adminCert *tls.Certificate // the admin listener's; nil: it has no TLS
	// keys are those of the admin listener.
	keys admin.Keys
	// webhooks are the secrets of each webhook by its name.
	webhooks map[string][]string
	// clients are the ways in which clients identify themselves.
	clients identity.Settings
}

// readFiles reads the certificates and the token of a configuration.
func readFiles(c *config.Config) (f files, err error) {
	if f.cert, err = readCertificate("tls", c.TLS.Cert, c.TLS.Key); err != nil {
		return files{}, err
	}
	if f.adminCert, err = readCertificate("admin.tls", c.Admin.TLS.Cert, c.Admin.TLS.Key); err != nil {
		return files{}, err
	}
	if f.keys, err = readKeys(c.Admin); err != nil {
		return files{}, err
	}
	f.webhooks = make(map[string][]string, len(c.Webhooks))
	for _, w := range c.Webhooks {
		if f.webhooks[w.Name], err = readSecrets("webhooks."+w.Name, w.SecretFile); err != nil {
			return files{}, err
		}
	}
	if f.clients, err = readClients(c.Clients); err != nil {
		return files{}, err
	}
	return f, nil
}

// readFile reads the file that a setting names. holds says what is in it.
func readFile(setting, path, holds string) ([]byte, error) {
	b, err := regular.Read(path, config.MaxFile)
	switch {
	case regular.Unfit(err):
		return nil, fmt.Errorf("%s: %w", setting, err)
	case err != nil:
		return nil, fmt.Errorf("%s: %w; it names a file that this user can read, %s", setting, err, holds)
	}
	return b, nil
}

// readClients reads the files by which clients identify themselves.
func readClients(c config.Clients) (s identity.Settings, err error) {
	if c.Htpasswd != "" {
		b, err := readFile("clients.htpasswd", c.Htpasswd, "as htpasswd -B -C 10 writes it")
		if err != nil {
			return s, err
		}
		if s.Passwords, err = identity.ParsePasswords(b); err != nil {
			return s, fmt.Errorf("clients.htpasswd: %s: %w", c.Htpasswd, err)
		}
	}
	if s.Tokens, err = readTokens("clients", c.Tokens); err != nil {
		return s, err
	}
	s.Certificates, err = readAuthorities("clients", c.CA, c.CRL, identity.ParseCertificates)
	return s, err
}

// readKeys reads the files by which callers of the admin listener show which operator they are.
func readKeys(c config.Admin) (k admin.Keys, err error) {
	if k.Token, err = readToken(c.TokenFile); err != nil {
		return k, err
	}
	const section = "admin.operators"
	o := c.Operators
	if k.Tokens, err = readTokens(section, o.Tokens); err != nil {
		return k, err
	}
	if k.Certificates, err = readAuthorities(section, o.CA, o.CRL, identity.ParseOperatorCertificates); err != nil {
		return k, err
	}
	var rights []access.OperatorRule
	for _, r := range o.Rights {
		rights = append(rights, access.OperatorRule{Who: r.Who, May: mayOf[r.May], Images: r.Images})
	}
	k.Rights = access.NewOperators(rights...)
	return k, nil
}

// mayOf are the rights of operators by their words in a configuration that has been checked.
var mayOf = map[string]access.Right{"read": access.Read, "operate": access.Operate}

// readTokens reads the file of tokens of a section; nil where none is named.
func readTokens(section, path string) (*identity.Tokens, error) {
	if path == "" {
		return nil, nil
	}
	b, err := readFile(section+".tokens", path, "as mirror token new writes it")
	if err != nil {
		return nil, err
	}
	t, err := identity.ParseTokens(path, b)
	if err != nil {
		return nil, fmt.Errorf("%s.tokens: %w", section, err)
	}
	return t, nil
}

// readAuthorities reads the certificates of a section that sign those of clients, and the list of revoked ones; nil where none are
// named.
func readAuthorities(section, caFile, crlFile string, parse func(ca, crl []byte) (*identity.Certificates, error)) (*identity.Certificates, error) {
	if caFile == "" {
		return nil, nil
	}
	ca, err := readFile(section+".ca", caFile, "with certificates, PEM")
	if err != nil {
		return nil, err
	}
	var crl []byte
	if crlFile != "" {
		if crl, err = readFile(section+".crl", crlFile, "with a list of revoked certificates, PEM"); err != nil {
			return nil, err
		}
	}
	got, err := parse(ca, crl)
	if err != nil {
		return nil, fmt.Errorf("%s.ca: %s: %w", section, caFile, err)
	}
	return got, nil
}

// readSecrets reads the secrets of a webhook, one a line. A short one could be guessed, so it is refused.
func readSecrets(setting, path string) (list []string, err error) {
	b, err := readFile(setting+".secretFile", path, "with a long random secret in it")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(b)) {
		secret := strings.TrimSpace(line)
		switch {
		case secret == "":
			continue
		case len(secret) < webhook.MinSecret:
			return nil, fmt.Errorf("%s.secretFile: a secret in %s has less than %d characters; write a long random one, as "+
				"openssl rand -hex 32 prints", setting, path, webhook.MinSecret)
		}
		list = append(list, secret)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("%s.secretFile: %s is empty; write a long random secret to it, as openssl rand -hex 32 prints", setting, path)
	}
	return list, nil
}

// readCertificate reads the certificate of a setting; nil where none is named.
func readCertificate(setting, cert, key string) (*tls.Certificate, error) {
	if cert == "" {
		return nil, nil
	}
	pair, err := regular.KeyPair(cert, key, config.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("%s: load certificate %s with key %s: %w; they must be PEM files that belong together and that "+
			"this user can read", setting, cert, key, err)
	}
	return &pair, nil
}

// readToken reads admin.tokenFile, where one is named. An empty token would let every caller in, so it is refused.
func readToken(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	b, err := readFile("admin.tokenFile", path, "with a long random token in it")
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(b))
	if token == "" {
		return "", fmt.Errorf("admin.tokenFile: %s is empty; write a long random token to it", path)
	}
	if err := admin.CheckToken(token); err != nil {
		return "", fmt.Errorf("admin.tokenFile: %s %w; %s", path, err, admin.TokenRemedy)
	}
	return token, nil
}

// inUse are the files in use. A reload replaces them.
type inUse struct{ current atomic.Pointer[files] }

// use puts files into use. It keeps the old keys, and returns true, where the new configuration has none and other machines
// reach the admin listener: its address changes with a restart alone, and until then it is not left without keys.
func (u *inUse) use(f files, side net.Listener) (keptKeys bool) {
	if old := u.current.Load(); old != nil {
		if f.cert == nil { // the listener speaks TLS until the restart
			f.cert = old.cert
		}
		if f.adminCert == nil {
			f.adminCert = old.adminCert
		}
		if !f.keys.Any() && old.keys.Any() && !isLoopback(side.Addr()) {
			f.keys, keptKeys = old.keys, true
		}
	}
	u.current.Store(&f)
	return keptKeys
}

// askForCertificate gives the TLS configuration of one connection of a listener: it asks the client for a certificate where
// the files in use name authorities for that. Whether the certificate is valid is not decided in the handshake: see
// identity.Certificates. The keys of session tickets are those of the listener's own configuration.
func (u *inUse) askForCertificate(http2 bool, of func(*files) (*tls.Certificate, *identity.Certificates)) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	protocols := []string{"http/1.1"}
	if http2 {
		protocols = []string{"h2", "http/1.1"}
	}
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		own, clients := of(u.current.Load())
		if clients == nil || own == nil {
			return nil, nil
		}
		return &tls.Config{
			MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{*own}, NextProtos: protocols,
			ClientAuth: tls.RequestClientCert, ClientCAs: clients.Authorities(),
		}, nil
	}
}

// adminKeys are those of the admin listener.
func (u *inUse) adminKeys() admin.Keys { return u.current.Load().keys }

// tls is the configuration of a listener with one of the certificates; nil where it is not enabled.
func (u *inUse) tls(enabled bool, certificate func(*files) *tls.Certificate) *tls.Config {
	if !enabled {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return certificate(u.current.Load()), nil
		},
	}
}
