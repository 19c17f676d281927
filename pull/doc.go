// Package pull is the pull-through decision: which upstream a request means, what is known of the tag, what the cache
// holds, and what the upstream has to be asked.
//
//	Ask ─> route ─> tag ────> member of the repository? ─> bytes here? ─> Content
//	                 │ old            │ no                     │ no
//	                 └── HEAD ────────┴──── GET ───────────────┘     one trip for all who wait
//	                                         │
//	                                         └─> bytes, then references, then the tag
//
// Promise: an upstream is asked once for what many clients want at the same time, and what it says is remembered: its
// content for good, a tag for as long as its policy allows, a refusal for seconds. What is cached is served while the
// upstream is down, slow, limiting, or refusing our credential.
//
// Guarantees:
//   - A client that may not read is told so before anything is looked at, or asked, or joined.
//   - What was learnt of a repository under rules is served to no other client, until its upstream shows it to all clients.
//   - Content is served only through a repository whose registry has shown it there, or that refers to it where it came
//     without a login; otherwise the registry is asked first. A reference is not a proof (right.go has the table).
//   - A repository that its registry refuses to all clients is served for as long as a stale tag is, and no longer.
//   - Bytes are written before the references to them, and both before the tag, so a tag never leads to what can't be
//     served. Where one of the writes fails, or the references take long, the client is served all the same.
//   - Documents in work, in memory and in answers stay within Options.Memory. A manifest above 64 KiB is an Object of the
//     cache; a client that floods the mirror with large ones waits for its own.
//   - A client that leaves takes nothing with it: trips to an upstream have a deadline of their own.
//   - Nobody waits longer than Options.Wait; who has a copy waits as long as the tag's policy says.
//
// Not here: HTTP, disks, credentials, retries, and how many bytes of a blob have arrived.
package pull
