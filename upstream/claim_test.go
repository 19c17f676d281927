package upstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
)

// plain serves a blob of 1,000 bytes in several manners.
func plain(how string, content []byte) func(w http.ResponseWriter, r *http.Request) bool {
	return func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") {
			return false
		}
		if how == "chunked" {
			var from int
			if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err == nil && from >= len(content) {
				w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", len(content)))
				w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
				return true
			}
		}
		if how == "chunked" || how == "without ranges" {
			w.(http.Flusher).Flush()
			_, _ = w.Write(content)
			return true
		}
		http.ServeContent(w, r, "", zeroTime, bytes.NewReader(content))
		return true
	}
}

// TestLyingManifestOpensNoBreaker has manifests give a blob a size that it does not have. The registry, and a mirror of it,
// are as good as before.
func TestLyingManifestOpensNoBreaker(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	for _, how := range []string{"sized", "chunked", "without ranges"} {
		for _, w := range []flight.Want{
			{To: 777, Size: 777},
			{To: 100_002, Size: 100_002},
			{To: 4 << 20, Size: 400 << 20},
			{From: 500, To: 2000, Size: 2000},
			{From: 500, To: 900, Size: 900},
		} {
			if how != "sized" && w.Size < 1000 {
				continue // as much as was wanted comes
			}
			t.Run(fmt.Sprintf("%s, %d-%d of %d", how, w.From, w.To, w.Size), func(t *testing.T) {
				t.Parallel()
				g := &registryOf{blob: content, do: plain(how, content)}
				var log bytes.Buffer
				hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
					for range 6 {
						_, _, err := fetch(t, r, digestOf(content), w)
						e := upstreamError(t, err)
						if c, ok := errors.AsType[*fault.ContentError](e); !ok || !c.Claimed || c.Kind != fault.ContentSize ||
							c.Got != "1000 bytes" && !strings.Contains(how, "ranges") {
							t.Fatalf("%v, want that the claim is wrong", e)
						}
						time.Sleep(time.Second)
					}
					for _, s := range r.State() {
						if s.State != endpoint.StateUp {
							t.Errorf("%s is %s: %s", s.URL, s.State, s.LastError)
						}
					}
					if log.Len() > 0 {
						t.Errorf("it says\n%s", &log)
					}
					if b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000, Size: 1000}); err != nil || !bytes.Equal(b, content) {
						t.Errorf("with the right size: %d bytes, %v", len(b), err)
					}
				}, func(o *upstream.Options) { o.Log = textLog(&log) })
			})
		}
	}
}

// TestEndpointThatContradictsAnEndpointIsAtFault has an endpoint contradict itself, and a mirror contradict the registry.
func TestEndpointThatContradictsAnEndpointIsAtFault(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	wrong := func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "/blobs/") || r.Method == http.MethodHead {
			return false
		}
		w.Header().Set("Content-Length", "999")
		_, _ = w.Write(content[:999])
		return true
	}
	t.Run("itself", func(t *testing.T) {
		t.Parallel()
		g := &registryOf{blob: content, do: wrong}
		hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
			desc, err := r.Stat(t.Context(), repo, digestOf(content))
			if err != nil || desc.Size != 1000 {
				t.Fatal(desc, err)
			}
			for range 3 {
				_, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000, Size: 1000})
				if c, ok := errors.AsType[*fault.ContentError](err); !ok || c.Claimed {
					t.Fatalf("%v, want that it is the endpoint's fault", err)
				}
			}
			if s := r.State()[0]; s.State != endpoint.StateOpen {
				t.Errorf("%+v, want it down", s)
			}
		})
	})
	t.Run("the registry", func(t *testing.T) {
		t.Parallel()
		g := &registryOf{blob: content, do: func(w http.ResponseWriter, r *http.Request) bool {
			return r.Host == "a.example" && wrong(w, r)
		}}
		hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
			for range 3 {
				b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000, Size: 1000})
				if err != nil || !bytes.Equal(b, content) {
					t.Fatalf("%d bytes, %v", len(b), err)
				}
			}
			if s := r.State(); s[0].State != endpoint.StateOpen || s[1].State != endpoint.StateUp {
				t.Errorf("%+v, want the first one down", s)
			}
		})
	})
	t.Run("short bodies", func(t *testing.T) { // that end cleanly, and of which there is more
		t.Parallel()
		g := &registryOf{blob: content, do: func(w http.ResponseWriter, r *http.Request) bool {
			var from int
			_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
			if r.Host != "a.example" || from > 0 {
				return false
			}
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[:10])
			return true
		}}
		hosts(t, g.ServeHTTP, func(t *testing.T, r *upstream.Registry, _ *network) {
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000, Size: 1000})
			if err != nil || !bytes.Equal(b, content) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
			if s := r.State()[0]; s.LastError == "" {
				t.Errorf("%+v does not say that it ended early", s)
			}
		})
	})
}

// TestAnswerWithoutBytesDeniesNoSize has a registry answer with no bytes at all, and a clean end. Its digest says that the blob has
// some, so that the size in the manifest is not what is wrong: the registry is asked again, as after a break.
func TestAnswerWithoutBytesDeniesNoSize(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	none := func(times int32) http.HandlerFunc {
		var asked atomic.Int32
		return func(w http.ResponseWriter, r *http.Request) {
			if asked.Add(1) <= times {
				w.(http.Flusher).Flush()
				return
			}
			http.ServeContent(w, r, "", zeroTime, bytes.NewReader(content))
		}
	}
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		bubble(t, none(2), func(t *testing.T, r *upstream.Registry, _ *pipes) {
			b, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000, Size: 1000})
			if err != nil || !bytes.Equal(b, content) {
				t.Errorf("%d bytes, %v", len(b), err)
			}
		})
	})
	t.Run("each time", func(t *testing.T) {
		t.Parallel()
		bubble(t, none(100), func(t *testing.T, r *upstream.Registry, _ *pipes) {
			_, _, err := fetch(t, r, digestOf(content), flight.Want{To: 1000, Size: 1000})
			if c, claim := errors.AsType[*fault.ContentError](err); claim || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Errorf("%v, want an early end and no word of the size: %v", err, c)
			}
		})
	})
	t.Run("an empty blob", func(t *testing.T) { // which a manifest gives a size
		t.Parallel()
		bubble(t, none(100), func(t *testing.T, r *upstream.Registry, _ *pipes) {
			_, _, err := fetch(t, r, digestOf(nil), flight.Want{To: 1000, Size: 1000})
			if c, ok := errors.AsType[*fault.ContentError](err); !ok || !c.Claimed {
				t.Errorf("%v, want that the claim is wrong", err)
			}
		})
	})
}
