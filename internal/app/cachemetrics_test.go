package app_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/internal/app"
	"github.com/registrymirror/mirror/internal/origin"
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
	r.MustRegister(app.NewCacheCollector(stats))
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

// What the cache did is shown as the metrics count it.
func TestCacheIsShown(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	img := o.AddImage("app", "1", origin.Image{})
	r := run(t, parse(t, t.TempDir(), fmt.Sprintf("  two.test: {endpoints: [%q]}\n", o.URL())))
	layer := img.Layers[0][0]
	for range 3 {
		if status, body := get(t, "http://"+r.Addr().String()+"/v2/two.test/app/blobs/"+layer.Digest.String()); status != http.StatusOK {
			t.Fatalf("%d %s", status, body)
		}
	}
	var c admin.Cache
	var text string
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range 1000 { // a request is counted once its client has all
		_, text = get(t, "http://"+r.AdminAddr().String()+"/api/v1/cache")
		c = admin.Cache{}
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			t.Fatal(err)
		}
		if c.ClientBytes == 3*c.Bytes && c.Bytes > 0 {
			break
		}
		<-tick.C
	}
	// A blob is kept a moment after its last byte: until then it is joined.
	if c.Hits+c.Joined != 2 || c.Misses != 1 || c.Objects != 1 || c.Size != 1<<30 || c.UpstreamBytes != c.Bytes || c.Bytes == 0 ||
		c.ClientBytes != 3*c.Bytes {
		t.Errorf("%s", text)
	}
}
