package cache_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/cachetest"
	"github.com/registrymirror/mirror/oci"
)

// BenchmarkKeepEnds is how long the leases of manifests that share 10,000 digests take to end, each.
func BenchmarkKeepEnds(b *testing.B) {
	list := make([]oci.Digest, 10_000)
	for i := range list {
		list[i] = oci.Digest(fmt.Sprintf("sha256:%064d", i))
	}
	for _, n := range []int{10, 100} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := cache.New(cache.Options{Store: cachetest.NewStore()})
			var took time.Duration
			for range b.N {
				for i := range n {
					c.Keep(fmt.Sprint(i), time.Now().Add(time.Hour), list...)
				}
				begin := time.Now()
				for i := range n {
					c.Keep(fmt.Sprint(i), time.Time{})
				}
				took += time.Since(begin)
			}
			b.ReportMetric(float64(took.Microseconds())/float64(b.N*n), "µs/lease")
		})
	}
}
