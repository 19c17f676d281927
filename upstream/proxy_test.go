package upstream_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// proxy is an HTTP proxy on loopback. Refuse is the status that it answers; 0: it connects every request to one server,
// whatever host the request names.
func proxy(t *testing.T, refuse int, to string) (*url.URL, func() []string) {
	t.Helper()
	var mu sync.Mutex
	var asked []string
	var wg sync.WaitGroup
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(); wg.Wait() })
	serve := func(c net.Conn) {
		defer c.Close()
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		mu.Lock()
		asked = append(asked, r.Method+" "+r.Host)
		mu.Unlock()
		if refuse != 0 {
			_, _ = io.WriteString(c, fmt.Sprintf("HTTP/1.1 %d %s\r\n\r\n", refuse, http.StatusText(refuse)))
			return
		}
		up, err := net.Dial("tcp", to)
		if err != nil {
			return
		}
		defer up.Close()
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
		done := make(chan struct{})
		go func() { defer close(done); _, _ = io.Copy(up, c); up.Close() }()
		_, _ = io.Copy(c, up)
		c.Close()
		<-done
	}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(c) })
		}
	})
	return &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("me", "proxy-secret")},
		func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(asked)
		}
}

func through(p *url.URL) func(*upstream.Options) {
	return func(o *upstream.Options) { o.Proxy = func(*url.URL) (*url.URL, error) { return p, nil } }
}

func TestProxy(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: []string{"reg.example"}}})
	built := s.AddImage(repo, "1", origin.Image{})
	p, asked := proxy(t, 0, s.Host())
	m, err := registry(t, "https://reg.example", ca(s), through(p)).Manifest(t.Context(), repo, "1")
	if err != nil || m.Digest != built.Root.Digest {
		t.Fatalf("%v, %v", m, err)
	}
	if diff := cmp.Diff([]string{"CONNECT reg.example:443"}, asked()); diff != "" {
		t.Errorf("the proxy was asked (-want +got)\n%s", diff)
	}
}

func TestProxyRefuses(t *testing.T) {
	t.Parallel()
	p, _ := proxy(t, http.StatusProxyAuthRequired, "")
	_, err := registry(t, "https://reg.example", through(p)).Manifest(t.Context(), repo, "1")
	e := upstreamError(t, err)
	if got, ok := errors.AsType[*fault.ProxyError](err); !ok || got.Status != 407 || got.Proxy != p.Host {
		t.Errorf("%v, want a ProxyError with 407", err)
	}
	if step := e.Step(); step.Name != fault.StepProxy || step.Host != p.Host {
		t.Errorf("last step %+v", step)
	}
	if strings.Contains(err2s(e), "proxy-secret") {
		t.Errorf("the proxy's password shows in %v", e)
	}

	mute, _ := proxy(t, 0, closedPort(t))
	_, err = registry(t, "https://reg.example", through(mute)).Manifest(t.Context(), repo, "1")
	if e := upstreamError(t, err); e.Step().Name != fault.StepProxy || e.Step().Host != mute.Host {
		t.Errorf("proxy that hangs up: %v, last step %+v", e, e.Step())
	}

	down := &url.URL{Scheme: "http", Host: closedPort(t)}
	_, err = registry(t, "https://reg.example", through(down)).Manifest(t.Context(), repo, "1")
	if e := upstreamError(t, err); e.Step().Name != fault.StepProxy || e.Step().Host != down.Host || !errors.Is(err,
		syscall.ECONNREFUSED) {
		t.Errorf("proxy down: %v, last step %+v", e, e.Step())
	}
}

func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	p, asked := proxy(t, http.StatusForbidden, "")
	// The environment is read once in the life of a process.
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), child+"=1", "HTTPS_PROXY="+p.String(), "NO_PROXY=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if diff := cmp.Diff([]string{"CONNECT reg.example:443"}, asked()); diff != "" {
		t.Errorf("the proxy was asked (-want +got)\n%s\n%s", diff, out)
	}
	if !strings.Contains(string(out), "answered 403") || strings.Contains(string(out), "proxy-secret") {
		t.Errorf("it said %s", out)
	}
}

func TestRedirectsBehindAProxy(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	for _, tt := range []struct {
		name, location string
		hosts          []string
		why            string
	}{
		{"named", "https://cdn.example/blob", []string{"cdn.example"}, ""},
		{"not named", "https://intranet.example/blob", []string{"cdn.example"}, "behind a proxy, and not in redirectHosts"},
		{"private address", "https://10.0.0.1/blob", nil, "to a private address"},
		{"named private address", "https://127.0.0.1/blob", []string{"127.0.0.1"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: []string{
				"reg.example",
				"cdn.example",
			}}})
			d := s.AddBlob(repo, content)
			s.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Do: origin.Fault{
				Status: 307,
				Header: http.Header{"Location": {tt.location}},
			}})
			s.Script(origin.Rule{Kind: origin.KindOther, Do: origin.Fault{Handler: func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
			}}})
			p, asked := proxy(t, 0, s.Host())
			r := registry(t, "https://reg.example", ca(s), through(p), func(o *upstream.Options) { o.RedirectHosts = tt.hosts })
			b, _, err := fetch(t, r, d.Digest, flight.Want{To: 1000})
			if tt.why == "" {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			if got, ok := errors.AsType[*fault.RedirectError](err); !ok || got.Why != tt.why {
				t.Errorf("%v, want %q", err, tt.why)
			}
			if got := asked(); len(got) != 1 {
				t.Errorf("the proxy was asked for %q", got)
			}
		})
	}
}
