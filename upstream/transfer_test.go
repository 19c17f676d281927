package upstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/transfer"
)

var _ flight.Body = (*transfer.Body)(nil)

const repo = "library/app"

// blobOf is n bytes that differ from place to place.
func blobOf(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(1, uint64(n)))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// fetch reads a range to its end.
func fetch(t *testing.T, r *upstream.Registry, d oci.Digest, w flight.Want) ([]byte, *transfer.Body, error) {
	t.Helper()
	body, err := r.Blob(t.Context(), repo, d, w)
	if err != nil {
		return nil, nil, err
	}
	defer body.Close()
	b, err := io.ReadAll(body)
	return b, body, err
}

func TestBreaks(t *testing.T) {
	t.Parallel()
	const n = 1 << 20
	content := blobOf(n)
	cut := func(at int64, how origin.CutHow) origin.Fault {
		return origin.Fault{Cut: &origin.Cut{At: at, How: how}}
	}
	for _, tt := range []struct {
		name    string
		kind    origin.Kind // empty: the host that sends the bytes
		fault   origin.Fault
		times   int
		skip    int
		options origin.Options
		extra   int64 // bytes beyond the blob that may be sent
	}{
		{name: "cut", fault: cut(1000, origin.CutFIN), times: 1},
		{name: "cut before the first byte", fault: cut(0, origin.CutFIN), times: 1},
		{name: "cut before the last byte", fault: cut(-1, origin.CutFIN), times: 1},
		{name: "reset", fault: cut(500_000, origin.CutReset), times: 1, extra: n / 2},
		{name: "clean but short", fault: origin.Fault{
			Cut:    &origin.Cut{At: 1000, How: origin.CutHonest},
			Length: origin.LengthChunked,
		}, times: 1},
		{name: "dropped", fault: origin.Fault{Drop: true}, times: 1},
		{name: "dropped by reset", fault: origin.Fault{Drop: true, Reset: true}, times: 2},
		{name: "cut every 100 kB", fault: cut(100_000, origin.CutFIN)},
		{
			name: "cut every 100 kB behind a redirect", fault: cut(100_000, origin.CutFIN),
			options: origin.Options{Redirect: true},
		},
		{name: "stumbles", kind: origin.KindBlob, fault: origin.Fault{Status: 503}, times: 2},
		{name: "other range", fault: origin.Fault{Header: http.Header{"Content-Range": {"bytes 5-9/10"}}}, skip: 1, times: 2},
		{name: "no range", fault: origin.Fault{Header: http.Header{"Content-Range": nil}}, skip: 1, times: 1},
		{name: "416", fault: origin.Fault{Status: 416}, skip: 1, times: 1},
		{name: "all of it instead of the rest", fault: origin.Fault{IgnoreRange: true}, skip: 1, times: 1, extra: n},
		{name: "expired address", kind: origin.KindCDN, fault: origin.Fault{Status: 403, Body: origin.XMLBody("AccessDenied",
			"Request has expired")}, times: 1, options: origin.Options{Redirect: true}},
		{
			name: "blob host is down", kind: origin.KindCDN, fault: origin.Fault{Status: 500}, times: 2,
			options: origin.Options{Redirect: true},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, tt.options)
			d := s.AddBlob(repo, content)
			kind := tt.kind
			if kind == "" {
				if kind = origin.KindBlob; tt.options.Redirect {
					kind = origin.KindCDN
				}
			}
			s.Script(origin.Rule{Kind: kind, Skip: tt.skip, Times: tt.times, Do: tt.fault})
			if tt.skip > 0 { // the answer after a break is the wrong one
				s.Script(origin.Rule{Kind: kind, Times: 1, Do: cut(300_000, origin.CutFIN)})
			}
			b, body, err := fetch(t, registry(t, s.URL()), d.Digest, flight.Want{To: n})
			if err != nil || !bytes.Equal(b, content) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			if body.Size() != n && tt.fault.Length != origin.LengthChunked {
				t.Errorf("size %d", body.Size())
			}
			if sent := s.Bytes(d.Digest); sent > n+tt.extra {
				t.Errorf("%d bytes were sent for %d", sent, n)
			}
			for _, q := range s.Requests() {
				if rng := q.Header.Get("Range"); rng != "" && !strings.HasSuffix(rng, fmt.Sprint("-", n-1)) {
					t.Errorf("Range %s is not closed", rng)
				}
			}
		})
	}
}

