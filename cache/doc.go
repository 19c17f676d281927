// Package cache holds content by digest within a byte budget: open or fill, keep, evict.
//
// Promise: Open returns the content whenever the store or the caller's source has it; if there is room, nothing is downloaded
// twice; and it never lets stored content and reservations of downloads grow beyond the budget.
//
//	Open ── in the store? ──────────────────────────────────────────> hit
//	  └─ no ── room? ── no: larger than the cache, all kept, disk ──> uncached, from the caller's own source
//	            └─ yes ── in flight? ── yes ────────────────────────> joined
//	                        └─ no ── spool, download, reserve ──────> miss
//
// The store's files are the truth. The entries of this package (size, recency, keeps) are in memory, for eviction, and
// follow the files if the two differ. A hit writes nothing: recency goes to the Index in batches.
//
// Eviction is segmented LRU. New content is on probation; content used again in a later minute is protected, up to two
// thirds of the budget. Victims come from the end of the probation, then from that of the protected. Above 90 % of the
// budget the cache evicts down to 80 %, and as much as a download needs as its bytes arrive (see spool); below the floor
// of free bytes and inodes of the disk, up to the floor. Content with a keep, or on its way, is left alone, and so is
// content that has been open for less than a minute (see budget.go).
//
// How much room there is becomes known when Run has found out what is stored. Until then hits are served, misses wait a few
// seconds for it and are uncached after that, and nothing is evicted: callers of Keep call it before Run.
//
// A disk that is full, read-only or broken stops no pull: readers continue from their own sources, new ones are served
// uncached, and a small write every few seconds tells when the disk works again.
//
// The bytes are counted by budget, which has no lock and touches no disk; Cache has the lock, and does to the store what the
// budget says.
//
// What it does not do: it does not know the place that content comes from (a Source per reader), which client may read it, and what
// it means. No network.
package cache
