package flight_test

import (
	"context"
	"io"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
)

// steady is a body that brings 1,000 bytes a second.
type steady struct {
	size, pos int64
	content   []byte
}

func (s *steady) Read(p []byte) (int, error) {
	if s.pos == s.size {
		return 0, io.EOF
	}
	time.Sleep(time.Second)
	n := copy(p[:min(len(p), 1000)], s.content[s.pos:])
	s.pos += int64(n)
	return n, nil
}

func (s *steady) Close() error { return nil }
func (s *steady) Size() int64  { return s.size }
func (s *steady) Host() string { return "up.example" }

// TestNeeds has readers of two clients. One is slower than the source: it needs no more bytes until it has read those that
// are there.
func TestNeeds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		from := newOrigin(1, 300_000)
		content, d := from.content, from.digest()
		g := flight.New((&store{}).options())
		defer g.Close()
		var mu sync.Mutex
		var want flight.Want
		source := func(client string) flight.Source {
			return flight.Source{Key: client, Client: client, Fetch: func(_ context.Context, w flight.Want) (
				flight.Body, error,
			) {
				mu.Lock()
				defer mu.Unlock()
				want = w
				return &steady{size: int64(len(content)), content: content}, nil
			}}
		}
		open := func(client string) flight.Object {
			o, _, err := g.Join(t.Context(), d, int64(len(content)), source(client))
			if err != nil {
				t.Fatal(err)
			}
			return o
		}
		needs := func(clients ...string) {
			t.Helper()
			mu.Lock()
			got := want.Needs()
			mu.Unlock()
			slices.Sort(got)
			if !slices.Equal(got, clients) {
				t.Errorf("%v need bytes, want %v", got, clients)
			}
		}
		slow := open("slow")
		defer slow.Close()
		if _, err := slow.ReadAt(make([]byte, 10), 0); err != nil {
			t.Fatal(err)
		}
		if want.Client != "slow" {
			t.Errorf("fetched for %q", want.Client)
		}
		needs("slow") // it has just waited
		time.Sleep(5 * time.Second)
		time.Sleep(5 * time.Second)
		needs()
		fast := open("fast")
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, fast)
			fast.Close()
			done <- err
		}()
		for range 10 {
			time.Sleep(900 * time.Millisecond)
			needs("fast")
		}
		go func() {
			_, err := slow.ReadAt(make([]byte, 10), 30_000)
			done <- err
		}()
		time.Sleep(time.Second)
		needs("fast", "slow")
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	})
}
