package upstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

func TestRanges(t *testing.T) {
	t.Parallel()
	const n = 100_000
	content := blobOf(n)
	for _, tt := range []struct {
		name   string
		want   flight.Want
		header string // Range as it is sent
	}{
		{"whole", flight.Want{To: n}, ""},
		{"whole of unknown size", flight.Want{To: -1}, ""},
		{"rest of unknown size", flight.Want{From: 10, To: -1}, "bytes=10-"},
		{"middle", flight.Want{From: 10, To: 20}, "bytes=10-19"},
		{"one byte", flight.Want{From: n - 1, To: n}, "bytes=99999-99999"},
		{"first part, as told", flight.Want{From: 0, To: 10, Size: n}, "bytes=0-9"},
		{"whole, as told", flight.Want{From: 0, To: n, Size: n}, ""},
	} {
		for _, o := range []struct {
			name string
			origin.Options
		}{
			{"direct", origin.Options{}},
			{"redirected", origin.Options{Redirect: true, Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}}},
			{"redirected on the same host", origin.Options{RedirectRelative: true, Auth: origin.Auth{
				Kind:     "bearer",
				Username: "bot", Password: "pw",
			}}},
			{"without ranges", origin.Options{NoRange: true}},
			{"without lengths", origin.Options{NoLength: true}},
		} {
			t.Run(tt.name+" "+o.name, func(t *testing.T) {
				t.Parallel()
				s := origin.Start(t, o.Options)
				d := s.AddBlob(repo, content)
				r := registry(t, s.URL(), as(login("bot", "pw")))
				got, body, err := fetch(t, r, d.Digest, tt.want)
				if err != nil {
					t.Fatal(err)
				}
				end := tt.want.To
				if end < 0 {
					end = n
				}
				if !bytes.Equal(got, content[tt.want.From:end]) {
					t.Errorf("%d bytes, not the range that was wanted", len(got))
				}
				wantSize, wantHost := int64(n), s.Host()
				if o.NoLength && (tt.header == "" || o.NoRange) {
					wantSize = -1
				}
				if o.Redirect {
					wantHost = s.CDNHost()
				}
				if body.Size() != wantSize || body.Host() != wantHost {
					t.Errorf("size %d from %s, want %d from %s", body.Size(), body.Host(), wantSize, wantHost)
				}
				for _, q := range s.Requests() {
					if q.Kind == origin.KindToken {
						continue
					}
					if got := q.Header.Get("Range"); got != tt.header {
						t.Errorf("Range %q, want %q", got, tt.header)
					}
					if got := q.Header.Get("Accept-Encoding"); got != "identity" {
						t.Errorf("Accept-Encoding %q", got)
					}
					if !o.RedirectRelative && q.Role == origin.RoleCDN && q.Header.Get("Authorization") != "" {
						t.Error("credentials at the blob host")
					}
				}
			})
		}
	}
}

func TestEmptyBlob(t *testing.T) {
	t.Parallel()
	s := origin.Start(t, origin.Options{})
	d := s.AddBlob(repo, nil)
	for _, to := range []int64{0, -1} {
		b, body, err := fetch(t, registry(t, s.URL()), d.Digest, flight.Want{To: to})
		if err != nil || len(b) != 0 || body.Size() != 0 {
			t.Errorf("to %d: %d bytes, %v", to, len(b), err)
		}
	}
}

