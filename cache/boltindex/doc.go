// Package boltindex is a cache.Index on a bbolt file.
//
// Promise: the index never keeps the cache from serving. Whatever the file holds (bytes of a torn write, another
// program's, pages that point in circles), Open returns an index that works: a damaged file is set aside under
// index.db.bad-<time> and a new one is started. What is lost then is recency: the cache evicts less wisely until it
// knows better. Where the disk takes no write at all the index works without a file, and tries again with each Write.
//
// bbolt answers damage with a panic, a fault in its memory map or an endless walk, at the start or much later. So the
// file is checked page by page before bbolt sees it, and every call into bbolt is guarded.
//
// Writes are batches, each of which survives a crash of the machine once Write has returned nil. The keys are digests,
// the values minutes and sizes. It knows nothing of budgets, nor of which content is really there.
package boltindex
