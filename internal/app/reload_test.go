package app_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/testlog"
)

// settings make a configuration with an admin listener and whatever else is said.
func settings(t *testing.T, dir, admin, more string) *config.Config {
	t.Helper()
	text := fmt.Sprintf("listen: 127.0.0.1:0\nadmin: %s\ndefaultUpstream: \"\"\ncache: {dir: data, size: 1GiB, minFree: 0}\n"+
		"upstreams: {ghcr.io: {}}\n%s", admin, more)
	c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte(text), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func start(t *testing.T, c *config.Config) (*app.App, *testlog.Log) {
	t.Helper()
	log := &testlog.Log{}
	a, err := app.New(t.Context(), app.Options{Config: c, Version: "test", Log: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	t.Cleanup(func() {
		a.StopNow() // no test pulls any more
		cancel()
		if err := <-done; err != nil {
			t.Errorf("stop: %v", err)
		}
	})
	return a, log
}

// asked is the status with which the admin listener answers a caller with that token, by way of loopback.
func asked(t *testing.T, a *app.App, token string) int {
	t.Helper()
	_, port, err := net.SplitHostPort(a.AdminAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://127.0.0.1:"+port+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}

// The address of a listener changes with a restart. Until then one that others reach keeps its token, whatever a reload
// says of it.
func TestReloadNeverOpensTheAdminListener(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	write(t, token, "first\n")
	const outside = "{listen: '0.0.0.0:0', tokenFile: token}"
	a, log := start(t, settings(t, dir, outside, ""))
	check := func(when, right, wrong string) {
		t.Helper()
		for shown, want := range map[string]int{right: 200, wrong: 401, "": 401} {
			if got := asked(t, a, shown); got != want {
				t.Errorf("%s: token %q gets %d, want %d", when, shown, got, want)
			}
		}
	}
	check("at first", "first", "second")
	log.Take()

	for _, again := range []string{"dropped", "dropped, reloaded again"} {
		if err := a.Reload(settings(t, dir, "{listen: '127.0.0.1:0'}", "")); err != nil {
			t.Fatal(err)
		}
		check(again, "first", "second")
		if text := log.Take(); !strings.Contains(text, "the old ones stay in force") ||
			!strings.Contains(text, "items=admin.listen") {
			t.Errorf("%s: the log does not say that the token stays:\n%s", again, text)
		}
	}

	write(t, token, "second\n")
	if err := a.Reload(settings(t, dir, outside, "")); err != nil {
		t.Fatal(err)
	}
	check("another token", "second", "first")
	if text := log.Take(); strings.Contains(text, "in force") {
		t.Errorf("the log speaks of a token that is in the configuration:\n%s", text)
	}

	write(t, token, " \n")
	if err := a.Reload(settings(t, dir, outside, "")); err == nil || !strings.Contains(err.Error(), "is empty") {
		t.Errorf("an empty token file: %v", err)
	}
	check("after an empty file", "second", "")
	c := settings(t, dir, "{listen: '0.0.0.0:0', tokenFile: missing}", "")
	if err := a.Reload(c); err == nil || !strings.Contains(err.Error(), "admin.tokenFile") {
		t.Errorf("a missing token file: %v", err)
	}
	check("after a missing file", "second", "first")
}

// Where only this machine gets, a token may go.
func TestReloadMayDropTheTokenOfLoopback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "first")
	a, log := start(t, settings(t, dir, "{listen: '127.0.0.1:0'}", ""))
	for _, step := range []struct {
		admin string
		want  int
	}{
		{"{listen: '127.0.0.1:0'}", 200},
		{"{listen: '127.0.0.1:0', tokenFile: token}", 401},
		{"{listen: '127.0.0.1:0'}", 200},
	} {
		if err := a.Reload(settings(t, dir, step.admin, "")); err != nil {
			t.Fatal(err)
		}
		if got := asked(t, a, ""); got != step.want {
			t.Errorf("admin %s: %d, want %d", step.admin, got, step.want)
		}
	}
	if text := log.Take(); strings.Contains(text, "in force") {
		t.Errorf("the log speaks of a token that stays:\n%s", text)
	}
}

// What is checked in the file is the text of an address. What counts is the one that was bound.
func TestNoStartWithoutATokenForOthers(t *testing.T) {
	t.Parallel()
	c := settings(t, t.TempDir(), "{listen: '127.0.0.1:0'}", "")
	c.Admin.Listen = "0.0.0.0:0"
	_, err := app.New(t.Context(), app.Options{Config: c, Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "set admin.tokenFile") {
		t.Errorf("error %v", err)
	}
}

// A change that needs a restart is named until the restart, or until the file goes back.
func TestReloadNamesWhatWaitsForARestart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const admin = "{listen: '127.0.0.1:0'}"
	a, log := start(t, settings(t, dir, admin, ""))
	log.Take()
	for _, step := range []struct{ name, more, want string }{
		{"changed", "drain: 2m\n", "items=drain"},
		{"the same again", "drain: 2m\n", "items=drain"},
		{"one more", "drain: 2m\nerrorPhrase: false\n", `items="drain errorPhrase"`},
		{"another value", "drain: 3m\n", "items=drain"},
		{"back", "", ""},
	} {
		if err := a.Reload(settings(t, dir, admin, step.more)); err != nil {
			t.Fatal(err)
		}
		text := log.Take()
		if named := strings.Contains(text, "items="); named != (step.want != "") || !strings.Contains(text, step.want) {
			t.Errorf("%s: want %q in the log:\n%s", step.name, step.want, text)
		}
	}
}

// A reload that is refused for one file takes none of the others.
func TestReloadIsAllOrNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.crt"), "no certificate")
	write(t, filepath.Join(dir, "token"), "first")
	pair(t, dir, "one.test")
	const secure = "tls: {cert: tls.crt, key: tls.key}\n"
	const open, closed = "{listen: '127.0.0.1:0'}", "{listen: '127.0.0.1:0', tokenFile: token}"
	a, _ := start(t, settings(t, dir, open, secure))
	check := func(when, certificate string, status int) {
		t.Helper()
		if got := nameOnCertificate(t, a); got != certificate {
			t.Errorf("%s: the certificate is of %s, want %s", when, got, certificate)
		}
		if got := asked(t, a, ""); got != status {
			t.Errorf("%s: without a token %d, want %d", when, got, status)
		}
	}
	check("at first", "one.test", 200)
	pair(t, dir, "two.test")
	c := settings(t, dir, "{listen: '127.0.0.1:0', tokenFile: missing}", secure)
	if err := a.Reload(c); err == nil || !strings.Contains(err.Error(), "missing") {
		t.Errorf("error %v", err)
	}
	check("the token file is missing", "one.test", 200)
	c = settings(t, dir, closed, secure)
	c.Upstreams[0].Endpoints[0].CA = filepath.Join(dir, "ca.crt")
	if err := a.Reload(c); err == nil || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("error %v", err)
	}
	check("the CA is none", "one.test", 200)
	if err := a.Reload(settings(t, dir, closed, secure)); err != nil {
		t.Error(err)
	}
	check("all is well", "two.test", 401)
}

// pair writes a certificate of a name, and its key, as tls.crt and tls.key.
func pair(t *testing.T, dir, name string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		"tls.crt": {Type: "CERTIFICATE", Bytes: cert}, "tls.key": {Type: "PRIVATE KEY", Bytes: private},
	} {
		write(t, filepath.Join(dir, file), string(pem.EncodeToMemory(block)))
	}
}

