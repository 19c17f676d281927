// Package transfer brings a range of a blob from an upstream, through breaks.
//
// It guarantees:
//
//   - A Body yields the range that it was opened for and nothing but it, or ends with an error. It is not hashed here: the
//     digest of a blob is for its reader to verify. (Answers that claim a Content-Encoding are, to name the cause.)
//   - After a break the same endpoint is asked for the rest first, then the next one, at the byte where it broke.
//   - An endpoint sends at most so many blobs at once. Clients share its turns, and one client that wants many does not keep
//     others from theirs.
//   - A size that only a manifest claims never counts against an endpoint that contradicts it.
//
// It makes no request itself: a Call does, which knows about logins and redirects.
package transfer