func TestBreakAndTokenExpired(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{Redirect: true, Auth: origin.Auth{
		Kind: "bearer", Username: "bot",
		Password: "pw",
	}})
	content := blobOf(1 << 20)
	d := s.AddBlob(repo, content)
	s.Script(origin.Rule{Kind: origin.KindCDN, Times: 2, Do: origin.Fault{
		Cut: &origin.Cut{At: 400_000, How: origin.CutFIN}, Then: s.RevokeTokens,
	}})
	b, _, err := fetch(t, registry(t, s.URL(), as(login("bot", "pw"))), d.Digest, flight.Want{To: 1 << 20})
	if err != nil || !bytes.Equal(b, content) {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	if tokens := s.Count(origin.KindToken); tokens != 3 {
		t.Errorf("%d token requests, want 3", tokens)
	}
}

func TestBadAnswers(t *testing.T) {
	t.Parallel()
	const n = 10_000
	content := blobOf(n)
	for _, tt := range []struct {
		name     string
		fault    origin.Fault
		want     flight.Want
		kind     fault.ContentKind // of the ContentError, empty: none
		status   int
		code     string
		requests int
	}{
		{
			name: "missing", fault: origin.Fault{Status: 404, Body: origin.ErrorBody("BLOB_UNKNOWN", "blob unknown")},
			status: 404, code: "BLOB_UNKNOWN", requests: 1,
		},
		{
			name: "forbidden", fault: origin.Fault{Status: 403, Body: origin.ErrorBody("DENIED", "no")}, status: 403,
			code: "DENIED", requests: 1,
		},
		{
			name: "limited", fault: origin.Fault{Status: 429, Body: origin.ErrorBody("TOOMANYREQUESTS", "slow")}, status: 429,
			code: "TOOMANYREQUESTS", requests: 1,
		},
		{name: "down", fault: origin.Fault{Status: 503}, status: 503, requests: 3},
		{
			name: "down for a while", fault: origin.Fault{Status: 503, Header: http.Header{"Retry-After": {"30"}}}, status: 503,
			requests: 1,
		},
		{name: "packed", fault: origin.Fault{Gzip: true}, kind: fault.ContentEncoding, requests: 1},
		{
			name: "page", fault: origin.Fault{Status: 200, Body: origin.HTMLBody("Sign in")}, kind: fault.ContentNotRegistry,
			requests: 1,
		},
		{name: "shorter", fault: origin.Fault{
			Status: 200, Body: "abc",
			Header: http.Header{"Content-Type": {"application/octet-stream"}},
		}, kind: fault.ContentSize, requests: 1},
		{name: "part of it", fault: origin.Fault{Status: 206, Body: "abc"}, kind: fault.ContentRange, requests: 3},
		{
			name: "no Content-Range", want: flight.Want{From: 5, To: 10},
			fault: origin.Fault{Header: http.Header{"Content-Range": nil}}, kind: fault.ContentRange, requests: 3,
		},
		{
			name: "later", want: flight.Want{From: 5, To: 10},
			fault: origin.Fault{Header: http.Header{"Content-Range": {"bytes 6-9/10000"}}}, kind: fault.ContentRange,
			requests: 3,
		},
		{
			name: "shorter range", want: flight.Want{From: 5, To: 10},
			fault: origin.Fault{Header: http.Header{"Content-Range": {"bytes 5-8/10000"}}}, kind: fault.ContentRange,
			requests: 3,
		},
		{
			name: "longer range", want: flight.Want{From: 5, To: 10},
			fault: origin.Fault{Header: http.Header{"Content-Range": {"bytes 5-10/10000"}}}, kind: fault.ContentRange,
			requests: 3,
		},
		{name: "redirect nowhere", fault: origin.Fault{Status: 307}, requests: 1},
		{
			name: "redirect in a circle", fault: origin.Fault{Status: 307, Header: http.Header{"Location": {"?again"}}},
			requests: 6,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, origin.Options{})
			d := s.AddBlob(repo, content)
			s.Script(origin.Rule{Kind: origin.KindBlob, Do: tt.fault})
			w := tt.want
			if w.To == 0 {
				w.To = n
			}
			b, _, err := fetch(t, registry(t, s.URL()), d.Digest, w)
			e := upstreamError(t, err)
			if len(b) > 0 || e.Op != "blob" || e.Repository != repo || e.Reference != d.Digest.String() ||
				e.Upstream != "up.example" {
				t.Errorf("%d bytes, %v", len(b), e)
			}
			if e.Status != tt.status || e.Code != tt.code {
				t.Errorf("status %d code %q, want %d %q", e.Status, e.Code, tt.status, tt.code)
			}
			got, ok := errors.AsType[*fault.ContentError](err)
			if ok != (tt.kind != "") || ok && got.Kind != tt.kind {
				t.Errorf("%v, want %q", err, tt.kind)
			}
			if step := e.Step(); step.Name != fault.StepBlobRegistry || step.Host != s.Host() || step.Err == nil ||
				step.Addr == "" {
				t.Errorf("last step %+v", step)
			}
			if got := s.Count(origin.KindBlob); got != tt.requests {
				t.Errorf("%d requests, want %d", got, tt.requests)
			}
		})
	}
}

