package app_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin/client"
)

// The admin listener speaks TLS where it is told to: callers trust its certificate and no other, and a new one is taken
// without a restart. A token in clear is said at the start.
func TestAdminListenerSpeaksTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "s3cret\n")
	pair(t, dir, "mirror.test")
	const with = "{listen: '0.0.0.0:0', tokenFile: token, tls: {cert: tls.crt, key: tls.key}}"
	a, log := start(t, settings(t, dir, with, ""))
	_, port, err := net.SplitHostPort(a.AdminAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ca, name, scheme string) error {
		t.Helper()
		o := client.Options{URL: scheme + "://127.0.0.1:" + port, Token: "s3cret", ServerName: name}
		if ca != "" {
			if o.CA, err = os.ReadFile(filepath.Join(dir, ca)); err != nil {
				t.Fatal(err)
			}
		}
		c, err := client.New(o)
		if err != nil {
			t.Fatal(err)
		}
		_, err = c.Get(t.Context(), "failures", nil)
		return err
	}
	if err := ask("tls.crt", "mirror.test", "https"); err != nil {
		t.Error(err)
	}
	if err := ask("", "mirror.test", "https"); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "--admin-ca") {
		t.Errorf("without its certificate: %v", err)
	}
	if err := ask("tls.crt", "", "https"); err == nil || !strings.Contains(err.Error(), "--admin-ca") {
		t.Errorf("by another name: %v", err)
	}
	if err := ask("", "", "http"); err == nil || !strings.Contains(err.Error(), "write https://") {
		t.Errorf("in clear: %v", err)
	}
	old, err := os.ReadFile(filepath.Join(dir, "tls.crt"))
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "old.crt"), string(old))
	pair(t, dir, "mirror.test")
	if err := a.Reload(settings(t, dir, with, "")); err != nil {
		t.Fatal(err)
	}
	if err := ask("tls.crt", "mirror.test", "https"); err != nil {
		t.Error(err)
	}
	if err := ask("old.crt", "mirror.test", "https"); err == nil {
		t.Error("the old certificate is still in use")
	}
	if got := log.Take(); strings.Contains(got, "in clear") {
		t.Error(got)
	}
}

func TestTokenInClearIsSaid(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "s3cret\n")
	_, log := start(t, settings(t, dir, "{listen: '0.0.0.0:0', tokenFile: token}", ""))
	if got := log.Take(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "in clear; set admin.tls.cert") {
		t.Error(got)
	}
}

// The listeners of admin and metrics on loopback answer to their own names alone.
func TestLoopbackListenersKnowTheirNames(t *testing.T) {
	t.Parallel()
	a, _ := start(t, settings(t, t.TempDir(), "{listen: '127.0.0.1:0', hosts: [admin.corp.example]}", "metrics: {listen: 'localhost:0'}\n"))
	for host, want := range map[string]int{
		"127.0.0.1:1": 200, "localhost:1": 200, "admin.corp.example": 200, "evil.example": 421, "10.0.0.1": 421,
	} {
		for _, addr := range []net.Addr{a.AdminAddr(), a.MetricsAddr()} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr.String()+"/metrics", nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = host
			resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if resp.Body.Close(); resp.StatusCode != want {
				t.Errorf("%s by the name %s: %d, want %d", addr, host, resp.StatusCode, want)
			}
		}
	}
}

// Half a token is none: an editor that has just begun to write the file again must not make one that is easy to guess.
func TestHalfATokenIsNone(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "token"), "s3cret-and-long\n")
	const with = "{listen: '127.0.0.1:0', tokenFile: token}"
	a, _ := start(t, settings(t, dir, with, ""))
	for n := range len("s3cret-and-long") {
		write(t, filepath.Join(dir, "token"), "s3cret-and-long"[:n])
		if err := a.Reload(settings(t, dir, with, "")); err == nil || strings.Contains(err.Error(), "s3c") {
			t.Errorf("the first %d bytes: %v", n, err)
		}
	}
	if got := asked(t, a, "s3cret-and-long"); got != 200 {
		t.Errorf("the whole token: %d", got)
	}
	write(t, filepath.Join(dir, "token"), "another")
	if err := a.Reload(settings(t, dir, with, "")); err != nil || asked(t, a, "another") != 200 {
		t.Errorf("another token: %v", err)
	}
}
