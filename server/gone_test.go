package server_test

import (
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
)

// A client that has closed its side of the connection, and still reads, must not get an empty image for an error: net/http
// answers 200 for a handler that has written nothing.
func TestHalfClosedClientGetsNoEmptyAnswer(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	im := w.hub.AddImage("library/app", "1", origin.Image{})
	gate := origin.NewGate()
	w.hub.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{Gate: gate}})
	w.hub.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Gate: gate}})
	defer gate.Open()
	for _, path := range []string{
		"/v2/app/manifests/1", "/v2/app/manifests/" + im.Root.Digest.String(), "/v2/app/blobs/" + im.Layers[0][0].Digest.String(),
	} {
		c, _ := w.dial(t)
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		<-gate.Arrived()
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(c); len(b) > 0 {
			t.Errorf("GET %s: %q", path, b)
		}
	}
}

// A client that announces a body and never sends it gets its answer, and then loses its connection.
func TestBodyThatNeverComes(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	w.hub.AddImage("library/app", "1", origin.Image{})
	var all sync.WaitGroup
	for _, request := range []string{
		"GET /v2/app/manifests/1", "GET /v2/app/manifests/none", "PUT /v2/app/manifests/1", "POST /healthz",
	} {
		c, br := w.dial(t)
		all.Go(func() {
			if _, err := io.WriteString(c, request+" HTTP/1.1\r\nHost: m\r\nContent-Length: 10\r\n\r\n"); err != nil {
				t.Error(err)
			}
			begun := time.Now()
			if b, err := io.ReadAll(br); err != nil || len(b) == 0 {
				t.Errorf("%s: %q, and the connection is open after %s", request, b, time.Since(begun))
			}
		})
	}
	all.Wait()
	// A body that arrives is fine: the connection stays.
	body := strings.Repeat("x", 100<<10)
	r := request(t, w.Server, "GET", "/v2/app/manifests/1")
	r.Body, r.ContentLength = io.NopCloser(strings.NewReader(body)), int64(len(body))
	answers, open := conversation(t, w.Server, r, request(t, w.Server, "GET", "/v2/app/manifests/1"))
	if len(answers) != 2 || answers[1].StatusCode != 200 || !open {
		t.Errorf("after a body: %d answers, open %v", len(answers), open)
	}
}

// A request hidden in the body of another is not answered: neither after an error with a phrase, for which the connection is
// taken from net/http, nor after any other answer.
func TestHiddenRequestsStayHidden(t *testing.T) {
	t.Parallel()
	w := newWire(t, wired{})
	w.hub.AddImage("library/app", "1", origin.Image{})
	w.hub.Script(origin.Rule{Kind: origin.KindManifest, Ref: "bad", Do: origin.Fault{Status: 503}})
	hidden := "GET /v2/app/manifests/hidden HTTP/1.1\r\nHost: m\r\n\r\n"
	// The next request closes the connection, if it is still open.
	send := func(text string) {
		c, br := w.dial(t)
		defer c.Close()
		_, _ = io.WriteString(c, text+"GET /v2/ HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
		_, _ = io.Copy(io.Discard, br)
	}
	size := strconv.Itoa(len(hidden))
	chunk := strconv.FormatInt(int64(len(hidden)), 16) + "\r\n" + hidden + "\r\n0\r\n\r\n"
	for _, tag := range []string{"1", "none", "bad", "-invalid"} {
		for name, rest := range map[string]string{
			"length":                "Content-Length: " + size + "\r\n\r\n" + hidden,
			"chunked":               "Transfer-Encoding: chunked\r\n\r\n" + chunk,
			"both":                  "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk,
			"both, the other way":   "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n" + chunk,
			"two lengths":           "Content-Length: 0\r\nContent-Length: " + size + "\r\n\r\n" + hidden,
			"two lengths in one":    "Content-Length: 0, " + size + "\r\n\r\n" + hidden,
			"coding of its own":     "Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n\r\n" + hidden,
			"two codings":           "Transfer-Encoding: identity, chunked\r\n\r\n" + chunk,
			"space before a colon":  "Content-Length : " + size + "\r\n\r\n" + hidden,
			"length that is signed": "Content-Length: +" + size + "\r\n\r\n" + hidden,
			"upgrade":               "Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: " + size + "\r\n\r\n" + hidden,
			"expected":              "Expect: 100-continue\r\nContent-Length: " + size + "\r\n\r\n" + hidden,
		} {
			for _, method := range []string{"GET", "HEAD", "PUT"} {
				send(method + " /v2/app/manifests/" + tag + " HTTP/1.1\r\nHost: m\r\n" + rest)
				for _, q := range w.records.all() {
					if q.Ref.Tag == "hidden" {
						t.Fatalf("%s %s, %s: the request in its body was answered", method, tag, name)
					}
				}
			}
		}
	}
	// A request that is not hidden is answered: so the search above would find it.
	send("GET /v2/app/manifests/1 HTTP/1.1\r\nHost: m\r\n\r\n" + hidden)
	if all := w.records.all(); len(all) < 2 || all[len(all)-2].Ref.Tag != "hidden" {
		t.Errorf("last requests %+v", all[len(all)-2:])
	}
}
