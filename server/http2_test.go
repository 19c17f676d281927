package server_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// A client of HTTP/2 that reads nothing of one stream loses that stream at its deadline, which is counted; another stream of the same
// connection continues.
func TestStreamThatStandsStill(t *testing.T) {
	t.Parallel()
	content, small := pattern(8<<20), []byte("{}")
	object, size := hold(content)
	ended := make(chan struct{})
	o := options(&puller{
		object: object, size: size, manifest: &pull.Content{Digest: sum(small), Bytes: small, Size: int64(len(small)), MediaType: "t"},
	})
	o.Observe = func(r journal.Request) { // of a finished response
		if r.Aborted {
			close(ended)
		}
	}
	s := server.New(o)
	s.SetStall(5 * time.Second)
	var log testlog.Log
	ts, seen := watchedTLS(t, s, &log)
	get := func(path string) *http.Response {
		t.Helper()
		resp, err := ts.Client().Get(ts.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		if resp.StatusCode != 200 || resp.ProtoMajor != 2 {
			t.Fatalf("%s %s", resp.Proto, resp.Status)
		}
		return resp
	}
	still := get("/v2/a/blobs/" + string(sum(content)))
	defer still.Body.Close()
	another := func(when string) {
		t.Helper()
		resp := get("/v2/a/manifests/b")
		defer resp.Body.Close()
		if b, err := io.ReadAll(resp.Body); err != nil || !bytes.Equal(b, small) {
			t.Errorf("%s: %d bytes, %v", when, len(b), err)
		}
	}
	for range 3 {
		another("beside one that stands still")
	}
	select {
	case <-ended:
	case <-time.After(time.Minute):
		t.Fatal("the stream that stands still goes on")
	}
	if n := seen.of(server.ByStall); n != 1 {
		t.Errorf("%d streams were counted", n)
	}
	if n, err := io.Copy(io.Discard, still.Body); err == nil || n >= size {
		t.Errorf("%d bytes of %d came of it, %v", n, size, err)
	}
	another("afterwards")
}

// late is a blob whose second half comes minutes after the first.
type late struct{ memory }

func (l late) CopyTo(ctx context.Context, w io.Writer, off, n int64) (int64, error) {
	first, err := io.Copy(w, io.NewSectionReader(l.Reader, off, n/2))
	if err != nil {
		return first, err
	}
	select {
	case <-time.After(5 * time.Minute):
	case <-ctx.Done():
		return first, context.Cause(ctx)
	}
	m, err := io.Copy(w, io.NewSectionReader(l.Reader, off+n/2, n-n/2))
	return first + m, err
}

// A stream goes on whose blob comes from its registry more slowly than a client may read: the deadline is the client's.
func TestStreamOfASlowDownload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		content := pattern(1 << 20)
		o := options(&puller{size: int64(len(content)), object: func() cache.Object { return late{memory{Reader: bytes.NewReader(content)}} }})
		hs := server.New(o).HTTPServer(nil, true)
		hs.Protocols.SetUnencryptedHTTP2(true)
		network := new(origin.Network)
		l, err := network.Listen("m:80")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = hs.Serve(l) }()
		defer hs.Close()
		tr := &http.Transport{Protocols: new(http.Protocols), DialContext: network.Dial}
		tr.Protocols.SetUnencryptedHTTP2(true)
		defer tr.CloseIdleConnections()
		resp, err := (&http.Client{Transport: tr}).Get("http://m/v2/a/blobs/" + string(sum(content)))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil || !bytes.Equal(got, content) || resp.ProtoMajor != 2 {
			t.Errorf("%s %s: %d bytes of %d, %v", resp.Proto, resp.Status, len(got), len(content), err)
		}
	})
}

// A client may have a hundred requests at once on one connection; one more is refused, and not begun.
func TestStreamsOfAConnection(t *testing.T) {
	t.Parallel()
	w := &waiting{puller: &puller{}, begun: make(chan struct{}), ended: make(chan struct{}, 200)}
	o := options(&puller{})
	o.Puller = w
	var log testlog.Log
	ts, _ := watchedTLS(t, server.New(o), &log)
	a := attack(t, ts)
	for i := range 100 {
		if _, err := a.request(true); err != nil {
			t.Fatal(err)
		}
		select {
		case <-w.begun:
		case <-a.read:
			t.Fatalf("the connection ended at request %d", i)
		}
	}
	stream, err := a.request(true)
	if err != nil {
		t.Fatal(err)
	}
	select {
	case f := <-a.reset:
		if f.StreamID != stream || f.ErrCode != http2.ErrCodeRefusedStream && f.ErrCode != http2.ErrCodeProtocol {
			t.Errorf("stream %d was reset: %s", f.StreamID, f.ErrCode)
		}
	case <-w.begun:
		t.Error("request 101 was begun beside a hundred")
	case <-a.read:
		t.Error("the connection ended")
	}
}

// A stream of which the client reads nothing ends, however small its answer is, and whatever it is.
func TestStreamOfASmallAnswer(t *testing.T) {
	t.Parallel()
	large := append(bytes.Repeat([]byte(" "), 65<<10), "{}"...)
	for _, path := range []string{"/v2/a/manifests/b", "/v2/a/tags/list", "/v2/a/manifests/b/c", "/healthz"} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			s := server.New(options(&puller{
				manifest: &pull.Content{Digest: sum([]byte("{}")), Bytes: []byte("{}"), Size: 2, MediaType: "t"}, doc: &pull.Content{Bytes: large},
			}))
			s.SetStall(100 * time.Millisecond)
			var log testlog.Log
			ts, _ := watchedTLS(t, s, &log)
			a := attack(t, ts)
			if err := a.frame.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}); err != nil {
				t.Fatal(err)
			}
			a.path = path
			stream, err := a.request(true)
			if err != nil {
				t.Fatal(err)
			}
			select {
			case f := <-a.reset:
				if f.StreamID != stream {
					t.Errorf("stream %d was reset", f.StreamID)
				}
			case <-a.read:
				t.Error("the connection ended")
			case <-time.After(10 * time.Second):
				t.Error("the stream is open")
			}
		})
	}
}
