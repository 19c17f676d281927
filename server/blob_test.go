package server_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream/fault"
)

func blobServer(t *testing.T, content []byte) (path string, get func(method string, header ...string) (*http.Response,
	[]byte),
) {
	t.Helper()
	object, size := hold(content)
	ts := serve(t, server.New(options(&puller{object: object, size: size, status: pull.Status{Outcome: cache.Hit}})))
	path = "/v2/library/nginx/blobs/" + string(sum(content))
	return path, func(method string, header ...string) (*http.Response, []byte) {
		t.Helper()
		return do(t, ts, method, path, header...)
	}
}

func TestBlob(t *testing.T) {
	t.Parallel()
	// It looks like HTML: it must not be sniffed.
	content := append([]byte("<html><script>"), pattern(100_000)...)
	d := string(sum(content))
	_, get := blobServer(t, content)
	headers := []string{
		"Docker-Content-Digest", d, "Etag", `"` + d + `"`, "Accept-Ranges", "bytes", "Content-Encoding",
		"",
		"Cache-Status", "mirror; hit",
	}
	for _, method := range []string{"GET", "HEAD"} {
		// HEAD has no ranges, and no coding is ever applied.
		for _, header := range [][]string{
			nil,
			{"Accept-Encoding", "zstd;q=1.0, gzip;q=0.8, deflate;q=0.5"},
			{"If-None-Match", `"sha256:1"`},
			{"Range", "lines=1-2"},
			{"Range", "bytes=0-1", "If-Range", `"sha256:1"`},
			{"Range", "bytes=0-1", "If-Range", "Mon, 02 Jan 2006 15:04:05 GMT"},
		} {
			res, body := get(method, header...)
			if res.StatusCode != 200 || method == "GET" && !bytes.Equal(body, content) || method == "HEAD" && len(body) != 0 {
				t.Errorf("%s %v: %s, %d bytes", method, header, res.Status, len(body))
			}
			wantHeader(t, res.Header, append(headers, "Content-Length", strconv.Itoa(len(content)),
				"Content-Type", "application/octet-stream")...)
		}
	}
	if res, body := get("HEAD", "Range", "bytes=5-9"); res.StatusCode != 200 || len(body) != 0 ||
		res.ContentLength != int64(len(content)) {
		t.Errorf("HEAD with a range: %s %v", res.Status, res.Header)
	}
	if res, body := get("GET", "If-None-Match", `"`+d+`"`); res.StatusCode != 304 || len(body) != 0 {
		t.Errorf("If-None-Match: %s", res.Status)
	} else {
		wantHeader(t, res.Header, headers...)
	}
}

func TestRanges(t *testing.T) {
	t.Parallel()
	content := pattern(2000)
	d := string(sum(content))
	_, get := blobServer(t, content)
	for _, c := range []struct {
		header string
		status int
		from   int
		to     int // exclusive
	}{
		{"bytes=0-", 206, 0, 2000},
		{"bytes=500-1499", 206, 500, 1500},
		{"bytes=500-", 206, 500, 2000},
		{"bytes=-500", 206, 1500, 2000},
		{"bytes=-5000", 206, 0, 2000},
		{"bytes=1999-1999", 206, 1999, 2000},
		{"bytes=1000-5000", 206, 1000, 2000},
		{"bytes=0-99999999999999999999999", 206, 0, 2000},
		{"Bytes= 0 - 1 ", 206, 0, 2},
		{"bytes=0-1,,", 206, 0, 2},
		{"bytes=0-1, 5000-", 206, 0, 2}, // a range behind the end is left out, RFC 9110, 15.3.7
		{"bytes=2000-", 416, 0, 0},
		{"bytes=5000-10000", 416, 0, 0},
		{"bytes=99999999999999999999999-", 416, 0, 0},
		{"bytes=500-0", 416, 0, 0},
		{"bytes=-0", 416, 0, 0},
		{"bytes=", 416, 0, 0},
		{"bytes=-", 416, 0, 0},
		{"bytes=a-b", 416, 0, 0},
		{"bytes=+1-2", 416, 0, 0},
		{"bytes=1--2", 416, 0, 0},
		{"bytes=0-1,x", 416, 0, 0},
		{"bytes=0-1999,0-0", 400, 0, 0},
		{"bytes=0-1000,1000-1999", 400, 0, 0},
		{"bytes=" + strings.Repeat("0-0,", 1025), 400, 0, 0},
		{"bytes", 200, 0, 2000},
		{"items=0-1", 200, 0, 2000},
	} {
		res, body := get("GET", "Range", c.header)
		if res.StatusCode != c.status {
			t.Errorf("%.40s: %s, want %d", c.header, res.Status, c.status)
			continue
		}
		switch c.status {
		case 200, 206:
			if !bytes.Equal(body, content[c.from:c.to]) {
				t.Errorf("%.40s: %d wrong bytes", c.header, len(body))
			}
			want := ""
			if c.status == 206 {
				want = fmt.Sprintf("bytes %d-%d/2000", c.from, c.to-1)
			}
			wantHeader(t, res.Header, "Content-Range", want, "Content-Length", strconv.Itoa(c.to-c.from),
				"Content-Type", "application/octet-stream", "Etag", `"`+d+`"`, "Docker-Content-Digest", d, "Accept-Ranges", "bytes")
		case 416:
			wantHeader(t, res.Header, "Content-Range", "bytes */2000")
			if !strings.Contains(string(body), "RANGE_INVALID") {
				t.Errorf("%s: %s", c.header, body)
			}
		}
	}
	// If-Range with the same entity tag.
	if res, body := get("GET", "Range", "bytes=5-9", "If-Range", `"`+d+`"`); res.StatusCode != 206 || len(body) != 5 {
		t.Errorf("If-Range: %s", res.Status)
	}
}

