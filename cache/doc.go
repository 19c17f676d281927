// Package cache holds content by digest within a byte budget: open or fill, keep, evict.
//
// Promise: Open gives the content a client asked for if there is any way to it, downloads nothing twice that there is
// room for, and never lets what is stored and what is reserved for downloads grow beyond the budget.
//
//	Open ── in the store? ──────────────────────────────────────────> hit
//	  └─ no ── room? ── no: larger than the cache, all kept, disk ──> uncached, from the caller's own source
//	            └─ yes ── in flight? ── yes ────────────────────────> joined
//	                        └─ no ── spool, download, reserve ──────> miss
//
// The store's files are the truth. What this package knows of them in memory (size, recency, who keeps them) is for
// eviction, and follows them where the two differ. A hit writes nothing: recency goes to the Index in batches.
//
// Eviction is segmented LRU. New content is on probation; content used again in a later minute is protected, up to two
// thirds of the budget. Victims come from the end of the probation, then from that of the protected. Above 90 % of the
// budget the cache evicts down to 80 %, and as much as a download needs as its bytes arrive (see spool); below the floor
// of free bytes and inodes of the disk, up to the floor. Content with a keep, or on its way, is left alone, and so is
// content that has been open for less than a minute (see held).
//
// How much room there is nobody knows before Run has found out what is stored. Until then hits are served, misses wait
// a few seconds for it and are uncached after that, and nothing is evicted: holders assert their keeps before Run.
//
// A disk that is full, read-only or broken keeps nobody from pulling: readers go on from their own sources, new ones
// are served uncached, and a small write every few seconds tells when the disk is back.
//
// Not here: where content comes from (a Source per reader), who may read it, what it means. No network.
package cache
