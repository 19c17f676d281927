package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/webhook"
)

// fileProblem is a mistake in a file that a setting names.
type fileProblem struct {
	message string
	hint    string // what to do
	warning bool   // the mirror works with it as it is
}

// checkFiles reads every file that settings name, as the mirror will, and returns everything that is wrong with them:
// certificates and keys that don't belong together, files that are not certificates, empty passwords and tokens. It never
// shows their content. With what it warns of the mirror works.
func checkFiles(named []config.Named) (wrong []config.Mistake, warnings []string) {
	files := make(map[string]string, len(named)) // by setting
	for _, n := range named {
		files[n.Path] = n.File
	}
	for _, n := range named {
		p := checkFile(n, files)
		if p == nil && n.IsSecret() {
			p = exposed(n.File)
		}
		switch {
		case p == nil:
		case p.warning:
			warnings = append(warnings, fmt.Sprintf("%s: %s; %s", n.Path, p.message, p.hint))
		default:
			wrong = append(wrong, config.Mistake{Path: n.Path, Message: p.message, Hint: p.hint})
		}
	}
	return wrong, warnings
}

// authorities read the certificates that sign those of clients, and lists of revoked ones, by their section.
var authorities = map[string]func(ca, crl []byte) (*identity.Certificates, error){
	"clients": identity.ParseCertificates, "admin.operators": identity.ParseOperatorCertificates,
}

// partners are the settings of keys by those of their certificates.
var partners = map[string]string{"cert": "key", "clientCert": "clientKey"}

// checkFile reads one file; nil: it is as it should be.
func checkFile(n config.Named, files map[string]string) *fileProblem {
	info, err := os.Stat(n.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fileProblem{message: n.File + " does not exist", hint: "create it, or correct the path"}
	case err != nil:
		return &fileProblem{message: err.Error(), hint: "let the user that runs mirror read it"}
	case info.IsDir() && n.Key == "dockerConfig":
		return nil // of a mounted secret; what is in it may change at any time
	}
	text, err := regular.Read(n.File, config.MaxFile)
	if kind, ok := errors.AsType[*regular.KindError](err); ok {
		return &fileProblem{message: n.File + " is " + kind.Kind + ", and not a file", hint: "name a file"}
	}
	if size, ok := errors.AsType[*regular.SizeError](err); ok {
		return &fileProblem{message: fmt.Sprintf("%s has more than %d MiB", n.File, size.Most>>20), hint: "is it the right one?"}
	}
	if err != nil {
		return &fileProblem{message: err.Error(), hint: "let the user that runs mirror read it"}
	}
	empty := len(strings.TrimSpace(string(text))) == 0
	switch n.Key {
	case "cert", "clientCert":
		return checkPair(n, files, text)
	case "key", "clientKey":
		if empty { // anything else shows beside its certificate
			return &fileProblem{message: n.File + " is empty", hint: "write the private key, PEM, to it"}
		}
	case "ca", "caFile":
		if parse := authorities[strings.TrimSuffix(n.Path, "."+n.Key)]; parse != nil {
			if _, err := parse(text, nil); err != nil {
				return refusedFile(n.File, err)
			}
			return nil
		}
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return noCertificate(n.File)
		}
	case "jwksFile":
		if _, err := identity.ParseKeys(text); err != nil {
			return refusedFile(n.File, err)
		}
	case "crl":
		section := strings.TrimSuffix(n.Path, "."+n.Key)
		if ca, err := regular.Read(files[section+".ca"], config.MaxFile); err == nil {
			c, err := authorities[section](ca, text)
			if err != nil {
				return refusedFile(n.File, err)
			}
			if outdated := c.Outdated(time.Now()); len(outdated) > 0 {
				l := outdated[0]
				return &fileProblem{
					message: fmt.Sprintf("the list of %q in %s ended on %s", l.Issuer, n.File, l.Ends.UTC().Format(time.DateOnly)),
					hint:    "write a new one: from " + l.Refused().UTC().Format(time.DateOnly) + " on no certificate of that authority counts", warning: true,
				}
			}
		}
	case "dockerConfig", "keyFile":
		if !json.Valid(text) {
			return &fileProblem{message: n.File + " is not JSON", hint: "write the whole of what was given out to it"}
		}
	case "htpasswd":
		if _, err := identity.ParsePasswords(text); err != nil {
			return refusedFile(n.File, err)
		}
	case "tokens":
		if _, err := identity.ParseTokens(n.File, text); err != nil {
			return refusedFile("", err)
		}
	default:
		if empty {
			return &fileProblem{message: n.File + " is empty", hint: "write the secret to it, without quotes"}
		}
		if err := admin.CheckToken(strings.TrimSpace(string(text))); err != nil && n.Path == "admin.tokenFile" {
			return &fileProblem{message: n.File + " " + err.Error(), hint: admin.TokenRemedy}
		}
		if n.Key == "secretFile" && hasShortLine(string(text)) {
			return &fileProblem{
				message: fmt.Sprintf("a secret in %s has less than %d characters", n.File, webhook.MinSecret),
				hint:    "write a long random one, as openssl rand -hex 32 prints",
			}
		}
	}
	return nil
}

