package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/authority"
)

// certificate is a certificate and its key, PEM.
func certificate(t *testing.T, until time.Time) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"m.test"}, NotAfter: until}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret}))
}

// withFiles names one file of each kind.
const withFiles = `listen: 127.0.0.1:0
tls: {cert: tls.crt, key: tls.key}
admin: {listen: 127.0.0.1:0, tokenFile: admin.token, tls: {cert: admin.crt, key: admin.key}}
kubernetes: {caFile: kube.crt, tokenFile: kube.token}
upstreams:
  harbor.example.com:
    endpoints: [{url: https://harbor.example.com, ca: corp.crt, clientCert: client.crt, clientKey: client.key}]
    credentials:
      - {name: pass, username: u, passwordFile: harbor.pass}
      - {name: docker, dockerConfig: config.json}
  gcr.io: {credentials: [{name: key, gar: {keyFile: gcp.json}}]}
webhooks: {hub: {type: dockerhub, secretFile: hub.secret}}
`

// Every file that a configuration names is read by the check: what is wrong with each is told at once, with its place and
// what to do, and no secret.
func TestConfigCheckReadsFiles(t *testing.T) {
	t.Parallel()
	cert, key := certificate(t, time.Now().Add(time.Hour))
	other, _ := certificate(t, time.Now().Add(time.Hour))
	old, oldKey := certificate(t, time.Now().Add(-time.Hour))
	right := map[string]string{
		"tls.crt": cert, "tls.key": key, "admin.crt": cert, "admin.key": key, "client.crt": cert, "client.key": key,
		"admin.token": "s3cret\n", "harbor.pass": "s3cret\n", "kube.token": "s3cret\n", "kube.crt": cert, "corp.crt": cert + other,
		"hub.secret": "s3cret-0123456789\n\ns3cret-9876543210", "config.json": `{"auths":{}}`, "gcp.json": `{"private_key":"s3cret"}`,
	}
	const gone, folder = "\x00gone", "\x00folder"
	for name, tt := range map[string]struct {
		change map[string]string // by file
		says   []string          // on stderr, where it fails
		warns  string
	}{
		"as it should be": {},
		"missing": {
			map[string]string{
				"tls.crt": gone, "tls.key": gone, "admin.token": gone, "harbor.pass": gone, "corp.crt": gone, "config.json": gone,
				"gcp.json": gone, "client.key": gone, "kube.crt": gone, "kube.token": gone,
			},
			[]string{
				":2:13: tls.cert: DIR/tls.crt does not exist (create it, or correct the path)", "tls.key: DIR/tls.key does not exist",
				":3:41: admin.tokenFile: DIR/admin.token does not exist", ":9:49: upstreams.harbor.example.com.credentials[0].passwordFile: DIR/harbor.pass does not exist",
				"endpoints[0].ca: DIR/corp.crt does not exist", "credentials[1].dockerConfig: DIR/config.json does not exist",
				"gar.keyFile: DIR/gcp.json does not exist", "endpoints[0].clientKey: DIR/client.key does not exist",
				"kubernetes.caFile: DIR/kube.crt does not exist", "kubernetes.tokenFile: DIR/kube.token does not exist",
				"10 problems with files that it names; correct them, then check again (--no-files skips the files)",
			},
			"",
		},
		"empty": {
			map[string]string{"tls.crt": "", "tls.key": "\n", "admin.token": " \n", "harbor.pass": "", "corp.crt": "", "gcp.json": "", "config.json": ""},
			[]string{
				"tls.crt holds no PEM certificate", "tls.key is empty", "admin.token is empty (write the secret to it, without quotes)",
				"harbor.pass is empty", "corp.crt holds no PEM", "gcp.json is not JSON", "config.json is not JSON", "7 problems",
			},
			"",
		},
		"garbage": {
			map[string]string{"tls.crt": "s3cret", "corp.crt": "\x00\xff", "client.crt": key, "config.json": "{s3cret", "admin.key": cert},
			[]string{
				"tls.cert: DIR/tls.crt with the key DIR/tls.key: tls: failed to find any PEM data", "corp.crt holds no PEM",
				"clientCert: DIR/client.crt with the key", "config.json is not JSON", "admin.tls.cert: DIR/admin.crt with the key DIR/admin.key", "5 problems",
			},
			"",
		},
		"cut off":            {map[string]string{"tls.crt": cert[:len(cert)/2]}, []string{"tls.cert: DIR/tls.crt with the key", "1 problem with"}, ""},
		"of different pairs": {map[string]string{"tls.crt": other}, []string{"private key does not match", "belong together"}, ""},
		"a file of tokens as a token": {
			map[string]string{"admin.token": "tokens:\n  - {name: ci}\n"},
			[]string{"admin.tokenFile: DIR/admin.token is not one line of text, so no request can show it (write the token alone to it", "1 problem with"},
			"",
		},
		"a short secret": {
			map[string]string{"hub.secret": "s3cret-0123456789\ns3cret\n"},
			[]string{"webhooks.hub.secretFile: a secret in DIR/hub.secret has less than 16 characters (write a long random one", "1 problem with"},
			"",
		},
		"a folder":             {map[string]string{"admin.token": folder}, []string{"admin.token is a folder, and not a file (name a file)"}, ""},
		"an expired one":       {map[string]string{"tls.crt": old, "tls.key": oldKey}, nil, "expired on"},
		"a docker secret":      {map[string]string{"config.json": folder}, nil, ""},
		"readable for all":     {map[string]string{"harbor.pass": "open"}, nil, "every user of this machine can read DIR/harbor.pass (mode 0644); chmod o= DIR/harbor.pass"},
		"a key that is so":     {map[string]string{"tls.key": "open"}, nil, "tls.key: every user of this machine can read"},
		"a public certificate": {map[string]string{"corp.crt": "open"}, nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := configFile(t, withFiles)
			dir := filepath.Dir(path)
			for file, text := range right {
				at, mode := filepath.Join(dir, file), os.FileMode(0o600)
				switch change, ok := tt.change[file]; {
				case change == gone:
					continue
				case change == folder:
					if err := os.Mkdir(at, 0o700); err != nil {
						t.Fatal(err)
					}
					continue
				case change == "open":
					mode = 0o644
				case ok:
					text = change
				}
				if err := errors.Join(os.WriteFile(at, []byte(text), mode), os.Chmod(at, mode)); err != nil {
					t.Fatal(err)
				}
			}
			stdout, stderr, err := runConfig(t, "check", "--config", path)
			stdout, stderr = strings.ReplaceAll(stdout, dir, "DIR"), strings.ReplaceAll(stderr, dir, "DIR")
			if (err != nil) != (len(tt.says) > 0) || strings.Contains(stdout+stderr, "s3cret") {
				t.Errorf("%v\n%s%s", err, stdout, stderr)
			}
			for _, want := range tt.says {
				if !strings.Contains(stderr, want) {
					t.Errorf("no %q in\n%s", want, stderr)
				}
			}
			// The client certificate is warned of whatever is in the files.
			stdout = strings.ReplaceAll(stdout, "\nwarning: upstreams.harbor.example.com.endpoints[0].clientCert is a login", "")
			if got := strings.Contains(stdout, "\nwarning: "); err == nil && (got != (tt.warns != "") || !strings.Contains(stdout, tt.warns)) {
				t.Errorf("warned: %v, want %q\n%s", got, tt.warns, stdout)
			}
			if _, stderr, err := runConfig(t, "check", "--no-files", "--config", path); err != nil || stderr != "" {
				t.Errorf("--no-files: %v %s", err, stderr)
			}
		})
	}
}

