package faults_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
)

// The rows of clients, of manifests, and of faults of the process that can be played within one.

// planReload reloads in the middle of pulls.
func planReload(tr *trial) {
	tr.resumable = true
	tr.wiring.origin.Rate = int(max(1000, tr.size/2))
	tr.during = func(ctx context.Context, w *world) {
		for range 5 {
			if !sleep(ctx, time.Duration(tr.r.IntN(700))*time.Millisecond) {
				return
			}
			w.reload()
		}
	}
	tr.breaks, tr.repeats = 5, 0
}

// planStop stops the mirror while pulls run: those finish.
func planStop(tr *trial) {
	tr.wiring.origin.Rate = int(max(1000, tr.size/2))
	tr.noHeal = true
	for i, b := range tr.clients { // with one request, which runs by then
		if b.name != slowly.name && b.name != leaves.name {
			tr.clients[i] = plain
		}
	}
	tr.resumable, tr.crowd, tr.together = true, pick(tr, one, fifty), true
	if tr.size > 1<<20 {
		tr.crowd = one
	}
	tr.during = func(ctx context.Context, w *world) {
		if !sleep(ctx, time.Duration(100+tr.r.IntN(1500))*time.Millisecond) {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
		defer cancel()
		if err := w.server.Stop(ctx, 0, w.front); err != nil {
			w.errorf("stop: %v", err)
		}
	}
}

// planLeader has the first client leave.
func planLeader(tr *trial) {
	tr.resumable = true
	if tr.crowd == one {
		tr.crowd = late
	}
	tr.clients[0] = leaves
	tr.wiring.origin.Rate = int(max(1000, tr.size/2))
	tr.breaks = 1
}

// planAllLeave has all clients leave, and return later.
func planAllLeave(tr *trial) {
	for i := range tr.clients {
		tr.clients[i] = leaves
	}
	tr.wiring.origin.Rate = int(max(1000, tr.size/3))
	tr.breaks = 1
	tr.after = func(w *world) {
		time.Sleep(time.Duration(tr.r.IntN(40)) * time.Minute)
		c := newContent(tr.size, tr.seed%3)
		p := &pulling{w: w, c: c, r: tr.r}
		if err := plain.run(context.Background(), p); err != nil {
			w.errorf("%s: the client that came back: %v", tr, p.broken)
		}
		for _, s := range p.wrong {
			w.errorf("%s: the client that came back: %s", tr, s)
		}
		if n := w.up.Bytes(c.digest); n > c.size+min(c.size, inTransit) {
			w.errorf("%s: %d bytes of %d were fetched for the clients that left and those that came back", tr, n, c.size)
		}
	}
}

// planOneSlow has one slow client among fast ones, which are as fast as without it.
func planOneSlow(tr *trial) {
	tr.crowd = pick(tr, late, fifty)
	if tr.size > 1<<20 {
		tr.crowd = late
	}
	for i := range tr.clients {
		tr.clients[i] = plain
	}
	tr.clients[0] = slowly
	tr.together = true
	tr.resumable = true
	rate := int(max(1000, tr.size))
	tr.wiring.origin.Rate = rate
	tr.check = func(pulls []*pulling, v *verdict) {
		most := time.Duration(float64(tr.size)/float64(rate)*float64(time.Second))*21/20 + 100*time.Millisecond
		for i, p := range pulls[1:] {
			if p.took > most {
				v.fail("client %d took %v, want at most %v: only another client is slow", i+1, p.took, most)
			}
		}
	}
}

// planSlowloris has clients begin a request and never end it.
func planSlowloris(tr *trial) {
	tr.resumable = true
	tr.during = func(_ context.Context, w *world) {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				c, err := w.net.Dial(context.Background(), "tcp", host)
				if err != nil {
					w.errorf("dial: %v", err)
					return
				}
				defer c.Close()
				begin := "GET /v2/ HTTP/1.1\r\nHost: x\r\n"
				_, _ = io.WriteString(c, begin[:1+i%len(begin)])
				start := time.Now()
				_ = c.SetReadDeadline(start.Add(time.Hour))
				_, _ = io.Copy(io.Discard, c)
				if took := time.Since(start); took > 15*time.Second {
					w.errorf("a client that never ends its request is heard for %v", took)
				}
			})
		}
		wg.Wait()
	}
}