// refusedFile is an error of a file, which says what to do behind its last semicolon.
func refusedFile(file string, err error) *fileProblem {
	message, hint := err.Error(), "correct it"
	if i := strings.LastIndex(message, "; "); i > 0 {
		message, hint = message[:i], message[i+2:]
	}
	if file != "" {
		message = file + ": " + message
	}
	return &fileProblem{message: message, hint: hint}
}

// hasShortLine reports whether one of the secrets of a webhook, one a line, is refused for its length.
func hasShortLine(text string) bool {
	for line := range strings.Lines(text) {
		if n := len(strings.TrimSpace(line)); n > 0 && n < webhook.MinSecret {
			return true
		}
	}
	return false
}

// checkPair reads a certificate with its key.
func checkPair(n config.Named, files map[string]string, cert []byte) *fileProblem {
	at := strings.TrimSuffix(n.Path, n.Key) + partners[n.Key]
	key, err := regular.Read(files[at], config.MaxFile)
	if err != nil || len(strings.TrimSpace(string(key))) == 0 { // its own problem
		if !x509.NewCertPool().AppendCertsFromPEM(cert) {
			return noCertificate(n.File)
		}
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return &fileProblem{
			message: fmt.Sprintf("%s with the key %s: %v", n.File, files[at], err),
			hint:    "they are PEM files that belong together, the certificate itself first",
		}
	}
	if now := time.Now(); pair.Leaf != nil && now.After(pair.Leaf.NotAfter) {
		return &fileProblem{
			message: fmt.Sprintf("the certificate in %s expired on %s", n.File, pair.Leaf.NotAfter.UTC().Format(time.DateOnly)),
			hint:    "renew it", warning: true,
		}
	}
	return nil
}

func noCertificate(file string) *fileProblem {
	return &fileProblem{message: file + " holds no PEM certificate", hint: "a certificate begins with -----BEGIN CERTIFICATE-----"}
}

// exposed warns of a secret that every user of the machine can read.
func exposed(path string) *fileProblem {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	return &fileProblem{
		message: fmt.Sprintf("every user of this machine can read %s (mode %04o)", path, info.Mode().Perm()),
		hint:    "chmod o= " + path, warning: true,
	}
}

// strangers names the users and operators to whom a rule gives a right, and whom no file has: most likely they are mistyped. Names with
// a * are not looked up. Files with mistakes are reported before.
func strangers(c *config.Config) (warnings []string) {
	read := func(file string) []byte {
		b, _ := regular.Read(file, config.MaxFile) // the setting may be empty
		return b
	}
	users, _ := identity.ParsePasswords(read(c.Clients.Htpasswd))
	tokens, _ := identity.ParseTokens("", read(c.Clients.Tokens))
	where := "no user of clients.htpasswd and no token of clients.tokens"
	switch {
	case c.Clients.Tokens == "":
		where = "no user of clients.htpasswd"
	case c.Clients.Htpasswd == "":
		where = "no token of clients.tokens"
	}
	for i, r := range c.Rules {
		for _, name := range r.Who {
			if identity.CheckName(name) == nil && !users.Has(name) && !tokens.Has(name) {
				warnings = append(warnings, fmt.Sprintf("rules[%d].who: %s is called %s; correct the name, or add it to the file", i, where, name))
			}
		}
	}
	o := c.Admin.Operators
	if o.CA != "" { // the names of certificates are not known here
		return warnings
	}
	operators, _ := identity.ParseTokens("", read(o.Tokens))
	for i, r := range o.Rights {
		for _, name := range r.Who {
			if identity.CheckName(name) == nil && !operators.Has(name) {
				warnings = append(warnings, fmt.Sprintf("admin.operators.rights[%d].who: no token of admin.operators.tokens is called %s; correct the name, or "+
					"add it to the file", i, name))
			}
		}
	}
	return warnings
}
