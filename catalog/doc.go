// Package catalog has the records of each repository: which digest its tags mean and meant, and which client got which; which
// content belongs to it and how that is known; when its registry last showed it to all clients; and the pins.
//
//	ledger    tags: periods of digests, how each was learnt, when the tag was last checked and last said to have moved
//	clients   which client last got which digest of a tag
//	pins      tags that are a digest whatever their registry says
//	content   content in repositories, and repositories
//
// Judge, Choose and Copies decide by the record of a tag and its Policy: whether the upstream is asked, and which digest is served.
//
// Promise: a new or moved tag, an expired one, a pin, and membership of content, are on disk when the call returns, and survive a
// crash. The times of checks that found nothing new, digests that a registry has only reported, descriptions of images and the
// clients of tags are kept in memory and written in batches; after a crash such a tag is checked once more.
//
// Guarantees:
//   - Reads of tags and content in use come from memory, which is bounded, and wait for no writer.
//   - Of two reports on a tag the later one counts, but a report "unchanged" from a caller with an older state does not undo a
//     newer digest.
//   - A tag that has expired is due until a digest is recorded with a later time. Its age does not change by that.
//   - The history is exact for the newest periods, and becomes coarser with age; the first one stays.
//   - Pins are looked up in memory alone, and their table is never short of room for others.
//   - Content in a repository has a Standing: whether only a manifest names it, or the registry has shown it there, and, for
//     shown content, whether that needed a login. A record of one repository says nothing of another one.
//   - Records of content that is not in the cache are removed (Prune), so that they take no more room than the cache has
//     content for, however much passes through it. A manifest is one record, however many parts it has.
//   - A record that can't be read counts as unknown: it is learnt again from the upstream.
//
// The catalog never says that content is in the cache, and never asks an upstream: pull knows both.
package catalog