// The start tells all at once, too, of what it can't do without.
func TestServeTellsOfAllFiles(t *testing.T) {
	t.Parallel()
	path := configFile(t, withFiles)
	code, out, errs := commandLine(t, "serve", "--config", path)
	if code != exitFailed || out != "" || !strings.Contains(errs, "tls.crt does not exist") || !strings.Contains(errs, "corp.crt does not exist") ||
		!strings.Contains(errs, "then start again") || strings.Contains(errs, "harbor.pass") {
		t.Errorf("%d %s%s", code, out, errs)
	}
}

// authorityOf is the certificate of a new authority.
func authorityOf(t *testing.T) string {
	t.Helper()
	_, pair, err := authority.New("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return string(pair.Cert)
}

// A right for a name that no file has is most likely a mistyped one. A pattern is not looked up, and neither are nodes.
func TestConfigCheckNamesStrangers(t *testing.T) {
	t.Parallel()
	const hash = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a"
	entry := func(name string) string {
		return identity.TokenEntry{Name: name, SHA256: strings.Repeat("0", 64)}.Line()
	}
	text := `tls: {cert: tls.crt, key: tls.key}
upstreams: {docker.io: {access: rules}}
clients: {htpasswd: users, tokens: tokens.yaml, ca: ca.crt}
admin: {operators: {tokens: operators.yaml, rights: [{who: [bob, "sre-*"], may: operate}, {who: [bbo], may: read}]}}
rules:
  - {who: [alice, ci, "ci-*", "node:*", anonymous], pull: ["docker.io/library/**"]}
  - {who: [alise], pull: ["docker.io/acme/**"]}
`
	path := configFile(t, text)
	cert, key := certificate(t, time.Now().Add(time.Hour))
	for file, content := range map[string]string{
		"users": "alice:" + hash + "\n", "tokens.yaml": "tokens:\n" + entry("ci"), "operators.yaml": "tokens:\n" + entry("bob"), "ca.crt": authorityOf(t),
		"tls.crt": cert, "tls.key": key,
	} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(path), file), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := commandLine(t, "config", "check", path)
	if code != exitOK {
		t.Fatalf("%d %s", code, errs)
	}
	var got []string
	for line := range strings.Lines(out) {
		if strings.Contains(line, " is called ") {
			got = append(got, strings.TrimSpace(line))
		}
	}
	want := []string{
		"warning: rules[1].who: no user of clients.htpasswd and no token of clients.tokens is called alise; correct the name, or add it to the file",
		"warning: admin.operators.rights[1].who: no token of admin.operators.tokens is called bbo; correct the name, or add it to the file",
	}
	if !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
