// Package catalog has the records of each repository: which digest its tags mean and meant, which content belongs to it and
// how that is known, and when its registry last showed it to all clients.
//
// Promise: a new or moved tag, and membership of content, are on disk when the call returns, and survive a crash. The times
// of checks that found nothing new are kept in memory and written in batches; after a crash such a tag is checked once
// more.
//
// Guarantees:
//   - Reads of tags and content in use come from memory, which is bounded, and wait for no writer.
//   - Of two reports on a tag the later one counts, but "unchanged" of a caller that knew an older state never undoes a move.
//   - Content in a repository has a Standing: content that a manifest names is distinct from content that the registry has
//     shown there, and that by whether it took a login. A record of one repository says nothing of another one.
//   - Records of content that is not in the cache are removed (Prune), so that they take no more room than the cache has
//     content for, however much passes through it. A manifest is one record, however many parts it has.
//   - A record that can't be read counts as unknown: it is learnt again from the upstream.
//
// The catalog never says that content is in the cache, and never asks an upstream: pull knows both.
package catalog
