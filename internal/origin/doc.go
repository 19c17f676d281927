// Package origin is a scripted upstream registry for tests: a whole one, with a token service and a blob host of its
// own, that answers well until a rule tells it not to.
//
//	client ──> registry (URL) ──307──> blob host (CDNHost, knows no credentials, refuses requests that carry one)
//	   └─────> token service (on the registry's host, or on its own)
//
// Promise: a test sees every request that reached it, with the bytes that went out, and can have any answer go wrong
// in any way in which an HTTP server can: see Rule and Fault.
//
// Guarantees:
//   - A request is in Requests before its answer begins, and a byte is counted before it is sent: what a client has
//     seen has been counted. Bytes that were sent and never read are counted too.
//   - It never waits unless a Fault has a duration or a Gate, or a rate is set. Gates open when it is closed.
//   - Close returns when no handler runs any more.
//   - Large content is made from a seed while it is sent, and never held.
//
// Not here: pushes, and name resolution; everything listens on 127.0.0.1, or on a Network in memory.
package origin
