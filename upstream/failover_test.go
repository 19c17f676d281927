package upstream_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// several is a Registry with an endpoint for each URL.
func several(t testing.TB, urls []string, change ...func(*upstream.Options)) *upstream.Registry {
	t.Helper()
	return registry(t, urls[0], append([]func(*upstream.Options){func(o *upstream.Options) {
		o.Endpoints = nil
		for _, s := range urls {
			u, err := url.Parse(s)
			if err != nil {
				t.Fatal(err)
			}
			o.Endpoints = append(o.Endpoints, upstream.Endpoint{URL: u})
		}
	}}, change...)...)
}

// itself says which endpoint is the registry itself.
func itself(i int) func(*upstream.Options) {
	return func(o *upstream.Options) { o.Endpoints[i].Registry = true }
}

// dies has an origin send the beginning of a blob, and then no answer to any request.
func dies(s *origin.Origin, at int64) {
	s.Script(origin.Rule{Do: origin.Fault{Drop: true}})
	s.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Do: origin.Fault{Cut: &origin.Cut{At: at}}})
}

// TestFailoverInTheMiddle has the first endpoint die in the middle of a blob: the second one sends the rest, and no
// byte comes twice.
func TestFailoverInTheMiddle(t *testing.T) {
	t.Parallel()
	const n, cut = 5 << 20, 2_000_003
	content := blobOf(n)
	for _, tt := range []struct {
		name  string
		want  flight.Want
		first origin.Options
		then  origin.Options
	}{
		{name: "whole", want: flight.Want{To: n, Size: n}},
		{name: "of unknown size", want: flight.Want{To: -1}},
		{name: "a part", want: flight.Want{From: 100, To: n - 100, Size: n}},
		{name: "to a redirecting one", want: flight.Want{To: n}, then: origin.Options{Redirect: true}},
		{name: "one that says no length", want: flight.Want{To: n, Size: n}, first: origin.Options{NoLength: true}},
		{name: "with tokens of its own", want: flight.Want{To: n}, then: origin.Options{Auth: origin.Auth{
			Kind: "bearer", Anonymous: true,
		}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := origin.Start(t, tt.first), origin.Start(t, tt.then)
			d := a.AddBlob(repo, content)
			b.AddBlob(repo, content)
			dies(a, cut)
			got, body, err := fetch(t, several(t, []string{a.URL(), b.URL()}), d.Digest, tt.want)
			end := tt.want.To
			if end < 0 {
				end = n
			}
			if err != nil || !bytes.Equal(got, content[tt.want.From:end]) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if body.Host() == a.Host() {
				t.Error("the rest is said to come from the first endpoint")
			}
			if sent := a.Bytes(d.Digest) + b.Bytes(d.Digest); sent != end-tt.want.From {
				t.Errorf("%d and %d bytes were sent for %d", a.Bytes(d.Digest), b.Bytes(d.Digest), end-tt.want.From)
			}
			for _, q := range b.Requests() {
				want := fmt.Sprintf("bytes=%d-%d", tt.want.From+cut, end-1)
				if rng := q.Header.Get("Range"); rng != want && q.Kind != origin.KindToken {
					t.Errorf("Range %q, want %q", rng, want)
				}
			}
		})
	}
}

// TestFailoverIsChecked has an endpoint answer with something else than the rest: it is not believed, and the next one
// is asked.
func TestFailoverIsChecked(t *testing.T) {
	t.Parallel()
	const n, cut = 1 << 20, 300_000
	content := blobOf(n)
	rng := func(v string) origin.Fault { return origin.Fault{Header: http.Header{"Content-Range": {v}}} }
	for _, tt := range []struct {
		name string
		do   origin.Fault
		kind fault.ContentKind
	}{
		{name: "another part", do: rng("bytes 0-748575/1048576"), kind: fault.ContentRange},
		{name: "a byte less", do: rng("bytes 300000-1048574/1048576"), kind: fault.ContentRange},
		{name: "a byte later", do: rng("bytes 300001-1048575/1048576"), kind: fault.ContentRange},
		{name: "no range", do: rng(""), kind: fault.ContentRange},
		{name: "another size", do: rng("bytes 300000-1048575/1048577"), kind: fault.ContentSize},
		{name: "another blob", do: origin.Fault{Status: 200, Body: strings.Repeat("x", 500_000)}, kind: fault.ContentSize},
		{name: "a page", do: origin.Fault{Status: 200, Body: origin.HTMLBody("Sign in")}, kind: fault.ContentNotRegistry},
		{name: "packed", do: origin.Fault{Gzip: true}, kind: fault.ContentEncoding},
		{name: "none", do: origin.Fault{Status: 404}},
		{name: "no rights", do: origin.Fault{Status: 403}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b, c := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{})
			d := a.AddBlob(repo, content)
			b.AddBlob(repo, content)
			c.AddBlob(repo, content)
			dies(a, cut)
			b.Script(origin.Rule{Kind: origin.KindBlob, Do: tt.do})
			r := several(t, []string{a.URL(), b.URL(), c.URL()})
			got, _, err := fetch(t, r, d.Digest, flight.Want{To: n, Size: n})
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes, %v", len(got), err)
			}
			if sent := c.Bytes(d.Digest); sent != n-cut {
				t.Errorf("the last endpoint sent %d bytes, want %d", sent, n-cut)
			}
			if b.Count(origin.KindBlob) != 1 {
				t.Errorf("the wrong endpoint was asked %d times", b.Count(origin.KindBlob))
			}
		})
	}
}