// nameOnCertificate is whose certificate the main listener shows.
func nameOnCertificate(t *testing.T, a *app.App) string {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}
	c, err := d.DialContext(t.Context(), "tcp", a.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.(*tls.Conn).ConnectionState().PeerCertificates[0].DNSNames[0]
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Each problem has a line of its own, which a person can read in JSON too.
func TestMistakesInTheLog(t *testing.T) {
	t.Parallel()
	a, log := start(t, settings(t, t.TempDir(), "{listen: '127.0.0.1:0'}", ""))
	log.Take()
	_, err := config.Parse("config.yaml", []byte("listne: x\ndrain: 60\n"), nil)
	a.NotReloaded(err)
	text := log.Take()
	if strings.Count(text, "error=\"config.yaml:") != 2 || !strings.Contains(text, "count=2") ||
		!strings.Contains(text, "old one stays in use") || strings.Contains(text, `\n`) {
		t.Errorf("log:\n%s", text)
	}
}

// That each client can read what a client certificate may read is said at the start and with each reload.
func TestWarnsOfCertificates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair(t, dir, "client.test")
	c, err := config.Parse(filepath.Join(dir, "config.yaml"), []byte("listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\n"+
		"defaultUpstream: ''\ncache: {dir: data, size: 1GiB, minFree: 0}\n"+
		"upstreams: {r.example: {endpoints: [{url: 'https://r.example', clientCert: tls.crt, clientKey: tls.key}]}}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	a, log := start(t, c)
	const warning = "clientCert is a login, and access is public"
	if n := strings.Count(log.String(), warning); n != 1 {
		t.Errorf("%d warnings at the start: %s", n, log)
	}
	if err := a.Reload(c); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(log.String(), warning); n != 2 {
		t.Errorf("%d warnings after a reload: %s", n, log)
	}
}

// A reload ends whatever stands in the place of a file that the configuration names, and leaves all as it was.
func TestReloadDoesNotWaitForFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a, _ := start(t, settings(t, dir, "{listen: '127.0.0.1:0'}", ""))
	huge, err := os.Create(filepath.Join(dir, "huge"))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(
		syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600), os.Mkdir(filepath.Join(dir, "folder"), 0o700),
		os.Symlink("/dev/zero", filepath.Join(dir, "device")), huge.Truncate(400<<20), huge.Close(),
	); err != nil {
		t.Fatal(err)
	}
	for _, setting := range []string{
		"tls: {cert: ODD, key: ODD}", "clients: {htpasswd: ODD}", "clients: {tokens: ODD}", "tls: {cert: ODD, key: ODD}\nclients: {ca: ODD}",
		"clients: {kubernetes: {audience: a, issuer: 'https://i.example', jwksFile: ODD}}", "webhooks: {hub: {type: dockerhub, secretFile: ODD}}",
	} {
		for kind, says := range map[string]string{
			"pipe": "it is a pipe", "folder": "it is a folder", "device": "it is a device", "huge": "it has more than 4 MiB",
		} {
			err := a.Reload(settings(t, dir, "{listen: '127.0.0.1:0'}", strings.ReplaceAll(setting, "ODD", kind)+"\n"))
			if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, kind)+": "+says) {
				t.Errorf("%s: %s: %v", setting, kind, err)
			}
		}
	}
}
