package admin

import (
	"net/http"
	"time"
)

// Cache is the body of GET /api/v1/cache: what is stored now, and what happened since the mirror was started.
type Cache struct {
	Bytes    int64 `json:"bytes"`    // stored
	Size     int64 `json:"size"`     // the budget
	Reserved int64 `json:"reserved"` // of it, for downloads that go on or wait for a client to come back
	Objects  int64 `json:"objects"`  // stored blobs and manifests
	Parked   int64 `json:"parked"`   // downloads that wait for a client to come back
	Degraded bool  `json:"degraded"` // the disk is full or fails: what is not cached is passed on without being stored

	Disk *CacheDisk `json:"disk,omitempty"`

	Hits         int64 `json:"hits"`     // answered from the store
	Misses       int64 `json:"misses"`   // that began a download
	Joined       int64 `json:"joined"`   // that joined one
	Uncached     int64 `json:"uncached"` // passed on without being stored
	Evicted      int64 `json:"evicted"`
	EvictedBytes int64 `json:"evictedBytes"`

	UpstreamBytes int64 `json:"upstreamBytes"` // bodies received from upstreams
	ClientBytes   int64 `json:"clientBytes"`   // bodies sent to clients
}

// CacheDisk is the disk of the cache folder.
type CacheDisk struct {
	State string    `json:"state"` // ok, full, read-only, gone, failing
	Since time.Time `json:"since"`
	Text  string    `json:"text"`            // what is the matter, and what to do
	Free  int64     `json:"free,omitempty"`  // bytes that the mirror may write
	Total int64     `json:"total,omitempty"` // bytes; absent where not known
	Floor int64     `json:"floor,omitempty"` // bytes that cache.minFree keeps free
}

// showCache answers with what stats gives.
func showCache(stats func() Cache) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, stats()) }
}