// TestNoEndpointHasTheRest has the first endpoint die in the middle, and the second one never send the rest: the error has the
// steps at both.
func TestNoEndpointHasTheRest(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]http.HandlerFunc{
		"wrong range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 0-49/100")
			w.WriteHeader(http.StatusPartialContent)
			_, _ = w.Write(make([]byte, 50))
		},
		"missing":  func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) },
		"stumbles": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			hosts(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.Host == "b.example":
					rest(w, r)
				case r.Header.Get("Range") == "":
					w.Header().Set("Content-Length", "100")
					_, _ = w.Write(make([]byte, 50))
					w.(http.Flusher).Flush()
					panic(http.ErrAbortHandler)
				default:
					w.WriteHeader(http.StatusServiceUnavailable)
				}
			}, func(t *testing.T, r *upstream.Registry, _ *network) {
				begin := time.Now()
				b, _, err := fetch(t, r, digestOf(nil), flight.Want{To: 100, Size: 100})
				if !bytes.Equal(b, make([]byte, 50)) {
					t.Errorf("%d bytes, want the 50 that came", len(b))
				}
				e := upstreamError(t, err)
				asked := make(map[string]int)
				for _, s := range e.Steps {
					asked[s.Host]++
				}
				if asked["a.example"] == 0 || asked["b.example"] == 0 {
					t.Errorf("steps %+v, want those of both", e.Steps)
				}
				if took := time.Since(begin); took > 5*time.Minute {
					t.Errorf("given up after %s", took)
				}
			})
		})
	}
}

// network is a network in memory on which addresses can be cut off.
type network struct {
	*pipes
	mu    sync.Mutex
	black map[string]bool // by host:port: connections to it get no answer at all
	asked map[string]int  // dials
}

func (n *network) Dial(ctx context.Context, kind, addr string) (net.Conn, error) {
	n.mu.Lock()
	n.asked[addr]++
	black := n.black[addr]
	n.mu.Unlock()
	if black {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return n.pipes.Dial(ctx, kind, addr)
}

// cut makes a host black, or ends that.
func (n *network) cut(host string, black bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.black[host+":80"] = black
}

// hosts runs a test in a bubble with a registry that has the endpoints a.example and b.example, which is the registry
// itself. Both are h.
func hosts(t *testing.T, h http.HandlerFunc, f func(t *testing.T, r *upstream.Registry, n *network),
	change ...func(*upstream.Options),
) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &network{pipes: newPipes(t, h), black: make(map[string]bool), asked: make(map[string]int)}
		r := several(t, []string{"http://a.example", "http://b.example"}, append([]func(*upstream.Options){
			func(o *upstream.Options) { o.Dial = n.Dial },
		}, change...)...)
		f(t, r, n)
	})
}

