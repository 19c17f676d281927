package faults_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/oci"
)

// pulling is one client's pull of a blob, and the oracle's judgement of it.
type pulling struct {
	w    *world
	c    *content
	liar bool // the upstream sends wrong bytes: those before a break may be wrong, and so may a 206
	r    *rand.Rand
	half func() // called when half of the blob has arrived; nil: nothing

	got    atomic.Int64 // bytes read so far
	broken []string     // visible breaks, in words
	wrong  []string     // broken promises, in words
	lied   bool         // a 206 ended cleanly with wrong bytes of the upstream
	left   bool         // the client has left by its own choice
	took   time.Duration
}

// errBroken is a visible break. The client knows that it has not got what it asked for.
var errBroken = errors.New("visibly broken")

func (p *pulling) fail(format string, args ...any) {
	p.wrong = append(p.wrong, fmt.Sprintf(format, args...))
}

func (p *pulling) broke(format string, args ...any) error {
	p.broken = append(p.broken, fmt.Sprintf(format, args...))
	return errBroken
}

// sink is what a client does with bytes. It returns false when it wants no more.
type sink func(b []byte, off int64) bool

// get makes one request, compares the answer with the right bytes, and passes them on. from and to are the range that the
// header asks for, in bytes of the blob; to is exclusive. stopped says that the sink wants no more.
func (p *pulling) get(ctx context.Context, header string, from, to int64, take sink) (stopped bool, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, blobURL(p.c.digest), nil)
	if err != nil {
		return false, err
	}
	want := http.StatusOK
	if header != "" {
		req.Header.Set("Range", header)
		want = http.StatusPartialContent
	}
	res, err := p.w.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		return false, p.broke("no answer: %v", err)
	}
	defer res.Body.Close()
	if res.StatusCode >= 400 {
		_, _ = io.Copy(io.Discard, res.Body)
		return false, p.broke("%s %s", res.Status, res.Header.Get("Mirror-Reason"))
	}
	if res.StatusCode != want {
		p.fail("%q: answered %s", header, res.Status)
		return false, errBroken
	}
	said := p.headers(res, header, from, to)
	if len(said) > 0 && !p.liar {
		p.wrong = append(p.wrong, said...)
	}
	at, bad := from, int64(-1)
	buf := buffers.Get().(*[]byte)
	defer buffers.Put(buf)
	for {
		n, err := res.Body.Read(*buf)
		b := (*buf)[:n]
		if bad < 0 {
			bad = p.c.differs(b, at)
		}
		at += int64(n)
		if p.got.Add(int64(n)) >= p.c.size/2 && p.half != nil {
			p.half()
		}
		if n > 0 && !take(b, at-int64(n)) {
			return true, p.judge(header, bad, at, to, false)
		}
		switch {
		case errors.Is(err, io.EOF):
			if len(said) > 0 && p.liar { // a size that only the upstream has said; no clean end has another one
				if header == "" {
					p.wrong = append(p.wrong, said...)
				}
				p.lied = true
				return false, p.broke("%q: %s", header, said[0])
			}
			return false, p.judge(header, bad, at, to, true)
		case err != nil:
			if e := p.judge(header, bad, at, to, false); e != nil {
				return false, e
			}
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			return false, p.broke("%q: after %d bytes: %v", header, at-from, err)
		}
	}
}

// headers checks the headers of an answer, and returns those that are wrong.
func (p *pulling) headers(res *http.Response, header string, from, to int64) (wrong []string) {
	want := map[string]string{
		"Docker-Content-Digest": p.c.digest.String(), "Content-Encoding": "", "Etag": `"` + p.c.digest.String() + `"`,
		"Content-Length": strconv.FormatInt(to-from, 10), "Content-Range": "",
	}
	if header != "" {
		want["Content-Range"] = fmt.Sprintf("bytes %d-%d/%d", from, to-1, p.c.size)
	}
	for name, v := range want {
		if got := res.Header.Get(name); got != v {
			wrong = append(wrong, fmt.Sprintf("%q: %s is %q, want %q", header, name, got, v))
		}
	}
	return wrong
}

