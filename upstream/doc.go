// Package upstream speaks to one registry: it gets its tokens, asks for tags, manifests, blobs and lists, follows its
// redirects, and goes on where a transfer breaks.
//
// It guarantees:
//
//   - A credential or token goes to the endpoint and to token services that the operator named, and to nobody else.
//     One function attaches it; redirects are followed by hand; what leads to another host goes over a transport that
//     knows no credentials.
//   - An address that is not public is dialled only for hosts that the operator named, or where a registry which is
//     itself private redirects to it. It is checked after DNS, on the address that is being dialled.
//   - A manifest asked for by digest has that digest. A Body yields the range it was asked for and nothing but it, or
//     ends with an error. It is not hashed here: a blob's digest is for the flight to verify.
//   - Every failure is one *Error, with each step that was tried: which host, which address, what it answered.
//   - What comes from the network is bounded: manifests and lists at 4 MiB, token answers at 1 MiB, error bodies at
//     64 KiB, a pause between two bytes at the stall timeout.
//
// It does not cache content, share requests between callers (tokens apart), or decide what a failure means: that is
// the work of pull and diagnose.
package upstream
