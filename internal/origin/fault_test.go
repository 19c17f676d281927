package origin_test

import (
	"bytes"
	"compress/gzip"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

const size = 3<<20 + 17

// blobs starts an origin with one blob, and returns the blob's URL and bytes.
func blobs(t *testing.T, opt origin.Options) (o *origin.Origin, url string, b []byte) {
	t.Helper()
	o = origin.Start(t, opt)
	d := o.AddLargeBlob("r", size, 1)
	b, err := io.ReadAll(o.Open(d.Digest))
	if err != nil || len(b) != size || digest.FromBytes(b) != d.Digest {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	return o, o.URL() + "/v2/r/blobs/" + string(d.Digest), b
}

// outcome is what a client saw of an answer.
type outcome struct {
	status int
	header http.Header
	length int64
	body   []byte
	err    error // of the body
}

func TestFaults(t *testing.T) {
	t.Parallel()
	want := func(ok bool, t *testing.T, what string, o outcome) {
		t.Helper()
		if !ok {
			t.Errorf("want %s; got %d with %d bytes, length %d, err %v, header %v", what, o.status, len(o.body), o.length,
				o.err, o.header)
		}
	}
	for _, tt := range []struct {
		name   string
		fault  origin.Fault
		header string
		check  func(t *testing.T, o outcome, b []byte)
	}{
		{
			"status and body",
			origin.Fault{Status: 503, Body: origin.ErrorBody("UNAVAILABLE", "later")},
			"",
			func(t *testing.T, o outcome, _ []byte) {
				want(o.status == 503 && o.header.Get("Content-Type") == "application/json" &&
					string(o.body) == `{"errors":[{"code":"UNAVAILABLE","message":"later"}]}`, t, "a 503", o)
			},
		},
		{
			"429 with Retry-After",
			origin.Fault{Status: 429, Header: http.Header{"Retry-After": {"7"}}},
			"",
			func(t *testing.T, o outcome, _ []byte) {
				want(o.status == 429 && o.header.Get("Retry-After") == "7", t, "a 429", o)
			},
		},
		{
			"html with 200",
			origin.Fault{Status: 200, Body: origin.HTMLBody("portal")},
			"",
			func(t *testing.T, o outcome, _ []byte) {
				want(o.status == 200 && strings.HasPrefix(o.header.Get("Content-Type"), "text/html"), t, "a page", o)
			},
		},
		{
			"xml",
			origin.Fault{Status: 403, Body: origin.XMLBody("AccessDenied", "no")},
			"",
			func(t *testing.T, o outcome, _ []byte) {
				want(o.status == 403 && o.header.Get("Content-Type") == "application/xml", t, "XML", o)
			},
		},
		{
			"redirect",
			origin.Fault{Status: 302, Header: http.Header{"Location": {"http://169.254.169.254/"}}},
			"",
			func(t *testing.T, o outcome, _ []byte) {
				want(o.status == 302 && o.header.Get("Location") == "http://169.254.169.254/", t, "a redirect", o)
			},
		},
		{
			"header removed",
			origin.Fault{Header: http.Header{"Docker-Content-Digest": nil}},
			"",
			func(t *testing.T, o outcome, b []byte) {
				_, has := o.header["Docker-Content-Digest"]
				want(!has && bytes.Equal(o.body, b), t, "no digest", o)
			},
		},
		{
			"header wrong",
			origin.Fault{Header: http.Header{"Docker-Content-Digest": {"sha256:00"}}},
			"",
			func(t *testing.T, o outcome, _ []byte) {
				want(o.header.Get("Docker-Content-Digest") == "sha256:00", t, "a wrong digest", o)
			},
		},
		{"other bytes", origin.Fault{Wrong: true}, "", func(t *testing.T, o outcome, b []byte) {
			want(o.err == nil && len(o.body) == len(b) && o.body[0] != b[0] && o.body[size-1] != b[size-1], t, "other bytes", o)
		}},
		{"flipped bits", origin.Fault{Flip: []int64{0, 1 << 20, -1}}, "", func(t *testing.T, o outcome, b []byte) {
			differ := 0
			for i := range b {
				if o.body[i] != b[i] {
					differ++
				}
			}
			want(differ == 3 && o.body[0] != b[0] && o.body[size-1] != b[size-1], t, "three bits", o)
		}},
		{
			"a bit flipped in a range",
			origin.Fault{Flip: []int64{5}},
			"Range: bytes=5-6",
			func(t *testing.T, o outcome, b []byte) {
				want(o.status == 206 && len(o.body) == 2 && o.body[0] == b[5]^0x10 && o.body[1] == b[6], t, "one bit", o)
			},
		},
		{"gzip", origin.Fault{Gzip: true}, "", func(t *testing.T, o outcome, b []byte) {
			z, err := gzip.NewReader(bytes.NewReader(o.body))
			if err != nil {
				t.Fatal(err)
			}
			plain, err := io.ReadAll(z)
			want(err == nil && bytes.Equal(plain, b) && o.header.Get("Content-Encoding") == "gzip", t, "gzip", o)
		}},
		{"range ignored", origin.Fault{IgnoreRange: true}, "Range: bytes=10-19", func(t *testing.T, o outcome, b []byte) {
			want(o.status == 200 && bytes.Equal(o.body, b), t, "a 200 with all", o)
		}},
		{
			"another Content-Range",
			origin.Fault{Header: http.Header{"Content-Range": {"bytes 0-9/99"}}},
			"Range: bytes=10-19",
			func(t *testing.T, o outcome, b []byte) {
				want(o.status == 206 && o.header.Get("Content-Range") == "bytes 0-9/99" && bytes.Equal(o.body, b[10:20]), t,
					"a wrong range", o)
			},
		},
		{
			"416",
			origin.Fault{Status: 416, Header: http.Header{"Content-Range": {"bytes */9"}}},
			"Range: bytes=10-19",
			func(t *testing.T, o outcome, _ []byte) { want(o.status == 416, t, "a 416", o) },
		},
		{"chunked", origin.Fault{Length: origin.LengthChunked}, "", func(t *testing.T, o outcome, b []byte) {
			want(o.length == -1 && o.err == nil && bytes.Equal(o.body, b), t, "no length", o)
		}},
		{
			"until the connection closes",
			origin.Fault{Length: origin.LengthNone},
			"",
			func(t *testing.T, o outcome, b []byte) {
				want(o.length == -1 && o.err == nil && bytes.Equal(o.body, b), t, "no length", o)
			},
		},
		{"length too large", origin.Fault{Length: "4000000"}, "", func(t *testing.T, o outcome, b []byte) {
			want(o.length == 4000000 && errors.Is(o.err, io.ErrUnexpectedEOF) && bytes.Equal(o.body, b), t, "a short body", o)
		}},
		{"length too small", origin.Fault{Length: "1000"}, "", func(t *testing.T, o outcome, b []byte) {
			want(o.err == nil && bytes.Equal(o.body, b[:1000]), t, "1,000 bytes", o)
		}},
		{"longer than declared", origin.Fault{Extra: "more"}, "", func(t *testing.T, o outcome, b []byte) {
			want(o.length == size && bytes.Equal(o.body, b), t, "what was declared", o)
		}},
		{
			"longer, chunked",
			origin.Fault{Extra: "more", Length: origin.LengthChunked},
			"",
			func(t *testing.T, o outcome, b []byte) {
				want(o.err == nil && bytes.Equal(o.body, append(bytes.Clone(b), "more"...)), t, "more", o)
			},
		},
		{
			"short, chunked",
			origin.Fault{Length: origin.LengthChunked, Cut: &origin.Cut{At: 70_000}},
			"",
			func(t *testing.T, o outcome, b []byte) {
				want(errors.Is(o.err, io.ErrUnexpectedEOF) && bytes.Equal(o.body, b[:70_000]), t, "an unexpected end", o)
			},
		},
		{"short, chunked, and said to be all", origin.Fault{
			Length: origin.LengthChunked,
			Cut:    &origin.Cut{At: -1, How: origin.CutHonest},
		}, "", func(t *testing.T, o outcome, b []byte) {
			want(o.err == nil && bytes.Equal(o.body, b[:size-1]), t, "a clean end", o)
		}},
		{
			"short, and said to be all",
			origin.Fault{Cut: &origin.Cut{At: -1, How: origin.CutHonest}},
			"",
			func(t *testing.T, o outcome, b []byte) {
				want(o.err == nil && o.length == size-1 && bytes.Equal(o.body, b[:size-1]), t, "a clean end", o)
			},
		},
		{
			"cut behind the end",
			origin.Fault{Cut: &origin.Cut{At: size + 1, How: origin.CutReset}},
			"",
			func(t *testing.T, o outcome, b []byte) { want(o.err == nil && bytes.Equal(o.body, b), t, "all", o) },
		},
		{
			"cut in a range",
			origin.Fault{Cut: &origin.Cut{At: 100}},
			"Range: bytes=1000-",
			func(t *testing.T, o outcome, b []byte) {
				want(o.status == 206 && errors.Is(o.err, io.ErrUnexpectedEOF) && bytes.Equal(o.body, b[1000:1100]), t,
					"100 bytes", o)
			},
		},
		{
			"handler",
			origin.Fault{Handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(418) }},
			"",
			func(t *testing.T, o outcome, _ []byte) { want(o.status == 418, t, "a teapot", o) },
		},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(tt.name+map[bool]string{true: ", tls"}[secure], func(t *testing.T) {
				t.Parallel()
				o, url, b := blobs(t, origin.Options{TLS: secure})
				remove := o.Script(origin.Rule{Kind: origin.KindBlob, Method: http.MethodGet, Do: tt.fault})
				c := client(t, o, false)
				var header []string
				if tt.header != "" {
					header = append(header, tt.header)
				}
				resp, body, err := get(t, c, url, header...)
				tt.check(t, outcome{resp.StatusCode, resp.Header, resp.ContentLength, body, err}, b)
				if head, err := ask(t, c, http.MethodHead, url); err != nil || head.StatusCode != 200 {
					t.Errorf("a HEAD, which the rule does not match: %v", err)
				}
				remove()
				if _, body, err := get(t, c, url); err != nil || !bytes.Equal(body, b) {
					t.Errorf("after the rule was removed: %d bytes, %v", len(body), err)
				}
			})
		}
	}
}

