package ecr_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/registrymirror/mirror/auth/ecr"
)

// The signer is held against the signatures that AWS publishes.
func TestSignatures(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("testdata/sigv4.json")
	if err != nil {
		t.Fatal(err)
	}
	var suite struct {
		Key, Secret, Region, Service, Host string
		Time                               time.Time
		Vectors                            []struct {
			Name, Method, Path, Query, Body, Token, Authorization string
			Headers                                               [][2]string
		}
	}
	if err := json.Unmarshal(b, &suite); err != nil {
		t.Fatal(err)
	}
	if len(suite.Vectors) < 25 {
		t.Fatalf("%d vectors", len(suite.Vectors))
	}
	for _, v := range suite.Vectors {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()
			req := &http.Request{
				Method: v.Method, URL: &url.URL{Scheme: "https", Host: suite.Host, Path: v.Path, RawQuery: v.Query},
				Header: http.Header{},
			}
			for _, h := range v.Headers {
				req.Header.Add(h[0], h[1])
			}
			ecr.Sign(req, []byte(v.Body), suite.Key, suite.Secret, v.Token, suite.Region, suite.Service, suite.Time)
			if got := req.Header.Get("Authorization"); got != v.Authorization {
				t.Errorf("got  %s\nwant %s", got, v.Authorization)
			}
		})
	}
}
