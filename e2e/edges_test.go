package e2e_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// limited is a program that runs the mirror with limits on open files, soft and hard.
func limited(t *testing.T, dir string, soft, hard int) string {
	t.Helper()
	path := filepath.Join(dir, "limited")
	text := fmt.Sprintf("#!/bin/sh\nulimit -Sn %d && ulimit -Hn %d && exec %s \"$@\"\n", soft, hard, mirrord.Binary)
	if err := os.WriteFile(path, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// hold opens connections to a place from an address, says something on each, and keeps them until the test ends.
func hold(t *testing.T, from, to string, n int, say string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: 2 * time.Second}
	for range n {
		c, err := d.DialContext(t.Context(), "tcp", to)
		if err != nil {
			return // as many as it can
		}
		t.Cleanup(func() { _ = c.Close() })
		_, _ = io.WriteString(c, say)
	}
}

// TestFewFiles holds more connections than a mirror may have files: by one client, idle or in the middle of a request, to
// the listener where clients pull and to the operator's. Others are served, cached and not, and health answers.
func TestFewFiles(t *testing.T) {
	t.Parallel()
	const files, header = 512, "GET /v2/docker.io/library/app/manifests/v1 HTTP/1.1\r\nHost: m\r\nX-Slow: "
	for _, tt := range []struct{ name, from, say string }{
		{"idle", "127.0.0.66", ""},
		{"idle, from the victim's address", "127.0.0.1", ""},
		{"a request that does not end", "127.0.0.66", header},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := origin.Start(t, origin.Options{})
			x := up.AddImage("library/app", "v1", origin.Image{Layers: []int64{1 << 20, 2 << 20}})
			dir := t.TempDir()
			m := mirrord.Start(t, mirrord.Options{
				Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}", Dir: dir, Level: "info", Program: limited(t, dir, files/2, files),
			})
			p := puller{client: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, base: m.URL() + "/v2/docker.io/library/app/"}
			pull := func(i int) {
				t.Helper()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				d := x.Layers[0][i].Digest.String()
				if err := p.get(ctx, "blobs/"+d, d, io.Discard); err != nil {
					t.Errorf("layer %d: %v", i, err)
				}
			}
			pull(0)
			hold(t, tt.from, m.Host, files+200, tt.say)
			hold(t, tt.from, strings.TrimPrefix(m.Admin, "http://"), files, tt.say)
			for i := range 3 {
				pull(i % 2) // cached, and not
				for _, url := range []string{m.URL() + "/healthz", m.Admin + "/healthz", m.Admin + "/metrics"} {
					wait.For(t, time.Minute, url, func() error {
						ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
						defer cancel()
						req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
						if err != nil {
							return err
						}
						resp, err := p.client.Do(req)
						if err != nil {
							return err
						}
						if resp.Body.Close(); resp.StatusCode != http.StatusOK {
							return fmt.Errorf("%s", resp.Status)
						}
						return nil
					})
				}
			}
			if line, ok := m.Line("the limit on open files is low, and limits the connections of clients; raise it (LimitNOFILE, ulimit -n)"); !ok ||
				line["allowed"] != float64(files/2) {
				t.Errorf("at the start it said %v", line)
			}
			if n := strings.Count(m.Output(), "LimitNOFILE"); n < 2 || n > 10 {
				t.Errorf("it said %d times what to do", n)
			}
		})
	}
}

// TestStopped stops the process for a minute and more, as a suspended machine or a paused container is, in the middle of a
// download, with connections open, credentials and tokens that end meanwhile, and has it go on: everything is served soon, and
// nothing is called a failure.
func TestStopped(t *testing.T) {
	t.Parallel()
	up := origin.Start(t, origin.Options{
		Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "s3cret", Anonymous: true, TokenLife: 10 * time.Second},
	})
	x := up.AddImage("library/app", "v1", origin.Image{Layers: []int64{20 << 20, 1 << 20, 1 << 20}})
	up.Script(origin.Rule{
		Kind: origin.KindBlob, Method: http.MethodGet, Ref: x.Layers[0][0].Digest.String(), Do: origin.Fault{Rate: 1 << 20},
	})
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "pass"), []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + up.URL() + "], credentials: [{name: bot, username: bot, passwordFile: pass}]}", Dir: dir,
	})
	p := puller{client: &http.Client{Transport: &http.Transport{}}, base: m.URL() + "/v2/docker.io/library/app/"}
	get := func(path, digest string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		return p.get(ctx, path, digest, io.Discard)
	}
	layer := func(i int) string { return x.Layers[0][i].Digest.String() }
	if err := get("blobs/"+layer(1), layer(1)); err != nil {
		t.Fatal(err)
	}
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	go func() { ended <- p.get(t.Context(), "blobs/"+layer(0), layer(0), &signal{ch: begun}) }()
	<-begun
	m.Signal(t, syscall.SIGSTOP)
	pause := time.NewTimer(65 * time.Second)
	defer pause.Stop()
	select {
	case <-pause.C:
	case <-t.Context().Done():
	}
	m.Signal(t, syscall.SIGCONT)
	for _, i := range []int{1, 2} { // cached, and not
		began := time.Now()
		if err := get("blobs/"+layer(i), layer(i)); err != nil {
			t.Errorf("layer %d: %v", i, err)
		}
		t.Logf("layer %d after %s", i, time.Since(began).Round(time.Millisecond))
	}
	if err := <-ended; err != nil {
		t.Errorf("the download under way: %v", err)
	}
	if code, body := m.Get(t, "/api/v1/failures"); code != http.StatusOK || !strings.HasPrefix(body, `{"failures":[]`) {
		t.Errorf("failures: %d %s", code, body)
	}
	if code, body := m.Get(t, "/api/v1/cache"); code != http.StatusOK || !strings.Contains(body, `"degraded":false`) {
		t.Errorf("cache: %d %s", code, body)
	}
}
