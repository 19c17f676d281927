// Package journal keeps what happened: it makes pulls out of the requests that the front end saw, and says of each pull
// how it went, and of each failing one why.
//
// A pull is what one client asks of one image: it opens with a request for a manifest and closes when a minute has
// passed in which nothing more of it was asked, and nothing of it is being sent. By tag or digest the manifests tell
// pulls of a repository apart; their blobs can't, and belong to the one that was active last.
//
//	Observe ─> bounded channel ─> Run ─┬─> at once:     "pull failed", the first time in a minute
//	            (full: counted, lost)  │                and counted in the Record, which is written every 5 s
//	                                   └─> at its end:  "pull", with outcome and bytes
//
// Promise: a pull never waits for its record. What is lost under load is counted, and said.
//
// Guarantees:
//   - Nothing that worked is called a failure: what failed and then went well in the same pull is served; a probe for a
//     signature that isn't there, and a client that leaves, are nobody's failure.
//   - A refusal that leaves the client free to go on to the registry is declined, not failed.
//   - Memory, what is written to disk and what is logged of failures are bounded, whatever clients do.
//   - The record of failures survives a restart, but for the last five seconds before a crash.
//
// Not here: why something failed (diagnose), and the file that keeps the record (internal/state).
package journal
