package server_test

import (
	"context"
	"net/http"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct{ h http.Header }

func (w nowhere) Header() http.Header         { return w.h }
func (w nowhere) WriteHeader(int)             {}
func (w nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkManifest is what the front end itself costs a request for a manifest in memory.
func BenchmarkManifest(b *testing.B) {
	content := pattern(1500)
	p := still{&pull.Content{
		Digest: sum(content), MediaType: indexType, Size: int64(len(content)), Bytes: content,
		Status: pull.Status{Outcome: cache.Hit},
	}}
	o := options(nil)
	o.Puller = p
	s := server.New(o)
	r, err := http.NewRequestWithContext(b.Context(), "GET", "http://m/v2/library/nginx/manifests/1.27?ns=docker.io", nil)
	if err != nil {
		b.Fatal(err)
	}
	r.RemoteAddr = "10.0.0.7:40000"
	b.ReportAllocs()
	for b.Loop() {
		s.ServeHTTP(nowhere{make(http.Header)}, r)
	}
}

// still is a puller that always has the same answer.
type still struct{ content *pull.Content }

func (p still) Route(r oci.Request) (oci.Ref, error) { return (&puller{}).Route(r) }

func (p still) Manifest(context.Context, pull.Ask) (*pull.Content, error)  { return p.content, nil }
func (p still) Blob(context.Context, pull.Ask) (*pull.Content, error)      { return p.content, nil }
func (p still) Tags(context.Context, pull.Ask) (*pull.Content, error)      { return p.content, nil }
func (p still) Referrers(context.Context, pull.Ask) (*pull.Content, error) { return p.content, nil }
