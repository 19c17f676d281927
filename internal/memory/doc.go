// Package memory is the one budget of bytes for documents: manifests and lists while they are fetched, verified, parsed and
// sent, and those that are kept for the next request.
//
//	Enter ──► Need(n) ──► room in the pool ──────────────► work ──► Release
//	             │                                  ▲
//	             └──► waits in its client's line ───┴── the lines in turn
//	                     └──► after 10 s, or if too many wait: a *FullError
//
// Promise: what is counted never exceeds Options.Size, whatever clients ask for at the same time; and one client's large
// documents delay another client's small ones by no more than the end of one piece of work.
//
// Guarantees:
//   - Three pools have room of their own: small documents, large ones, and answers that are being sent. None can use up
//     another one's. Stores have what the pools leave, and give it back when a pool needs it.
//   - Within a pool clients take turns, whatever the number of their requests. A request that needs little passes one that
//     needs more than is free, for a while.
//   - A holder that waits has no room: Need gives back what it has before it waits. So there is no deadlock.
//   - Waiting ends: with the context, after Options.Wait, or at once if more than a thousand wait.
//
// What it does not do: it does not know what a document costs; its reader does.
package memory