func TestLostInTheMiddle(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{})
	content := blobOf(1 << 20)
	d := s.AddBlob(repo, content)
	s.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Status: 404, Body: origin.ErrorBody("BLOB_UNKNOWN",
		"gone")}})
	s.Script(origin.Rule{Kind: origin.KindBlob, Times: 1, Do: origin.Fault{Cut: &origin.Cut{At: 500_000}}})
	b, _, err := fetch(t, registry(t, s.URL()), d.Digest, flight.Want{To: 1 << 20})
	e := upstreamError(t, err)
	if len(b) != 500_000 || !bytes.Equal(b, content[:500_000]) {
		t.Errorf("%d bytes before the end, want 500000", len(b))
	}
	if e.Status != 404 || s.Count(origin.KindBlob) != 2 {
		t.Errorf("%v after %d requests, want 404 after 2", e, s.Count(origin.KindBlob))
	}
	broken := 0
	for _, step := range e.Steps {
		if step.Name == fault.StepBody && errors.Is(step.Err, io.ErrUnexpectedEOF) {
			broken++
		}
	}
	if broken != 1 {
		t.Errorf("steps %+v, want the break among them", e.Steps)
	}
}

func TestSizeChangesInTheMiddle(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(make([]byte, 500))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Content-Range", "bytes 500-999/2000")
		w.Header().Set("Content-Length", "500")
		w.WriteHeader(http.StatusPartialContent)
		_, _ = w.Write(make([]byte, 500))
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		b, _, err := fetch(t, r, digestOf(nil), flight.Want{To: 1000})
		if got, ok := errors.AsType[*fault.ContentError](err); len(b) != 500 || !ok || got.Kind != fault.ContentSize {
			t.Errorf("%d bytes, %v; want 500 and an error about the size", len(b), err)
		}
	})
}

// TestNoFalseEnd has bodies that end cleanly and too early, and connections that are closed without an answer. Neither may look
// like the end of the blob.
func TestNoFalseEnd(t *testing.T) {
	t.Parallel()
	for name, rest := range map[string]http.HandlerFunc{
		"short": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = io.WriteString(w, "0123456789")
		},
		"closed": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int32
			bubble(t, func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 {
					rest(w, r)
					return
				}
				w.(http.Flusher).Flush()
				_, _ = io.WriteString(w, "0123456789")
			}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				body, err := r.Blob(t.Context(), repo, digestOf(nil), flight.Want{To: 100})
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				if _, err := io.ReadFull(body, make([]byte, 10)); err != nil {
					t.Fatal(err)
				}
				n, err := body.Read(make([]byte, 100))
				if n > 0 || errors.Is(err, io.EOF) || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%d bytes, %v; want an error that is not an end", n, err)
				}
				_ = upstreamError(t, err)
			})
		})
	}
}

