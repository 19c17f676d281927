package server_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

var _ server.Puller = (*pull.Puller)(nil)

// flights answers blobs out of real flights over a real disk.
type flights struct {
	puller
	group  *flight.Group
	source flight.Source
	size   int64
}

func (f *flights) Blob(ctx context.Context, a pull.Ask) (*pull.Content, error) {
	c := &pull.Content{Digest: a.Request.Digest, Size: f.size, Status: pull.Status{Outcome: cache.Miss}}
	if a.Request.Head {
		return c, nil
	}
	o, joined, err := f.group.Join(ctx, a.Request.Digest, f.size, f.source)
	if err != nil {
		return nil, err
	}
	if joined {
		c.Status.Outcome = cache.Joined
	}
	c.Object = o
	return c, nil
}

type transfer struct {
	io.Reader
	size int64
}

func (transfer) Close() error  { return nil }
func (t transfer) Size() int64 { return t.size }
func (transfer) Host() string  { return "origin.example" }

// The front end over a running download: whole and in ranges, for many clients at once, and no byte is fetched twice.
func TestBlobInFlight(t *testing.T) {
	t.Parallel()
	store, err := disk.Open(t.TempDir(), disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	content := pattern(13 << 20)
	digest := sum(content)
	size := int64(len(content))
	var fetched atomic.Int64
	p := &flights{size: size, group: flight.New(flight.Options{
		Open:   func(d oci.Digest) (flight.Object, error) { return store.Open(d) },
		Create: func(_ oci.Digest, size int64) (flight.Spool, error) { return store.Create(size) },
	})}
	defer p.group.Close()
	p.source = flight.Source{Key: "a", Fetch: func(_ context.Context, w flight.Want) (flight.Body, error) {
		to := w.To
		if to < 0 {
			to = size
		}
		r := io.NewSectionReader(bytes.NewReader(content), w.From, to-w.From)
		return transfer{io.TeeReader(r, counter{&fetched}), size}, nil
	}}
	o := options(nil)
	o.Puller = p
	ts := serve(t, server.New(o))
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	var wg sync.WaitGroup
	for i := range 24 {
		wg.Go(func() {
			r := request(t, ts, "GET", "/v2/a/blobs/"+string(digest))
			want, status := content, 200
			switch i % 3 {
			case 1: // lazy pullers read the end first
				from := len(content) - i*100_000
				r.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
				want, status = content[from:], 206
			case 2:
				r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", i*500_000, i*500_000+99_999))
				want, status = content[i*500_000:i*500_000+100_000], 206
			}
			res, err := client.Do(r)
			if err != nil {
				t.Error(err)
				return
			}
			defer res.Body.Close()
			got, err := io.ReadAll(res.Body)
			if err != nil || res.StatusCode != status || !bytes.Equal(got, want) {
				t.Errorf("client %d: %s, %d bytes of %d: %v", i, res.Status, len(got), len(want), err)
			}
		})
	}
	wg.Wait()
	if n := fetched.Load(); n != size {
		t.Errorf("%d bytes fetched of %d", n, size)
	}
}

type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}
