// Package upstream speaks to one registry: it gets its tokens, asks for tags, manifests, blobs and lists, follows its
// redirects, and goes on where a transfer breaks. A registry may have several endpoints: itself, others like it, and
// mirrors of it. They are asked in their order, and the next one goes on where one fails, in the middle of a blob too.
//
// It guarantees:
//
//   - A credential or token goes to its own endpoint and to token services that the operator named, and to nobody else.
//     One function attaches it; redirects are followed by hand; what leads to another host goes over a transport that
//     knows no credentials.
//   - An address that is not public is dialled only for hosts that the operator named, or where a registry which is
//     itself private redirects to it. It is checked after DNS, on the address that is being dialled.
//   - A manifest asked for by digest has that digest. A Body yields the range it was asked for and nothing but it, or
//     ends with an error. It is not hashed here: a blob's digest is for the flight to verify.
//   - An endpoint that is down costs nothing while another one answers, and is never the reason for a failure: it is
//     asked last.
//   - Who has nothing left of a limit is not asked for what it counts, until the time that was said or the registry says
//     that there is more. Of several credentials that fit, the one with most left is used; no limit is known beforehand.
//   - When the registry itself says that there is no such thing, or that we may not have it, that is the answer. When a
//     mirror says so, the next endpoint is asked.
//   - Every failure is one *Error, with each step that was tried: which host, which address, what it answered.
//   - What comes from the network is bounded: manifests and lists at 4 MiB, token answers at 1 MiB, error bodies at
//     64 KiB, a pause between two bytes at the stall timeout.
//
// It does not cache content, share requests between callers (tokens apart), or decide what a failure means: that is
// the work of pull and diagnose.
package upstream
