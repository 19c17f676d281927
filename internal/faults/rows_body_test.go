package faults_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/origin"
)

// The rows of bodies that break, stall or lie.

// bytesOf matches requests for the bytes of the blob, at any host.
func (tr *trial) bytesOf(times int, do origin.Fault) origin.Rule {
	r := origin.Rule{Kind: origin.KindBlob, Method: http.MethodGet, Match: noProbe, Times: times, Do: do}
	if tr.wiring.origin.Redirect {
		r.Kind = origin.KindCDN
	}
	return r
}

// noProbe matches requests that ask for more than the size.
func noProbe(r *http.Request) bool { return r.Header.Get("Range") != "bytes=0-0" }

// atRegistry matches requests for the blob at the registry, redirected or not.
func atRegistry(times int, do origin.Fault) origin.Rule {
	return origin.Rule{Kind: origin.KindBlob, Method: http.MethodGet, Match: noProbe, Times: times, Do: do}
}

// inTurn scripts rules that are used up one after the other.
func inTurn(rules ...origin.Rule) func(w *world) {
	return func(w *world) {
		for _, r := range slices.Backward(rules) { // the rule that was scripted last decides
			w.up.Script(r)
		}
	}
}

// wholes has all clients read the whole blob from its beginning, by a single request or by resuming.
func (tr *trial) wholes() {
	for i, b := range tr.clients {
		if b.name == ranges.name || b.name == chunks.name {
			tr.clients[i] = []behaviour{plain, resumes}[i%2]
		}
	}
	tr.wiring.parallel = 0
}

// pick draws one of the values.
func pick[T any](tr *trial, from ...T) T { return from[tr.r.IntN(len(from))] }

// cut plans a body that breaks, now and then or each time.
//
// A large blob is not cut each time after a few bytes: it comes, but may take longer than the lifetime of a client.
func (tr *trial) cut(how origin.CutHow, length string) {
	at := tr.offset()
	times := 1 + tr.r.IntN(3)
	tr.resumable = true
	switch {
	case tr.r.IntN(8) == 0 && (tr.size < huge || at >= 1<<20): // each time: healed while it brings some bytes
		times = 0
		tr.resumable = at >= 64<<10
	case at == 0:
		times = min(times, 2) // a third one is final: no byte has arrived, and a client waits
	}
	if tr.breaks = times; times == 0 {
		tr.breaks = -1
	}
	tr.script = inTurn(tr.bytesOf(times, origin.Fault{Length: length, Cut: &origin.Cut{At: at, How: how}}))
}

// first has a body break, so that there is something to resume. It is the rule for that.
func (tr *trial) first() origin.Rule {
	tr.breaks++
	at := max(1, min(tr.size-1, tr.offset()))
	if tr.size == 1 {
		at = 0
	}
	return tr.bytesOf(1, origin.Fault{Cut: &origin.Cut{At: at, How: pick(tr, origin.CutFIN, origin.CutReset)}})
}

func planStall(tr *trial) {
	d := pick(tr, 10*time.Second, 35*time.Second, 600*time.Second)
	at := tr.offset()
	tr.breaks, tr.resumable = 1, true
	times := 1
	if tr.r.IntN(10) == 0 && d > 30*time.Second { // each time
		times, tr.breaks, tr.resumable = 0, -1, false
	}
	var gate *origin.Gate
	tr.script = func(w *world) {
		gate = origin.NewGate()
		inTurn(tr.bytesOf(times, origin.Fault{Stall: &origin.Stall{At: at, Gate: gate}}))(w)
	}
	tr.during = openAfter(&gate, d)
}

// openAfter opens a gate some time after a request has reached it, or when the clients are done.
func openAfter(gate **origin.Gate, d time.Duration) func(ctx context.Context, w *world) {
	return func(ctx context.Context, _ *world) {
		select {
		case <-(*gate).Arrived():
			sleep(ctx, d)
		case <-ctx.Done():
		}
		(*gate).Open()
	}
}

func planDelay(tr *trial) {
	tr.breaks = 1
	switch tr.r.IntN(3) {
	case 0: // the client waits, and gets it
		tr.resumable = true
		tr.script = inTurn(tr.bytesOf(1, origin.Fault{Delay: time.Duration(1+tr.r.IntN(19)) * time.Second}))
	case 1: // in the middle it may take longer
		tr.wholes()
		tr.resumable = true
		tr.script = inTurn(tr.first(), tr.bytesOf(1, origin.Fault{Delay: pick(tr, 10*time.Second, 35*time.Second, 600*time.Second)}))
	default: // longer than a client waits
		tr.script = inTurn(tr.bytesOf(pick(tr, 0, 1, 3), origin.Fault{Delay: pick(tr, 35*time.Second, 600*time.Second)}))
		tr.breaks = -1
	}
}

func planDrip(tr *trial) {
	tr.size = min(tr.size, 64<<10+1)
	tr.breaks, tr.resumable = 1, true
	rate := pick(tr, 1, 10<<10)
	times := 1
	if tr.r.IntN(4) == 0 {
		times, tr.breaks, tr.resumable = 0, -1, rate > 1
	}
	tr.wiring.origin.Rate = 0
	tr.script = inTurn(tr.bytesOf(times, origin.Fault{Rate: rate}))
}

