// Package flight is one download with many readers, in any order: the heart of the coalescing.
//
// Promise: however many readers want a blob, each byte of it is fetched once, every reader gets it as it arrives, and
// no reader's pace, denial or departure affects another reader.
//
//	source of Alice ──┐ fill: the prefix, to the end        ┌──> reader Alice   at her own pace
//	source of Bob   ──┼──────────> spool (sparse) ──────────┼──> reader Bob     joined late, starts at 0
//	                  │ ahead: 4 MiB, where a range         ├──> reader Carol   a Range far ahead
//	                  │        lies ahead of the prefix     │
//	                  │              │                      │
//	                  │              └─> hasher ── right ─> Commit;  wrong ─> every reader is aborted
//
// A flight's state is the set of extents that are in the spool. Three kinds of goroutine meet there, under one mutex,
// and none ever waits for a socket of another one:
//
//   - A fetch reads one body and writes to the spool, then publishes the bytes. The fill is the fetch that extends the
//     contiguous prefix; if it meets an extent that is there, it continues behind it. Fetches belong to the lifetime of
//     the group, never to that of a client.
//   - The hasher follows the prefix by reading the spool back, so extents may arrive in any order.
//   - A reader waits until the byte it wants is published, then copies from the spool with a file position of its own.
//     Bytes that no running fetch is about to bring are fetched for it, from its own source.
//
// Which bytes a fetch brings is decided by the plan, a value without lock, clock or goroutine. Beside the fill of a large
// blob run lanes, each with the first part that is neither there nor claimed, while the blob comes faster by them (see
// lanes.go). The number of connections with which it was fastest is remembered for the next blob of that upstream.
//
// Each reader ends by itself. When a source fails, the readers with its Key end with that error; a reader with another Key
// begins at the first missing byte with its own source. Wrong content ends all readers: the digest is the blob's. If it
// came by several Keys, each has a flight of its own for a while (see apart.go). A source that says another size than the
// reader that started the flight expected ends its own readers; a reader that expects another size bypasses the flight.
//
// The last 64 KiB of the prefix are held back until the digest is known to be right, so no response that was sent from
// the prefix ends cleanly with wrong bytes. A range that lies ahead of the prefix is as right as its source.
//
// A spool that fails (disk full, input/output error, a file that was cut) ends no reader: each one continues from its
// offset, straight from its own source (see resume.go). A reader of the whole blob then verifies by itself, and holds back
// the last 64 KiB for that. So that the hash of the bytes it was sent is known, it never gets ahead of the hasher: mostly it
// drains the spool and continues with the hasher's state. If the spool can't be read any more, it fetches the blob again
// from its start and passes on the bytes it lacks, if those it was sent have the hash that the hasher had seen.
//
// A flight without readers and without bytes ends. With bytes, its fill continues if at most GoOn bytes (64 MiB) or half of
// the blob are missing; else it stops after Linger, and the spool is parked with its extents for Park: the next reader
// continues there, if bytes came by its Key (see apart.go). Bytes that arrive without a reader are charged to the client
// that left last (see unread.go): when its allowance is used up, the spool is parked at once.
//
// A reader may be of background work, which no client waits for. Of a flight with no other reader the source is told that it is not Live,
// until a client joins. It stops with that reader, and has at most half of the lanes at a host.
//
// If the fill is slow and a reader has a source with another Key, that source is tried, and the faster of the two brings
// the rest (see relay.go).
//
// Not here: which content is complete (the store), space (the cache), retries and ranges that upstreams get wrong (the
// source), rights (the caller of Join).
package flight
