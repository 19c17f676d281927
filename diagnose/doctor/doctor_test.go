package doctor_test

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var update = flag.Bool("update", false, "rewrite the golden file")

// world is a registry with an image, and how it is asked.
type world struct {
	*origin.Origin
	o        upstream.Options
	image    string
	platform string
	nodes    []string
}

func (w *world) at(rawURL string) upstream.Endpoint {
	u, err := url.Parse(rawURL)
	if err != nil {
		panic(err)
	}
	return upstream.Endpoint{URL: u, RootCAs: w.CA(), Registry: true}
}

// claim puts an image whose manifest gives the blob at an index, the config first, a wrong size.
func (w *world) claim(at int, size int64) {
	b := w.AddImage("library/app", "", origin.Image{})
	blobs := b.Blobs()
	blobs[at].Size = size
	raw, err := json.Marshal(map[string]any{
		"schemaVersion": 2, "mediaType": oci.MediaTypeOCIManifest, "config": blobs[0], "layers": blobs[1:],
	})
	if err != nil {
		panic(err)
	}
	w.AddManifest("library/app", "1", oci.MediaTypeOCIManifest, raw)
}

// nowhere is a resolver that knows no name, as a dialler.
func nowhere(_ context.Context, _, addr string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(addr)
	err := &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
}

// hole is a network that swallows what is sent to it.
func hole(ctx context.Context, _, _ string) (net.Conn, error) {
	<-ctx.Done()
	return nil, &net.OpError{Op: "dial", Net: "tcp", Err: os.ErrDeadlineExceeded}
}

// through is a proxy that lets all connections through, or none.
func through(t *testing.T, lets bool) func(*url.URL) (*url.URL, error) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !lets || r.Method != http.MethodConnect {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		there, err := new(net.Dialer).DialContext(r.Context(), "tcp", r.Host)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		defer there.Close()
		here, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer here.Close()
		_, _ = rw.WriteString("HTTP/1.1 200 OK\r\n\r\n")
		_ = rw.Flush()
		done := make(chan struct{})
		go func() {
			defer close(done)
			_, _ = io.Copy(here, there)
			here.Close()
		}()
		_, _ = io.Copy(there, rw)
		there.Close()
		<-done
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	return func(*url.URL) (*url.URL, error) { return u, nil }
}