func TestCuts(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		o, url, b := blobs(t, origin.Options{TLS: secure})
		for _, at := range []int64{0, 1, 511, 512, 4095, 64 << 10, 1<<20 - 1, 1 << 20, size / 2, size - 1} {
			for _, how := range []origin.CutHow{origin.CutFIN, origin.CutReset} {
				remove := o.Script(origin.Rule{Do: origin.Fault{Cut: &origin.Cut{At: at, How: how}}})
				resp, body, err := get(t, client(t, o, false), url)
				remove()
				want := io.ErrUnexpectedEOF
				if how == origin.CutReset {
					want = syscall.ECONNRESET
				}
				if resp.ContentLength != size || !bytes.Equal(body, b[:at]) || !errors.Is(err, want) {
					t.Errorf("tls %t, cut %d at %d: %d bytes, %v", secure, how, at, len(body), err)
				}
			}
		}
	}
}

// A reset behind the last byte is seen by a client that reads on.
func TestResetBehindTheLastByte(t *testing.T) {
	t.Parallel()
	o, url, b := blobs(t, origin.Options{})
	o.Script(origin.Rule{Do: origin.Fault{Cut: &origin.Cut{At: size, How: origin.CutReset}}})
	c, err := net.Dial("tcp", o.Host())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_, err = io.WriteString(c, "GET "+strings.TrimPrefix(url, o.URL())+" HTTP/1.1\r\nHost: x\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if !bytes.HasSuffix(got, b) || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

func TestDropsAndMisbehavingLengths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		f    origin.Fault
		want error // nil: any
	}{
		{"no answer", origin.Fault{Drop: true}, io.EOF},
		{"a reset for an answer", origin.Fault{Drop: true, Reset: true}, syscall.ECONNRESET},
		{"a negative length", origin.Fault{Length: "-1"}, nil},
		{"a length that is not a number", origin.Fault{Length: "many"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o, url, _ := blobs(t, origin.Options{})
			o.Script(origin.Rule{Do: tt.f})
			_, err := ask(t, client(t, o, false), http.MethodGet, url)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			if len(o.Requests()) == 0 {
				t.Error("the request is not on record")
			}
		})
	}
}

