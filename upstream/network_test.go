package upstream_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
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
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
)

// closedPort is an address that refuses connections.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func resolver(r *net.Resolver) func(*upstream.Options) {
	return func(o *upstream.Options) { o.Resolver = r }
}

func TestHosts(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	plain := origin.Start(t, origin.Options{})
	secure := origin.Start(t, origin.Options{TLS: true})
	expired := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Expired: true}})
	named := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{WrongName: true}})
	for _, tt := range []struct {
		name   string
		url    string
		change func(*upstream.Options)
		step   upstream.StepName
		before []upstream.StepName
		is     func(error) bool
	}{
		{"no such host", "https://missing.example", nil, upstream.StepDNS, nil, func(err error) bool {
			e, ok := errors.AsType[*net.DNSError](err)
			return ok && e.IsNotFound
		}},
		{"DNS fails", "https://servfail.example", nil, upstream.StepDNS, nil, func(err error) bool {
			e, ok := errors.AsType[*net.DNSError](err)
			return ok && e.IsTemporary && !e.IsNotFound
		}},
		{"refused", "https://" + closedPort(t), nil, upstream.StepDial, nil, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{"refused behind a name", "https://reg.example:" + strings.Split(closedPort(t), ":")[1], nil, upstream.StepDial, []upstream.StepName{upstream.StepDNS}, func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) }},
		{"unknown authority", secure.URL(), nil, upstream.StepTLS, []upstream.StepName{upstream.StepDial}, func(err error) bool {
			_, ok := errors.AsType[x509.UnknownAuthorityError](err)
			return ok
		}},
		{"expired certificate", expired.URL(), ca(expired), upstream.StepTLS, []upstream.StepName{upstream.StepDial}, func(err error) bool {
			e, ok := errors.AsType[x509.CertificateInvalidError](err)
			return ok && e.Reason == x509.Expired
		}},
		{"wrong name", named.URL(), ca(named), upstream.StepTLS, []upstream.StepName{upstream.StepDial}, func(err error) bool {
			_, ok := errors.AsType[x509.HostnameError](err)
			return ok
		}},
		{"http on https", "https://" + plain.Host(), nil, upstream.StepTLS, []upstream.StepName{upstream.StepDial}, func(err error) bool {
			_, ok := errors.AsType[tls.RecordHeaderError](err)
			return ok || errors.Is(err, http.ErrSchemeMismatch)
		}},
		{"no word", "http://" + mute.Addr().String(), func(o *upstream.Options) { o.HeaderTimeout = 50 * time.Millisecond }, upstream.StepManifest, []upstream.StepName{upstream.StepDial}, func(err error) bool {
			e, ok := errors.AsType[net.Error](err)
			return ok && e.Timeout()
		}},
		{"dial takes too long", "https://slow.example", func(o *upstream.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
			o.DialTimeout = 20 * time.Millisecond
		}, upstream.StepDial, nil, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := registry(t, tt.url, resolver(names(t, map[string]string{"reg.example": "127.0.0.1", "servfail.example": "servfail"})),
				func(o *upstream.Options) {
					if tt.change != nil {
						tt.change(o)
					}
				})
			_, err := r.Manifest(t.Context(), repo, "1")
			e := upstreamError(t, err)
			if !tt.is(err) {
				t.Errorf("%v (%T) is not what it should be", err, e.Err)
			}
			step := e.Step()
			host := parse(t, tt.url).Host
			if step.Name != tt.step || step.Host != host || step.Err == nil || step.Status != 0 {
				t.Errorf("last step %+v, want %s at %s", step, tt.step, host)
			}
			if tt.step != upstream.StepDNS && strings.Contains(host, ":") && step.Addr == "" {
				t.Errorf("step %+v has no address", step)
			}
			var before []upstream.StepName
			for _, s := range e.Steps[:len(e.Steps)-1] {
				if before = append(before, s.Name); s.Err != nil {
					t.Errorf("step %+v before the last", s)
				}
			}
			if diff := cmp.Diff(tt.before, before); diff != "" {
				t.Errorf("steps before (-want +got)\n%s", diff)
			}
			if e.Status != 0 {
				t.Errorf("status %d without an answer", e.Status)
			}
		})
	}
}

func ca(o *origin.Origin) func(*upstream.Options) {
	return func(u *upstream.Options) { u.Endpoints[0].RootCAs = o.CA() }
}

