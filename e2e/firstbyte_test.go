package e2e_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/time/rate"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

var large = flag.Bool("large", false, "TestFirstByte: a layer of 2 GB, which takes minutes")

// perSecond is how fast the registry of TestFirstByte sends.
const perSecond = 20 << 20

// zeros is an uncompressed layer with one file of zeros.
type zeros struct {
	head []byte
	size int64 // of the whole
}

func newZeros(t *testing.T, size int64) *zeros {
	t.Helper()
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(&tar.Header{Name: "large", Mode: 0o644, Size: size, Typeflag: tar.TypeReg}); err != nil {
		t.Fatal(err)
	}
	return &zeros{b.Bytes(), int64(b.Len()) + size + 1024}
}

func (z *zeros) ReadAt(p []byte, at int64) (int, error) {
	n := min(int64(len(p)), z.size-at)
	if n <= 0 {
		return 0, io.EOF
	}
	clear(p[:n])
	if at < int64(len(z.head)) {
		copy(p[:n], z.head[at:])
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (z *zeros) reader() *io.SectionReader { return io.NewSectionReader(z, 0, z.size) }

// slow sends at perSecond, however many connections there are.
type slow struct {
	http.ResponseWriter
	r     *http.Request
	limit *rate.Limiter
}

func (s *slow) Write(p []byte) (n int, err error) {
	for len(p) > 0 && err == nil {
		part := p[:min(len(p), s.limit.Burst())]
		if err = s.limit.WaitN(s.r.Context(), len(part)); err == nil {
			var m int
			m, err = s.ResponseWriter.Write(part)
			n += m
		}
		p = p[len(part):]
	}
	return n, err
}

// slowRegistry has one image, whose layer is large.
func slowRegistry(t *testing.T, size int64) *httptest.Server {
	t.Helper()
	layer := newZeros(t, size)
	sum := sha256.New()
	if _, err := io.Copy(sum, layer.reader()); err != nil {
		t.Fatal(err)
	}
	content := make(map[digest.Digest][]byte)
	add := func(mediaType string, v any) ocispec.Descriptor {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		d := ocispec.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
		content[d.Digest] = b
		return d
	}
	id := digest.NewDigest(digest.SHA256, sum)
	config := add(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: "amd64"}, RootFS: ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{id}},
	})
	manifest := add(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config,
		Layers: []ocispec.Descriptor{{MediaType: ocispec.MediaTypeImageLayer, Digest: id, Size: layer.size}},
	})
	limit := rate.NewLimiter(perSecond, 64<<10)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		of := digest.Digest(r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:])
		if strings.HasSuffix(r.URL.Path, "/manifests/v1") {
			of = manifest.Digest
		}
		body := io.ReadSeeker(layer.reader())
		w.Header().Set("Content-Type", "application/octet-stream")
		if b, ok := content[of]; ok {
			body = bytes.NewReader(b)
			if strings.Contains(r.URL.Path, "/manifests/") {
				w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
			}
		} else if of != id {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Docker-Content-Digest", of.String())
		http.ServeContent(&slow{w, r, limit}, r, "", time.Time{}, body)
	}))
	t.Cleanup(s.Close)
	return s
}

// firstByte is how long a client has waited for an answer.
type firstByte struct {
	request      string
	header, body time.Duration // until the header, and the first byte of the body
}

// TestFirstByte: containerd 2.3 gives a registry 30 s for the header of an answer, and no setting changes that. Each answer of a cold
// pull comes well before that, however long its body takes.
func TestFirstByte(t *testing.T) {
	t.Parallel()
	size := int64(64 << 20)
	if *large {
		size = 2 << 30
	}
	upstream := slowRegistry(t, size)
	m := mirrord.Start(t, mirrord.Options{Upstreams: "docker.io: {endpoints: [" + upstream.URL + "]}"})
	to, err := url.Parse(m.URL())
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var answers []firstByte
	proxy := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(to); r.Out.Host = r.In.Host },
		FlushInterval: -1,
	}
	between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		watch := &watched{ResponseWriter: w, start: time.Now()}
		proxy.ServeHTTP(watch, r)
		mu.Lock()
		defer mu.Unlock()
		answers = append(answers, firstByte{r.Method + " " + r.URL.Path, watch.header, watch.body})
	}))
	t.Cleanup(between.Close)
	c := containerd.Start(t, containerd.LTS, containerd.Certs{Mirror: between.URL})
	start := time.Now()
	if _, err := c.CRI(t, "docker.io/library/large:v1"); err != nil {
		t.Fatal(err)
	}
	took := time.Since(start)
	mu.Lock()
	defer mu.Unlock()
	var worst time.Duration
	for _, a := range answers {
		t.Logf("%s: header after %s, first byte after %s", a.request, a.header.Round(time.Millisecond), a.body.Round(time.Millisecond))
		worst = max(worst, a.header, a.body)
	}
	t.Logf("%d MB at %d MB/s: pulled in %s, the last first byte after %s", size>>20, perSecond>>20, took.Round(time.Second), worst.Round(time.Millisecond))
	if len(answers) < 4 || worst > 10*time.Second {
		t.Errorf("%d answers, of which one came after %s", len(answers), worst)
	}
	if least := time.Duration(size / perSecond * int64(time.Second)); took < least*8/10 {
		t.Errorf("%s is less than a registry of %d MB/s takes: the layer was not cold", took, perSecond>>20)
	}
}

// watched notes when a response begins.
type watched struct {
	http.ResponseWriter
	start        time.Time
	header, body time.Duration
}

func (w *watched) WriteHeader(status int) {
	w.header = time.Since(w.start)
	w.ResponseWriter.WriteHeader(status)
}

func (w *watched) Write(p []byte) (int, error) {
	if w.body == 0 {
		w.body = time.Since(w.start)
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets the proxy flush.
func (w *watched) Unwrap() http.ResponseWriter { return w.ResponseWriter }
