package app_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
)

// childConfig makes the test binary a mirror with that configuration, since a process reads HTTPS_PROXY once.
const childConfig = "MIRROR_TEST_CONFIG"

// child runs a mirror, says where its two listeners are, and ends when there is no more input.
func child(file string) error {
	c, err := config.Load(file, nil)
	if err != nil {
		return err
	}
	a, err := app.New(context.Background(), app.Options{Config: c, Version: "test", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	fmt.Println(a.Addr(), a.AdminAddr())
	_, err = io.Copy(io.Discard, os.Stdin)
	cancel()
	return errors.Join(err, <-done)
}

// connector is a proxy that connects to one address, wherever that is said to be.
func connector(t *testing.T, to string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := net.Dial("tcp", to)
		if err != nil || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			out.Close()
			return
		}
		_, _ = io.WriteString(in, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(out, in)
			out.Close()
		}()
		_, _ = io.Copy(in, out)
		in.Close()
	})}
	go s.Serve(l) //nolint:errcheck // ends with Close
	t.Cleanup(func() { s.Close() })
	return "http://" + l.Addr().String()
}

// certificateOf is what an origin shows, as PEM.
func certificateOf(t *testing.T, o *origin.Origin) string {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{RootCAs: o.CA(), ServerName: "reg.example"}}
	c, err := d.DialContext(t.Context(), "tcp", o.Host())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	leaf := c.(*tls.Conn).ConnectionState().PeerCertificates[0]
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leaf.Raw}))
}

// Behind a proxy a download is redirected to hosts of cdnHosts, and to no others.
func TestDownloadsBehindAProxy(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: []string{
		"reg.example", "eu.cdn.example",
	}}})
	content := strings.Repeat("layer", 1000)
	d := o.AddBlob("acme/app", []byte(content))
	o.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{
		Status: http.StatusTemporaryRedirect, Header: http.Header{"Location": {"https://eu.cdn.example/blob"}},
	}})
	o.Script(origin.Rule{Kind: origin.KindOther, Do: origin.Fault{Handler: func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, content)
	}}})
	through := connector(t, o.Host())
	for _, tt := range []struct {
		hosts  string
		status int
	}{
		{"['*.cdn.example']", http.StatusOK},
		{"[other.example]", http.StatusBadGateway},
	} {
		t.Run(tt.hosts, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, filepath.Join(dir, "ca.crt"), certificateOf(t, o))
			file := filepath.Join(dir, "config.yaml")
			write(t, file, "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: data, size: 1GiB, minFree: 0}\nupstreams:\n"+
				"  reg.example: {endpoints: [{url: 'https://reg.example', ca: ca.crt}], cdnHosts: "+tt.hosts+"}\n")
			cmd := exec.CommandContext(t.Context(), os.Args[0])
			cmd.Env = append(os.Environ(), childConfig+"="+file, "HTTPS_PROXY="+through, "NO_PROXY=")
			cmd.Stderr = os.Stderr
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(out).ReadString('\n')
			if err == nil {
				addr, _, _ := strings.Cut(line, " ")
				url := "http://" + addr + "/v2/reg.example/acme/app/blobs/" + string(d.Digest)
				if status, body := get(t, url); status != tt.status || status == http.StatusOK && body != content {
					t.Errorf("status %d, want %d; %.300s", status, tt.status, body)
				}
			}
			if err := errors.Join(err, in.Close(), cmd.Wait()); err != nil {
				t.Error(err)
			}
		})
	}
}
