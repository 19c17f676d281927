// Package catalog is what is known of each repository: which digest its tags mean and meant, and which content belongs
// to it.
//
// Promise: a new or moved tag, and membership of content, are on disk when the call returns, and survive a crash. That
// a check found nothing new is kept in memory and written in batches; a crash loses it, and the tag is checked once
// more.
//
// Guarantees:
//   - Reads of what is in use come from memory, which is bounded, and wait for no writer.
//   - Of two words on a tag the later one holds, but "unchanged" by who knew an older state never undoes a move.
//   - What one repository refers to is no member of another, on the same upstream or elsewhere.
//   - What leads to nothing that is in the cache is forgotten (Prune), so that references take as much room as the cache
//     has content for, however much passes through it.
//   - What is on disk and can't be read counts as unknown: it is learnt again from the upstream.
//
// The catalog never says that content is in the cache, and never asks an upstream: pull knows both.
package catalog