// TestContentRangeIsChecked has answers that are wrong in one way each.
func TestContentRangeIsChecked(t *testing.T) {
	t.Parallel()
	content := blobOf(1000)
	for _, tt := range []struct {
		name, header string
		bytes        int
		ok           bool
	}{
		{"right", "bytes 5-9/1000", 5, true},
		{"right, size not said", "bytes 5-9/*", 5, true},
		{"later", "bytes 6-9/1000", 4, false},
		{"earlier", "bytes 4-9/1000", 6, false},
		{"shorter", "bytes 5-8/1000", 4, false},
		{"longer", "bytes 5-10/1000", 6, false},
		{"length of another", "bytes 5-9/1000", 4, false},
		{"other unit", "lines 5-9/1000", 5, false},
		{"missing", "", 5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Range", tt.header)
				w.Header().Set("Content-Length", fmt.Sprint(tt.bytes))
				w.WriteHeader(http.StatusPartialContent)
				_, _ = w.Write(content[5 : 5+tt.bytes])
			}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				b, _, err := fetch(t, r, digestOf(content), flight.Want{From: 5, To: 10})
				if tt.ok {
					if err != nil || !bytes.Equal(b, content[5:10]) {
						t.Errorf("%d bytes, %v", len(b), err)
					}
					return
				}
				if got, ok := errors.AsType[*fault.ContentError](err); !ok || got.Kind != fault.ContentRange || len(b) > 0 {
					t.Errorf("%d bytes, %v; want %s", len(b), err, fault.ContentRange)
				}
			})
		})
	}
}

// TestNeverBeyondTheRange asks a server that sends more than it was asked for.
func TestNeverBeyondTheRange(t *testing.T) {
	t.Parallel()
	const n = 1000
	content := blobOf(n)
	for name, h := range map[string]http.HandlerFunc{
		"200 to a range": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(n))
			_, _ = w.Write(content)
		},
		"chunked 200 to a range": func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			_, _ = w.Write(content)
		},
		"206 and more": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes 100-199/1000")
			w.WriteHeader(http.StatusPartialContent)
			w.(http.Flusher).Flush()
			_, _ = w.Write(content[100:])
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, h)
			b, _, err := fetch(t, registry(t, s.URL), digestOf(content), flight.Want{From: 100, To: 200})
			if err != nil || !bytes.Equal(b, content[100:200]) {
				t.Errorf("%d bytes, %v; want exactly 100 to 200", len(b), err)
			}
		})
	}
}

func TestStat(t *testing.T) {
	t.Parallel()
	content := blobOf(1234)
	for _, tt := range []struct {
		name     string
		options  origin.Options
		size     int64
		requests []string
	}{
		{"HEAD", origin.Options{}, 1234, []string{"HEAD blob"}},
		{"redirect", origin.Options{Redirect: true}, 1234, []string{"HEAD blob", "GET cdn bytes=0-0"}},
		{"redirect without ranges", origin.Options{Redirect: true, NoRange: true}, 1234, []string{
			"HEAD blob",
			"GET cdn bytes=0-0",
		}},
		{"HEAD refused", origin.Options{NoHeadBlob: true}, 1234, []string{"HEAD blob", "GET blob bytes=0-0"}},
		{"HEAD refused, redirect", origin.Options{NoHeadBlob: true, Redirect: true}, 1234, []string{
			"HEAD blob",
			"GET blob bytes=0-0", "GET cdn bytes=0-0",
		}},
		{"HEAD without it", origin.Options{NoLength: true}, 1234, []string{"HEAD blob", "GET blob bytes=0-0"}},
		{"not said", origin.Options{NoLength: true, NoRange: true}, -1, []string{"HEAD blob", "GET blob bytes=0-0"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, tt.options)
			d := s.AddBlob(repo, content)
			desc, err := registry(t, s.URL()).Stat(t.Context(), repo, d.Digest)
			if err != nil || desc.Size != tt.size || desc.Digest != d.Digest {
				t.Errorf("%+v, %v, want size %d", desc, err, tt.size)
			}
			var got []string
			for _, q := range s.Requests() {
				got = append(got, strings.TrimSpace(q.Method+" "+string(q.Kind)+" "+q.Header.Get("Range")))
			}
			if strings.Join(got, ",") != strings.Join(tt.requests, ",") {
				t.Errorf("requests %q, want %q", got, tt.requests)
			}
			_, err = registry(t, s.URL()).Stat(t.Context(), repo, digestOf([]byte("other")))
			if e := upstreamError(t, err); e.Status != 404 && !tt.options.NoHeadBlob {
				t.Errorf("missing blob: %v", e)
			}
		})
	}
	t.Run("empty blob by range", func(t *testing.T) {
		t.Parallel()
		s := origin.Start(t, origin.Options{NoHeadBlob: true})
		d := s.AddBlob(repo, nil)
		desc, err := registry(t, s.URL()).Stat(t.Context(), repo, d.Digest)
		if err != nil || desc.Size != 0 {
			t.Errorf("%+v, %v", desc, err)
		}
	})
}