// TestNextEndpoint has a mirror of a registry, and the registry itself, fail in turn.
func TestNextEndpoint(t *testing.T) {
	t.Parallel()
	status := func(code int) origin.Fault { return origin.Fault{Status: code} }
	refused := origin.Fault{Status: -1} // no connection at all
	for _, tt := range []struct {
		name          string
		first, second *origin.Fault // nil: it answers well
		itself        int
		asked         bool // the second endpoint
		status        int  // of the error; -1: the connection was refused; 0: none
	}{
		{name: "the first has it"},
		{name: "mirror lacks it", first: new(status(404)), itself: 1, asked: true},
		{name: "mirror wants a login", first: new(status(401)), itself: 1, asked: true},
		{name: "mirror forbids", first: new(status(403)), itself: 1, asked: true},
		{name: "mirror limits", first: new(status(429)), itself: 1, asked: true},
		{name: "mirror stumbles", first: new(status(503)), itself: 1, asked: true},
		{name: "mirror is down", first: &refused, itself: 1, asked: true},
		{
			name: "mirror is a page", first: &origin.Fault{Status: 200, Body: origin.HTMLBody("Sign in")}, itself: 1,
			asked: true,
		},
		{name: "mirror hangs up", first: &origin.Fault{Drop: true}, itself: 1, asked: true},
		{name: "both lack it", first: new(status(404)), second: new(status(404)), itself: 1, asked: true, status: 404},
		{
			name: "mirror lacks it, registry is down", first: new(status(404)), second: &refused, itself: 1, asked: true,
			status: -1,
		},
		{name: "registry lacks it", first: new(status(404)), status: 404},
		{name: "registry forbids", first: new(status(403)), status: 403},
		{name: "registry wants a login", first: new(status(401)), status: 401},
		{name: "registry limits", first: new(status(429)), asked: true},
		{name: "registry stumbles", first: new(status(500)), asked: true},
		{name: "registry is down", first: &refused, asked: true},
		{name: "registry is down, mirror lacks it", first: &refused, second: new(status(404)), asked: true, status: -1},
		{
			name: "registry limits, mirror lacks it", first: new(status(429)), second: new(status(404)), asked: true,
			status: 429,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			a, b := origin.Start(t, origin.Options{}), origin.Start(t, origin.Options{})
			image := a.AddImage(repo, "1", origin.Image{Layers: []int64{100}})
			b.AddImage(repo, "1", origin.Image{Layers: []int64{100}})
			for s, f := range map[*origin.Origin]*origin.Fault{a: tt.first, b: tt.second} {
				switch {
				case f == nil:
				case f.Status < 0:
					s.Down()
				default:
					s.Script(origin.Rule{Do: *f})
				}
			}
			d := image.Blobs()[0].Digest
			for name, ask := range map[string]func(r *upstream.Registry) error{
				"resolve":  func(r *upstream.Registry) error { _, err := r.Resolve(t.Context(), repo, "1"); return err },
				"manifest": func(r *upstream.Registry) error { _, err := r.Manifest(t.Context(), repo, "1"); return err },
				"stat":     func(r *upstream.Registry) error { _, err := r.Stat(t.Context(), repo, d); return err },
				"tags":     func(r *upstream.Registry) error { _, err := r.Tags(t.Context(), repo, nil); return err },
				"blob":     func(r *upstream.Registry) error { _, _, err := fetch(t, r, d, flight.Want{To: -1}); return err },
			} {
				b.ClearRequests()
				r := several(t, []string{a.URL(), b.URL()}, itself(tt.itself))
				err := ask(r)
				if tt.status == 0 && err != nil {
					t.Errorf("%s: %v", name, err)
					continue
				}
				if tt.status != 0 {
					e := upstreamError(t, err)
					if e.Status != max(tt.status, 0) || (tt.status < 0) != errors.Is(err, syscall.ECONNREFUSED) {
						t.Errorf("%s: %v, want %d", name, err, tt.status)
					}
					if last := e.Step(); last.Host != map[int]string{0: a.Host(), 1: b.Host()}[tt.itself] {
						t.Errorf("%s: the last step is of %s, not of the registry itself", name, last.Host)
					}
				}
				if asked := len(b.Requests()) > 0; asked != tt.asked && (!tt.asked || tt.second != &refused) {
					t.Errorf("%s: the second endpoint was asked: %t", name, asked)
				}
			}
		})
	}
}

