// Package journal keeps what happened: it assembles pulls from the requests that the front end saw, and records for each
// pull how it went, and for each failing pull why.
//
// A pull is one client fetching one image: it opens with a request for a manifest and closes when the client has been idle
// for a minute and nothing is being sent to it; after two seconds if the client has got all that its image needs. Manifest
// requests tell the pulls of a repository apart by tag or digest. Blob requests name no tag, and count for the pull of that
// client in that repository that was active last.
//
//	Observe ─> queue ─> Run ─┬─> at once:     log "pull failed", once a minute per failure;
//	        (full: counted)  │                count it in the Record, which is written every 5 s
//	                         └─> at its end:  log "pull", with outcome and bytes
//
// The parts of a Journal are queue (queue.go: events that wait), openPulls (open.go: which pull a request belongs to), pull
// (pull.go: one pull), inference (infer.go: failures that no response shows), pullLog (log.go: which lines are written),
// the shares of finished pulls and Record (record.go: failures).
//
// Promise: a pull never waits for its record. Events lost under load are counted, and the log says so.
//
// Guarantees:
//   - Nothing that worked is called a failure: a request that failed and then succeeded in the same pull is served; a
//     look-up of a signature that does not exist is not a failure, and neither is a client that leaves.
//   - A refusal that leaves the client free to go on to the registry is declined, not failed.
//   - Memory, disk writes and log lines about failures are bounded, whatever clients do.
//   - The record of failures survives a restart, except for the last five seconds before a crash.
//
// What it does not do: explain why something failed (diagnose), store the record (internal/state), or show it (admin).
package journal
