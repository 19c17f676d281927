// Package transfer brings a range of a blob from an upstream, through breaks.
//
// It guarantees:
//
//   - A Body yields the range that it was opened for and nothing but it, or ends with an error. It is not hashed here: the
//     digest of a blob is for its reader to verify. (It is hashed only if an answer claims a Content-Encoding, so that the
//     error can name the cause.)
//   - After a break the same endpoint is asked for the rest first, then the next one, at the byte where it broke.
//   - An endpoint sends at most maxTransfers blobs at once, and a quarter more of blobs up to 1 MiB. Clients share its turns, and
//     one client that wants many does not keep others from theirs. A download that moves there from another endpoint in the
//     middle of a blob does not wait, and may exceed the number.
//   - A transfer for background work is in no client's way: see background.go.
//   - A size that only a manifest claims never counts against an endpoint that contradicts it.
//
// It makes no request itself: a Call does, which knows about logins and redirects.
package transfer