// TestCredentialStaysWithItsEndpoint has each endpoint ask for a login: each sees its own password alone.
func TestCredentialStaysWithItsEndpoint(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"basic", "bearer"} {
		for _, own := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, own %t", kind, own), func(t *testing.T) {
				t.Parallel()
				mirror := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: kind, Username: "m", Password: "mirrorpw"}})
				hub := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: kind, Username: "h", Password: "hubpw"}})
				mirror.AddManifest(repo, "1", "", manifest)
				hub.AddManifest(repo, "1", "", manifest)
				r := several(t, []string{mirror.URL(), hub.URL()}, as(login("h", "hubpw")), func(o *upstream.Options) {
					if own {
						o.Endpoints[0].Credential = login("m", "mirrorpw")
					}
				})
				if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
					t.Fatal(err)
				}
				if asked := hub.Count(origin.KindManifest) > 0; asked == own {
					t.Errorf("the registry itself was asked: %t", asked)
				}
				hub.RevokeTokens()
				hub.ClearRequests()
				// A request with another credential does not use the mirror's own one either.
				if _, err := r.As(login("h", "hubpw")).Manifest(t.Context(), repo, "1"); err != nil {
					t.Fatal(err)
				}
				if hub.Count(origin.KindManifest) == 0 {
					t.Error("a mirror has answered a request with another credential by our own one")
				}
				for s, foreign := range map[*origin.Origin]string{mirror: "h", hub: "m"} {
					for _, q := range s.Requests() {
						if user, _, ok := (&http.Request{Header: q.Header}).BasicAuth(); ok && user == foreign {
							t.Errorf("%s %s was sent %s's password", q.Method, q.Path, user)
						}
					}
				}
			})
		}
	}
}

// TestPrefix asks a pull-through repository of another registry.
func TestPrefix(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}})
	const there = "corp/hub-proxy/" + repo
	image := s.AddImage(there, "1", origin.Image{Layers: []int64{100}})
	s.AddReferrer(there, image.Manifests[0], "application/x-sbom")
	r := several(t, []string{s.URL()}, func(o *upstream.Options) { o.Endpoints[0].Prefix = "/corp/hub-proxy/" })
	if _, err := r.Resolve(t.Context(), repo, "1"); err != nil {
		t.Error(err)
	}
	if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
		t.Error(err)
	}
	d := image.Blobs()[0]
	if _, err := r.Stat(t.Context(), repo, d.Digest); err != nil {
		t.Error(err)
	}
	if b, _, err := fetch(t, r, d.Digest, flight.Want{To: d.Size}); err != nil || int64(len(b)) != d.Size {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	doc, err := r.Tags(t.Context(), repo, nil)
	if err != nil || string(doc.Bytes) != `{"name":"library/app","tags":["1"]}` {
		t.Errorf("tags %+v, %v", doc, err)
	}
	doc, err = r.Referrers(t.Context(), repo, image.Manifests[0].Digest, nil)
	if err != nil || !bytes.Contains(doc.Bytes, []byte("application/x-sbom")) {
		t.Errorf("referrers %+v, %v", doc, err)
	}
	for _, q := range s.Requests() {
		if q.Repo != there {
			t.Errorf("%s %s?%s is about %q", q.Method, q.Path, q.Query, q.Repo)
		}
	}
	_, err = r.Manifest(t.Context(), repo, "2")
	if e := upstreamError(t, err); e.Repository != repo || e.Status != 404 {
		t.Errorf("%v, want the name that was asked for", err)
	}
	for _, bad := range []string{"UPPER", "a//b", "../x", "a b", "a_", "a?x=y", "a%2fb"} {
		u, _ := url.Parse(s.URL())
		if _, err := upstream.New(upstream.Options{
			Name: "x", Endpoints: []upstream.Endpoint{{URL: u, Prefix: bad}},
		}); err == nil {
			t.Errorf("prefix %q was taken", bad)
		}
	}
}

// TestClientCertificate is shown to the endpoint, and not to where it redirects.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	shown := make(map[string]int)
	start := func(name string, h http.HandlerFunc) *httptest.Server {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			shown[name] += len(r.TLS.PeerCertificates)
			mu.Unlock()
			h(w, r)
		}))
		s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
		s.StartTLS()
		t.Cleanup(s.Close)
		return s
	}
	blob := blobOf(100)
	cdn := start("cdn", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(blob) })
	reg := start("registry", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, cdn.URL+"/x", http.StatusTemporaryRedirect)
	})
	r := registry(t, reg.URL, func(o *upstream.Options) {
		pool := x509.NewCertPool()
		pool.AddCert(reg.Certificate())
		o.Endpoints[0].RootCAs, o.Endpoints[0].Certificate = pool, &reg.TLS.Certificates[0]
	})
	if b, _, err := fetch(t, r, digestOf(blob), flight.Want{To: 100}); err != nil || !bytes.Equal(b, blob) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	mu.Lock()
	defer mu.Unlock()
	if shown["registry"] == 0 || shown["cdn"] != 0 {
		t.Errorf("certificates shown: %v, want one to the registry and none to the blob host", shown)
	}
}
