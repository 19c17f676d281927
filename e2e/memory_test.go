package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

var memoryFull = flag.Bool("memory-full", false, "TestMemory with all that its gates name: some minutes")

// TestMemory has clients ask for what is large, and for much of it, and looks at the most memory that the process ever had.
// Another client's small manifest still comes meanwhile.
func TestMemory(t *testing.T) {
	t.Parallel()
	program, err := build(t.TempDir(), "mirror", false) // the race detector takes memory of its own
	if err != nil {
		t.Fatal(err)
	}
	turns, names := 150, 3000
	if *memoryFull {
		turns, names = 600, 30_000
	}
	for _, tt := range []struct {
		name string
		most int64 // MiB
		run  func(t *testing.T, m *glutton)
	}{
		{"100 manifests of 4 MiB at once", 400, func(t *testing.T, g *glutton) {
			g.besides(t, func() { g.manifests(t, 0, 100, 100) })
		}},
		{"manifests of 4 MiB in turn", 400, func(t *testing.T, g *glutton) {
			g.manifests(t, 0, turns, 2)
		}},
		{"40 manifests of 10,000 entries at once", 400, func(t *testing.T, g *glutton) {
			g.entry = func(n int) string {
				return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":1}`, digest0(n))
			}
			g.entries = 10_000
			g.besides(t, func() { g.manifests(t, 0, 40, 40) })
		}},
		{"a list of 4 MiB by 200 queries that mean nothing", 400, func(t *testing.T, g *glutton) {
			g.lists(t, 200, func(i int) string { return fmt.Sprintf("?x=%d", i) })
			if n := g.asked.Load(); n != 1 {
				t.Errorf("the registry was asked %d times", n)
			}
		}},
		{"a list of 4 MiB by 200 queries", 400, func(t *testing.T, g *glutton) {
			g.lists(t, 200, func(i int) string { return fmt.Sprintf("?last=%d", i) })
		}},
		{"lists of 60 MB", 400, func(t *testing.T, g *glutton) {
			g.list = 60 << 20
			g.lists(t, 3, func(i int) string { return fmt.Sprintf("?last=%d", i) })
		}},
		{"names that are refused", 300, func(t *testing.T, g *glutton) { g.refusals(t, names) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGlutton(t, program)
			before := g.memory(t, "VmRSS")
			began := time.Now()
			tt.run(t, g)
			got := g.memory(t, "VmHWM")
			t.Logf("%d MiB before, at most %d, after it %d (%d of files); %s; %d answers of 503, %d of 504; a small manifest took at most %s",
				before, got, g.memory(t, "VmRSS"), g.memory(t, "RssFile"), time.Since(began).Round(time.Millisecond), g.busy.Load(), g.late.Load(), g.longest)
			if got > tt.most {
				t.Errorf("%d MiB of memory, want at most %d", got, tt.most)
			}
		})
	}
}

// glutton is a mirror, the registry behind it, and a client that takes all it can get.
type glutton struct {
	*mirrord.Mirror
	registry string
	entries  int
	entry    func(n int) string // the n-th of the first manifest
	once     sync.Once
	first    []byte // the first manifest
	ends     []int  // where the digests in it end
	list     int    // bytes
	asked    atomic.Int64
	busy     atomic.Int64 // answers of 503
	late     atomic.Int64 // of 504
	longest  time.Duration
}

func newGlutton(t *testing.T, program string) *glutton {
	t.Helper()
	g := &glutton{entries: 9_000, list: 4 << 20, entry: annotated}
	s := httptest.NewServer(http.HandlerFunc(g.serve))
	t.Cleanup(s.Close)
	g.registry = s.URL
	g.Mirror = mirrord.Start(t, mirrord.Options{
		Program: program, Level: "info", Upstreams: fmt.Sprintf("docker.io: {endpoints: [%s]}", s.URL),
	})
	return g
}

// annotated is an entry with 30 annotations.
func annotated(n int) string {
	return fmt.Sprintf(`{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":%q,"size":1,"annotations":{%s}}`,
		digest0(n), annotations)
}

var annotations = func() string {
	list := make([]string, 30)
	for i := range list {
		list[i] = fmt.Sprintf(`"k%02d":"%d"`, i, i%10)
	}
	return strings.Join(list, ",")
}()

