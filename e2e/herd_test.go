package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestTwoHundredClients lets two hundred clients, each with connections of its own, pull one cold image at once from a
// registry with tokens whose blobs are at another host. Everything is fetched once, everybody gets the right bytes, and
// when they have left nothing of them is left.
func TestTwoHundredClients(t *testing.T) {
	t.Parallel()
	const clients = 200
	upstream := origin.Start(t, origin.Options{
		Auth:     origin.Auth{Kind: "bearer", Anonymous: true, SeparateHost: true},
		Redirect: true, Rate: 20 << 20, // slow enough that they meet
	})
	x := upstream.AddImage("library/app", "v1", origin.Image{
		Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []int64{3 << 10, 200 << 10, 3 << 20, 5 << 20, 7 << 20},
	})
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("docker.io: {endpoints: [%s], authHosts: [%q]}", upstream.URL(), upstream.TokenHost()),
	})
	before := trace(t, m)

	start := make(chan struct{})
	group, ctx := errgroup.WithContext(t.Context())
	var ready sync.WaitGroup
	ready.Add(clients)
	for i := range clients {
		group.Go(func() error {
			transport := &http.Transport{DisableCompression: true}
			defer transport.CloseIdleConnections()
			p := puller{client: &http.Client{Transport: transport}, base: m.URL() + "/v2/docker.io/library/app/"}
			ready.Done()
			<-start
			if err := p.image(ctx, "v1", x.Root.Digest.String(), "amd64"); err != nil {
				return fmt.Errorf("client %d: %w", i, err)
			}
			return nil
		})
	}
	ready.Wait()
	close(start)
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}

	// What the upstream saw.
	amd64 := slices.Concat([]ocispec.Descriptor{x.Configs[0]}, x.Layers[0])
	for _, d := range amd64 {
		equal(t, "requests for blob "+short(d), upstream.CountRef(origin.KindBlob, d.Digest.String(), http.MethodGet), 1)
		equal(t, "downloads of blob "+short(d), upstream.CountRef(origin.KindCDN, d.Digest.String(), http.MethodGet), 1)
		equal(t, "bytes of blob "+short(d), upstream.Bytes(d.Digest), d.Size)
	}
	equal(t, "requests for blobs", upstream.Count(origin.KindBlob), len(amd64))
	for _, d := range []ocispec.Descriptor{x.Index, x.Manifests[0]} {
		equal(t, "bytes of manifest "+short(d), upstream.Bytes(d.Digest)+bytesByTag(upstream, d), d.Size)
	}
	equal(t, "downloads of manifests", answered(upstream, origin.KindManifest, http.MethodGet), 2)
	if n := answered(upstream, origin.KindManifest, http.MethodHead); n > 1 {
		t.Errorf("the tag was resolved %d times, want once", n)
	}
	equal(t, "tokens", answered(upstream, origin.KindToken, ""), 1)

	// What is left of them.
	upstream.Down() // else the mirror keeps connections to it for the next pull
	wait.For(t, 2*time.Minute, "mirror to be as before", func() error { return trace(t, m).like(before) })
	left := filesBelow(t, filepath.Join(m.Data, "spool"))
	if len(left) > 0 {
		t.Errorf("the spool has %v", left)
	}
}

func short(d ocispec.Descriptor) string { return d.Digest.Encoded()[:12] }

// answered counts the requests of a kind that the upstream did not refuse with a challenge.
func answered(o *origin.Origin, kind origin.Kind, method string) int {
	n := 0
	for _, r := range o.Requests() {
		if r.Kind == kind && (method == "" || r.Method == method) && r.Status != http.StatusUnauthorized {
			n++
		}
	}
	return n
}

// bytesByTag is how many bytes of d went out under a tag.
func bytesByTag(o *origin.Origin, d ocispec.Descriptor) int64 {
	var n int64
	for _, r := range o.Requests() {
		if r.Kind == origin.KindManifest && r.Method == http.MethodGet && r.Status == http.StatusOK &&
			!strings.Contains(r.Ref, ":") && r.Bytes == d.Size {
			n += r.Bytes
		}
	}
	return n
}

// puller pulls as runtimes do: index, manifest, then config and layers, three at a time.
type puller struct {
	client *http.Client
	base   string // up to the repository, with a slash at its end
}

func (p puller) image(ctx context.Context, tag, digest, arch string) error {
	var index ocispec.Index
	if err := p.manifest(ctx, tag, digest, &index); err != nil {
		return err
	}
	i := slices.IndexFunc(index.Manifests, func(d ocispec.Descriptor) bool { return d.Platform.Architecture == arch })
	if i < 0 {
		return fmt.Errorf("no %s in %s", arch, tag)
	}
	want := index.Manifests[i].Digest.String()
	var manifest ocispec.Manifest
	if err := p.manifest(ctx, want, want, &manifest); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(3)
	for _, d := range slices.Concat([]ocispec.Descriptor{manifest.Config}, manifest.Layers) {
		group.Go(func() error { return p.blob(ctx, d) })
	}
	return group.Wait()
}

func (p puller) manifest(ctx context.Context, ref, digest string, into any) error {
	var body bytes.Buffer
	if err := p.get(ctx, "manifests/"+ref, digest, &body); err != nil {
		return err
	}
	return json.Unmarshal(body.Bytes(), into)
}

func (p puller) blob(ctx context.Context, d ocispec.Descriptor) error {
	return p.get(ctx, "blobs/"+d.Digest.String(), d.Digest.String(), io.Discard)
}

// get reads all of it and holds it against its digest.
func (p puller) get(ctx context.Context, path, digest string, into io.Writer) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex+", "+ocispec.MediaTypeImageManifest+", */*")
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(resp.Body)
		return fmt.Errorf("%s: %s: %s", path, resp.Status, b)
	}
	h := sha256.New()
	if _, err := io.Copy(io.MultiWriter(h, into), resp.Body); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if got := "sha256:" + hex.EncodeToString(h.Sum(nil)); got != digest {
		return fmt.Errorf("%s has the bytes of %s, want %s: %w", path, got, digest, errWrongBytes)
	}
	return nil
}

// errWrongBytes says that an answer that ended well was not what it was asked for.
var errWrongBytes = errors.New("wrong bytes")

// traces is what a process holds at a moment.
type traces struct {
	goroutines int
	files      []string // what its file descriptors are
	dump       string
}

func trace(t *testing.T, m *mirrord.Mirror) traces {
	t.Helper()
	code, dump := m.Get(t, "/debug/pprof/goroutine?debug=1")
	first, _, _ := strings.Cut(dump, "\n")
	n, err := strconv.Atoi(strings.TrimPrefix(first, "goroutine profile: total "))
	if err != nil {
		t.Fatalf("goroutine profile: %d %q", code, first)
	}
	dir := fmt.Sprintf("/proc/%d/fd", m.Pid())
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	x := traces{goroutines: n, dump: dump}
	for _, e := range entries {
		if what, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			x.files = append(x.files, what)
		}
	}
	slices.Sort(x.files)
	return x
}

// like is nil where nothing more is held than in before. The look itself has a connection, which may still be there
// from the look before.
func (x traces) like(before traces) error {
	if x.goroutines > before.goroutines+2 {
		return fmt.Errorf("%d goroutines, %d before:\n%s", x.goroutines, before.goroutines, x.dump)
	}
	if len(x.files) > len(before.files)+1 {
		return fmt.Errorf("%d files, %d before: %v", len(x.files), len(before.files), x.files)
	}
	return nil
}

func filesBelow(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			list = append(list, path)
		}
		return err
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return list
}
