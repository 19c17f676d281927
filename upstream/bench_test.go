package upstream_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/registrymirror/mirror/cache/flight"
)

// BenchmarkBlob is one blob of 64 MiB over loopback, read as the flight reads, against the same by net/http alone.
func BenchmarkBlob(b *testing.B) {
	const n = 64 << 20
	content := make([]byte, n)
	s := serve(b, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "67108864")
		_, _ = w.Write(content)
	})
	buf := make([]byte, 256<<10)
	drain := func(b *testing.B, r io.ReadCloser) {
		b.Helper()
		defer r.Close()
		if m, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r}, buf); m != n || err != nil {
			b.Fatal(m, err)
		}
	}
	b.Run("bare", func(b *testing.B) {
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			resp, err := http.Get(s.URL)
			if err != nil {
				b.Fatal(err)
			}
			drain(b, resp.Body)
		}
	})
	b.Run("Blob", func(b *testing.B) {
		r := registry(b, s.URL)
		b.SetBytes(n)
		b.ReportAllocs()
		for b.Loop() {
			body, err := r.Blob(b.Context(), repo, digestOf(nil), flight.Want{To: n, Size: n})
			if err != nil {
				b.Fatal(err)
			}
			drain(b, body)
		}
	})
}