// planLie has wrong bytes: healed where clients retry, never kept, never ended cleanly.
func planLie(do func(tr *trial) origin.Fault) func(tr *trial) {
	return func(tr *trial) {
		tr.liar = true
		tr.breaks = -1
		switch tr.r.IntN(3) {
		case 0: // too slow to be verified before the header goes out
			if tr.size != huge {
				tr.wiring.origin.Rate = int(max(200, tr.size/int64(3+tr.r.IntN(5))))
			}
		case 1: // or too large
			if tr.crowd != fifty {
				tr.size = max(tr.size, 5<<20)
				tr.wiring.origin.Rate = 0
			}
		}
		tr.script = inTurn(tr.bytesOf(pick(tr, 1, 1, 2, 3, 0), do(tr)))
	}
}

func planLonger(tr *trial) {
	tr.breaks, tr.resumable = -1, true
	extra := 1 + tr.r.IntN(20_000)
	tr.repeats = 100 * int64(extra) // they are counted, and never read
	tr.script = inTurn(tr.bytesOf(pick(tr, 0, 1, 2), origin.Fault{Extra: strings.Repeat("m", extra)}))
}

func planLength(tr *trial) {
	tr.breaks = -1
	size := tr.size
	length := pick(tr, origin.LengthNone, origin.LengthChunked, "-1", "x", "99999999999999999999",
		strconv.FormatInt(size+1, 10), strconv.FormatInt(size-1, 10), "0", strconv.FormatInt(size*2, 10))
	tr.resumable = length == origin.LengthNone || length == origin.LengthChunked
	tr.liar = !tr.tagged // no other source has said a size
	if tr.r.IntN(4) == 0 {
		// Other content, which is much larger. It is not downloaded to find out that it is wrong.
		tr.size = min(tr.size, 64<<10)
		tr.resumable, tr.liar = false, true
		tr.transit = int64(tr.wiring.buffer) + 512<<10
		tr.script = inTurn(tr.bytesOf(pick(tr, 0, 1, 2), origin.Fault{Handler: sendOther}))
		return
	}
	tr.script = inTurn(tr.bytesOf(pick(tr, 0, 1, 2), origin.Fault{Length: length}))
}

func sendOther(w http.ResponseWriter, _ *http.Request) {
	other := newContent(5<<20, 55)
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(other.size, 10))
	inPieces(w, other.bytes)
}

// inPieces writes in pieces, so that bytes are counted as they are sent.
func inPieces(w io.Writer, b []byte) {
	for p := range slices.Chunk(b, 32<<10) {
		if _, err := w.Write(p); err != nil {
			return
		}
	}
}

func planDigestHeader(tr *trial) {
	tr.breaks = -1
	other := newContent(1<<10, 77).digest.String()
	value := pick(tr, []string{other}, nil, []string{"sha512:" + strings.Repeat("ab", 64)}, []string{"nonsense"}, []string{""})
	tr.resumable = len(value) == 0 || value[0] != other
	tr.script = func(w *world) {
		w.up.Script(origin.Rule{
			Kind: origin.KindBlob, Times: pick(tr, 0, 1, 2),
			Do: origin.Fault{Header: http.Header{"Docker-Content-Digest": value}},
		})
	}
}

// planRange has wrong answers to the Range by which a download continues: another range, the whole blob, none.
func planRange(tr *trial) {
	tr.wholes()
	c := newContent(tr.size, tr.seed%3)
	tr.breaks, tr.resumable = 3, true
	times := 1 + tr.r.IntN(3)
	var do origin.Fault
	switch tr.r.IntN(8) {
	case 0:
		do.IgnoreRange = true
		tr.repeats = tr.size * int64(times)
	case 1:
		do = origin.Fault{Status: http.StatusRequestedRangeNotSatisfiable}
	case 2:
		v := pick(tr, "", "bytes */10", "bytes 0-0/1", "nonsense", fmt.Sprintf("bytes 0-%d/%d", tr.size-1, tr.size),
			"bytes 99-1/100", "items 0-1/2")
		do.Header = http.Header{"Content-Range": {v}}
		if v == "" {
			do.Header = http.Header{"Content-Range": nil}
		}
	default: // of another place, and says so
		shift := pick(tr, int64(-1), 1, -512, 4096, -c.size/2, c.size/4)
		do.Handler = func(rw http.ResponseWriter, r *http.Request) { c.shifted(rw, r, shift) }
	}
	tr.script = inTurn(tr.first(), tr.bytesOf(times, do))
}

// shifted answers with another range than the one that was asked for, honestly.
func (c *content) shifted(w http.ResponseWriter, r *http.Request, by int64) {
	spec := strings.TrimPrefix(r.Header.Get("Range"), "bytes=")
	first, last, _ := strings.Cut(spec, "-")
	from, _ := strconv.ParseInt(first, 10, 64)
	to, err := strconv.ParseInt(last, 10, 64)
	if err != nil || to >= c.size {
		to = c.size - 1
	}
	length := to + 1 - from
	if from+by < 0 || from+by+length > c.size {
		if by = -1; from == 0 {
			by, length = 1, length-1
		}
	}
	from += by
	if length <= 0 || from < 0 || from+length > c.size {
		from, length = 0, 1
	}
	b := make([]byte, length)
	_, _ = c.ReadAt(b, from)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, from+length-1, c.size))
	w.Header().Set("Content-Length", strconv.FormatInt(length, 10))
	w.WriteHeader(http.StatusPartialContent)
	inPieces(w, b)
}