// planStorm asks for ranges everywhere in a blob while it is downloaded.
func planStorm(tr *trial) {
	for i := range tr.clients {
		tr.clients[i] = []behaviour{ranges, chunks, ranges}[i%3]
	}
	tr.resumable = true
	tr.wiring.origin.Rate = int(max(1000, tr.size))
	tr.breaks = 0
}

// paths are hostile.
var paths = []string{
	"/v2/..%2f..%2fetc/passwd/manifests/x", "/v2/../../etc/passwd", "/v2/a/../b/blobs/sha256:x", "/v2//manifests/x",
	"/v2/a%00b/manifests/x", "/v2/a/manifests/%2e%2e", "/v2/A/manifests/x", "/v2/a/blobs/sha256:" + "../../../x",
	"/v2/a/blobs/sha256:" + strings.Repeat("g", 64), "/v2/a/blobs/md5:" + strings.Repeat("a", 32),
	"/v2/" + strings.Repeat("a/", 500) + "manifests/x", "/v2/a/manifests/" + strings.Repeat("t", 129),
	"/v2/\u00fc/manifests/x", "/v2/a/manifests/x?ns=..%2f..", "/v2/a/manifests/x?ns=169.254.169.254",
	"/v2/a/blobs/sha256:" + strings.Repeat("a", 63) + "%0a", "/v2/.hidden/manifests/x", "/v2/a/manifests/-x",
	"/v2/a/manifests/x%23", "/v2/a\\b/manifests/x", "/v2/a/blobs/uploads/", "/v2/a/tags/list/../../x",
}

// planPaths has names that try to leave their folder. None of them reaches an upstream or the disk.
func planPaths(tr *trial) {
	tr.resumable = false
	tr.run = func(tr *trial, w *world) (v verdict) {
		for range 40 {
			path := pick(tr, paths...)
			if tr.r.IntN(2) == 0 { // one byte of it is changed
				b := []byte(path)
				b[4+tr.r.IntN(len(b)-4)] = byte("%./\\:@\x00\x7f\xff aZ0"[tr.r.IntN(13)])
				path = string(b)
			}
			v.clients++
			status, err := w.raw(path)
			if err != nil || status/100 == 5 && status != 502 || status/100 < 4 {
				v.fail("%q: %d, %v", path, status, err)
			}
		}
		for _, q := range w.up.Requests() {
			if strings.Contains(q.Path, "..") || strings.Contains(q.Path, "%") || strings.ContainsAny(q.Path, "\\\x00\n ") {
				v.fail("the upstream was asked for %q", q.Path)
			}
		}
		if left := slices.DeleteFunc(files(w.dir), func(s string) bool {
			return s == "LOCK" || strings.HasPrefix(s, "boot.json") || strings.HasPrefix(s, "blobs") || strings.HasPrefix(s, "spool")
		}); len(left) > 0 {
			v.fail("files in the cache folder: %q", left)
		}
		return v
	}
}

// planManifests has manifests that are too large, too deep, ambiguous, or not manifests.
func planManifests(tr *trial) {
	tr.run = func(tr *trial, w *world) (v verdict) {
		pad := func(n int) []byte { return []byte(`{"schemaVersion":2,"x":"` + strings.Repeat("y", n-25) + `"}`) }
		list := [][]byte{
			pad(4 << 20), pad(4<<20 + 1), pad(9 << 20),
			[]byte(strings.Repeat("[", 20_000) + strings.Repeat("]", 20_000)),
			[]byte(strings.Repeat(`{"a":`, 20_000) + "1" + strings.Repeat("}", 20_000)),
			[]byte(`{"schemaVersion":2,"layers":[],"layers":[{"digest":"x"}]}`),
			[]byte(`{"schemaVersion":2,"manifests":[],"layers":[],"config":{}}`),
			[]byte(`{"schemaVersion":1,"signatures":[]}`), []byte("null"), []byte("[]"),
			{},
			[]byte("schemaVersion: 2"),
			[]byte("\xff\xfe{}"), manifestOf(newContent(1<<10, 1)),
		}
		b := pick(tr, list...)
		d := w.up.AddManifest(repo, "odd", pick(tr, ocispec.MediaTypeImageManifest, "", "text/html", "application/json"), b).Digest
		if tr.r.IntN(4) == 0 {
			do := pick(tr, origin.Fault{Wrong: true},
				origin.Fault{Cut: &origin.Cut{At: int64(len(b) / 2)}}, origin.Fault{Length: origin.LengthChunked},
				origin.Fault{Gzip: true}, origin.Fault{Cut: &origin.Cut{At: int64(len(b) / 2), How: origin.CutHonest}})
			tr.liar = do.Cut != nil && do.Cut.How == origin.CutHonest // the length of a HEAD can't be checked
			w.up.Script(origin.Rule{Kind: origin.KindManifest, Do: do})
		}
		tr.askManifests(w, &v, []string{"odd", d.String()}, b)
		return v
	}
}

