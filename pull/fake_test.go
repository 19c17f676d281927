package pull_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// registry is an upstream in memory, which counts its requests. It waits by the clock of a synctest bubble.
type registry struct {
	host string

	mu        sync.Mutex
	tags      map[string]oci.Digest // by "repo:tag"
	manifests map[string]*oci.Manifest
	blobs     map[string][]byte // manifests and blobs by "repo@digest"
	calls     []string          // "HEAD repo:tag", "GET repo@digest", "STAT repo@digest", "BLOB repo@digest", ...
	fault     func(call string) error
	delay     func(call string) time.Duration
	lists     map[string]*upstream.Document
	tagsOnly  bool // manifests are not known by digest
	budget    limit.Budget
}

func newRegistry(host string) *registry {
	return &registry{
		host: host, tags: make(map[string]oci.Digest), manifests: make(map[string]*oci.Manifest),
		blobs: make(map[string][]byte), lists: make(map[string]*upstream.Document),
	}
}

// ask counts a call, waits as long as it takes, and fails if it is to fail.
func (r *registry) ask(ctx context.Context, op, repo, ref string) error {
	at := ":"
	if strings.Contains(ref, ":") {
		at = "@"
	}
	call := op + " " + repo + at + ref
	r.mu.Lock()
	r.calls = append(r.calls, call)
	fails, delay := r.fault, r.delay
	r.mu.Unlock()
	if delay != nil {
		timer := time.NewTimer(delay(call))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return &fault.Error{Op: op, Upstream: r.host, Repository: repo, Reference: ref, Err: ctx.Err()}
		}
	}
	if fails != nil {
		return fails(call)
	}
	return nil
}

func (r *registry) missing(op, repo, ref string) error {
	return &fault.Error{
		Op: op, Upstream: r.host, Repository: repo, Reference: ref, Status: 404, Code: "MANIFEST_UNKNOWN",
	}
}

