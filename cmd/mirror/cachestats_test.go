package main

import (
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
)

func TestCacheStats(t *testing.T) {
	t.Parallel()
	c := admin.Cache{
		Bytes: 3 << 30, Size: 20 << 30, Reserved: 1 << 20, Parked: 2, Objects: 40, Hits: 90, Misses: 10, Joined: 5, Uncached: 1, Evicted: 3,
		EvictedBytes: 2048, UpstreamBytes: 1000, ClientBytes: 4000, Degraded: true,
		Disk: &admin.CacheDisk{State: "full", Text: "the disk of /x is full: 0 bytes free, cache.minFree wants 5% (1.2 MiB)"},
	}
	for _, tt := range []struct {
		cache admin.Cache
		want  string
	}{
		{c, `stored    3 GiB of 20 GiB (15%) in 40 blobs and manifests
reserved  1 MiB for downloads that run or are paused; 2 are paused
disk      FULL: new content is served and not kept; the disk of /x is full: 0 bytes free, cache.minFree wants 5% (1.2 MiB)
blobs     90 from the cache, 10 downloaded, 5 shared a running download, 1 streamed without caching
evicted   3, 2 KiB
received  1000 B from upstreams
sent      3.9 KiB to clients, 75% of it from the cache
`},
		{admin.Cache{Disk: &admin.CacheDisk{State: "ok", Free: 3 << 30, Total: 4 << 30}}, `stored    0 B of 0 B in 0 blobs and manifests
disk      3 GiB of 4 GiB free
blobs     0 from the cache, 0 downloaded, 0 shared a running download, 0 streamed without caching
evicted   nothing
received  0 B from upstreams
sent      0 B to clients
`},
	} {
		s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Cache: func() admin.Cache { return tt.cache }}))
		code, out, errs := commandLine(t, "cache", "stats", "--admin", s.URL)
		if diff := cmp.Diff(tt.want, out); code != 0 || errs != "" || diff != "" {
			t.Errorf("%d %s\n%s", code, errs, diff)
		}
		if code, out, _ := commandLine(t, "cache", "stats", "--admin", s.URL, "-o", "json"); code != 0 || !strings.HasPrefix(out, `{"bytes":`) {
			t.Errorf("json: %d %s", code, out)
		}
		s.Close()
		if code, _, errs := commandLine(t, "cache", "stats", "--admin", s.URL); code != 4 || !strings.Contains(errs, "MIRROR_ADMIN") {
			t.Errorf("no mirror: %d %s", code, errs)
		}
	}
	if code, _, _ := commandLine(t, "cache", "stats", "-o", "wide"); code != 2 {
		t.Errorf("-o wide: %d", code)
	}
}
