package admin

import "net/http"

// Cache is the body of GET /api/v1/cache: what is stored now, and what happened since the mirror was started.
type Cache struct {
	Bytes    int64 `json:"bytes"`    // stored
	Size     int64 `json:"size"`     // the budget
	Reserved int64 `json:"reserved"` // of it, for downloads that go on or wait for somebody to come back
	Objects  int64 `json:"objects"`  // stored blobs and manifests
	Parked   int64 `json:"parked"`   // downloads that wait for somebody to come back
	Degraded bool  `json:"degraded"` // the disk fails: what is not cached is passed on without being stored

	Hits         int64 `json:"hits"`     // answered from the store
	Misses       int64 `json:"misses"`   // that began a download
	Joined       int64 `json:"joined"`   // that joined one
	Uncached     int64 `json:"uncached"` // passed on without being stored
	Evicted      int64 `json:"evicted"`
	EvictedBytes int64 `json:"evictedBytes"`

	UpstreamBytes int64 `json:"upstreamBytes"` // bodies received from upstreams
	ClientBytes   int64 `json:"clientBytes"`   // bodies sent to clients
}

// showCache answers with what stats gives.
func showCache(stats func() Cache) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, stats()) }
}