// TestImage examines images that can and can't be pulled, each in its own way, and holds every step, what it cost the
// registry, and what is said, against testdata/doctor.golden.
func TestImage(t *testing.T) {
	t.Parallel()
	tls := origin.Options{TLS: true}
	bad := func(c origin.Certificate) origin.Options { return origin.Options{TLS: true, Certificate: c} }
	bearer := origin.Options{TLS: true, Auth: origin.Auth{Kind: "bearer", Anonymous: true}}
	private := origin.Options{Auth: origin.Auth{
		Kind: "bearer", Anonymous: true, Username: "ci-bot", Password: "right", Private: func(string) bool { return true },
	}}
	late := func(d time.Duration) origin.Options {
		return origin.Options{Header: http.Header{"Date": {time.Now().Add(d).UTC().Format(http.TimeFormat)}}}
	}
	cases := []struct {
		name   string
		origin origin.Options
		image  origin.Image
		set    func(*world)
	}{
		{
			name: "fine, over TLS, with tokens, from a blob host", origin: origin.Options{
				TLS: true, Auth: bearer.Auth, Redirect: true,
			}, image: origin.Image{Platforms: []string{"linux/amd64", "linux/arm64/v8"}, Layers: []int64{4 << 10, 8 << 10, 12 << 10}},
			set: func(w *world) { w.platform = "linux/arm64" },
		},
		{name: "fine, by plain HTTP"},
		{name: "fine, by digest", image: origin.Image{Index: true}, set: func(w *world) {
			b := w.AddImage("library/app", "", origin.Image{Index: true})
			w.image = "app@" + b.Root.Digest.String()
		}},
		{name: "a name that is none", set: func(w *world) { w.image = "Acme/App:1" }},
		{name: "DNS", origin: tls, set: func(w *world) { w.o.Dial = nowhere }},
		{name: "refused", origin: tls, set: func(w *world) { w.Down() }},
		{name: "a black hole", origin: tls, set: func(w *world) { w.o.Dial, w.o.DialTimeout = hole, 50*time.Millisecond }},
		{name: "a black hole, by plain HTTP", set: func(w *world) { w.o.Dial, w.o.DialTimeout = hole, 50*time.Millisecond }},
		{name: "silent", set: func(w *world) { w.Silent(); w.o.HeaderTimeout = 50 * time.Millisecond }},
		{name: "an unknown CA", origin: bad(origin.Certificate{Issuer: "corp-proxy"}), set: func(w *world) {
			w.o.Endpoints[0].RootCAs = origin.Start(t, tls).CA()
		}},
		{name: "expired", origin: bad(origin.Certificate{Expired: true})},
		{name: "not valid yet", origin: bad(origin.Certificate{NotYet: true})},
		{name: "for another host", origin: bad(origin.Certificate{WrongName: true})},
		{name: "HTTP, not HTTPS", set: func(w *world) { w.o.Endpoints[0] = w.at("https://" + w.Host()) }},
		{name: "a proxy that is down", origin: tls, set: func(w *world) {
			w.o.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
		}},
		{name: "a proxy that is down, by plain HTTP", set: func(w *world) {
			w.o.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse("http://127.0.0.1:1") }
		}},
		{name: "a proxy that says no", origin: tls, set: func(w *world) { w.o.Proxy = through(t, false) }},
		{name: "fine, through a proxy", origin: tls, set: func(w *world) { w.o.Proxy = through(t, true) }},
		{name: "a login is needed", origin: origin.Options{Auth: origin.Auth{Kind: "basic", Username: "a", Password: "b"}}},
		{name: "a token service that was not named", origin: origin.Options{
			Auth: origin.Auth{Kind: "bearer", Anonymous: true, SeparateHost: true},
		}},
		{name: "private or missing", origin: private},
		{name: "a login that is refused, and not needed", origin: origin.Options{
			Auth: origin.Auth{Kind: "bearer", Anonymous: true, Username: "ci-bot", Password: "right"},
		}, set: func(w *world) {
			w.o.Credential = auth.Credential{Name: "hub", Username: "ci-bot", Password: auth.NewSecret("wr0ng")}
		}},
		{name: "no such tag", set: func(w *world) { w.image = "app:2" }},
		{name: "no such repository", set: func(w *world) { w.image = "other:1" }},
		{
			name: "a platform that is not there", image: origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}},
			set: func(w *world) { w.platform = "linux/s390x" },
		},
		{name: "many platforms, and another one", image: origin.Image{Platforms: []string{
			"linux/amd64", "linux/386", "linux/arm64/v8", "linux/arm/v5", "linux/arm/v7", "linux/mips64le", "linux/ppc64le",
			"linux/riscv64", "linux/s390x", "windows/amd64",
		}}, set: func(w *world) { w.platform = "linux/loong64" }},
		{
			name: "nothing for some nodes", image: origin.Image{Platforms: []string{"linux/amd64", "linux/arm/v7"}},
			set: func(w *world) { w.nodes = []string{"linux/amd64", "linux/arm64", "linux/arm/v6"} },
		},
		{
			name: "something for all nodes", image: origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}},
			set: func(w *world) { w.nodes = []string{"linux/amd64", "linux/arm64"} },
		},
		{
			name: "a platform that is asked for, and nothing for other nodes", image: origin.Image{Platforms: []string{"linux/amd64"}, Index: true},
			set: func(w *world) { w.platform, w.nodes = "linux/amd64", []string{"linux/arm64"} },
		},
		{name: "a single platform, and other nodes", set: func(w *world) { w.nodes = []string{"linux/arm64"} }},
		{name: "a single platform, and another one", set: func(w *world) { w.platform = "linux/arm64" }},
		{
			name: "the blob host refuses, the registry doesn't", origin: origin.Options{TLS: true, Redirect: true},
			set: func(w *world) { w.DownCDN() },
		},
		{name: "platforms that write to the terminal", set: func(w *world) {
			child := w.AddImage("library/app", "", origin.Image{}).Manifests[0]
			entry := `{"mediaType":"` + child.MediaType + `","digest":"` + child.Digest.String() + `","size":` +
				fmt.Sprint(child.Size) + `,"platform":{"architecture":"amd64","os":"\u001b[31mlinux\n"}}`
			w.AddManifest("library/app", "1", oci.MediaTypeOCIIndex, []byte(`{"schemaVersion":2,"mediaType":"`+
				oci.MediaTypeOCIIndex+`","manifests":[`+strings.Repeat(entry+",", 99)+entry+`]}`))
			w.platform = "linux/s390x"
		}},
		{name: "the blob host says no", origin: origin.Options{Redirect: true}, set: func(w *world) {
			w.Script(origin.Rule{Kind: origin.KindCDN, Do: origin.Fault{
				Status: 403, Header: http.Header{"Content-Type": {"application/xml"}},
				Body: "<Error><Code>AccessDenied</Code><Message>no</Message></Error>",
			}})
		}},
		{name: "a layer is missing", set: func(w *world) {
			b := w.AddImage("library/app", "1", origin.Image{Layers: []int64{4 << 10, 8 << 10}})
			w.Delete("library/app", b.Layers[0][1].Digest)
		}},
		{name: "a layer of another size than the manifest says", set: func(w *world) { w.claim(1, 9<<10) }},
		{name: "a config of another size, at the blob host", origin: origin.Options{Redirect: true}, set: func(w *world) { w.claim(0, 100) }},
		{name: "our clock is ten minutes late", origin: late(10 * time.Minute)},
		{name: "the registry's clock is ten minutes late", origin: late(-10 * time.Minute)},
		{name: "a limit", origin: origin.Options{Header: http.Header{
			"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"96;w=21600"}, "Docker-Ratelimit-Source": {"192.0.2.1"},
		}}},
		{name: "a limit that is reached", set: func(w *world) {
			w.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
				Status: 429, Header: http.Header{"Ratelimit-Limit": {"100;w=21600"}, "Ratelimit-Remaining": {"0;w=21600"}},
			}})
		}},
		{name: "down", set: func(w *world) {
			w.Script(origin.Rule{Early: true, Do: origin.Fault{Status: 503, Body: origin.ErrorBody("UNAVAILABLE", "no")}})
		}},
		{name: "two endpoints, the first is down", set: func(w *world) {
			down := origin.Start(t, origin.Options{})
			down.Down()
			first := w.at(down.URL())
			first.Registry = false
			w.o.Endpoints = []upstream.Endpoint{first, w.o.Endpoints[0]}
		}},
	}
	texts := make([]string, len(cases))
	t.Run("all", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				w := &world{Origin: origin.Start(t, c.origin), image: "app:1"}
				w.AddImage("library/app", "1", c.image)
				w.o = upstream.Options{
					Name: "docker.io", Endpoints: []upstream.Endpoint{w.at(w.URL())},
					Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
				}
				if c.set != nil {
					c.set(w)
				}
				texts[i] = fmt.Sprintf("== %s\n%s\n", c.name, w.examine(t))
			})
		}
	})
	const file = "testdata/doctor.golden"
	got := strings.Join(texts, "")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v (run with -update to write it)", err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s differs (-want +got); -update rewrites it:\n%s", file, diff)
	}
}