// manifest is the i-th, made anew each time: a hundred of them would be the test's own memory. It is made fast, so that the
// clients, which are in the same process, send their requests in time.
func (g *glutton) manifest(i int) []byte {
	g.once.Do(func() {
		var b bytes.Buffer
		b.WriteString(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[`)
		for n := range g.entries {
			if n > 0 {
				b.WriteByte(',')
			}
			entry := g.entry(n)
			g.ends = append(g.ends, b.Len()+strings.Index(entry, digest0(n))+len(digest0(n)))
			b.WriteString(entry)
		}
		b.WriteString(`]}`)
		g.first = b.Bytes()
	})
	m := bytes.Clone(g.first)
	var digits [16]byte
	for n, end := range g.ends {
		d := strconv.AppendInt(digits[:0], int64(i*100_000+n), 16)
		copy(m[end-len(d):], d)
	}
	return m
}

// digest0 is that of the n-th entry of the first manifest.
func digest0(n int) string { return fmt.Sprintf("sha256:%064x", n) }

func (g *glutton) serve(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	switch {
	case r.URL.Path == "/v2/":
	case strings.HasSuffix(r.URL.Path, "/tags/list"):
		g.asked.Add(1)
		tag := []byte(`"` + strings.Repeat("t", 100) + `",`)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"name":"a/list","tags":[`)
		for n := 0; n < g.list-200; n += len(tag) {
			_, _ = w.Write(tag)
		}
		_, _ = io.WriteString(w, `"last"]}`)
	case len(parts) == 5 && strings.HasPrefix(parts[2], "large"):
		i, err := strconv.Atoi(strings.TrimPrefix(parts[2], "large"))
		if err != nil {
			http.NotFound(w, r)
			return
		}
		g.send(w, g.manifest(i))
	case len(parts) == 5 && strings.HasPrefix(parts[2], "small"):
		g.send(w, []byte(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","layers":[],"annotations":{"n":"`+parts[2]+`"}}`))
	default:
		w.Header().Set("WWW-Authenticate", `Bearer realm="`+g.registry+`/token",service="x",scope="repository:`+parts[min(2, len(parts)-1)]+`:pull"`)
		if strings.HasPrefix(r.URL.Path, "/token") {
			w.Header().Del("WWW-Authenticate")
		}
		w.WriteHeader(http.StatusUnauthorized)
	}
}

func (g *glutton) send(w http.ResponseWriter, b []byte) {
	h := sha256.Sum256(b)
	w.Header().Set("Content-Type", "application/vnd.oci.image.manifest.v1+json")
	w.Header().Set("Docker-Content-Digest", "sha256:"+hex.EncodeToString(h[:]))
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b)
}

// get asks until it isn't told that the mirror is busy, at most a few times.
func (g *glutton) get(ctx context.Context, path string) (*http.Response, []byte, error) {
	for range 60 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.URL()+path, nil)
		if err != nil {
			return nil, nil, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, nil, err
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		if resp.StatusCode == http.StatusGatewayTimeout { // a machine that is too busy for its 25 seconds
			g.late.Add(1)
			continue
		}
		if resp.StatusCode != http.StatusServiceUnavailable {
			return resp, b, nil
		}
		if resp.Header.Get("Retry-After") == "" || !strings.HasPrefix(resp.Header.Get("Mirror-Reason"), "overloaded") {
			return nil, nil, fmt.Errorf("%s: %s %v", path, resp.Status, resp.Header)
		}
		g.busy.Add(1)
	}
	return nil, nil, fmt.Errorf("%s: busy for ever", path)
}

// manifests gets n of them, so many at a time.
func (g *glutton) manifests(t *testing.T, from, n, width int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(width)
	for i := from; i < from+n; i++ {
		group.Go(func() error {
			resp, b, err := g.get(ctx, fmt.Sprintf("/v2/docker.io/a/large%d/manifests/v1", i))
			if err != nil {
				return err
			}
			h := sha256.Sum256(b)
			if got := "sha256:" + hex.EncodeToString(h[:]); resp.StatusCode != http.StatusOK || got != resp.Header.Get("Docker-Content-Digest") {
				return fmt.Errorf("manifest %d: %s, %d bytes with %s", i, resp.Status, len(b), got)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// besides runs f, while another client asks for small manifests that are not here yet.
func (g *glutton) besides(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			began := time.Now()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("%s/v2/docker.io/b/small%d/manifests/v1", g.URL(), i), nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("Mirror-Node", "victim")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
			switch resp.StatusCode {
			case http.StatusOK:
			case http.StatusGatewayTimeout: // a machine that is too busy for its 25 seconds
				g.late.Add(1)
			default:
				t.Errorf("small manifest %d: %s", i, resp.Status)
			}
			g.longest = max(g.longest, time.Since(began).Round(time.Millisecond))
		}
	})
	f()
	cancel()
	wg.Wait()
	if g.longest > time.Minute { // on a busy machine; alone it is well below a second
		t.Errorf("a small manifest took %s", g.longest)
	}
}

// lists asks for a list with n queries at once.
func (g *glutton) lists(t *testing.T, n int, query func(int) string) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(200)
	for i := range n {
		group.Go(func() error {
			resp, b, err := g.get(ctx, "/v2/docker.io/a/list/tags/list"+query(i))
			if err == nil && (resp.StatusCode != http.StatusOK || len(b) < g.list-1000 || !bytes.HasSuffix(b, []byte(`"last"]}`))) {
				err = fmt.Errorf("%s: %s, %d bytes of %d", query(i), resp.Status, len(b), g.list)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// refusals asks for n repositories that there are none of.
func (g *glutton) refusals(t *testing.T, n int) {
	t.Helper()
	group, ctx := errgroup.WithContext(t.Context())
	group.SetLimit(64)
	for i := range n {
		group.Go(func() error {
			resp, _, err := g.get(ctx, fmt.Sprintf("/v2/docker.io/a/none%d/manifests/v1", i))
			if err == nil && resp.StatusCode != http.StatusForbidden {
				err = fmt.Errorf("name %d: %s", i, resp.Status)
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
}

// memory is a figure of the process, in MiB.
func (g *glutton) memory(t *testing.T, name string) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Pid()))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			n, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return n >> 10
		}
	}
	t.Fatalf("no %s", name)
	return 0
}
