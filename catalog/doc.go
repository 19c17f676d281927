// Package catalog is what is known of each repository: which digest its tags mean and meant, which content belongs
// to it and by whose word, and when its registry last showed it to everybody.
//
// Promise: a new or moved tag, and membership of content, are on disk when the call returns, and survive a crash. That
// a check found nothing new is kept in memory and written in batches; a crash loses it, and the tag is checked once
// more.
//
// Guarantees:
//   - Reads of what is in use come from memory, which is bounded, and wait for no writer.
//   - Of two words on a tag the later one holds, but "unchanged" by who knew an older state never undoes a move.
//   - Content in a repository has a Standing: that a manifest names it is told apart from what the registry has shown there,
//     and that by whether it took a login. What is known in one repository says nothing of another one.
//   - Records of content that is not in the cache are forgotten (Prune), so that they take as much room as the cache has
//     content for, however much passes through it. A manifest is one record, however many parts it has.
//   - What is on disk and can't be read counts as unknown: it is learnt again from the upstream.
//
// The catalog never says that content is in the cache, and never asks an upstream: pull knows both.
package catalog