// examine is the report of the image as text, and what the registry was asked for it.
func (w *world) examine(t *testing.T) string {
	t.Helper()
	o := doctor.Options{Image: w.image, Platform: w.platform, Nodes: w.nodes, At: "here"}
	ref, err := oci.ParseRef(w.image)
	if o.Ref, o.Err = ref, err; err == nil {
		r, err := upstream.New(w.o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		o.Registry = r
	}
	r := doctor.Image(t.Context(), o)
	body, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var again doctor.Report
	if err := json.Unmarshal(body, &again); err != nil {
		t.Fatalf("the report can't be read again: %v", err)
	}
	if strings.Contains(string(body), `\u001b`) {
		t.Errorf("control characters in %s", body)
	}
	if len(r.Steps) > 0 && len(body) > 16<<10 {
		t.Errorf("a report of %d bytes", len(body))
	}
	if strings.Contains(string(body), "wr0ng") {
		t.Errorf("a password shows in %s", body)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s: %t\n", r.Image, r.Platform, r.OK)
	for _, s := range r.Steps {
		fmt.Fprintf(&b, "  %-13s %-9s %s", s.Stage, s.State, s.Host)
		if s.Status != 0 {
			fmt.Fprintf(&b, " %d", s.Status)
		}
		if s.Requests > 1 {
			fmt.Fprintf(&b, " x%d", s.Requests)
		}
		fmt.Fprintf(&b, " %s %s\n", s.Reason, s.Detail)
		if s.State == doctor.Broken == (s.Remedy == "") && s.State != doctor.Warning {
			t.Errorf("%s is %s, with the remedy %q", s.Stage, s.State, s.Remedy)
		}
	}
	if f := r.Failure; f != nil {
		fmt.Fprintf(&b, "  = %s (%s) at %s of %s: %s\n  > %s\n", f.Reason, f.Class, f.Stage, f.Host, f.Summary, f.Remedy)
		if r.OK {
			t.Error("it can be pulled, and yet there is a failure")
		}
	} else if !r.OK {
		t.Error("it can't be pulled, and nothing says why")
	}
	asked := make(map[string]int)
	var kinds []string
	for _, q := range w.Requests() {
		if q.Kind == origin.KindBlob || q.Kind == origin.KindCDN {
			if q.Bytes > 1<<10 {
				t.Errorf("%d bytes of %s were sent", q.Bytes, q.Path)
			}
		}
		k := q.Method + " " + string(q.Kind)
		if asked[k]++; asked[k] == 1 {
			kinds = append(kinds, k)
		}
	}
	slices.Sort(kinds)
	for _, k := range kinds {
		fmt.Fprintf(&b, "  asked: %d %s\n", asked[k], k)
	}
	return w.blank(b.String())
}

var (
	day    = regexp.MustCompile(`\b20\d\d-\d\d-\d\d\b`)
	hours  = regexp.MustCompile(`in \d+h0m0s`)
	ports  = regexp.MustCompile(`127\.0\.0\.1:\d+`)
	within = regexp.MustCompile(`9m5\d(\.\d+)?s|10m0?\d?s`)
)

// blank puts words in the place of what is another in each run.
func (w *world) blank(text string) string {
	text = strings.ReplaceAll(text, w.Host(), "REGISTRY")
	text = strings.ReplaceAll(text, w.CDNHost(), "CDN")
	text = ports.ReplaceAllString(text, "OTHER")
	text = within.ReplaceAllString(text, "10m")
	return hours.ReplaceAllString(day.ReplaceAllString(text, "DAY"), "in HOURS")
}

// TestImageEnds has an examination end with its context, and say what it had.
func TestImageEnds(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{})
	gate := origin.NewGate()
	s.AddImage("library/app", "1", origin.Image{})
	s.Script(origin.Rule{Kind: origin.KindManifest, Early: true, Do: origin.Fault{Gate: gate}})
	w := &world{Origin: s}
	r, err := upstream.New(upstream.Options{
		Name: "docker.io", Endpoints: []upstream.Endpoint{w.at(s.URL())},
		Proxy: func(*url.URL) (*url.URL, error) { return nil, nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ref, err := oci.ParseRef("app:1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-gate.Arrived()
		cancel(errors.New("enough"))
	}()
	report := doctor.Image(ctx, doctor.Options{Image: "app:1", Ref: ref, Registry: r})
	if report.OK || report.Failure == nil || len(report.Steps) < 3 {
		t.Errorf("%+v", report)
	}
}
