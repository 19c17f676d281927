package admin_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/warm"
)

// listening serves a Warmer over a network in memory, on which next to nothing is on its way: what the client does not read, the
// server can't write. end stops the server, as the mirror's stop does.
func listening(t *testing.T, w admin.Warmer) (dial func() net.Conn, end func()) {
	t.Helper()
	n := origin.Network{Buffer: 256}
	l, err := n.Listen("")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: admin.New(admin.Options{Loopback: true, Hosts: asExample, Warm: w})} //nolint:gosec // no header comes late
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.Serve(l) // until Close
	}()
	return func() net.Conn {
			t.Helper()
			conn, err := n.Dial(t.Context(), "tcp", l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			return conn
		}, func() {
			_ = s.Close()
			<-served
		}
}

// subscribe requests the events of the job.
func subscribe(t *testing.T, conn net.Conn, lastID string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/api/v1/warm/3f9c2a7b/events", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	go func() { _ = r.Write(conn) }()
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// block is the lines up to an empty one.
func block(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var text strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("%q: %v", text.String(), err)
		}
		if line == "\n" {
			return text.String()
		}
		text.WriteString(line)
	}
}

// event reads one event.
func event(t *testing.T, r *bufio.Reader) (id string, job admin.WarmJob) {
	t.Helper()
	text := block(t, r)
	head, data, ok := strings.Cut(strings.TrimPrefix(text, "id: "), "\ndata: ")
	if !ok || head == text {
		t.Fatalf("not an event: %q", text)
	}
	if err := json.Unmarshal([]byte(data), &job); err != nil {
		t.Fatal(err)
	}
	return head, job
}

func TestEvents(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWarmer()
		dial, end := listening(t, w)
		defer end()
		conn := dial()
		resp := subscribe(t, conn, "")
		if h := resp.Header; resp.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store" || !resp.Close {
			t.Errorf("%d %v", resp.StatusCode, h)
		}
		lines := bufio.NewReader(resp.Body)
		if text := block(t, lines); text != "retry: 2000\n" {
			t.Errorf("%q", text)
		}
		if id, job := event(t, lines); id != "7" || job.State != warm.Running || len(job.Images) != 1 {
			t.Errorf("%s %+v", id, job)
		}
		// Nothing happens: comments show that the stream is alive.
		start := time.Now()
		for range 3 {
			if text := block(t, lines); text != ":\n" {
				t.Errorf("%q", text)
			}
		}
		if passed := time.Since(start); passed != 45*time.Second {
			t.Errorf("three heartbeats took %s", passed)
		}
		w.set(func(j *warm.Job) { j.BytesDone = 4 })
		if id, job := event(t, lines); id != "8" || job.BytesDone != 4 {
			t.Errorf("%s %+v", id, job)
		}
		// A broken stream goes on with what is new.
		_ = conn.Close()
		again := bufio.NewReader(subscribe(t, dial(), "8").Body)
		block(t, again)
		if text := block(t, again); text != ":\n" {
			t.Errorf("the same state was sent again: %q", text)
		}
		w.set(func(j *warm.Job) { j.State = warm.Failed })
		if id, job := event(t, again); id != "9" || job.State != warm.Failed {
			t.Errorf("%s %+v", id, job)
		}
		if rest, err := io.ReadAll(again); err != nil || len(rest) > 0 {
			t.Errorf("after the final state: %q, %v", rest, err)
		}
		// The job has ended before the request.
		for lastID, status := range map[string]int{"": 200, "8": 200, "9": 204} {
			late := subscribe(t, dial(), lastID)
			text, err := io.ReadAll(late.Body)
			if late.StatusCode != status || err != nil || (status == 200) != strings.Contains(string(text), "id: 9\n") {
				t.Errorf("after %q: %d %q, %v", lastID, late.StatusCode, text, err)
			}
		}
	})
}

// A client that stops reading holds up nothing: its stream ends, and neither the job nor others wait for it.
func TestEventsThatAreNotRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWarmer()
		dial, end := listening(t, w)
		defer end()
		stuck := dial()
		lines := bufio.NewReader(subscribe(t, stuck, "").Body)
		block(t, lines)
		event(t, lines)
		reader := bufio.NewReader(subscribe(t, dial(), "").Body)
		block(t, reader)
		event(t, reader)
		start := time.Now()
		for i := range 5 {
			w.set(func(j *warm.Job) { j.BytesDone = int64(100 + i) })
			if _, job := event(t, reader); job.BytesDone != int64(100+i) {
				t.Errorf("another reader got %d, want %d", job.BytesDone, 100+i)
			}
		}
		if passed := time.Since(start); passed > 10*time.Millisecond { // the pauses for one image
			t.Errorf("another reader waited %s", passed)
		}
		time.Sleep(31 * time.Second)
		_ = stuck.SetReadDeadline(time.Now().Add(time.Minute))
		rest, err := io.ReadAll(lines)
		if errors.Is(err, os.ErrDeadlineExceeded) || strings.Contains(string(rest), "104") {
			t.Errorf("the stream of a client that does not read goes on: %q, %v", rest, err)
		}
	})
}

// A client that reads slowly gets the latest state, not all states in between.
func TestEventsThatAreReadSlowly(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWarmer()
		dial, end := listening(t, w)
		defer end()
		lines := bufio.NewReaderSize(subscribe(t, dial(), "").Body, 16)
		block(t, lines)
		event(t, lines)
		for i := range 1000 {
			w.set(func(j *warm.Job) { j.BytesDone = int64(i) })
			synctest.Wait()
		}
		time.Sleep(10 * time.Second)
		for n := 1; ; n++ {
			if _, job := event(t, lines); job.BytesDone == 999 {
				break
			} else if n > 3 {
				t.Fatalf("the %dth event has state %d of 1000", n, job.BytesDone)
			}
		}
	})
}

// The streams have a bound, and the mirror's stop ends them.
func TestEventsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWarmer()
		dial, end := listening(t, w)
		var open []*http.Response
		for range 128 {
			resp := subscribe(t, dial(), "")
			if resp.StatusCode != 200 {
				t.Fatal(resp.StatusCode)
			}
			open = append(open, resp)
		}
		if resp := subscribe(t, dial(), ""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("the 129th: %d", resp.StatusCode)
		}
		end()
		synctest.Wait()
		for i, resp := range open {
			if _, err := io.Copy(io.Discard, resp.Body); err == nil {
				t.Errorf("stream %d ended as if the job had", i)
			}
		}
	})
}

// An engine that stops ends its streams; the job has not ended, and the client comes back.
func TestEventsOfAnEngineThatStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		dial, end := listening(t, stopped{newWarmer()})
		defer end()
		lines := bufio.NewReader(subscribe(t, dial(), "").Body)
		block(t, lines)
		if _, job := event(t, lines); job.State.Over() {
			t.Error(job.State)
		}
		if rest, err := io.ReadAll(lines); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v", rest, err)
		}
	})
}

// stopped yields one state, and an error.
type stopped struct{ *warmer }

func (s stopped) Watch(context.Context, string) iter.Seq2[warm.Job, error] {
	return func(yield func(warm.Job, error) bool) {
		if yield(s.now, nil) {
			yield(warm.Job{}, context.Canceled)
		}
	}
}
