package e2e_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// crowd has clients pull everything at once, each in an order of its own. Its error is that of one client that failed; wrong
// bytes come first.
func (g *stage) crowd(ctx context.Context, m *mirrord.Mirror, clients int) error {
	errs := make([]error, clients)
	var wg sync.WaitGroup
	for i := range clients {
		rng := rand.New(rand.NewPCG(g.rng.Uint64(), 0))
		wg.Go(func() {
			jobs := []func() error{
				func() error { return g.byTag(ctx, m, g.kept, rng.IntN(2) == 0) },
				func() error { return g.byTag(ctx, m, g.moving, rng.IntN(2) == 0) },
				func() error { return g.byTag(ctx, m, g.fresh, rng.IntN(2) == 0) },
				func() error { return byDigest(ctx, m, g.fresh, 0) },
				func() error { return ranges(ctx, m, g.fresh, rng) },
			}
			for _, j := range rng.Perm(len(jobs)) {
				if err := jobs[j](); err != nil {
					errs[i] = fmt.Errorf("client %d: %w", i, err)
					return
				}
				g.sum.online.Add(1)
			}
		})
	}
	wg.Wait()
	slices.SortStableFunc(errs, func(a, b error) int {
		rank := func(err error) int {
			switch {
			case errors.Is(err, errWrongBytes):
				return 0
			case err != nil:
				return 1
			}
			return 2
		}
		return rank(a) - rank(b)
	})
	return errs[0]
}

// byTag pulls a subject and notes that it is whole at a client.
func (g *stage) byTag(ctx context.Context, m *mirrord.Mirror, s subject, head bool) error {
	x, err := pull(ctx, m, s, head)
	if err != nil {
		return err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.done[s.repo] = x.Root.Digest
	return nil
}

// pull pulls by tag all that amd64 needs, and returns which version it was. With head it asks what the tag means first,
// as containerd does.
func pull(ctx context.Context, m *mirrord.Mirror, s subject, head bool) (origin.Built, error) {
	p, done := customer(m, s)
	defer done()
	sum, err := p.tag(ctx, s.tag, head)
	if err != nil {
		return origin.Built{}, fmt.Errorf("%s:%s: %w", s.repo, s.tag, err)
	}
	for _, x := range s.versions {
		if x.Root.Digest == sum {
			if err := p.image(ctx, string(sum), string(sum), "amd64"); err != nil {
				return x, fmt.Errorf("%s:%s, which is %s: %w", s.repo, s.tag, sum, err)
			}
			return x, nil
		}
	}
	return origin.Built{}, fmt.Errorf("%s:%s is %s, which it never was: %w", s.repo, s.tag, sum, errWrongBytes)
}

func byDigest(ctx context.Context, m *mirrord.Mirror, s subject, version int) error {
	p, done := customer(m, s)
	defer done()
	d := string(s.versions[version].Root.Digest)
	if err := p.image(ctx, d, d, "amd64"); err != nil {
		return fmt.Errorf("%s@%s: %w", s.repo, d, err)
	}
	return nil
}

// ranges pulls ranges of the largest layer, as lazy snapshotters do: nothing tells the client that they are right.
func ranges(ctx context.Context, m *mirrord.Mirror, s subject, rng *rand.Rand) error {
	x := s.versions[0]
	layer := x.Layers[0][len(x.Layers[0])-1]
	right := x.Bytes(layer.Digest)
	p, done := customer(m, s)
	defer done()
	from := int64(0)
	for range 3 {
		to := min(layer.Size, from+1+rng.Int64N(64<<10))
		b, err := p.part(ctx, layer, from, to)
		if err != nil {
			return fmt.Errorf("%s: %w", s.repo, err)
		}
		if !bytes.Equal(b, right[from:to]) {
			return fmt.Errorf("bytes %d to %d of %s are others: %w", from, to, layer.Digest, errWrongBytes)
		}
		from = rng.Int64N(layer.Size)
	}
	return nil
}

// part pulls a range.
func (p puller) part(ctx context.Context, d ocispec.Descriptor, from, to int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"blobs/"+d.Digest.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", from, to-1))
	resp, err := p.client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusPartialContent {
		return nil, fmt.Errorf("%s: %s: %.200s", req.URL, resp.Status, b)
	}
	return b, nil
}

// some pulls the first n bytes of a blob, and leaves.
func (p puller) some(ctx context.Context, d ocispec.Descriptor, n int64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"blobs/"+d.Digest.String(), nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", req.URL, resp.Status)
	}
	_, err = io.CopyN(io.Discard, resp.Body, n)
	return err
}

// customer is a client with connections of its own.
func customer(m *mirrord.Mirror, s subject) (p puller, done func()) {
	transport := &http.Transport{DisableCompression: true}
	return puller{
		client: &http.Client{Transport: transport}, base: m.URL() + "/v2/docker.io/" + s.repo + "/",
	}, transport.CloseIdleConnections
}

// tag asks what a tag means and returns the digest of the answer's bytes, or the one that a HEAD says.
func (p puller) tag(ctx context.Context, tag string, head bool) (digest.Digest, error) {
	method := http.MethodGet
	if head {
		method = http.MethodHead
	}
	req, err := http.NewRequestWithContext(ctx, method, p.base+"manifests/"+tag, nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex+", "+ocispec.MediaTypeImageManifest+", */*")
	resp, err := p.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", resp.Status, body)
	}
	said := digest.Digest(resp.Header.Get("Docker-Content-Digest"))
	if head {
		return said, nil
	}
	h := sha256.Sum256(body)
	sum := digest.NewDigestFromEncoded(digest.SHA256, hex.EncodeToString(h[:]))
	if said != sum {
		return "", fmt.Errorf("the answer says to be %s and is %s: %w", said, sum, errWrongBytes)
	}
	return sum, nil
}