func (r *registry) Resolve(ctx context.Context, repo, tag string) (oci.Descriptor, error) {
	if err := r.ask(ctx, "HEAD", repo, tag); err != nil {
		return oci.Descriptor{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.manifests[repo+"@"+r.tags[repo+":"+tag].String()]
	if m == nil { // by digest
		m = r.manifests[repo+"@"+tag]
	}
	if m == nil {
		return oci.Descriptor{}, r.missing("resolve", repo, tag)
	}
	return oci.Descriptor{Digest: m.Digest, Size: int64(len(m.Bytes)), MediaType: m.MediaType}, nil
}

// lateResolve is a registry whose first answers to HEAD are from before the request.
type lateResolve struct {
	*registry
	answers []oci.Descriptor
}

func (r *lateResolve) Resolve(ctx context.Context, repo, tag string) (oci.Descriptor, error) {
	desc, err := r.registry.Resolve(ctx, repo, tag)
	if len(r.answers) > 0 && err == nil {
		desc, r.answers = r.answers[0], r.answers[1:]
	}
	return desc, err
}

func (r *registry) Manifest(ctx context.Context, repo, ref string) (*oci.Manifest, error) {
	if err := r.ask(ctx, "GET", repo, ref); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.manifests[repo+"@"+ref]
	if r.tagsOnly {
		m = r.manifests[repo+"@"+r.tags[repo+":"+ref].String()]
	}
	if m == nil {
		return nil, r.missing("manifest", repo, ref)
	}
	return m, nil
}

func (r *registry) Stat(ctx context.Context, repo string, d oci.Digest) (oci.Descriptor, error) {
	if err := r.ask(ctx, "STAT", repo, d.String()); err != nil {
		return oci.Descriptor{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.blobs[repo+"@"+d.String()]
	if !ok {
		return oci.Descriptor{}, r.missing("blob", repo, d.String())
	}
	return oci.Descriptor{Digest: d, Size: int64(len(b)), MediaType: "application/octet-stream"}, nil
}

func (r *registry) Tags(ctx context.Context, repo string, query url.Values) (*upstream.Document, error) {
	return r.list(ctx, "TAGS", repo, query)
}

func (r *registry) Referrers(ctx context.Context, repo string, d oci.Digest, query url.Values) (
	*upstream.Document, error,
) {
	return r.list(ctx, "REFERRERS", repo+"@"+d.String(), query)
}

func (r *registry) list(ctx context.Context, op, of string, query url.Values) (*upstream.Document, error) {
	if err := r.ask(ctx, op, of, query.Encode()); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	doc := r.lists[of]
	if doc == nil {
		return nil, r.missing(strings.ToLower(op), of, "")
	}
	return doc, nil
}

// asked returns the calls since the last time, sorted where several came at once.
func (r *registry) asked() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	calls := r.calls
	r.calls = nil
	return calls
}

func (r *registry) knowsTagsOnly() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tagsOnly = true
}

func (r *registry) behave(fails func(string) error, delay func(string) time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fault, r.delay = fails, delay
}

// image is one for several platforms.
type image struct {
	index    *oci.Manifest
	children []*oci.Manifest
	blobs    map[oci.Digest][]byte
}

// push makes an image with two platforms, whose content depends on seed, and tags its index.
func (r *registry) push(t testing.TB, repo, tag, seed string) image {
	t.Helper()
	im := image{blobs: make(map[oci.Digest][]byte)}
	var list []oci.Descriptor
	for _, arch := range []string{"amd64", "arm64"} {
		config := []byte(fmt.Sprintf(`{"architecture":%q,"os":"linux","seed":%q}`, arch, seed))
		layer := []byte(strings.Repeat("layer of "+seed+" for "+arch+"\n", 100))
		im.blobs[digest.FromBytes(config)], im.blobs[digest.FromBytes(layer)] = config, layer
		m := document(t, oci.MediaTypeOCIManifest, map[string]any{
			"config": descriptor("application/vnd.oci.image.config.v1+json", config),
			"layers": []oci.Descriptor{descriptor("application/vnd.oci.image.layer.v1.tar", layer)},
		})
		im.children = append(im.children, m)
		entry := descriptor(m.MediaType, m.Bytes)
		entry.Platform = &oci.Platform{OS: "linux", Architecture: arch}
		list = append(list, entry)
	}
	im.index = document(t, oci.MediaTypeOCIIndex, map[string]any{"manifests": list})
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range append(im.children, im.index) {
		r.manifests[repo+"@"+m.Digest.String()] = m
	}
	for d, b := range im.blobs {
		r.blobs[repo+"@"+d.String()] = b
	}
	r.tags[repo+":"+tag] = im.index.Digest
	return im
}

func descriptor(mediaType string, b []byte) oci.Descriptor {
	return oci.Descriptor{MediaType: mediaType, Digest: digest.FromBytes(b), Size: int64(len(b))}
}

func document(t testing.TB, mediaType string, v map[string]any) *oci.Manifest {
	t.Helper()
	v["schemaVersion"], v["mediaType"] = 2, mediaType
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	m, err := oci.ParseManifest(mediaType, b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func (r *registry) Blob(ctx context.Context, repo string, d oci.Digest, w flight.Want) (*transfer.Body, error) {
	if err := r.ask(ctx, "BLOB", repo, d.String()); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	b, ok := r.blobs[repo+"@"+d.String()]
	if !ok {
		return nil, r.missing("blob", repo, d.String())
	}
	return &transfer.Body{ReadCloser: io.NopCloser(bytes.NewReader(b[w.From:]))}, nil
}

func (r *registry) Corrupt(string, oci.Digest, error) {}

func (r *registry) Budget() (limit, left int64, resetAt time.Time, known bool) {
	return r.budget.Limit, r.budget.Remaining, r.budget.Reset, r.budget.Limit > 0
}

// shelf is a cache in memory, which counts and fails as it is told, and whose flights are not shared.
type shelf struct {
	alone   bool          // a download ends with its one reader
	leave   chan struct{} // closed when a download that has failed may say so; nil: at once
	journal *journal

	mu      sync.Mutex
	content map[oci.Digest][]byte
	gets    int
	keeps   []keep
	touched []oci.Digest
	fault   func() error                // the error of Put
	hold    error                       // the error of Open
	full    error                       // the error of Room
	wait    func(context.Context) error // called by Ready
	source  cache.Source                // the last one that was asked

	unsettled bool
}

type keep struct {
	holder  string
	until   time.Time
	digests int
}

// Reopen has no other copy.
func (s *shelf) Reopen(_ context.Context, _ cache.Object, err error, _ oci.Digest, _ int64, _ cache.Source) (
	cache.Object, cache.Outcome, error,
) {
	return nil, "", err
}

func (s *shelf) Get(_ context.Context, d oci.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gets++
	if b, ok := s.content[d]; ok {
		return b, nil
	}
	return nil, fmt.Errorf("get %s: %w", d, cache.ErrNotFound)
}

func (s *shelf) Put(_ context.Context, d oci.Digest, b []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fault != nil {
		if err := s.fault(); err != nil {
			return err
		}
	}
	s.journal.add("bytes " + d.String())
	s.content[d] = b
	return nil
}

func (s *shelf) Remove(d oci.Digest) error {
	s.evict(d)
	return nil
}

func (s *shelf) Stat(d oci.Digest) (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.content[d]
	return int64(len(b)), ok
}

func (s *shelf) Settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.unsettled
}

func (s *shelf) Peek(d oci.Digest) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.content[d]; ok {
		return b, nil
	}
	return nil, cache.ErrNotFound
}

func (s *shelf) Room(context.Context, int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.full
}

func (s *shelf) Touch(d oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touched = append(s.touched, d)
}

func (s *shelf) Keep(holder string, until time.Time, ds ...oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps = append(s.keeps, keep{holder, until, len(ds)})
}

func (s *shelf) kept() []keep {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := s.keeps
	s.keeps = nil
	return k
}

// count is how often content was read.
func (s *shelf) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.gets
}

// breaks makes Put fail with the error of f; nil: it works.
func (s *shelf) breaks(f func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = f
}

func (s *shelf) set(d oci.Digest, b []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[d] = b
}

func (s *shelf) evict(ds ...oci.Digest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, d := range ds {
		delete(s.content, d)
	}
}

// wrong reports that the last source brought wrong content.
func (s *shelf) wrong(err *flight.MismatchError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.content, err.Digest)
	s.source.Wrong(err)
}

