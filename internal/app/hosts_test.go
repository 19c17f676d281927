package app_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

// A client names any number of hosts that fit a pattern, beside one that works. They make no series of metrics, no endless
// list, and do not push out the one that works.
func TestMadeUpHostsOfAPattern(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{
		TLS: true, Certificate: origin.Certificate{Names: []string{"acme.azurecr.io"}},
	})
	o.AddImage("app", "1", origin.Image{})
	o.AddImage("app", "2", origin.Image{Layers: []int64{7}})
	dir := t.TempDir()
	write(t, filepath.Join(dir, "ca.crt"), string(o.CAPEM()))
	file := filepath.Join(dir, "config.yaml")
	write(t, file, "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: data, size: 1GiB, minFree: 0}\nupstreams:\n"+
		"  '*.azurecr.io': {}\n")
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childConfig+"="+file, "HTTPS_PROXY="+connector(t, o.Host()), "NO_PROXY=",
		"SSL_CERT_FILE="+filepath.Join(dir, "ca.crt"))
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
	if err != nil {
		t.Fatal(errors.Join(err, in.Close(), cmd.Wait()))
	}
	addr, admin, _ := strings.Cut(strings.TrimSpace(line), " ")
	at := "http://" + addr + "/v2/"
	status := func(path string) int {
		code, _ := get(t, at+path)
		return code
	}
	if code := status("acme.azurecr.io/app/manifests/1"); code != 200 {
		t.Errorf("status %d", code)
	}
	for i := range 250 { // whose certificate is that of another
		if code := status(fmt.Sprintf("made%d.azurecr.io/app/manifests/1", i)); code < 500 {
			t.Fatalf("made%d: status %d", i, code)
		}
	}
	_, upstreams := get(t, "http://"+admin+"/api/v1/upstreams")
	if n := strings.Count(upstreams, `"name":"made`); n != 50 {
		t.Errorf("%d made-up hosts are in use, want 50", n)
	}
	if !strings.Contains(upstreams, `"name":"acme.azurecr.io"`) {
		t.Errorf("the host that works was pushed out: %.300s", upstreams)
	}
	if code := status("acme.azurecr.io/app/manifests/2"); code != 200 {
		t.Errorf("status %d", code)
	}
	_, metrics := get(t, "http://"+admin+"/metrics")
	for line := range strings.Lines(metrics) {
		if strings.Contains(line, "made") || strings.Contains(line, "acme") {
			t.Errorf("a series of a client's making: %s", line)
		}
	}
	if want := `mirror_upstream_endpoint_up{endpoint="*.azurecr.io",upstream="*.azurecr.io"} 1`; !strings.Contains(metrics, want+"\n") {
		t.Errorf("no %s", want)
	}
	if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
		t.Error(err)
	}
}