// containers/image counts the parts of an answer, in the order of its request, for zstd:chunked images.
func TestManyRanges(t *testing.T) {
	t.Parallel()
	content := pattern(500_000)
	_, get := blobServer(t, content)
	type part struct{ from, to int } // inclusive
	many := make([]part, 1024)
	for i := range many {
		many[i] = part{(1023 - i) * 300, (1023-i)*300 + 255}
	}
	for name, parts := range map[string][]part{
		"two":      {{0, 99}, {200, 299}},
		"touching": {{0, 99}, {100, 199}},
		"backward": {{4000, 4999}, {0, 0}, {1000, 1001}},
		"overlap":  {{0, 99}, {50, 149}},
		"twice":    {{7, 9}, {7, 9}},
		"1024":     many,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var spec []string
			for _, p := range parts {
				spec = append(spec, fmt.Sprintf("%d-%d", p.from, p.to))
			}
			res, body := get("GET", "Range", "bytes="+strings.Join(spec, ","))
			kind, params, err := mime.ParseMediaType(res.Header.Get("Content-Type"))
			if res.StatusCode != 206 || kind != "multipart/byteranges" || err != nil || res.Header.Get("Content-Range") != "" {
				t.Fatalf("%s %v: %v", res.Status, res.Header, err)
			}
			if res.ContentLength != int64(len(body)) {
				t.Errorf("Content-Length %d of %d bytes", res.ContentLength, len(body))
			}
			m := multipart.NewReader(bytes.NewReader(body), params["boundary"])
			for i, p := range parts {
				got, err := m.NextRawPart()
				if err != nil {
					t.Fatalf("part %d: %v", i, err)
				}
				b, err := io.ReadAll(got)
				if err != nil || !bytes.Equal(b, content[p.from:p.to+1]) {
					t.Errorf("part %d has %d wrong bytes: %v", i, len(b), err)
				}
				wantHeader(t, http.Header(got.Header), "Content-Range", fmt.Sprintf("bytes %d-%d/%d", p.from, p.to, len(content)),
					"Content-Type", "application/octet-stream")
			}
			if _, err := m.NextRawPart(); !errors.Is(err, io.EOF) {
				t.Errorf("after the last part: %v", err)
			}
		})
	}
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	_, get := blobServer(t, nil)
	for header, want := range map[string]int{
		"": 200, "bytes=0-": 200, "bytes=-1": 200, "bytes=0-0": 416, "bytes=1-": 416, "bytes=-0": 416,
	} {
		res, body := get("GET", "Range", header)
		if res.StatusCode != want || want == 200 && len(body) != 0 {
			t.Errorf("%q: %s %q, want %d", header, res.Status, body, want)
		}
		if want == 200 {
			wantHeader(t, res.Header, "Content-Length", "0", "Content-Range", "", "Content-Type", "application/octet-stream")
		}
	}
}

// flying is a blob that is being downloaded: it may fail before its first byte, and breaks at a given one.
type flying struct {
	memory
	ready  error
	asked  func(off, n int64)
	breaks int64 // after this byte; 0: never
	err    error
}

func (f flying) Ready(_ context.Context, off, n int64) error {
	if f.asked != nil {
		f.asked(off, n)
	}
	return f.ready
}

