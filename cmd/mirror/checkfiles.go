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

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/webhook"
)

// fileProblem is a mistake in a file that a setting names.
type fileProblem struct {
	Setting string // its path
	File    string
	Message string
	Hint    string // what to do
	Warning bool   // the mirror works with it as it is
}

// checkFiles reads every file that a configuration names, as the mirror will, and returns everything that is wrong with them:
// certificates and keys that don't belong together, files that are not certificates, empty passwords and tokens. It never
// shows their content.
func checkFiles(c *config.Config) (list []fileProblem) {
	named := c.Named()
	files := make(map[string]string, len(named)) // by setting
	for _, n := range named {
		files[n.Path] = n.File
	}
	for _, n := range named {
		p := checkFile(n, files)
		if p == nil && secret[n.Key] {
			p = exposed(n.File)
		}
		if p != nil {
			p.Setting, p.File = n.Path, n.File
			list = append(list, *p)
		}
	}
	return list
}

// secret are the settings whose files hold secrets.
var secret = map[string]bool{
	"key": true, "clientKey": true, "tokenFile": true, "passwordFile": true, "secretFile": true, "keyFile": true,
	"dockerConfig": true,
}

// partners are the settings of keys by those of their certificates.
var partners = map[string]string{"cert": "key", "clientCert": "clientKey"}

// largestFile is how much of a file is read.
const largestFile = 4 << 20

// checkFile reads one file; nil: it is as it should be.
func checkFile(n config.Named, files map[string]string) *fileProblem {
	info, err := os.Stat(n.File)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &fileProblem{Message: n.File + " does not exist", Hint: "create it, or correct the path"}
	case err != nil:
		return &fileProblem{Message: err.Error(), Hint: "let the user that runs mirror read it"}
	case info.IsDir() && n.Key == "dockerConfig":
		return nil // of a mounted secret; what is in it may change at any time
	case !info.Mode().IsRegular():
		return &fileProblem{Message: n.File + " is not a regular file", Hint: "name a file"}
	case info.Size() > largestFile:
		return &fileProblem{Message: fmt.Sprintf("%s has more than %d MiB", n.File, largestFile>>20), Hint: "is it the right one?"}
	}
	text, err := os.ReadFile(n.File)
	if err != nil {
		return &fileProblem{Message: err.Error(), Hint: "let the user that runs mirror read it"}
	}
	empty := len(strings.TrimSpace(string(text))) == 0
	switch n.Key {
	case "cert", "clientCert":
		return checkPair(n, files, text)
	case "key", "clientKey":
		if empty { // anything else shows beside its certificate
			return &fileProblem{Message: n.File + " is empty", Hint: "write the private key, PEM, to it"}
		}
	case "ca", "caFile":
		if !x509.NewCertPool().AppendCertsFromPEM(text) {
			return &fileProblem{
				Message: n.File + " holds no PEM certificate", Hint: "a certificate begins with -----BEGIN CERTIFICATE-----",
			}
		}
	case "dockerConfig", "keyFile":
		if !json.Valid(text) {
			return &fileProblem{Message: n.File + " is not JSON", Hint: "write the whole of what was given out to it"}
		}
	default:
		if empty {
			return &fileProblem{Message: n.File + " is empty", Hint: "write the secret to it, without quotes"}
		}
		if n.Key == "secretFile" && hasShortLine(string(text)) {
			return &fileProblem{
				Message: fmt.Sprintf("a secret in %s has less than %d characters", n.File, webhook.MinSecret),
				Hint:    "write a long random one, as openssl rand -hex 32 prints",
			}
		}
	}
	return nil
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
	key, err := os.ReadFile(files[at])
	if err != nil || len(strings.TrimSpace(string(key))) == 0 { // its own problem
		if !x509.NewCertPool().AppendCertsFromPEM(cert) {
			return &fileProblem{
				Message: n.File + " holds no PEM certificate", Hint: "a certificate begins with -----BEGIN CERTIFICATE-----",
			}
		}
		return nil
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return &fileProblem{
			Message: fmt.Sprintf("%s with the key %s: %v", n.File, files[at], err),
			Hint:    "they are PEM files that belong together, the certificate itself first",
		}
	}
	if now := time.Now(); pair.Leaf != nil && now.After(pair.Leaf.NotAfter) {
		return &fileProblem{
			Message: fmt.Sprintf("the certificate in %s expired on %s", n.File, pair.Leaf.NotAfter.UTC().Format(time.DateOnly)),
			Hint:    "renew it", Warning: true,
		}
	}
	return nil
}

// exposed warns of a secret that every user of the machine can read.
func exposed(path string) *fileProblem {
	info, err := os.Stat(path)
	if err != nil || info.IsDir() || info.Mode().Perm()&0o004 == 0 {
		return nil
	}
	return &fileProblem{
		Message: fmt.Sprintf("every user of this machine can read %s (mode %04o)", path, info.Mode().Perm()),
		Hint:    "chmod o= " + path, Warning: true,
	}
}