// planFlips moves a tag while it is being pulled.
func planFlips(tr *trial) {
	tr.run = func(tr *trial, w *world) (v verdict) {
		all := [][]byte{manifestOf(newContent(1<<10, 1)), manifestOf(newContent(1<<10, 2)), manifestOf(newContent(64<<10, 1))}
		var digests []oci.Digest
		for _, b := range all {
			digests = append(digests, w.up.AddManifest(repo, "moving", ocispec.MediaTypeImageManifest, b).Digest)
		}
		n := 0
		var mu sync.Mutex
		w.up.Script(origin.Rule{Kind: origin.KindManifest, Times: pick(tr, 0, 1, 2, 5), Do: origin.Fault{Then: func() {
			mu.Lock()
			defer mu.Unlock()
			n++
			w.up.SetTag(repo, "moving", digests[n%len(digests)])
		}}})
		tr.askManifests(w, &v, []string{"moving"}, all...)
		return v
	}
}

// askManifests has the crowd ask for manifests and checks the answers.
func (tr *trial) askManifests(w *world, v *verdict, refs []string, right ...[]byte) {
	n := map[crowd]int{one: 1, late: 2, fifty: 50}[tr.crowd]
	verdicts := make([]verdict, n)
	var wg sync.WaitGroup
	for i := range n {
		method := []string{http.MethodGet, http.MethodHead}[tr.r.IntN(4)/3]
		ref := pick(tr, refs...)
		wg.Go(func() { tr.askManifest(w, &verdicts[i], method, ref, right) })
	}
	wg.Wait()
	for _, x := range verdicts {
		v.clients += x.clients
		v.seamless += x.seamless
		v.wrong = append(v.wrong, x.wrong...)
	}
}

func (tr *trial) askManifest(w *world, v *verdict, method, ref string, right [][]byte) {
	v.clients++
	req, err := http.NewRequestWithContext(context.Background(), method, manifestURL(ref), nil)
	if err != nil {
		v.fail("%v", err)
		return
	}
	res, err := w.client.Do(req)
	if err != nil {
		v.fail("no answer for a manifest: %v", err)
		return
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	said := res.Header.Get("Docker-Content-Digest")
	switch {
	case res.StatusCode >= 400:
		if method == http.MethodGet && !json.Valid(b) {
			v.fail("%s %s: %s without a document", method, ref, res.Status)
		}
	case err != nil:
		v.fail("%s %s: %v", method, ref, err)
	case method == http.MethodHead:
		if !slices.ContainsFunc(right, func(r []byte) bool {
			return said == digest.FromBytes(r).String() && (tr.liar || res.ContentLength == int64(len(r)))
		}) {
			v.fail("HEAD %s: %s, %d bytes", ref, said, res.ContentLength)
		}
	case said != digest.FromBytes(b).String(), strings.HasPrefix(ref, "sha256:") && said != ref,
		!slices.ContainsFunc(right, func(r []byte) bool { return string(r) == string(b) }):
		v.fail("GET %s: %d bytes, said to be %s", ref, len(b), said)
	default:
		v.seamless++
	}
}

// raw asks for a path as it is, without cleaning, and returns the status.
func (w *world) raw(path string) (status int, err error) {
	c, err := w.net.Dial(context.Background(), "tcp", host)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: mirror\r\nConnection: close\r\n\r\n"); err != nil {
		return 0, err
	}
	b, err := io.ReadAll(c)
	if err != nil {
		return 0, err
	}
	if _, err := fmt.Sscanf(string(b), "HTTP/1.1 %d ", &status); err != nil {
		return 0, fmt.Errorf("answer %.60q: %w", b, err)
	}
	return status, nil
}