func (f flying) CopyTo(_ context.Context, w io.Writer, off, n int64) (int64, error) {
	end := off + n
	if f.breaks > 0 {
		end = min(end, f.breaks)
	}
	m, err := io.Copy(w, io.NewSectionReader(f.Reader, off, end-off))
	if err == nil && end < off+n {
		err = f.err
	}
	return m, err
}

// No header is sent before the first byte is certain: an error there is an ordinary answer.
func TestBlobThatCannotBegin(t *testing.T) {
	t.Parallel()
	content := pattern(1000)
	closed := make(chan struct{}, 1)
	var off, n int64
	p := &puller{size: 1000, object: func() cache.Object {
		return flying{
			memory: memory{bytes.NewReader(content), func() { closed <- struct{}{} }},
			ready:  upstreamError(503, func(e *fault.Error) { e.Op, e.Reference = "blob", string(sum(content)) }),
			asked:  func(o, m int64) { off, n = o, m },
		}
	}}
	ts := serve(t, server.New(options(p)))
	res, body := do(t, ts, "GET", "/v2/a/blobs/"+string(sum(content)), "Range", "bytes=100-299")
	if res.StatusCode != 502 || !strings.Contains(string(body), "UNAVAILABLE") ||
		res.Header.Get("Docker-Content-Digest") != "" ||
		res.Header.Get("Etag") != "" || !strings.Contains(res.Status, "mirror: ") {
		t.Errorf("%s %v\n%s", res.Status, res.Header, body)
	}
	if off != 100 || n != 200 {
		t.Errorf("asked for %d bytes from %d", n, off)
	}
	<-closed // the object does not leak
}

func TestBlobThatBreaks(t *testing.T) {
	t.Parallel()
	content := pattern(300_000)
	for name, c := range map[string]struct {
		err     error
		finding diagnose.Reason
	}{
		"upstream": {upstreamError(503, nil), diagnose.UpstreamError},
		"mismatch": {
			&flight.MismatchError{Digest: sum(content), Got: someDigest, Size: 1, GotSize: 1},
			diagnose.DigestMismatch,
		},
		"too short": {io.ErrUnexpectedEOF, ""},
		"no error":  {nil, ""}, // the object returns no error, and has sent less
	} {
		for _, proto := range []int{1, 2} {
			t.Run(fmt.Sprintf("%s, HTTP/%d", name, proto), func(t *testing.T) {
				t.Parallel()
				var seen records
				o := options(&puller{size: int64(len(content)), object: func() cache.Object {
					return flying{memory: memory{Reader: bytes.NewReader(content)}, breaks: 200_000, err: c.err}
				}})
				o.Observe = seen.observe
				s := server.New(o)
				ts := serveTLS(t, s, proto == 2)
				res, err := ts.Client().Get(ts.URL + "/v2/a/blobs/" + string(sum(content)))
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				body, err := io.ReadAll(res.Body)
				// containerd resumes only after an unexpected end.
				if res.StatusCode != 200 || res.ProtoMajor != proto || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%s %s: %v, want an unexpected EOF", res.Proto, res.Status, err)
				}
				if !bytes.Equal(body, content[:len(body)]) {
					t.Error("bytes that are not the blob's")
				}
				if err := s.Wait(t.Context()); err != nil {
					t.Fatal(err)
				}
				q := seen.all()
				if len(q) != 1 || !q[0].Aborted || q[0].Bytes != 200_000 || q[0].Status != 200 {
					t.Fatalf("observed %+v", q)
				}
				if got := q[0].Finding; c.finding == "" && got != nil || c.finding != "" && (got == nil ||
					got.Reason != c.finding) {
					t.Errorf("finding %+v, want %q", got, c.finding)
				}
			})
		}
	}
}

func FuzzRanges(f *testing.F) {
	for _, s := range []string{
		"bytes=0-", "bytes=-5", "bytes=1-2,3-4", "bytes=5-1", "bytes=", "lines=1", "bytes=0-0,,-1",
		"bytes=18446744073709551615-", "Bytes = 1-",
	} {
		f.Add(s, int64(100))
	}
	f.Add("bytes=0-,-1", int64(0))
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 {
			return
		}
		spans, kind := server.ParseRange(header, size)
		if (kind == "parts") != (len(spans) > 0) {
			t.Fatalf("%q of %d: %s with %d spans", header, size, kind, len(spans))
		}
		var total int64
		for _, s := range spans {
			if s.Off < 0 || s.N <= 0 || s.Off >= size || s.N > size-s.Off {
				t.Fatalf("%q of %d: span %+v is not within it", header, size, s)
			}
			total += s.N
		}
		if total > size || len(spans) > 1024 {
			t.Fatalf("%q of %d: %d spans of %d bytes", header, size, len(spans), total)
		}
	})
}
