package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/registrymirror/mirror/cache"
)

// The numbers of one scrape are of one moment: the cache is asked once.
func TestScrapeTakesTheCachesNumbersOnce(t *testing.T) {
	t.Parallel()
	var asked int64
	stats := func() cache.Stats {
		asked++
		n := 100 * asked
		return cache.Stats{
			Bytes: n + 1, Size: n + 2, Reserved: n + 3, Objects: n + 4, Parked: n + 5, Hits: n + 6, Misses: n + 7,
			Joined: n + 8, Uncached: n + 9, Evicted: n + 10, EvictedBytes: n + 11, Degraded: asked > 1,
			Held: n + 12, Disk: cache.Disk{Space: cache.Space{Free: n + 13}},
		}
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(newTable(stats, cacheSeries))
	for scrape := range 2 {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, f := range families {
			m := f.GetMetric()[0]
			got[f.GetName()] = m.GetGauge().GetValue() + m.GetCounter().GetValue() // one of them is not there
		}
		n := float64(100 * (scrape + 1))
		want := map[string]float64{
			"mirror_cache_bytes": n + 1, "mirror_cache_size_bytes": n + 2, "mirror_cache_reserved_bytes": n + 3,
			"mirror_cache_objects": n + 4, "mirror_cache_parked": n + 5, "mirror_cache_hits_total": n + 6,
			"mirror_cache_misses_total": n + 7, "mirror_cache_joined_total": n + 8, "mirror_cache_uncached_total": n + 9,
			"mirror_cache_evicted_total": n + 10, "mirror_cache_evicted_bytes_total": n + 11,
			"mirror_cache_degraded": float64(scrape), "mirror_cache_held_bytes": n + 12, "mirror_cache_disk_free_bytes": n + 13,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("scrape %d: %s", scrape, diff)
		}
	}
}