// For a further connection's part no blob is read from its beginning; and where a whole blob comes for its first part, the body
// may go on to the end.
func TestPartsOfARegistryWithoutRanges(t *testing.T) {
	t.Parallel()
	const n = 100_000
	content := blobOf(n)
	for _, o := range []struct {
		name string
		origin.Options
		ranges bool
	}{{"with ranges", origin.Options{}, true}, {"without", origin.Options{NoRange: true}, false}} {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s := origin.Start(t, o.Options)
			d := s.AddBlob(repo, content)
			r := registry(t, s.URL())
			body, err := r.Blob(t.Context(), repo, d.Digest, flight.Want{From: 1000, To: 2000, Size: n, Part: true})
			if (err == nil) != o.ranges {
				t.Errorf("a part: %v", err)
			}
			if err == nil {
				_ = body.Close()
			}
			if c := s.Count(origin.KindBlob); c != 1 {
				t.Errorf("a part took %d requests, want 1", c)
			}

			body, err = r.Blob(t.Context(), repo, d.Digest, flight.Want{To: 1000, Size: n})
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			want := content
			if o.ranges {
				want = content[:1000]
			}
			if body.Extend() == o.ranges {
				t.Errorf("the first part goes on: %t", !o.ranges)
			}
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
				t.Errorf("read %d bytes, %v; want %d", len(got), err, len(want))
			}
			if c := s.Count(origin.KindBlob); c != 2 {
				t.Errorf("%d requests, want 2", c)
			}
		})
	}
}

// The registry is asked once for the address of a blob that comes in parts, and again when the address is refused.
func TestPartsFromOneAddress(t *testing.T) {
	t.Parallel()
	const n = 100_000
	content := blobOf(n)
	for _, o := range []origin.Options{
		{Redirect: true, Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "pw"}}, {},
	} {
		s := origin.Start(t, o)
		d := s.AddBlob(repo, content)
		r := registry(t, s.URL(), as(login("bot", "pw")))
		part := func(r *upstream.Registry, from int64) {
			t.Helper()
			got, _, err := fetch(t, r, d.Digest, flight.Want{From: from, To: from + 100, Size: n, Part: true})
			if err != nil || !bytes.Equal(got, content[from:from+100]) {
				t.Fatalf("part at %d: %d bytes, %v", from, len(got), err)
			}
		}
		for i := range int64(5) {
			part(r, 1000*i)
		}
		asked := s.Count(origin.KindBlob)
		if !o.Redirect {
			if asked != 5 {
				t.Errorf("without a redirect, %d requests for 5 parts", asked)
			}
			continue
		}
		if asked > 2 { // the challenge, and the answer to it
			t.Errorf("%d requests of the registry for 5 parts", asked)
		}
		s.ExpireRedirects()
		part(r, 7000)
		if again := s.Count(origin.KindBlob) - asked; again != 1 {
			t.Errorf("%d requests of the registry after the address had expired, want 1", again)
		}
		// An address is as good as the right to read: another credential gets none.
		asked = s.Count(origin.KindBlob)
		_, err := r.As(login("bot", "wrong")).Blob(t.Context(), repo, d.Digest, flight.Want{To: 100, Size: n, Part: true})
		if err == nil || s.Count(origin.KindBlob) == asked {
			t.Errorf("a request with another credential got a part without a login: %v", err)
		}
	}
}
