// Package recency is a cache.Index on one file, recency.bin: when content was last used.
//
//	16 bytes: name and version of the format
//	batch: length, CRC-32C, records      a snapshot is the first of them
//	batch: length, CRC-32C, records      each Write appends
//	...
//
// Promise: the index never keeps the cache from serving. Whatever the file holds, the index works: bytes behind the last
// sound batch are cut off, and a file that is not an index is set aside under recency.bin.bad-<time>. What is lost then is
// recency: eviction is less exact until content is used again. If the disk takes no write, the index works without a
// file, and each Write tries again.
//
// A batch survives a crash of the machine once Write has returned nil. Records that later ones replace are dropped when they
// are more than half of the file: it is then written again as a snapshot, under another name, and renamed.
//
// What it does not do: it knows nothing of budgets, nor of which content is really there. It takes no lock: cache/disk has
// locked the folder. Of earlier versions' index.db it reads nothing, and removes it.
package recency
