// Package journal keeps what happened: it makes pulls out of the requests that the front end saw, and says of each pull
// how it went, and of each failing one why.
//
// A pull is what one client asks of one image: it opens with a request for a manifest and closes when a minute has
// passed in which nothing more of it was asked, and nothing of it is being sent. By tag or digest the manifests tell
// pulls of a repository apart; their blobs can't, and belong to the one that was active last.
//
//	Observe ─> bounded channel ─> Run ─┬─> at once:     "pull failed", the first time in a minute
//	            (full: counted, lost)  └─> at its end:  "pull", with outcome and bytes
//
// Promise: a pull never waits for its record. What is lost under load is counted, and said.
//
// Guarantees:
//   - Nothing that worked is called a failure: what failed and then went well in the same pull is served; a probe for a
//     signature that isn't there, and a client that leaves, are nobody's failure.
//   - A refusal that leaves the client free to go on to the registry is declined, not failed.
//   - Memory is bounded, whatever clients do.
//
// Not here: why something failed (diagnose), and what outlives a restart.
package journal
