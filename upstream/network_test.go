package upstream_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// closedPort is an address that refuses connections, and that nothing else gets meanwhile.
func closedPort(t *testing.T) string {
	t.Helper()
	o := origin.Start(t, origin.Options{})
	o.Down()
	return o.Host()
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
		step   fault.StepName
		before []fault.StepName
		is     func(error) bool
	}{
		{"no such host", "https://missing.example", nil, fault.StepDNS, nil, func(err error) bool {
			e, ok := errors.AsType[*net.DNSError](err)
			return ok && e.IsNotFound
		}},
		{"DNS fails", "https://servfail.example", nil, fault.StepDNS, nil, func(err error) bool {
			e, ok := errors.AsType[*net.DNSError](err)
			return ok && e.IsTemporary && !e.IsNotFound
		}},
		{"refused", "https://" + closedPort(t), nil, fault.StepDial, nil, func(err error) bool {
			return errors.Is(err,
				syscall.ECONNREFUSED)
		}},
		{
			"refused behind a name", "https://reg.example:" + strings.Split(closedPort(t), ":")[1], nil, fault.StepDial,
			[]fault.StepName{fault.StepDNS},
			func(err error) bool { return errors.Is(err, syscall.ECONNREFUSED) },
		},
		{
			"unknown authority", secure.URL(), nil, fault.StepTLS,
			[]fault.StepName{fault.StepDial},
			func(err error) bool {
				_, ok := errors.AsType[x509.UnknownAuthorityError](err)
				return ok
			},
		},
		{
			"expired certificate", expired.URL(), ca(expired), fault.StepTLS,
			[]fault.StepName{fault.StepDial},
			func(err error) bool {
				e, ok := errors.AsType[x509.CertificateInvalidError](err)
				return ok && e.Reason == x509.Expired
			},
		},
		{
			"wrong name", named.URL(), ca(named), fault.StepTLS,
			[]fault.StepName{fault.StepDial},
			func(err error) bool {
				_, ok := errors.AsType[x509.HostnameError](err)
				return ok
			},
		},
		{
			"http on https", "https://" + plain.Host(), nil, fault.StepTLS,
			[]fault.StepName{fault.StepDial},
			func(err error) bool {
				_, ok := errors.AsType[tls.RecordHeaderError](err)
				return ok || errors.Is(err, http.ErrSchemeMismatch)
			},
		},
		{
			"no word", "http://" + mute.Addr().String(), func(o *upstream.Options) { o.HeaderTimeout = 50 * time.Millisecond },
			fault.StepManifest,
			[]fault.StepName{fault.StepDial},
			func(err error) bool {
				e, ok := errors.AsType[net.Error](err)
				return ok && e.Timeout()
			},
		},
		{"dial takes too long", "https://slow.example", func(o *upstream.Options) {
			o.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
			o.DialTimeout = 20 * time.Millisecond
		}, fault.StepDial, nil, func(err error) bool { return errors.Is(err, context.DeadlineExceeded) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := registry(t, tt.url, resolver(names(t, map[string]string{
				"reg.example":      "127.0.0.1",
				"servfail.example": "servfail",
			})),
				func(o *upstream.Options) {
					if tt.change != nil {
						tt.change(o)
					}
				})
			_, err := r.Manifest(t.Context(), repo, "1")
			e := upstreamError(t, err)
			if !tt.is(err) {
				t.Errorf("unexpected error %v (%T)", err, e.Err)
			}
			step := e.Step()
			host := parse(t, tt.url).Host
			if step.Name != tt.step || step.Host != host || step.Err == nil || step.Status != 0 {
				t.Errorf("last step %+v, want %s at %s", step, tt.step, host)
			}
			if tt.step != fault.StepDNS && strings.Contains(host, ":") && step.Addr == "" {
				t.Errorf("step %+v has no address", step)
			}
			var before []fault.StepName
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
	s := origin.Start(t, origin.Options{TLS: true, Redirect: true, Auth: origin.Auth{
		Kind: "bearer", Anonymous: true,
		SeparateHost: true,
	}})
	d := s.AddBlob(repo, blobOf(1000))
	var mu sync.Mutex
	var seen []endpoint.Exchange
	r := registry(t, s.URL(), ca(s), func(o *upstream.Options) {
		o.AuthHosts = []string{s.TokenHost()}
		o.Observe = func(x endpoint.Exchange) {
			mu.Lock()
			defer mu.Unlock()
			if x.Took <= 0 {
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
		if seen[i].Kind == fault.StepToken || seen[i].Status == 401 {
			seen[i].Bytes = 0 // whatever they are
		}
	}
	if diff := cmp.Diff([]endpoint.Exchange{
		{Kind: fault.StepBlobRegistry, Status: 401},
		{Kind: fault.StepToken, Status: 200},
		{Kind: fault.StepBlobRegistry, Status: 307},
		{Kind: fault.StepBlobHost, Status: 206, Bytes: 200},
	}, seen); diff != "" {
		t.Errorf("exchanges (-want +got)\n%s", diff)
	}
	mu.Unlock()

	// The steps of a failure agree with its error.
	s.Script(origin.Rule{Kind: origin.KindCDN, Do: origin.Fault{Status: 403, Body: origin.XMLBody("AccessDenied",
		"blocked by egress")}})
	_, err := r.Blob(t.Context(), repo, d.Digest, flight.Want{To: 1000})
	e := upstreamError(t, err)
	if e.Status != 403 || e.Code != "AccessDenied" || e.BodyKind != fault.BodyXML || e.Message != "blocked by egress" {
		t.Errorf("%v", e)
	}
	if step := e.Step(); step.Name != fault.StepBlobHost || step.Host != s.CDNHost() || step.Status != 403 ||
		step.Took <= 0 {
		t.Errorf("last step %+v", step)
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

// Bytes are counted while they arrive, and in the end their number is that of the exchanges.
func TestReceivedTellsOfBytesAsTheyArrive(t *testing.T) {
	t.Parallel()
	const n = 1 << 20
	s := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}, Redirect: true})
	built := s.AddImage(repo, "1", origin.Image{})
	d := s.AddBlob(repo, blobOf(n))
	gate := origin.NewGate()
	s.Script(origin.Rule{Kind: origin.KindCDN, Do: origin.Fault{Stall: &origin.Stall{At: n / 2, Gate: gate}}})
	defer gate.Open()
	var arrived, exchanged atomic.Int64
	r := registry(t, s.URL(), func(o *upstream.Options) {
		o.Received = func(n int) { arrived.Add(int64(n)) }
		o.Observe = func(x endpoint.Exchange) { exchanged.Add(x.Bytes) }
	})
	if _, err := r.Manifest(t.Context(), repo, built.Root.Digest.String()); err != nil {
		t.Fatal(err)
	}
	body, err := r.Blob(t.Context(), repo, d.Digest, flight.Want{To: n})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	before := arrived.Load()
	if _, err := io.ReadFull(body, make([]byte, n/2)); err != nil {
		t.Fatal(err)
	}
	if got := arrived.Load() - before; got < n/2 || exchanged.Load() > n/2 {
		t.Errorf("%d bytes have arrived, %d in exchanges, while half of the blob is there", got, exchanged.Load())
	}
	gate.Open()
	if _, err := io.Copy(io.Discard, body); err != nil {
		t.Fatal(err)
	}
	_ = body.Close()
	if arrived.Load() != exchanged.Load() || arrived.Load() < n {
		t.Errorf("%d bytes have arrived, %d in exchanges", arrived.Load(), exchanged.Load())
	}
}

func TestNoSecretInErrorsAndLogs(t *testing.T) {
	t.Parallel()
	const canary = "canary-5up3r"
	var s *server
	s = serve(t, func(w http.ResponseWriter, r *http.Request) {
		// A server that repeats all that it was sent.
		if strings.Contains(r.URL.Path, "page") {
			_, _ = io.WriteString(w, "<html><title>"+canary+"</title>")
			return
		}
		w.Header().Set("WWW-Authenticate",
			`Bearer realm="`+s.URL+`/token?x=`+canary+`",service="`+r.Header.Get("Authorization")+`"`)
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = io.WriteString(w,
			`{"errors":[{"code":"`+canary+`","message":"you sent `+r.Header.Get("Authorization")+` and `+canary+`"}]}`)
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
