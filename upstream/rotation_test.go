package upstream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// rotate is for how long there are pulls, by the clock of the test.
var rotate = flag.Duration("rotation", 10*time.Second, "how long TestRotationUnderLoad pulls")

const (
	loginLife = 5 * time.Second
	tokenLife = 2 * time.Second
)

// rotation is a private registry whose logins live 5 s and whose tokens live 2 s, to the millisecond. It answers after
// a while, sometimes cuts a blob, and its source of logins fails now and then.
type rotation struct {
	tokens bool // else it takes logins
	blob   []byte
	long   []byte // comes in 7 s

	mu     sync.Mutex
	logins map[string]time.Time // when they were made
	given  map[string]time.Time
	asked  int // for a login
	failed int
	cut    int
	late   int // what came with something that had expired
}

func (s *rotation) fetch(ctx context.Context) (auth.Grant, error) {
	pause(ctx, rand.N(400*time.Millisecond))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.asked%4 == 2 {
		s.failed++
		return auth.Grant{}, errors.New("the cloud is busy")
	}
	password := fmt.Sprintf("pw%d", s.asked)
	s.logins["bot:"+password] = time.Now()
	return auth.Grant{Credential: auth.Credential{
		Username: "bot", Password: auth.NewSecret(password), Expires: time.Now().Add(loginLife),
	}}, nil
}

// lets reports whether a request shows something that is still good.
func (s *rotation) lets(r *http.Request, basic bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, life := time.Time{}, tokenLife
	if basic {
		text, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Basic ")
		login, _ := base64.StdEncoding.DecodeString(text)
		at, life = s.logins[string(login)], loginLife
	} else if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		at = s.given[text]
	}
	if at.IsZero() {
		return false
	}
	if time.Since(at) >= life {
		s.late++
		return false
	}
	return true
}

func (s *rotation) serve(w http.ResponseWriter, r *http.Request) {
	pause(r.Context(), rand.N(150*time.Millisecond))
	if r.URL.Path == "/token" {
		if !s.lets(r, true) {
			http.Error(w, `{"details":"incorrect username or password"}`, http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		value := fmt.Sprintf("t%d", len(s.given))
		s.given[value] = time.Now()
		s.mu.Unlock()
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":%d}`, value, int(tokenLife.Seconds()))
		return
	}
	if !s.lets(r, !s.tokens) {
		challenge := `Basic realm="reg"`
		if s.tokens {
			challenge = `Bearer realm="/token",service="reg"`
		}
		w.Header().Set("WWW-Authenticate", challenge)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if strings.Contains(r.URL.Path, "/blobs/") {
		s.send(w, r)
		return
	}
	w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
	w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
	w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(manifest)
	}
}

// send sends a blob; each seventh breaks off in its middle.
func (s *rotation) send(w http.ResponseWriter, r *http.Request) {
	content, slow := s.blob, strings.HasSuffix(r.URL.Path, string(digestOf(s.long)))
	if slow {
		content = s.long
	}
	from := 0
	if text := r.Header.Get("Range"); text != "" {
		_, _ = fmt.Sscanf(text, "bytes=%d-", &from)
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
	}
	rest := content[from:]
	w.Header().Set("Content-Length", fmt.Sprint(len(rest)))
	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}
	s.mu.Lock()
	s.cut++
	breaks := s.cut%7 == 0
	s.mu.Unlock()
	step := max(len(rest)/70, 1)
	for i := 0; len(rest) > 0; i++ {
		if breaks && i == 35 {
			panic(http.ErrAbortHandler)
		}
		n := min(step, len(rest))
		if _, err := w.Write(rest[:n]); err != nil {
			return
		}
		w.(http.Flusher).Flush()
		rest = rest[n:]
		if slow {
			pause(r.Context(), 100*time.Millisecond)
		}
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// Tokens that live 2 s and logins that live 5 s, under pulls by 50 clients: none fails, though nothing is to
// be had without a login, and no more logins and tokens are asked for than it takes.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	for _, tokens := range []bool{true, false} {
		t.Run(fmt.Sprintf("tokens %v", tokens), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				const clients, repos = 50, 5
				lasts := *rotate
				s := &rotation{
					tokens: tokens, logins: map[string]time.Time{}, given: map[string]time.Time{},
					blob: bytes.Repeat([]byte("blob"), 2_000), long: bytes.Repeat([]byte("long"), 7_000),
				}
				p := newPipes(t, http.HandlerFunc(s.serve))
				src := auth.NewRefreshed(auth.Refresh{Name: "rotating", Kind: "test", Fetch: s.fetch})
				r := registry(t, "http://reg.example", as(src), func(o *upstream.Options) { o.Dial, o.MaxTransfers = p.Dial, -1 })
				ctx, stop := context.WithCancel(t.Context())
				var background, wg sync.WaitGroup
				background.Go(func() { _ = r.Run(ctx) })
				background.Go(func() { _ = src.Run(ctx) })

				end := time.Now().Add(lasts)
				var mu sync.Mutex
				pulls := 0
				for i := range clients {
					wg.Go(func() {
						content := s.blob
						if i%10 == 0 {
							content = s.long
						}
						repo := fmt.Sprintf("app%d", i%repos)
						for time.Now().Before(end) {
							if err := pullFrom(t.Context(), r, repo, content); err != nil {
								t.Errorf("%s: %v", repo, err)
								return
							}
							mu.Lock()
							pulls++
							mu.Unlock()
							time.Sleep(rand.N(time.Second))
						}
					})
				}
				wg.Wait()
				stop()
				background.Wait()
				s.mu.Lock()
				defer s.mu.Unlock()
				t.Logf("%d pulls, %d logins fetched, %d of them in vain, %d tokens, %d requests came too late", pulls, s.asked,
					s.failed, len(s.given), s.late)
				if s.late > 0 {
					t.Errorf("%d requests came with what had expired", s.late)
				}
				// A login is fetched at half of its life, and anew a second later where that failed.
				if most := int(lasts/time.Second)/2 + s.failed + 5; pulls < 40*int(lasts/time.Second) || s.asked > most || s.failed == 0 {
					t.Errorf("%d pulls, %d logins fetched (%d in vain), want at most %d", pulls, s.asked, s.failed, most)
				}
				// A token is fetched for each repository at four fifths of its life.
				if most := repos*int(lasts/time.Second) + 50; tokens && (len(s.given) > most || len(s.given) < most/4) {
					t.Errorf("%d tokens, want at most %d", len(s.given), most)
				}
			})
		})
	}
}

// pullFrom gets a tag, its manifest and a blob.
func pullFrom(ctx context.Context, r *upstream.Registry, repo string, content []byte) error {
	desc, err := r.Resolve(ctx, repo, "1")
	if err != nil {
		return err
	}
	if _, err := r.Manifest(ctx, repo, string(desc.Digest)); err != nil {
		return err
	}
	body, err := r.Blob(ctx, repo, digestOf(content), flight.Want{To: int64(len(content))})
	if err != nil {
		return err
	}
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, content) {
		return fmt.Errorf("blob of %s: %d bytes, not what was sent", repo, len(got))
	}
	return nil
}
