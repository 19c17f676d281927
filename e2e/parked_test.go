package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/crash"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestUnfinishedOverARestart stops the mirror in the middle of a download and starts it again. After a clean stop
// the upstream sends what was missing and no more; after a kill, or where what was kept is damaged, the download begins
// anew. The bytes are right each time, and nothing is left in the spool.
func TestUnfinishedOverARestart(t *testing.T) {
	t.Parallel()
	const mib = 1 << 20
	for _, tt := range []struct {
		name     string
		size, at int64 // of the blob, and where the upstream stops sending
		away     bool  // the client leaves, and the download is parked, before the stop
		from     int64 // the client asks for the bytes from here, where that isn't 0
		kill     bool
		restarts int
		between  func(t *testing.T, data string) // the lives
		again    bool                            // the download begins anew
		rate     int                             // of each connection to the upstream, which then stops between parts
	}{
		{name: "with a client", size: 24 * mib, at: 10 * mib},
		{name: "parked", size: 160 * mib, at: 20 * mib, away: true},
		{name: "in several parts", size: 192 * mib, at: 60 * mib, rate: 5 * mib},
		{name: "a range far ahead", size: 24 * mib, at: 3 * mib, from: 16 * mib},
		{name: "three restarts", size: 24 * mib, at: 10 * mib, restarts: 3},
		{name: "killed", size: 24 * mib, at: 10 * mib, kill: true, again: true},
		{name: "expired", size: 24 * mib, at: 10 * mib, between: expire, again: true},
		{name: "cut off", size: 24 * mib, at: 10 * mib, between: cutSpool, again: true},
		{name: "damaged", size: 24 * mib, at: 10 * mib, between: flipSpool, again: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			up := origin.Start(t, origin.Options{})
			blob := up.AddImage("library/app", "v1", origin.Image{Layers: []int64{tt.size}}).Layers[0][0]
			ref := blob.Digest.String()
			fault, cache := origin.Fault{Stall: &origin.Stall{At: tt.at, Gate: origin.NewGate()}}, "parallelAbove: 1GiB"
			if tt.rate > 0 {
				fault, cache = origin.Fault{Rate: tt.rate}, ""
			}
			remove := up.Script(origin.Rule{
				Kind: origin.KindBlob, Method: http.MethodGet, Ref: ref,
				Do: fault,
			})
			between := up.Script(origin.Rule{
				Kind: origin.KindBlob, Method: http.MethodGet, Ref: ref,
				Match: func(*http.Request) bool { return tt.rate > 0 && up.Bytes(blob.Digest) >= tt.at },
				Do:    origin.Fault{Gate: origin.NewGate()},
			})
			o := mirrord.Options{
				Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}", More: "drain: 1s", Dir: t.TempDir(),
				Cache: cache,
			}
			m := mirrord.Start(t, o)

			ctx, leave := context.WithCancel(t.Context())
			defer leave()
			p := puller{client: &http.Client{Transport: &http.Transport{}}, base: m.URL() + "/v2/docker.io/library/app/"}
			got := make(chan error, 1)
			go func() { got <- p.from(ctx, ref, tt.from) }()
			wait.For(t, time.Minute, "the upstream's bytes to arrive", func() error {
				if n := metric(t, m, "mirror_upstream_bytes_total"); n < tt.at {
					return fmt.Errorf("%d of %d", n, tt.at)
				}
				return nil
			})
			if tt.away {
				leave()
				wait.For(t, time.Minute, "the download to be parked", func() error {
					if n := metric(t, m, "mirror_cache_parked"); n != 1 {
						return fmt.Errorf("%d are", n)
					}
					return nil
				})
			}
			for life := range max(1, tt.restarts) {
				if life > 0 {
					m = mirrord.Start(t, o)
				}
				if tt.kill {
					m.Signal(t, syscall.SIGKILL)
					m.WaitExit(t, time.Minute)
				} else {
					m.Signal(t, syscall.SIGTERM)
					equal(t, "exit code", m.WaitExit(t, 30*time.Second), 0)
				}
			}
			if err := <-got; err == nil {
				t.Error("the pull that was cut off looks whole to its client")
			}
			if tt.between != nil {
				tt.between(t, m.Data)
			}
			remove()
			between()
			before := up.Bytes(blob.Digest)

			m = mirrord.Start(t, o)
			p.base = m.URL() + "/v2/docker.io/library/app/"
			err := p.blob(t.Context(), blob)
			if err != nil && tt.name == "damaged" { // a client that has some of it begins again
				err = p.blob(t.Context(), blob)
			}
			if err != nil {
				t.Errorf("the pull after the restart: %v", err)
			}
			sent := up.Bytes(blob.Digest)
			want := blob.Size
			if tt.again {
				want += before
			}
			if over := sent - want; over < 0 || tt.rate == 0 && over > 0 || over > tt.size/50 { // what was on its way
				t.Errorf("the upstream has sent %d bytes, %d of them before the restart, want %d", sent, before, want)
			}
			wait.For(t, time.Minute, "the spool to be empty", func() error {
				if left, err := crash.Spooled(m.Data); err != nil || len(left) > 0 {
					return fmt.Errorf("%v, %w", left, err)
				}
				return nil
			})
			if err := crash.Check(m.Data); err != nil {
				t.Error(err)
			}
		})
	}
}

// from reads a blob from some byte on to its end.
func (p puller) from(ctx context.Context, ref string, off int64) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.base+"blobs/"+ref, nil)
	if err != nil {
		return err
	}
	if off > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", off))
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// metric is the sum of the series of that name.
func metric(t *testing.T, m *mirrord.Mirror, name string) (sum int64) {
	t.Helper()
	_, text := m.Get(t, "/metrics")
	for line := range strings.Lines(text) {
		what, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if series, _, _ := strings.Cut(what, "{"); series != name {
			continue
		}
		n, err := strconv.ParseFloat(value, 64)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		sum += int64(n)
	}
	return sum
}

// spoolOf is the one file in the spool that has a record.
func spoolOf(t *testing.T, data string) string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(data, "spool", "*.json"))
	if err != nil || len(list) != 1 {
		t.Fatalf("records in the spool: %v, %v", list, err)
	}
	return strings.TrimSuffix(list[0], ".json")
}

func expire(t *testing.T, data string) {
	t.Helper()
	name := spoolOf(t, data) + ".json"
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	record := make(map[string]any)
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	record["until"] = time.Now().Add(-time.Second)
	if b, err = json.Marshal(record); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func cutSpool(t *testing.T, data string) {
	t.Helper()
	if err := os.Truncate(spoolOf(t, data), 5<<20); err != nil {
		t.Fatal(err)
	}
}

func flipSpool(t *testing.T, data string) {
	t.Helper()
	f, err := os.OpenFile(spoolOf(t, data), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, 4<<20); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b, 4<<20); err != nil {
		t.Fatal(err)
	}
}
