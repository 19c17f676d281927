// Package catalog has the records of each repository: which digest its tags mean and meant, which content belongs to it and
// how that is known, and when its registry last showed it to all clients.
//
// Promise: a new or moved tag, and membership of content, are on disk when the call returns, and survive a crash. The times
// of checks that found nothing new are kept in memory and written in batches; after a crash such a tag is checked once
// more.
//
// Guarantees:
//   - Reads of tags and content in use come from memory, which is bounded, and wait for no writer.
//   - Of two reports on a tag the later one counts, but a report "unchanged" from a caller with an older state does not undo a
//     newer digest.
//   - Content in a repository has a Standing: whether only a manifest names it, or the registry has shown it there, and, for
//     shown content, whether that needed a login. A record of one repository says nothing of another one.
//   - Records of content that is not in the cache are removed (Prune), so that they take no more room than the cache has
//     content for, however much passes through it. A manifest is one record, however many parts it has.
//   - A record that can't be read counts as unknown: it is learnt again from the upstream.
//
// The catalog never says that content is in the cache, and never asks an upstream: pull knows both.
package catalog
