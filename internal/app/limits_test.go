package app_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

// A reload puts limits of clients into use, by identity, and what they do is counted.
func TestClientLimits(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := origin.Start(t, origin.Options{})
	blob := o.AddLargeBlob("acme/app", 2<<20, 1)
	users(t, dir, "alice")
	config := func(limits string) string {
		return upstreamOf(o) + "clients: {htpasswd: users, limits: {" + limits + "}}\n"
	}
	r := run(t, parse(t, dir, config("")))
	fetch := func(login string) time.Duration {
		t.Helper()
		began := time.Now()
		code, n := r.fetch(t, nil, nameOf(o)+"/acme/app/blobs/"+blob.Digest.String(), login)
		if code != 200 || n != blob.Size {
			t.Errorf("%d, %d bytes", code, n)
		}
		return time.Since(began)
	}
	fetch(basic("alice", "alice1"))
	if err := r.Reload(parse(t, dir, config("bandwidth: 1MiB, maxRequests: 8"))); err != nil {
		t.Fatal(err)
	}
	if took := fetch(basic("alice", "alice1")); took < 900*time.Millisecond {
		t.Errorf("2 MiB at 1 MiB a second, the first of it at once: %s", took)
	}
	fetch("")
	_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
	if !strings.Contains(metrics, `mirror_client_limits_total{result="paced"} 1`+"\n") {
		t.Errorf("not counted once: %s", grep(metrics, "mirror_client_limits"))
	}
	if err := r.Reload(parse(t, dir, config(""))); err != nil {
		t.Fatal(err)
	}
	fetch(basic("alice", "alice1"))
}

// fetch gets a path over a transport, nil for a new one, and returns the status and the number of its bytes.
func (r *running) fetch(t *testing.T, tr *http.Transport, path, login string) (status int, n int64) {
	t.Helper()
	if tr == nil {
		tr = &http.Transport{}
		defer tr.CloseIdleConnections()
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr().String()+"/v2/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if login != "" {
		req.Header.Set("Authorization", login)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err = io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, n
}

// grep is the lines of a text that have a word.
func grep(text, word string) (list []string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, word) {
			list = append(list, line)
		}
	}
	return list
}

// A client that is paced follows a download as a slow reader does: the registry sends at its own speed, the blob is committed and the spool's
// room is free while the client has hardly begun, and a client at another address has its own bandwidth.
func TestPacedFollower(t *testing.T) {
	t.Parallel()
	const size = 24 << 20
	o := origin.Start(t, origin.Options{})
	blob := o.AddLargeBlob("acme/app", size, 1)
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)+"clients: {limits: {bandwidth: 1MiB, byAddress: true}}\n"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	began := time.Now()
	var bodies []io.ReadCloser
	for _, addr := range []string{"127.0.0.21", "127.0.0.22"} {
		bodies = append(bodies, r.open(ctx, t, addr, nameOf(o), blob.Digest))
	}
	eventually(t, "the blob is stored, and the spool's room is free", func() bool {
		_, metrics := get(t, "http://"+r.AdminAddr().String()+"/metrics")
		return strings.Contains(metrics, fmt.Sprintf("mirror_cache_bytes %v\n", float64(size))) && strings.Contains(metrics, "mirror_cache_reserved_bytes 0\n")
	})
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("the download took %s: its readers have held it up", took)
	}
	if n := o.Bytes(blob.Digest); n != size {
		t.Errorf("the registry has sent %d bytes, want %d", n, size)
	}
	for i, body := range bodies {
		if n, err := io.CopyN(io.Discard, body, 2<<20); err != nil {
			t.Errorf("client %d: %d bytes, %v", i, n, err)
		}
	}
	if took := time.Since(began); took < 800*time.Millisecond {
		t.Errorf("2 MiB after %s: the clients are not paced", took)
	}
	cancel()
	for _, body := range bodies {
		_ = body.Close()
	}
}

// open begins to get a blob from an address of this machine.
func (r *running) open(ctx context.Context, t *testing.T, addr, upstream string, d oci.Digest) io.ReadCloser {
	t.Helper()
	tr := &http.Transport{DialContext: (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(addr)}}).DialContext}
	t.Cleanup(tr.CloseIdleConnections)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+r.Addr().String()+"/v2/"+upstream+"/acme/app/blobs/"+d.String(), nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
	return resp.Body
}