func TestLineThatBreaksNowAndThen(t *testing.T) {
	t.Parallel()
	content := blobOf(1 << 20)
	bubble(t, func(w http.ResponseWriter, r *http.Request) {
		var from int
		_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
		if from > 0 {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(content[from:min(from+100_000, len(content))])
	}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		begin := time.Now()
		b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1 << 20, Size: 1 << 20})
		if err != nil || !bytes.Equal(b, content) {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("took %s, want no pause where there is progress", took)
		}
	})
}

// TestRandomFaults pulls random ranges over a connection that breaks at random: the bytes are right, or there is an error.
func TestRandomFaults(t *testing.T) {
	t.Parallel()
	const n = 300_000
	content := blobOf(n)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 30 {
		s := origin.Start(t, origin.Options{
			Redirect: rnd.IntN(2) == 0, NoRange: rnd.IntN(5) == 0,
			NoLength: rnd.IntN(5) == 0,
		})
		d := s.AddBlob(repo, content)
		for range rnd.IntN(4) {
			s.Script(origin.Rule{Skip: rnd.IntN(3), Times: 1, Do: [...]origin.Fault{
				{Cut: &origin.Cut{At: rnd.Int64N(n), How: origin.CutFIN}},
				{Cut: &origin.Cut{
					At:  rnd.Int64N(n),
					How: origin.CutReset,
				}},
				{Drop: true},
				{Status: 503},
				{IgnoreRange: true},
				{Length: origin.LengthChunked},
				{Header: http.Header{"Content-Range": {"bytes 0-9/10"}}},
			}[rnd.IntN(7)]})
		}
		from := rnd.Int64N(n)
		w := flight.Want{From: from, To: from + 1 + rnd.Int64N(n-from)}
		switch rnd.IntN(4) {
		case 0:
			w = flight.Want{To: n}
		case 1:
			w.To = -1
		}
		b, _, err := fetch(t, registry(t, s.URL()), d.Digest, w)
		end := w.To
		if end < 0 {
			end = n
		}
		switch {
		case int64(len(b)) > end-w.From || !bytes.Equal(b, content[w.From:w.From+int64(len(b))]):
			t.Errorf("round %d: wrong bytes for %+v", i, w)
		case err == nil && int64(len(b)) != end-w.From:
			t.Errorf("round %d: a clean end after %d bytes of %+v", i, len(b), w)
		case err != nil:
			_ = upstreamError(t, err)
		}
		s.Close()
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	// Where a request takes net/http more than 50 ms to write, its connection is not used again: here no time passes.
	synctest.Test(t, testConnectionsAreReused)
}

func testConnectionsAreReused(t *testing.T) {
	s := origin.Start(t, origin.Options{Redirect: true, Auth: origin.Auth{Kind: "bearer", Anonymous: true}})
	built := s.AddImage(repo, "1", origin.Image{Layers: []int64{100_000, 5000}})
	r := registry(t, s.URL())
	for range 5 {
		if _, err := r.Manifest(t.Context(), repo, "1"); err != nil {
			t.Fatal(err)
		}
		for _, d := range built.Blobs() {
			if b, _, err := fetch(t, r, d.Digest, flight.Want{To: d.Size}); err != nil || int64(len(b)) != d.Size {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
		}
	}
	conns := make(map[string]bool)
	for _, q := range s.Requests() {
		conns[q.Remote] = true
	}
	if len(conns) > 2 { // one to the registry, which is the token service too, one to the blob host
		t.Errorf("%d connections for requests one after another, want 2", len(conns))
	}
}
