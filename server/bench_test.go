package server_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/share"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// nowhere is a ResponseWriter that does nothing.
type nowhere struct{ h http.Header }

func (w nowhere) Header() http.Header         { return w.h }
func (w nowhere) WriteHeader(int)             {}
func (w nowhere) Write(p []byte) (int, error) { return len(p), nil }

// BenchmarkManifest measures the front end's own cost of a request for a manifest in memory.
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

// still is a puller with one answer.
type still struct{ content *pull.Content }

func (p still) TakesLogins(oci.Request) bool { return false }

func (p still) Route(r oci.Request) (oci.Ref, error) { return (&puller{}).Route(r) }

func (p still) Manifest(context.Context, pull.Ask) (*pull.Content, error)  { return p.content, nil }
func (p still) Blob(context.Context, pull.Ask) (*pull.Content, error)      { return p.content, nil }
func (p still) Tags(context.Context, pull.Ask) (*pull.Content, error)      { return p.content, nil }
func (p still) Referrers(context.Context, pull.Ask) (*pull.Content, error) { return p.content, nil }

// BenchmarkRecording measures what recording adds to a successful request for a manifest, over loopback: the same requests
// in turn to a front end without Observe, and to one with a journal that has a record of failures.
func BenchmarkRecording(b *testing.B) {
	content := pattern(1500)
	o := options(nil)
	o.Puller = still{&pull.Content{
		Digest: sum(content), MediaType: indexType, Size: int64(len(content)), Bytes: content,
		Status: pull.Status{Outcome: cache.Hit},
	}}
	plain := server.New(o)
	j := journal.New(journal.Options{Record: journal.NewRecord(nil, nil), Buffer: 1 << 20})
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(b.Context())
	go func() { done <- j.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
	}()
	o.Observe, o.Begin = j.Observe, j.Begin
	recording := server.New(o)
	const turn = 200
	var fetch [2]func()
	for i, s := range []*server.Server{plain, recording} {
		ts := httptest.NewServer(s)
		defer ts.Close()
		r, err := http.NewRequestWithContext(b.Context(), "GET", ts.URL+"/v2/library/nginx/manifests/1.27?ns=docker.io", nil)
		if err != nil {
			b.Fatal(err)
		}
		r.Header.Set("User-Agent", "containerd/2.1.4")
		fetch[i] = getting(b, ts.Client(), r)
	}
	took := inTurn(b, turn, fetch[:])
	n := float64(b.N * turn)
	b.ReportMetric(float64(took[0].Nanoseconds())/n, "ns/plain")
	b.ReportMetric(float64(took[1].Nanoseconds())/n, "ns/recording")
	b.ReportMetric(float64(took[1])/float64(took[0]), "ratio")
}

// getting is a function that makes a request, and reads the answer to its end.
func getting(b *testing.B, client *http.Client, r *http.Request) func() {
	b.Helper()
	return func() {
		res, err := client.Do(r)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
}

// inTurn calls functions in turn, each some times in a row, and returns how long each took in all.
func inTurn(b *testing.B, row int, functions []func()) []time.Duration {
	b.Helper()
	took := make([]time.Duration, len(functions))
	for b.Loop() {
		for i, f := range functions {
			began := time.Now()
			for range row {
				f()
			}
			took[i] += time.Since(began)
		}
	}
	return took
}

// BenchmarkLimits measures what limits of clients add to a blob from the cache, over loopback: the same requests in turn to a front end
// that never had limits, to one whose limits are off, and to one with limits that hold up nothing.
func BenchmarkLimits(b *testing.B) {
	content := pattern(1 << 20)
	path := filepath.Join(b.TempDir(), "blob")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		b.Fatal(err)
	}
	const turn = 50
	var fetch [3]func()
	for i := range fetch {
		s := server.New(options(&puller{size: int64(len(content)), object: func() cache.Object {
			f, err := os.Open(path)
			if err != nil {
				b.Error(err)
			}
			return file{f, int64(len(content)), new(atomic.Int64)}
		}}))
		switch i {
		case 1:
			s.Limit(server.ClientLimits{})
		case 2:
			s.Limit(server.ClientLimits{ByAddress: true, Limits: share.New(share.Settings{Requests: 64, Bandwidth: 1 << 40, Total: 1 << 40}, nil)})
		}
		ts := httptest.NewUnstartedServer(s)
		ts.Listener = server.Listen(ts.Listener, server.ListenOptions{})
		ts.Start()
		defer ts.Close()
		r, err := http.NewRequestWithContext(b.Context(), "GET", ts.URL+"/v2/library/nginx/blobs/"+string(sum(content)), nil)
		if err != nil {
			b.Fatal(err)
		}
		fetch[i] = getting(b, ts.Client(), r)
	}
	took := inTurn(b, turn, fetch[:])
	n := float64(b.N * turn)
	b.ReportMetric(float64(took[0].Nanoseconds())/n, "ns/never")
	b.ReportMetric(float64(took[1])/float64(took[0]), "off/never")
	b.ReportMetric(float64(took[2])/float64(took[0]), "on/never")
}
