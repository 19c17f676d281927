package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
)

// client pulls an image as a runtime does: manifest by tag, then by digest, then the blobs, three at a time.
type client struct {
	http *http.Client
	base string // http://HOST:PORT
	sha  bool   // check digests as runtimes do; else a checksum that takes next to no time, so that servers are measured
}

func newClient(base string, ca *x509.CertPool, sha bool) *client {
	return &client{base: base, sha: sha, http: &http.Client{Transport: &http.Transport{
		DisableCompression: true, MaxIdleConnsPerHost: 8, ReadBufferSize: 64 << 10,
		TLSClientConfig: &tls.Config{RootCAs: ca, MinVersion: tls.VersionTLS12},
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// pull returns when the first byte of the largest blob came, since the pull began.
func (c *client) pull(ctx context.Context, x *image) (first time.Duration, err error) {
	start := time.Now()
	var raw bytes.Buffer
	for _, ref := range []string{tag, x.manifest.Digest.String()} {
		raw.Reset()
		if err := c.get(ctx, x.repo+"/manifests/"+ref, &raw, nil); err != nil {
			return 0, err
		}
		if digest.FromBytes(raw.Bytes()) != x.manifest.Digest {
			return 0, fmt.Errorf("%s: manifest %s has other bytes", c.base, ref)
		}
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(raw.Bytes(), &m); err != nil {
		return 0, err
	}
	largest := x.largest().Digest
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(3)
	for _, d := range slices.Concat([]ocispec.Descriptor{m.Config}, m.Layers) {
		group.Go(func() error {
			var mark func()
			if d.Digest == largest {
				mark = func() { first = time.Since(start) }
			}
			return c.blob(ctx, x, d, mark)
		})
	}
	err = group.Wait()
	return first, err
}

func (c *client) blob(ctx context.Context, x *image, d ocispec.Descriptor, mark func()) error {
	var h hash.Hash = crc32.New(castagnoli)
	if c.sha {
		h = sha256.New()
	}
	n := &measured{w: h}
	if err := c.get(ctx, x.repo+"/blobs/"+d.Digest.String(), n, mark); err != nil {
		return err
	}
	right := n.n == d.Size
	if c.sha {
		right = right && hex.EncodeToString(h.Sum(nil)) == d.Digest.Encoded()
	} else {
		right = right && h.(hash.Hash32).Sum32() == x.sums[d.Digest]
	}
	if !right {
		return fmt.Errorf("%s: blob %s has other bytes, or %d of %d", c.base, d.Digest, n.n, d.Size)
	}
	return nil
}

type measured struct {
	w io.Writer
	n int64
}

func (m *measured) Write(p []byte) (int, error) {
	m.n += int64(len(p))
	return m.w.Write(p)
}

var buffers = sync.Pool{New: func() any { return new([256 << 10]byte) }}

// get reads a body into w. mark is called when its first byte is there.
func (c *client) get(ctx context.Context, path string, w io.Writer, mark func()) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.base+"/v2/"+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", ocispec.MediaTypeImageIndex+", "+ocispec.MediaTypeImageManifest+", */*")
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 1000))
		return fmt.Errorf("%s: %s %s", path, resp.Status, b)
	}
	buf := buffers.Get().(*[256 << 10]byte)
	defer buffers.Put(buf)
	for {
		n, err := resp.Body.Read(buf[:])
		if n > 0 && mark != nil {
			mark()
			mark = nil
		}
		if _, e := w.Write(buf[:n]); e != nil {
			return e
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
	}
}

// herd is many clients that pull the same image at once, each with connections of its own.
type herd struct {
	wall  time.Duration
	first []time.Duration // sorted
}

func (h herd) median() time.Duration { return h.first[len(h.first)/2] }
func (h herd) worst() time.Duration  { return h.first[len(h.first)-1] }

func pullHerd(ctx context.Context, n int, base string, ca *x509.CertPool, sha bool, x *image) (herd, error) {
	var h herd
	var mu sync.Mutex
	group, ctx := errgroup.WithContext(ctx)
	begin := make(chan struct{})
	for range n {
		c := newClient(base, ca, sha)
		group.Go(func() error {
			defer c.close()
			<-begin
			first, err := c.pull(ctx, x)
			mu.Lock()
			defer mu.Unlock()
			h.first = append(h.first, first)
			return err
		})
	}
	start := time.Now()
	close(begin)
	err := group.Wait()
	h.wall = time.Since(start)
	slices.Sort(h.first)
	return h, err
}

// download reads the largest blob again and again over conns connections until total bytes have come.
func download(ctx context.Context, conns int, total int64, base string, ca *x509.CertPool, x *image) (int64, error) {
	d := x.largest()
	var begun, got atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range conns {
		c := newClient(base, ca, false)
		group.Go(func() error {
			defer c.close()
			for begun.Add(d.Size) <= total {
				if err := c.blob(ctx, x, d, nil); err != nil {
					return err
				}
				got.Add(d.Size)
			}
			return nil
		})
	}
	err := group.Wait()
	return got.Load(), err
}

// rate asks for one path over conns connections for a time, with a client that does next to nothing itself, and returns
// the answers in a second.
func rate(ctx context.Context, conns int, d time.Duration, host, path string) (float64, error) {
	request := []byte("GET " + path + " HTTP/1.1\r\nHost: " + host + "\r\nUser-Agent: bench\r\nAccept: " +
		ocispec.MediaTypeImageManifest + ", */*\r\n\r\n")
	var answers atomic.Int64
	start := time.Now()
	end := start.Add(d)
	group, ctx := errgroup.WithContext(ctx)
	for range conns {
		group.Go(func() error {
			conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", host)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close() }()
			r := bufio.NewReaderSize(conn, 16<<10)
			for time.Now().Before(end) {
				if _, err := conn.Write(request); err != nil {
					return err
				}
				if err := answer(r); err != nil {
					return err
				}
				answers.Add(1)
			}
			return nil
		})
	}
	err := group.Wait()
	return float64(answers.Load()) / time.Since(start).Seconds(), err
}

var (
	okLine = []byte("HTTP/1.1 200 ")
	length = []byte("content-length:")
)

// answer reads one, which has to be a 200 with a Content-Length.
func answer(r *bufio.Reader) error {
	line, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, okLine) {
		return fmt.Errorf("answered %q", line)
	}
	size := -1
	for {
		if line, err = r.ReadSlice('\n'); err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		if len(line) > len(length) && bytes.EqualFold(line[:len(length)], length) {
			if size, err = strconv.Atoi(string(bytes.TrimSpace(line[len(length):]))); err != nil {
				return err
			}
		}
	}
	if size < 0 {
		return errors.New("an answer without Content-Length")
	}
	_, err = r.Discard(size)
	return err
}
