package admin

import (
	"time"

	"github.com/registrymirror/mirror/cache"
)

// Cache is the body of GET /api/v1/cache: the stored content now, and counts since the mirror was started.
type Cache struct {
	Bytes    int64 `json:"bytes"`    // stored
	Size     int64 `json:"size"`     // the budget, in bytes
	Reserved int64 `json:"reserved"` // bytes of the budget for running downloads, and for parked ones
	Objects  int64 `json:"objects"`  // stored blobs and manifests
	Parked   int64 `json:"parked"`   // unfinished downloads that are kept for a client to resume
	Degraded bool  `json:"degraded"` // the disk is full or fails: new content is served without being stored

	Disk *CacheDisk `json:"disk,omitempty"`

	Hits         int64 `json:"hits"`     // requests answered from the store
	Misses       int64 `json:"misses"`   // requests that began a download
	Joined       int64 `json:"joined"`   // requests that joined a running download
	Uncached     int64 `json:"uncached"` // requests served without being stored
	Evicted      int64 `json:"evicted"`
	EvictedBytes int64 `json:"evictedBytes"`

	UpstreamBytes int64 `json:"upstreamBytes"` // bodies received from upstreams
	ClientBytes   int64 `json:"clientBytes"`   // bodies sent to clients
}

// CacheDisk is the disk of the cache folder.
type CacheDisk struct {
	State string    `json:"state"` // ok, full, read-only, gone, failing
	Since time.Time `json:"since"`
	Text  string    `json:"text"`            // the problem, and what to do
	Free  int64     `json:"free,omitempty"`  // bytes that the mirror may write
	Total int64     `json:"total,omitempty"` // bytes; absent: not known
	Floor int64     `json:"floor,omitempty"` // bytes that cache.minFree keeps free
}

// ViewCache is the cache as the API shows it, with the bytes received from upstreams, and sent to clients.
func ViewCache(s cache.Stats, upstreamBytes, clientBytes int64) Cache {
	return Cache{
		Disk: &CacheDisk{
			State: string(s.Disk.State), Since: s.Disk.Since.UTC(), Text: s.Disk.String(), Free: s.Disk.Space.Free,
			Total: s.Disk.Space.Total, Floor: s.Disk.Floor,
		},
		Bytes: s.Bytes, Size: s.Size, Reserved: s.Reserved, Objects: s.Objects, Parked: s.Parked, Degraded: s.Degraded,
		Hits: s.Hits, Misses: s.Misses, Joined: s.Joined, Uncached: s.Uncached, Evicted: s.Evicted, EvictedBytes: s.EvictedBytes,
		UpstreamBytes: upstreamBytes, ClientBytes: clientBytes,
	}
}
