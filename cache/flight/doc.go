// Package flight is one download with many readers, in any order: the heart of the coalescing.
//
// Promise: however many readers want a blob, each byte of it is fetched once, every reader gets it as it arrives, and
// no reader's pace, denial or departure is felt by another.
//
//	source of Alice ──┐ fill: the prefix, to the end        ┌──> reader Alice   at her own pace
//	source of Bob   ──┼──────────> spool (sparse) ──────────┼──> reader Bob     joined late, starts at 0
//	                  │ extents: 4 MiB, where a range       ├──> reader Carol   a Range far ahead
//	                  │          lies ahead of the prefix   │
//	                  │              │                      │
//	                  │              └─> hasher ── right ─> Commit;  wrong ─> every reader is aborted
//
// A flight's state is the set of extents that are in the spool. Three kinds of goroutine meet there, under one mutex,
// and none ever waits for another one's socket:
//
//   - A fetch reads one body and writes to the spool, then publishes the extent. The fill is the fetch that extends
//     the contiguous prefix; when it meets an extent that is there already, it goes on behind it. Fetches belong to the
//     group's lifetime, never to a client's.
//   - The hasher follows the prefix by reading the spool back, so the order in which extents came does not matter.
//   - A reader waits until the byte it wants is published, then copies from the spool with a file position of its own.
//     What no running fetch is about to bring, it has fetched through its own source.
//
// Beside the fill of a large blob run lanes, each with the first part that is not there and that no other fetch brings, for
// as long as the blob comes faster with them.
//
// Ends are per reader. When a source fails, the readers with its Key end with that error; a reader with another key
// starts over from the first missing byte with its own source. Wrong content ends all readers: the digest is the
// blob's. Where it came by several Keys, each has a flight of its own for a while: see apart. A source that says another size than the reader that started the flight expected ends its own readers; a reader
// that expects another size goes past the flight.
//
// The last 64 KiB of the prefix are held back until the digest is known to be right, so no response that came out of
// the prefix ends cleanly with wrong bytes. A range that lies ahead of the prefix is as right as its source.
//
// A spool that fails (disk full, input/output error, a file that was cut) ends no reader: each one goes on from its
// offset straight from its own source. A reader of the whole blob then verifies by itself, and holds back the last
// 64 KiB for that. So that the hash of what it was sent is known, it never gets ahead of the hasher: mostly it drains
// the spool and goes on with the hasher's state. Where the spool can't be read any more, it fetches the blob again from
// its start and passes on what it lacks, if what it was sent is what the hasher had seen.
//
// With no reader left, a flight of which nothing has come ends. A fill goes on if at most GoOn bytes (64 MiB) or half the
// blob is missing; else it stops after Linger, and the spool is parked with its extents for Park: the next
// reader goes on where it stopped, if bytes came by its Key (see apart). Bytes that come without a reader are charged to the client that left last (see unread):
// when its allowance is used up, the spool is parked at once.
//
// Where the fill is slow and a reader has a source with another Key, that source is tried, and the faster of the two brings
// the rest: see relay.
//
// Not here: which content is whole (the store), space (the cache), retries and ranges that upstreams get wrong (the
// source), rights (the caller of Join).
package flight
