package server_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/server"
)

// A client that speaks HTTPS to a plain listener, or HTTP to one with TLS, leaves a record with the cause and the remedy;
// one that speaks the right protocol leaves none.
func TestWrongProtocolIsRecorded(t *testing.T) {
	t.Parallel()
	for _, secure := range []bool{false, true} {
		t.Run(fmt.Sprintf("TLS %t", secure), func(t *testing.T) {
			t.Parallel()
			seen := make(chan journal.Request, 10)
			o := options(&puller{})
			o.Observe = func(r journal.Request) { seen <- r }
			s := server.New(o)
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			wrapped := server.Listen(l, server.ListenOptions{TLS: secure, Mismatch: s.Mismatch(secure)})
			hs := s.HTTPServer(nil, false)
			if secure {
				hs.TLSConfig = &tls.Config{Certificates: []tls.Certificate{certificate(t)}}
				go func() { _ = hs.ServeTLS(wrapped, "", "") }()
			} else {
				go func() { _ = hs.Serve(wrapped) }()
			}
			t.Cleanup(func() { _ = hs.Close() })
			speak := func(secure bool) {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_ = c.SetDeadline(time.Now().Add(time.Minute))
				if secure {
					c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
				}
				_, _ = io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: m\r\nConnection: close\r\n\r\n")
				_, _ = io.Copy(io.Discard, c)
			}
			speak(secure)
			if len(seen) != 0 {
				t.Errorf("the right protocol: %+v", <-seen)
			}
			speak(!secure)
			if len(seen) != 0 {
				t.Errorf("a client that may be about to try the other one: %+v", <-seen)
			}
			s.SuspectsNow()
			r := <-seen
			want := diagnose.HTTPNotHTTPS
			if secure {
				want = diagnose.HTTPSNotHTTP
			}
			if r.Finding == nil || r.Finding.Reason != want || r.Finding.Remedy == "" || r.Client != "127.0.0.1" || r.ID == "" {
				t.Errorf("%+v, %+v", r, r.Finding)
			}
			// A client that tries the wrong protocol first, and is served by the other, has not failed.
			speak(!secure)
			s.ServeHTTP(httptest.NewRecorder(), func() *http.Request {
				r := httptest.NewRequest(http.MethodGet, "/v2/", nil)
				r.RemoteAddr = "127.0.0.1:1"
				return r
			}())
			s.SuspectsNow()
			for len(seen) > 0 {
				if r := <-seen; r.Finding != nil {
					t.Errorf("and %+v", r)
				}
			}
		})
	}
}

// certificate is a self-signed one.
func certificate(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	of := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, of, of, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
