package flight_test

import (
	"context"
	"io"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/oci"
)

// BenchmarkFill brings 64 MiB from memory through a spool on disk to readers. The figure beside it is the hash alone.
func BenchmarkFill(b *testing.B) {
	o := newOrigin(1, 64<<20)
	d := o.digest()
	b.Run("hash alone", func(b *testing.B) {
		b.SetBytes(int64(len(o.content)))
		for b.Loop() {
			_ = digest.FromBytes(o.content)
		}
	})
	for _, readers := range []int{1, 10} {
		b.Run(map[int]string{1: "one reader", 10: "ten readers"}[readers], func(b *testing.B) {
			st, err := disk.Open(b.TempDir(), disk.Options{})
			if err != nil {
				b.Fatal(err)
			}
			defer st.Close()
			b.SetBytes(int64(len(o.content)))
			for b.Loop() {
				g := flight.New(flight.Options{Create: func(_ oci.Digest, size int64) (flight.Spool, error) {
					return st.Create(size)
				}})
				var wg sync.WaitGroup
				for range readers {
					wg.Go(func() {
						obj, _, err := g.Join(b.Context(), d, int64(len(o.content)), o.source("a", fault{}))
						if err != nil {
							b.Error(err)
							return
						}
						defer obj.Close()
						if _, err := obj.(*flight.Reader).CopyTo(context.Background(), writerOnly{io.Discard}, 0,
							int64(len(o.content))); err != nil {
							b.Error(err)
						}
					})
				}
				wg.Wait()
				g.Close()
				_ = st.Remove(d)
			}
		})
	}
}

// writerOnly hides io.Discard's ReadFrom, which would read in pieces of 8 KiB.
type writerOnly struct{ io.Writer }