func TestHTTP2CutResetsTheStream(t *testing.T) {
	t.Parallel()
	o, url, b := blobs(t, origin.Options{TLS: true, HTTP2: true})
	remove := o.Script(origin.Rule{Do: origin.Fault{Cut: &origin.Cut{At: 1000}}})
	c := client(t, o, true)
	resp, body, err := get(t, c, url)
	if resp.ProtoMajor != 2 || err == nil || !bytes.Equal(body, b[:1000]) {
		t.Errorf("HTTP/%d, %d bytes, %v", resp.ProtoMajor, len(body), err)
	}
	remove()
	o.Script(origin.Rule{Times: 1, Do: origin.Fault{Drop: true}})
	if _, err := ask(t, c, http.MethodGet, url); err == nil {
		t.Error("a dropped request was answered")
	}
}

func TestGates(t *testing.T) {
	t.Parallel()
	o, url, b := blobs(t, origin.Options{})
	before, within := origin.NewGate(), origin.NewGate()
	o.Script(origin.Rule{Do: origin.Fault{Gate: before, Stall: &origin.Stall{At: 1000, Gate: within}}})
	answered := make(chan *http.Response, 1)
	go func() {
		resp, err := ask(t, client(t, o, false), http.MethodGet, url)
		if err != nil {
			t.Error(err)
		}
		answered <- resp
	}()
	<-before.Arrived()
	select {
	case <-answered:
		t.Fatal("answered through a shut gate")
	default:
	}
	if r := o.Requests(); len(r) != 1 || r[0].Done || r[0].Status != 0 {
		t.Errorf("while it waits: %+v", r)
	}
	before.Open()
	resp := <-answered
	first := make([]byte, 1000)
	if _, err := io.ReadFull(resp.Body, first); err != nil || !bytes.Equal(first, b[:1000]) {
		t.Errorf("before the stall: %v", err)
	}
	<-within.Arrived()
	if r := o.Requests()[0]; r.Bytes != 1000 || r.Done {
		t.Errorf("in the stall: %d bytes, done %t", r.Bytes, r.Done)
	}
	within.Open()
	if rest, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(rest, b[1000:]) {
		t.Errorf("after the stall: %d bytes, %v", len(rest), err)
	}
}