// judge is the oracle for a response that has ended, cleanly or not.
func (p *pulling) judge(header string, bad, at, to int64, clean bool) error {
	switch {
	case clean && at != to:
		p.fail("%q: ended cleanly at byte %d of %d", header, at, to)
	case bad >= 0 && clean && header != "" && p.c.size <= 4<<20 && to > p.c.size-64<<10:
		// So small a blob comes in one piece, whose last 64 KiB are held back.
		p.fail("%q: ended cleanly with a wrong byte at %d, among the bytes that are to be held back", header, bad)
	case bad >= 0 && clean && header != "" && p.liar:
		p.lied = true // as right as the upstream: a client that asks for parts verifies the whole blob
	case bad >= 0 && clean:
		p.fail("%q: ended cleanly with a wrong byte at %d", header, bad)
	case bad >= 0 && !p.liar:
		p.fail("%q: wrong byte at %d, though the upstream never sent one", header, bad)
	}
	return nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

// tries is how often a client resumes without getting a byte in between: containerd's number.
const tries = 3

// behaviour is how a client pulls. It returns nil when it has the whole blob, or the parts it wanted.
type behaviour struct {
	name  string
	whole bool // it wants the whole blob, and has its digest
	run   func(ctx context.Context, p *pulling) error
}

var (
	plain = behaviour{"plain", true, func(ctx context.Context, p *pulling) error {
		return p.digested(func(take sink) error {
			_, err := p.get(ctx, "", 0, p.c.size, take)
			return err
		})
	}}
	// resumes continues with a Range where it was cut off, as containerd does.
	resumes = behaviour{"resume", true, func(ctx context.Context, p *pulling) error {
		return p.digested(func(take sink) error { return p.resume(ctx, take) })
	}}
	// heads asks by HEAD first.
	heads = behaviour{"head", true, func(ctx context.Context, p *pulling) error {
		if err := p.head(ctx); err != nil {
			return err
		}
		return plain.run(ctx, p)
	}}
	chunks = behaviour{"chunks", true, runChunks}
	ranges = behaviour{"ranges", false, runRanges}
	slowly = behaviour{"slow", true, runSlowly}
	leaves = behaviour{"leaves", false, runLeaves}
	// leavesLate leaves once there is a download that others can go on with.
	leavesLate = behaviour{"leaves late", false, runLeavesLate}
)

var everyone = []behaviour{plain, resumes, heads, chunks, ranges, slowly, leaves}

// digested verifies as a client does: by the digest of its bytes. That must fail whenever a byte is wrong, so it repeats
// the oracle's check by other means.
func (p *pulling) digested(fetch func(sink) error) error {
	h := sha256.New()
	var next int64
	err := fetch(func(b []byte, off int64) bool {
		if off != next {
			p.fail("bytes at %d after those up to %d", off, next)
		}
		next = off + int64(len(b))
		h.Write(b)
		return true
	})
	if err != nil {
		return err
	}
	return p.verify(h, next)
}

func (p *pulling) verify(h hash.Hash, n int64) error {
	if d := oci.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))); d != p.c.digest || n != p.c.size {
		if p.liar && (p.lied || len(p.broken) > 0) { // the bytes before the break were wrong, too
			return p.broke("the client's own digest says no")
		}
		p.fail("%d bytes with digest %s, want %d with %s", n, d, p.c.size, p.c.digest)
		return errBroken
	}
	return nil
}

func (p *pulling) head(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, blobURL(p.c.digest), nil)
	if err != nil {
		return err
	}
	res, err := p.w.client.Do(req)
	if err != nil {
		return p.broke("no answer to HEAD: %v", err)
	}
	res.Body.Close()
	switch {
	case res.StatusCode >= 400:
		return p.broke("HEAD: %s", res.Status)
	case p.liar && res.StatusCode == http.StatusOK: // the answer to a HEAD is as right as the upstream's
	case res.StatusCode != http.StatusOK || res.ContentLength != p.c.size ||
		res.Header.Get("Docker-Content-Digest") != p.c.digest.String():
		p.fail("HEAD: %s, %d bytes, %v", res.Status, res.ContentLength, res.Header)
	}
	return nil
}

func (p *pulling) resume(ctx context.Context, take sink) error {
	var at int64
	failed := 0
	for {
		header, from := "", int64(0)
		if at > 0 {
			header, from = fmt.Sprintf("bytes=%d-", at), at
		}
		before := at
		_, err := p.get(ctx, header, from, p.c.size, func(b []byte, off int64) bool {
			at = off + int64(len(b))
			return take(b, off)
		})
		if !errors.Is(err, errBroken) {
			return err
		}
		if at > before {
			failed = 0
		}
		if failed++; failed >= tries || at >= p.c.size {
			return err
		}
		if !sleep(ctx, time.Second) {
			return ctx.Err()
		}
	}
}