func (s *shelf) Open(ctx context.Context, d oci.Digest, size int64, src cache.Source) (
	cache.Object, cache.Outcome, error,
) {
	s.mu.Lock()
	b, ok := s.content[d]
	hold := s.hold
	s.mu.Unlock()
	if ok {
		return object{bytes.NewReader(b), s.ready}, cache.Hit, nil
	}
	if hold != nil {
		return nil, "", hold
	}
	s.mu.Lock()
	s.source = src
	s.mu.Unlock()
	if !s.alone {
		ctx = context.WithoutCancel(ctx)
	}
	body, err := src.Fetch(ctx, flight.Want{To: size})
	if err != nil {
		if s.leave != nil {
			<-s.leave
		}
		return nil, "", fmt.Errorf("fill %s: %w", d, err)
	}
	defer func() { _ = body.Close() }()
	if b, err = io.ReadAll(body); err != nil {
		return nil, "", err
	}
	if src.Whole != nil {
		src.Whole(int64(len(b)), src.Open)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.content[d] = b
	return object{bytes.NewReader(b), s.ready}, cache.Miss, nil
}

// ready waits as it is told.
func (s *shelf) ready(ctx context.Context) error {
	s.mu.Lock()
	wait := s.wait
	s.mu.Unlock()
	if wait == nil {
		return nil
	}
	return wait(ctx)
}

type object struct {
	*bytes.Reader
	ready func(context.Context) error
}

func (o object) Ready(ctx context.Context, _, _ int64) error { return o.ready(ctx) }

func (object) Close() error { return nil }

// journal is the order in which things were written.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}