// Whatever a handler waits for, the end of the origin or of the client ends it.
func TestGatesEndWithTheirClientAndOrigin(t *testing.T) {
	t.Parallel()
	for _, raw := range []bool{false, true} {
		o, url, _ := blobs(t, origin.Options{})
		f := origin.Fault{Stall: &origin.Stall{At: 10, Gate: origin.NewGate()}}
		if raw {
			f.Extra = "x"
		}
		o.Script(origin.Rule{Do: f})
		resp, err := ask(t, client(t, o, false), http.MethodGet, url)
		if err != nil {
			t.Fatal(err)
		}
		<-f.Stall.Gate.Arrived()
		if raw {
			_ = resp.Body.Close()
		}
		o.Close() // returns when the handler has ended; else the test hangs
		if r := o.Requests(); !r[0].Done {
			t.Errorf("raw %t: a handler runs on", raw)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	for name, opt := range map[string]origin.Options{"of all": {Rate: 100_000}, "of one answer": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := origin.Start(t, opt)
			d := o.AddBlob("r", make([]byte, 20_000))
			if opt.Rate == 0 {
				o.Script(origin.Rule{Do: origin.Fault{Rate: 100_000}})
			}
			start := time.Now()
			_, b, err := get(t, client(t, o, false), o.URL()+"/v2/r/blobs/"+string(d.Digest))
			if took := time.Since(start); err != nil || len(b) != 20_000 || took < 190*time.Millisecond {
				t.Errorf("20,000 bytes at 100,000 a second took %v, %v", took, err)
			}
		})
	}
}

func TestRulesAreCounted(t *testing.T) {
	t.Parallel()
	o, url, _ := blobs(t, origin.Options{})
	o.Script(origin.Rule{Skip: 1, Times: 2, Do: origin.Fault{Status: 500}})
	o.Script(origin.Rule{Repo: "other", Do: origin.Fault{Status: 501}})
	marked := func(r *http.Request) bool { return r.Header.Get("X") == "y" }
	o.Script(origin.Rule{Match: marked, Do: origin.Fault{Status: 502}})
	o.Script(origin.Rule{Ref: "none", Role: origin.RoleCDN, Do: origin.Fault{Status: 503}})
	c := client(t, o, false)
	for i, want := range []int{200, 500, 500, 200} {
		if resp, _, _ := get(t, c, url); resp.StatusCode != want {
			t.Errorf("request %d: %d, want %d", i, resp.StatusCode, want)
		}
	}
	if resp, _, _ := get(t, c, url, "X: y"); resp.StatusCode != 502 {
		t.Errorf("matched by Match: %d", resp.StatusCode)
	}
	if resp, _, _ := get(t, c, o.URL()+"/v2/other/tags/list"); resp.StatusCode != 501 {
		t.Errorf("matched by Repo: %d", resp.StatusCode)
	}
}

// A tag that moves between the HEAD and the GET.
func TestThen(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	one := o.AddImage("r", "latest", origin.Image{Seed: 1})
	two := o.AddImage("r", "", origin.Image{Seed: 2})
	o.Script(origin.Rule{
		Kind: origin.KindManifest, Method: http.MethodHead, Times: 1,
		Do: origin.Fault{Then: func() { o.SetTag("r", "latest", two.Root.Digest) }},
	})
	c := client(t, o, false)
	for _, want := range []struct {
		method string
		digest oci.Digest
	}{{http.MethodHead, one.Root.Digest}, {http.MethodGet, two.Root.Digest}} {
		resp, err := ask(t, c, want.method, o.URL()+"/v2/r/manifests/latest")
		if err != nil {
			t.Fatal(err)
		}
		if got := resp.Header.Get("Docker-Content-Digest"); got != string(want.digest) {
			t.Errorf("%s: %s, want %s", want.method, got, want.digest)
		}
	}
}
