// Package pull is the pull-through decision: which upstream a request means, whether the record of a tag is fresh and which digest
// the tag is served with, whether the cache has the content, and which requests the upstream has to be sent.
//
//	Ask ─> route ─> tag ────> member of the repository? ─> bytes here? ─> Content
//	                 │ old            │ no                     │ no
//	                 └── HEAD ────────┴──── GET ───────────────┘     one request for all clients that wait
//	                                         │
//	                                         └─> bytes, then references, then the tag
//
// Promise: an upstream is asked once for content that many clients want at the same time, and its answers are remembered: content
// for good, a tag for as long as its policy allows, a refusal for seconds. Cached content is served while the upstream is
// down, slow, limiting, or refusing our credential.
//
// Guarantees:
//   - A client that may not read is refused before a record is read, an upstream asked, or a download joined.
//   - Content that was fetched while rules applied is served to no other client, until its upstream shows it to all clients.
//   - Content is served only through a repository whose registry has shown it there, or whose manifests refer to it, if the
//     content was fetched without a login; otherwise the registry is asked first. A reference is not a proof (right.go has the
//     table).
//   - A repository that its registry refuses to all clients is served for as long as a stale tag is, and no longer.
//   - Bytes are written before the references to them, and both before the tag, so a tag never leads to content that can't be
//     served. A digest that the upstream has only reported is marked as that, see recordReport in tag.go. If one of the writes fails, or
//     the references take long, the client is served all the same.
//   - Documents in work, in memory and in answers stay within Options.Memory. A manifest above 64 KiB is an Object of the
//     cache; a client that floods the mirror with large ones waits for its own.
//   - A client that leaves cancels nothing: requests to an upstream have a deadline of their own.
//   - Background work, as the content of pins, is in no client's way: its downloads have no turn while a client needs it, and it leaves a
//     part of each rate limit. A client that joins a request of it that fails for that makes the request itself.
//   - No client waits longer than Options.Wait. If there is a cached copy, a client waits only as long as the tag's policy says.
//
// Not here: HTTP, disks, credentials, retries, and how many bytes of a blob have arrived.
package pull