// runChunks asks for open-ended ranges at several places at once and leaves each where the next begins, as containerd
// does from 2.1 on.
func runChunks(ctx context.Context, p *pulling) error {
	n := int64(2 + p.r.IntN(4))
	size := max(1, (p.c.size+n-1)/n)
	parts := make([]*pulling, 0, n)
	bufs := make([][]byte, n)
	var wg sync.WaitGroup
	errs := make([]error, n)
	for from := int64(0); from < p.c.size; from += size {
		i, to := len(parts), min(from+size, p.c.size)
		part := &pulling{w: p.w, c: p.c, liar: p.liar, half: p.half}
		parts, bufs[i] = append(parts, part), make([]byte, 0, to-from)
		wg.Go(func() {
			header := fmt.Sprintf("bytes=%d-", from)
			_, errs[i] = part.get(ctx, header, from, p.c.size, func(b []byte, _ int64) bool {
				room := int(to-from) - len(bufs[i])
				bufs[i] = append(bufs[i], b[:min(room, len(b))]...)
				return len(bufs[i]) < int(to-from)
			})
			if errs[i] != nil && int64(len(bufs[i])) == to-from {
				errs[i] = nil
			}
		})
	}
	wg.Wait()
	h, n := sha256.New(), 0
	bad := false
	for i, part := range parts {
		p.got.Add(part.got.Load())
		p.broken, p.wrong, p.lied = append(p.broken, part.broken...), append(p.wrong, part.wrong...), p.lied || part.lied
		h.Write(bufs[i])
		n += int64(len(bufs[i]))
		bad = bad || p.c.differs(bufs[i], int64(i)*size) >= 0
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	p.lied = p.lied || p.liar && bad // the client has cut it off before its end
	return p.verify(h, n)
}

// runRanges asks for small parts anywhere, as lazy snapshotters do: closed, open-ended, and from the end.
func runRanges(ctx context.Context, p *pulling) error {
	for range 1 + p.r.IntN(12) {
		from := p.r.Int64N(p.c.size)
		to := min(p.c.size, from+1+p.r.Int64N(100<<10))
		header := fmt.Sprintf("bytes=%d-%d", from, to-1)
		switch p.r.IntN(8) {
		case 0:
			from, to = max(0, p.c.size-(to-from)), p.c.size
			header = fmt.Sprintf("bytes=-%d", to-from)
		case 1:
			header = fmt.Sprintf("bytes=%d-%d", from, p.c.size+p.r.Int64N(1000)) // beyond the end
			to = p.c.size
			if p.c.size-from > 1<<20 {
				from = p.c.size - 1 - p.r.Int64N(1<<20)
				header = fmt.Sprintf("bytes=%d-", from)
			}
		}
		_, err := p.get(ctx, header, from, to, func([]byte, int64) bool { return true })
		if err != nil {
			return err
		}
	}
	return nil
}

// runSlowly reads a few kilobytes now and then.
func runSlowly(ctx context.Context, p *pulling) error {
	pauses := 0
	return p.digested(func(take sink) error {
		_, err := p.get(ctx, "", 0, p.c.size, func(b []byte, off int64) bool {
			if pauses++; pauses <= 40 {
				if !sleep(ctx, time.Duration(1+p.r.IntN(4000))*time.Millisecond) {
					return false
				}
			}
			return take(b, off)
		})
		return err
	})
}

// runLeaves leaves after some bytes: none, half, or nearly all.
func runLeaves(ctx context.Context, p *pulling) error {
	return p.leave(ctx, []int64{0, 1, p.c.size / 10, p.c.size / 2, p.c.size * 99 / 100}[p.r.IntN(5)])
}

// runLeavesLate leaves after some bytes, at least one.
func runLeavesLate(ctx context.Context, p *pulling) error {
	return p.leave(ctx, max(1, []int64{1, p.c.size / 10, p.c.size / 2, p.c.size * 99 / 100}[p.r.IntN(4)]))
}

func (p *pulling) leave(ctx context.Context, after int64) error {
	p.left = true
	if after == 0 { // before any answer
		ctx, cancel := context.WithTimeout(ctx, time.Duration(p.r.IntN(50))*time.Millisecond)
		defer cancel()
		_, _ = p.get(ctx, "", 0, p.c.size, func([]byte, int64) bool { return true })
		return nil
	}
	_, _ = p.get(ctx, "", 0, p.c.size, func(_ []byte, off int64) bool { return off < after })
	return nil
}

// sleep pauses, unless the context ends.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
