package server_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/client"
	"github.com/registrymirror/mirror/identity"
	"github.com/registrymirror/mirror/internal/share"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/server"
)

// asNamed identifies clients by what they say.
type asNamed struct{}

func (asNamed) Identify(r *http.Request, _ string, _ bool) (client.Identity, string, error) {
	return client.Identity(r.Header.Get("Test-Name")), "", nil
}

func (asNamed) IdentifyBeside(*http.Request, string) (client.Identity, bool, string, error) {
	return "", false, "", nil
}

func (asNamed) Ways() (login, certificate bool) { return false, false }

func (asNamed) Challenge() identity.Challenge { return identity.Never }

// ask makes a request of a client.
func ask(t *testing.T, addr, name, path string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	r.RemoteAddr = addr + ":1234"
	if name != "" {
		r.Header.Set("Test-Name", name)
	}
	return r
}

// slow answers each manifest after a minute.
type slow struct{ *puller }

func (p slow) Manifest(ctx context.Context, a pull.Ask) (*pull.Content, error) {
	select {
	case <-time.After(time.Minute):
	case <-ctx.Done():
	}
	return p.puller.Manifest(ctx, a)
}

// A client with as many requests as it may have waits for ten seconds and gets 429, with Retry-After, the reason and the remedy. Other
// clients are served: those with another identity, and, unless addresses count, all without one.
func TestClientHasTooManyRequests(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		byAddress bool
		limited   [2]string // address and name
		others    [][2]string
	}{
		"by identity": {false, [2]string{"10.0.0.1", "alice"}, [][2]string{{"10.0.0.1", "bob"}, {"10.0.0.1", ""}}},
		"by address":  {true, [2]string{"10.0.0.1", ""}, [][2]string{{"10.0.0.1", "bob"}, {"10.0.0.2", ""}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				p := &puller{manifest: &pull.Content{Digest: sum([]byte("{}")), Bytes: []byte("{}"), Size: 2, MediaType: "a/b"}}
				o := options(nil)
				o.Puller, o.Clients = slow{p}, asNamed{}
				var seen records
				o.Observe = seen.observe
				s := server.New(o)
				s.Limit(server.ClientLimits{Limits: share.New(share.Settings{Requests: 2}, nil), ByAddress: tt.byAddress})
				const path = "/v2/library/app/manifests/1"
				var group sync.WaitGroup
				get := func(who [2]string) *httptest.ResponseRecorder {
					w := httptest.NewRecorder()
					s.ServeHTTP(w, ask(t, who[0], who[1], path))
					return w
				}
				for range 2 {
					group.Go(func() { get(tt.limited) })
				}
				synctest.Wait()
				for _, other := range tt.others {
					for range 2 {
						group.Go(func() {
							began := time.Now()
							if w := get(other); w.Code != 200 || time.Since(began) != time.Minute {
								t.Errorf("%v: %d after %s", other, w.Code, time.Since(began))
							}
						})
					}
					group.Wait()
					for range 2 {
						group.Go(func() { get(tt.limited) })
					}
					synctest.Wait()
				}
				began := time.Now()
				w := get(tt.limited)
				if w.Code != 429 || time.Since(began) != share.Patience || w.Header().Get("Retry-After") != "5" ||
					!strings.HasPrefix(w.Header().Get("Mirror-Reason"), "client-limited; id=") || !strings.Contains(w.Body.String(), "TOOMANYREQUESTS") ||
					!strings.Contains(w.Body.String(), "raise clients.limits.maxRequests") {
					t.Errorf("%d after %s, %v\n%s", w.Code, time.Since(began), w.Header(), w.Body)
				}
				group.Wait()
				if w := get(tt.limited); w.Code != 200 {
					t.Errorf("afterwards: %d", w.Code)
				}
			})
		})
	}
}

// Blobs come at the client's bandwidth, in right bytes, whole and in ranges; a manifest comes at once, and counts. What a client sends
// beyond a limit is nothing to another one.
func TestBlobsArePaced(t *testing.T) {
	t.Parallel()
	content := pattern(4 << 20)
	object, size := hold(content)
	for name, header := range map[string]string{"whole": "", "a range": "bytes=0-4194302", "ranges": "bytes=0-2097151,2097152-4194302"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o := options(&puller{object: object, size: size, manifest: &pull.Content{Digest: sum(content), Bytes: content, Size: size, MediaType: "a/b"}})
				o.Clients = asNamed{}
				s := server.New(o)
				s.Limit(server.ClientLimits{Limits: share.New(share.Settings{Bandwidth: 1 << 20}, nil)})
				get := func(name, path string) (took time.Duration, body []byte) {
					r := ask(t, "10.0.0.1", name, path)
					if header != "" {
						r.Header.Set("Range", header)
					}
					w := httptest.NewRecorder()
					began := time.Now()
					s.ServeHTTP(w, r)
					if w.Code/100 != 2 {
						t.Errorf("%s: %d", path, w.Code)
					}
					return time.Since(began), w.Body.Bytes()
				}
				blob := "/v2/library/app/blobs/" + string(sum(content))
				took, body := get("alice", blob)
				if took < 2900*time.Millisecond || took > 3100*time.Millisecond { // a second of it at once
					t.Errorf("4 MiB at 1 MiB a second: %s", took)
				}
				if name != "ranges" && !bytes.Equal(body, content[:len(body)]) || len(body) < len(content)-1 {
					t.Errorf("%d wrong bytes", len(body))
				}
				if took, _ := get("bob", "/v2/library/app/manifests/1"); took != 0 {
					t.Errorf("a manifest waited %s", took)
				}
				if took, _ := get("bob", blob); took < 6900*time.Millisecond || took > 7100*time.Millisecond {
					t.Errorf("after a manifest of 4 MiB: %s", took)
				}
				if took, _ := get("", blob); took != 0 {
					t.Errorf("a client without an identity waited %s", took)
				}
			})
		})
	}
}

// A paced blob has its right bytes over real connections, HTTP/1.1 and HTTP/2, although the client's share comes more slowly than a stream may
// stall.
func TestPacedOverConnections(t *testing.T) {
	t.Parallel()
	content := pattern(768 << 10)
	object, size := hold(content)
	for name, h2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := server.New(options(&puller{object: object, size: size}))
			s.SetStall(200 * time.Millisecond) // a piece of 64 KiB comes every 250 ms
			s.Limit(server.ClientLimits{Limits: share.New(share.Settings{Bandwidth: 256 << 10, Total: 256 << 10}, nil), ByAddress: true})
			ts := serveTLS(t, s, h2)
			began := time.Now()
			resp, err := ts.Client().Get(ts.URL + "/v2/a/blobs/" + string(sum(content)))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			got, err := io.ReadAll(resp.Body)
			if err != nil || !bytes.Equal(got, content) || (resp.ProtoMajor == 2) != h2 {
				t.Errorf("%s: %d bytes, %v", resp.Proto, len(got), err)
			}
			if took := time.Since(began); took < 1500*time.Millisecond {
				t.Errorf("768 KiB at 256 KiB a second: %s", took)
			}
		})
	}
}
