// Package webhook receives the reports of registries and of CI that a tag was pushed or deleted, at POST /webhooks/NAME, and
// marks these tags: each is checked at its next pull, whatever its age.
//
//	request ─> hook by name ─> secret or signature ─> body (bounded) ─> sender's format ─> Names ─> Expirer
//
// Promise: a report never causes a request to a registry by itself, never changes what a tag means, and adds no tag to the
// records. The worst that a stolen secret can do is one check for each pull of a tag.
//
// Guarantees:
//   - No report has an effect without its hook's secret: shown in the path or a header, or as the key of a signature. Secrets
//     are values of a type whose methods compare in constant time, and nothing else in the package reads them.
//   - A secret that stands in the request is checked before the body is read.
//   - A body has at most MaxBody bytes and BodyTimeout. Bodies that are read at the same time are bounded, and those of
//     senders that sign, which are read before the sender is known, are bounded by source address too.
//   - Names go through oci and the operator's list of upstreams. A name that is not in it has no effect.
//   - A hook accepts a bounded number of reports in a time, and remembers a bounded number of them.
//
// Replay: a signature by the Standard Webhooks scheme covers an id and a time: an older one than five minutes is refused, and
// an id that is known has no second effect. Others sign no time. A report of theirs with the same delivery id, or the same
// ids of events, has no second effect within ten minutes. If a thief changes the delivery id, which is not signed, the tag is
// checked once more. Reports without an id (Docker Hub, Quay, Harbor's own format) always have an effect, since two pushes
// of one tag may be reported by equal bodies.
//
// Not here: the records of tags (catalog), the check itself (pull), reading of secret files (internal/app).
package webhook