func TestTLSAndSteps(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{TLS: true, Redirect: true, Auth: origin.Auth{Kind: "bearer", Anonymous: true, SeparateHost: true}})
	d := s.AddBlob(repo, blobOf(1000))
	var mu sync.Mutex
	var seen []upstream.Exchange
	r := registry(t, s.URL(), ca(s), func(o *upstream.Options) {
		o.AuthHosts = []string{s.TokenHost()}
		o.Observe = func(x upstream.Exchange) {
			mu.Lock()
			defer mu.Unlock()
			if x.Took <= 0 || x.Err != nil || x.Upstream != "up.example" {
				t.Errorf("exchange %+v", x)
			}
			x.Took = 0
			seen = append(seen, x)
		}
	})
	if b, _, err := fetch(t, r, d.Digest, flight.Want{From: 100, To: 300}); err != nil || len(b) != 200 {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	mu.Lock()
	for i := range seen {
		if seen[i].Kind == upstream.StepToken || seen[i].Status == 401 {
			seen[i].Bytes = 0 // whatever they are
		}
	}
	reg, up := s.Host(), "up.example"
	if diff := cmp.Diff([]upstream.Exchange{
		{Upstream: up, Kind: upstream.StepBlobRegistry, Method: "GET", Host: reg, Status: 401, From: 100},
		{Upstream: up, Kind: upstream.StepToken, Method: "GET", Host: s.TokenHost(), Status: 200},
		{Upstream: up, Kind: upstream.StepBlobRegistry, Method: "GET", Host: reg, Status: 307, From: 100},
		{Upstream: up, Kind: upstream.StepBlobHost, Method: "GET", Host: s.CDNHost(), Status: 200 + 6, From: 100, Bytes: 200},
	}, seen); diff != "" {
		t.Errorf("exchanges (-want +got)\n%s", diff)
	}
	mu.Unlock()

	// The steps of a failure tell the same story.
	s.Script(origin.Rule{Kind: origin.KindCDN, Do: origin.Fault{Status: 403, Body: origin.XMLBody("AccessDenied", "blocked by egress")}})
	_, err := r.Blob(t.Context(), repo, d.Digest, flight.Want{To: 1000})
	e := upstreamError(t, err)
	if e.Status != 403 || e.Code != "AccessDenied" || e.BodyKind != upstream.BodyXML || e.Message != "blocked by egress" {
		t.Errorf("%v", e)
	}
	if step := e.Step(); step.Name != upstream.StepBlobHost || step.Host != s.CDNHost() || step.Status != 403 || step.Took <= 0 {
		t.Errorf("last step %+v", step)
	}
}

