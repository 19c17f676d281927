package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/memory"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
)

// A registry claims documents of some size, and sends a byte of each every 4 s. They hold little memory, not for long, and
// another document does not wait for them.
func TestSlowDocumentsHoldNoMemory(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		size string // empty: it does not say
		list bool
		most time.Duration
	}{
		{size: "300", most: 4 * time.Second},
		{size: "44000", most: 4 * time.Second},
		{size: "4000000", most: 4 * time.Second},
		{most: 4 * time.Second},
		{size: "4000000", list: true, most: 11 * time.Second},
	} {
		t.Run(fmt.Sprintf("%q, list %v", tt.size, tt.list), func(t *testing.T) {
			t.Parallel()
			bubble(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
				if !strings.Contains(r.URL.Path, "slow") {
					_, _ = w.Write(manifest)
					return
				}
				if tt.size != "" {
					w.Header().Set("Content-Length", tt.size)
				}
				for i := range 20 {
					_, _ = w.Write([]byte(`{"schemaVersion":2,`[i%19 : i%19+1]))
					w.(http.Flusher).Flush()
					select {
					case <-r.Context().Done():
						return
					case <-time.After(4 * time.Second):
					}
				}
			}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				b := memory.New(memory.Options{})
				var wg sync.WaitGroup
				for i := range 100 {
					wg.Go(func() {
						began := time.Now()
						class := memory.Work
						if tt.list {
							class = memory.Answer
						}
						ctx, hold := b.Enter(memory.By(t.Context(), "attacker"), class)
						defer hold.Release()
						var err error
						if repo := fmt.Sprint("slow", i); tt.list {
							_, err = r.Tags(ctx, repo, nil)
						} else {
							_, err = r.Manifest(ctx, repo, "1")
						}
						if took := time.Since(began); took > tt.most {
							t.Errorf("given up after %s", took)
						}
						if !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("not a timeout: %v", err)
						}
					})
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if used := b.Used(); used > 100*(64<<10) {
					t.Errorf("%d bytes are in use for documents that have not arrived", used)
				}
				began := time.Now()
				ctx, hold := b.Enter(memory.By(t.Context(), "victim"), memory.Work)
				if _, err := r.Manifest(ctx, "victim", "1"); err != nil || time.Since(began) > time.Second {
					t.Errorf("another one's manifest took %s: %v", time.Since(began), err)
				}
				hold.Release()
				wg.Wait()
				if used := b.Used(); used != 0 {
					t.Errorf("%d bytes are in use", used)
				}
			})
		})
	}
}

// A document that comes slowly, but at the least pace, is read to its end, in whatever pieces it comes.
func TestUnhurriedDocumentsAreRead(t *testing.T) {
	t.Parallel()
	for _, size := range []int{300, 4 << 10, 4<<10 + 1, 16 << 10, 64<<10 - 1, 64 << 10, 64<<10 + 1, 200 << 10} {
		for _, says := range []bool{true, false} {
			pad := size - len(`{"schemaVersion":2,"layers":[],"mediaType":"","x":""}`) - len(oci.MediaTypeOCIManifest)
			body := `{"schemaVersion":2,"layers":[],"mediaType":"` + oci.MediaTypeOCIManifest + `","x":"` + strings.Repeat("x", pad) + `"}`
			var asked int
			bubble(t, func(w http.ResponseWriter, _ *http.Request) {
				asked++
				w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
				if says {
					w.Header().Set("Content-Length", fmt.Sprint(len(body)))
				}
				for rest := body; rest != ""; {
					n := min(len(rest), 20<<10)
					time.Sleep(time.Second)
					_, _ = w.Write([]byte(rest[:n]))
					w.(http.Flusher).Flush()
					rest = rest[n:]
				}
			}, func(t *testing.T, r *upstream.Registry, _ *pipes) {
				b := memory.New(memory.Options{})
				ctx, hold := b.Enter(t.Context(), memory.Work)
				defer hold.Release()
				m, err := r.Manifest(ctx, "app", "1")
				if err != nil || string(m.Bytes) != body || asked != 1 {
					t.Errorf("%d bytes, said %v: %v, asked %d times", size, says, err, asked)
				}
				if used := b.Used(); used < int64(size) {
					t.Errorf("%d bytes are counted for %d", used, size)
				}
			})
		}
	}
}
