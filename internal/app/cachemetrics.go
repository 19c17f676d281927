package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache"
	"github.com/registrymirror/mirror/cache/disk"
)

// cacheCollector shows the cache's numbers. Those of a scrape are of one moment, and taken once: the cache is locked for
// them.
type cacheCollector struct {
	stats  func() cache.Stats
	series []cacheSeries
}

type cacheSeries struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(cache.Stats) int64
}

func newCacheCollector(stats func() cache.Stats) *cacheCollector {
	c := &cacheCollector{stats: stats}
	add := func(kind prometheus.ValueType, name, help string, value func(cache.Stats) int64) {
		c.series = append(c.series, cacheSeries{prometheus.NewDesc("mirror_cache_"+name, help, nil, nil), kind, value})
	}
	const gauge, counter = prometheus.GaugeValue, prometheus.CounterValue
	add(gauge, "bytes", "Bytes of content in the cache.", func(s cache.Stats) int64 { return s.Bytes })
	add(gauge, "size_bytes", "The budget of cache.size.", func(s cache.Stats) int64 { return s.Size })
	add(gauge, "objects", "Pieces of content in the cache.", func(s cache.Stats) int64 { return s.Objects })
	add(gauge, "reserved_bytes", "Bytes reserved for downloads under way and parked.",
		func(s cache.Stats) int64 { return s.Reserved })
	add(gauge, "parked", "Unfinished downloads that wait for a client to come back.",
		func(s cache.Stats) int64 { return s.Parked })
	add(gauge, "held_bytes", "Bytes of content that was evicted and is still read: on the disk, and not in mirror_cache_bytes.",
		func(s cache.Stats) int64 { return s.Held })
	add(gauge, "disk_free_bytes", "Bytes that the disk of cache.dir has left for the mirror, as it last looked.",
		func(s cache.Stats) int64 { return s.Disk.Space.Free })
	add(gauge, "degraded", "1 if the disk of cache.dir is full, read-only, gone or fails, so that new content is served uncached.",
		func(s cache.Stats) int64 {
			if s.Degraded {
				return 1
			}
			return 0
		})
	add(counter, "hits_total", "Blobs that were served from the cache.", func(s cache.Stats) int64 { return s.Hits })
	add(counter, "misses_total", "Blobs whose download a client began.", func(s cache.Stats) int64 { return s.Misses })
	add(counter, "joined_total", "Blobs whose download under way a client joined.",
		func(s cache.Stats) int64 { return s.Joined })
	add(counter, "uncached_total", "Blobs that were served straight from their upstream.",
		func(s cache.Stats) int64 { return s.Uncached })
	add(counter, "evicted_total", "Pieces of content that were removed to make room.",
		func(s cache.Stats) int64 { return s.Evicted })
	add(counter, "evicted_bytes_total", "Bytes of content that were removed to make room.",
		func(s cache.Stats) int64 { return s.EvictedBytes })
	return c
}

// cached says how the cache is and what it did, for the operator's side.
func (m *metrics) cached(s cache.Stats) admin.Cache {
	disk := &admin.CacheDisk{
		State: string(s.Disk.State), Since: s.Disk.Since.UTC(), Text: s.Disk.String(), Free: s.Disk.Space.Free,
		Total: s.Disk.Space.Total, Floor: s.Disk.Floor,
	}
	return admin.Cache{
		Disk:  disk,
		Bytes: s.Bytes, Size: s.Size, Reserved: s.Reserved, Objects: s.Objects, Parked: s.Parked, Degraded: s.Degraded,
		Hits: s.Hits, Misses: s.Misses, Joined: s.Joined, Uncached: s.Uncached, Evicted: s.Evicted, EvictedBytes: s.EvictedBytes,
		UpstreamBytes: total(m.upBytes), ClientBytes: total(m.clientBytes),
	}
}

// total is the sum over all series of a counter.
func total(c prometheus.Collector) int64 {
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, _ := r.Gather() // an error is that of a single series, which doesn't count then
	sum := 0.0
	for _, f := range families {
		for _, series := range f.GetMetric() {
			sum += series.GetCounter().GetValue()
		}
	}
	return int64(sum)
}

// Describe implements prometheus.Collector.
func (c *cacheCollector) Describe(to chan<- *prometheus.Desc) {
	for _, s := range c.series {
		to <- s.desc
	}
}

// Collect implements prometheus.Collector.
func (c *cacheCollector) Collect(to chan<- prometheus.Metric) {
	now := c.stats()
	for _, s := range c.series {
		to <- prometheus.MustNewConstMetric(s.desc, s.kind, float64(s.value(now)))
	}
}

// scrubber shows what scrubbing has found.
func (m *metrics) scrubber(stats func() disk.ScrubStats) {
	add := func(name, help string, value func(disk.ScrubStats) int64) {
		m.registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "mirror_cache_" + name, Help: help},
			func() float64 { return float64(value(stats())) }))
	}
	add("scrubbed_total", "Pieces of content that were read again.", func(s disk.ScrubStats) int64 { return s.Blobs })
	add("scrubbed_bytes_total", "Bytes of content that were read again.",
		func(s disk.ScrubStats) int64 { return s.Bytes })
	add("damaged_total", "Pieces of content that were found damaged when they were read again, and removed.",
		func(s disk.ScrubStats) int64 { return s.Damaged })
}