// TestRedirectsTakeNoCredentials has a registry that wants a password redirect to servers that listen for it.
func TestRedirectsTakeNoCredentials(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	sniffer := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if a := r.Header.Get("Authorization"); a != "" {
			t.Errorf("the sniffer got %s", a)
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="please"`)
		if r.URL.Path == "/ask" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
	})
	for _, tt := range []struct {
		name, location string
		status         int
	}{
		{"other port", sniffer.URL + "/blob", 200},
		{"same name, other port", "http://reg.example:" + portOf(sniffer) + "/blob", 200},
		{"sub-domain", "http://cdn.reg.example:" + portOf(sniffer) + "/blob", 200},
		{"asks for a password", sniffer.URL + "/ask", 401},
		{"with a password", "http://bot:pw@" + sniffer.host() + "/blob", 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Authorization") != basic("bot", "pw") {
					w.Header().Set("WWW-Authenticate", `Basic realm="reg"`)
					w.WriteHeader(http.StatusUnauthorized)
					return
				}
				http.Redirect(w, r, tt.location, http.StatusTemporaryRedirect)
			})
			r := registry(t, "http://reg.example:"+portOf(s), as(login("bot", "pw")),
				resolver(names(t, map[string]string{"reg.example": "127.0.0.1", "cdn.reg.example": "127.0.0.1"})))
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000})
			if tt.status == 200 {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			e := upstreamError(t, err)
			if e.Status != tt.status || e.Step().Name != upstream.StepBlobHost || e.Step().Host != sniffer.host() {
				t.Errorf("%v, last step %+v", e, e.Step())
			}
		})
	}
}

// at makes a connection look as if it led to an address.
type at struct {
	net.Conn
	addr net.Addr
}

func (a at) RemoteAddr() net.Addr { return a.addr }

// TestRedirectsToPrivateAddresses has a registry that seems to be public redirect to a server on this machine.
func TestRedirectsToPrivateAddresses(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	inside := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "", zeroTime, strings.NewReader(string(content)))
	})
	for _, tt := range []struct {
		name, location string
		hosts          []string // redirectHosts
		from           string   // address of the registry
		why            string   // of the RedirectError; "address": an AddressError; empty: followed
	}{
		{"address from public", inside.URL, nil, "93.184.216.34", "to a private address"},
		{"name from public", "http://inside.example:" + portOf(inside), nil, "93.184.216.34", "address"},
		{"name from private", "http://inside.example:" + portOf(inside), nil, "10.0.0.1", "address"},
		{"name from this machine", "http://inside.example:" + portOf(inside), nil, "127.0.0.1", ""},
		{"named from public", "http://inside.example:" + portOf(inside), []string{"inside.example"}, "93.184.216.34", ""},
		{"named with its port", "http://inside.example:" + portOf(inside), []string{"inside.example:" + portOf(inside)}, "93.184.216.34", ""},
		{"named with another port", "http://inside.example:" + portOf(inside), []string{"inside.example:1"}, "93.184.216.34", "address"},
		{"named address", inside.URL, []string{"127.0.0.1"}, "93.184.216.34", ""},
		{"http after https is in another test", inside.URL, nil, "127.0.0.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, func(w http.ResponseWriter, r *http.Request) {
				http.Redirect(w, r, tt.location+"/blob?sig=secret", http.StatusTemporaryRedirect)
			})
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, port, _ := net.SplitHostPort(addr)
				var d net.Dialer
				c, err := d.DialContext(ctx, network, "127.0.0.1:"+port)
				if err == nil && host == "reg.example" {
					return at{c, &net.TCPAddr{IP: net.ParseIP(tt.from), Port: 443}}, nil
				}
				return c, err
			}
			r := registry(t, "http://reg.example:"+portOf(s), func(o *upstream.Options) {
				o.Dial, o.RedirectHosts = dial, tt.hosts
			})
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000})
			if tt.why == "" {
				if err != nil || string(b) != string(content) {
					t.Errorf("%d bytes, %v", len(b), err)
				}
				return
			}
			e := upstreamError(t, err)
			if strings.Contains(err2s(e), "secret") {
				t.Errorf("the query shows in %v", e)
			}
			if tt.why == "address" {
				if got, ok := errors.AsType[*upstream.AddressError](err); !ok || got.Host != "inside.example" || got.Addr != "127.0.0.1" {
					t.Errorf("%v, want an AddressError", err)
				}
				return
			}
			if got, ok := errors.AsType[*upstream.RedirectError](err); !ok || got.Why != tt.why {
				t.Errorf("%v, want %q", err, tt.why)
			}
		})
	}
	t.Run("metadata service behind a name", func(t *testing.T) {
		t.Parallel()
		s := serve(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://meta.example/latest/", http.StatusTemporaryRedirect)
		})
		// No hook: what refuses is the socket's control hook, after DNS and before the first packet.
		r := registry(t, s.URL, resolver(names(t, map[string]string{"meta.example": "169.254.169.254"})))
		_, err := r.Blob(t.Context(), repo, digestOf(nil), flight.Want{To: 10})
		e := upstreamError(t, err)
		if got, ok := errors.AsType[*upstream.AddressError](err); !ok || got.Host != "meta.example" || got.Addr != "169.254.169.254" {
			t.Errorf("%v, want an AddressError", err)
		}
		if step := e.Step(); step.Name != upstream.StepDial || step.Host != "meta.example" {
			t.Errorf("last step %+v", step)
		}
	})
}

func TestDialCheckSeesTheAddressThatIsDialled(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	o := upstream.Options{Resolver: names(t, map[string]string{"rebind.example": "127.0.0.1", "six.example": "::1"})}
	for _, host := range []string{"127.0.0.1", "rebind.example", "six.example", "::ffff:127.0.0.1", "0.0.0.0"} {
		c, err := upstream.DialPublic(t.Context(), o, net.JoinHostPort(host, port))
		if err == nil {
			c.Close()
			t.Errorf("%s was dialled", host)
		} else if _, ok := errors.AsType[*upstream.AddressError](err); !ok {
			t.Errorf("%s: %v, want an AddressError", host, err)
		}
	}
	got := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			c.Close()
		}
		got <- err
	}()
	l.Close()
	if err := <-got; err == nil {
		t.Error("a connection arrived")
	}
}

// proxy is an HTTP proxy on loopback. refuse is the status that it answers, 0: it connects, wherever that is said to
// be, to a server.
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
			_, _ = io.WriteString(c, "HTTP/1.1 "+http.StatusText(refuse)+"\r\n\r\n")
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
	return &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("me", "proxy-secret")}, func() []string {
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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
			}
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	p := &url.URL{Scheme: "http", Host: l.Addr().String(), User: url.UserPassword("me", "proxy-secret")}
	_, err = registry(t, "https://reg.example", through(p)).Manifest(t.Context(), repo, "1")
	e := upstreamError(t, err)
	if got, ok := errors.AsType[*upstream.ProxyError](err); !ok || got.Status != 407 || got.Proxy != p.Host {
		t.Errorf("%v, want a ProxyError with 407", err)
	}
	if step := e.Step(); step.Name != upstream.StepProxy || step.Host != p.Host {
		t.Errorf("last step %+v", step)
	}
	if strings.Contains(err2s(e), "proxy-secret") {
		t.Errorf("the proxy's password shows in %v", e)
	}

	down := &url.URL{Scheme: "http", Host: closedPort(t)}
	_, err = registry(t, "https://reg.example", through(down)).Manifest(t.Context(), repo, "1")
	if e := upstreamError(t, err); e.Step().Name != upstream.StepProxy || e.Step().Host != down.Host || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("proxy down: %v, last step %+v", e, e.Step())
	}
}

func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	p, asked := proxy(t, 0, closedPort(t))
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
			s := origin.Start(t, origin.Options{TLS: true, Certificate: origin.Certificate{Names: []string{"reg.example", "cdn.example"}}})
			d := s.AddBlob(repo, content)
			s.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Do: origin.Fault{Status: 307, Header: http.Header{"Location": {tt.location}}}})
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
			if got, ok := errors.AsType[*upstream.RedirectError](err); !ok || got.Why != tt.why {
				t.Errorf("%v, want %q", err, tt.why)
			}
			if got := asked(); len(got) != 1 {
				t.Errorf("the proxy was asked for %q", got)
			}
		})
	}
}

func TestVia(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{Redirect: true, Auth: origin.Auth{Kind: "bearer", Anonymous: true}})
	d := s.AddBlob(repo, blobOf(10))
	r := registry(t, s.URL(), func(o *upstream.Options) { o.Via = "mirror-1f2e" })
	if _, _, err := fetch(t, r, d.Digest, flight.Want{To: 10}); err != nil {
		t.Fatal(err)
	}
	for _, q := range s.Requests() {
		want := ""
		if q.Kind == origin.KindBlob {
			want = "1.1 mirror-1f2e"
		}
		if got := q.Header.Get("Via"); got != want {
			t.Errorf("%s: Via %q, want %q", q.Kind, got, want)
		}
	}
}

func TestNoSecretInErrorsAndLogs(t *testing.T) {
	t.Parallel()
	const canary = "canary-5up3r"
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		// A server that repeats everything it was told.
		if strings.Contains(r.URL.Path, "page") {
			_, _ = io.WriteString(w, "<html><title>"+canary+"</title>")
			return
		}
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token?x=`+canary+`",service="`+r.Header.Get("Authorization")+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w, `{"errors":[{"code":"`+canary+`","message":"you sent `+r.Header.Get("Authorization")+` and `+canary+`"}]}`)
	})
	var log strings.Builder
	r := registry(t, s.URL, as(login("bot", canary)), func(o *upstream.Options) { o.Log = textLog(&log) })
	for name, ask := range map[string]func() error{
		"resolve":  func() error { _, err := r.Resolve(t.Context(), repo, "1"); return err },
		"manifest": func() error { _, err := r.Manifest(t.Context(), repo, "1"); return err },
		"stat":     func() error { _, err := r.Stat(t.Context(), repo, digestOf(nil)); return err },
		"tags":     func() error { _, err := r.Tags(t.Context(), repo, nil); return err },
		"page":     func() error { _, err := r.Manifest(t.Context(), "page", "1"); return err },
	} {
		e := upstreamError(t, ask())
		text := err2s(e) + err2s(e.Err) + e.Challenge + e.Message + e.Code + e.Credential.LastError
		for _, step := range e.Steps {
			text += err2s(step.Err)
		}
		if strings.Contains(text, canary) || strings.Contains(text, basic("bot", canary)[6:]) {
			t.Errorf("%s: the password shows in %s", name, text[max(0, strings.Index(text, canary)-300):])
		}
	}
	if strings.Contains(log.String(), canary) || log.Len() == 0 {
		t.Errorf("log %q", log.String())
	}
}
