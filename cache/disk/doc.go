// Package disk is a cache.Store on a directory of one file system.
//
// Promise: content that Open returns is exactly what Commit was given, unless the disk damaged it after it was known to be on
// disk, which the scrubber finds; after a crash nothing is served that was not known to be on disk or hashed again.
//
//	LOCK                      held by flock: one process per folder; names it
//	boot.json                 whether the last stop was clean; the boot of the machine, for use where there are no marks
//	blobs/sha256/ab/abcd...   content; the name is the digest of the bytes
//	spool/<random>            content on its way; at Open, files without a record are removed
//	spool/<random>.json       the record of an unfinished download, written by a clean stop
//	scrub.json                the progress of the scrubber; may be deleted
//
// # Durability
//
// A cache's content can be fetched again and proves itself by its digest, so a commit need not wait for the disk. By
// default it doesn't: Commit renames, and every 30 seconds one syncfs covers all commits since the last; then each of
// them gets a mark (the extended attribute user.mirror.synced). The state of a blob is therefore in its own inode:
//
//	commit ──> fresh ──syncfs, mark──> known to be on disk
//
// After a crash, content without the mark is suspect: it is hashed, as the disk has it, before it is first served, and in the
// background; damaged content is removed. That is the content of some 30 seconds.
// This also holds if only the process crashed: a disk that has failed may have been mounted again meanwhile. If the file
// system keeps no extended attributes, the boot id is used instead: while it is the same all content is trusted, else all
// of it is suspect, which costs time but loses no good content.
//
// After a failed syncfs it is unknown which bytes are lost, and later reads don't tell. So all fresh content is removed, and
// spools of that time do not commit. Content that can't be removed is not served, and its removal is tried again.
//
// Unfinished downloads outlive only a clean stop, with a record of their bytes: after a crash it is unknown which bytes of
// a spool are on disk, and its digest can't be checked before its end.
//
// Strict durability syncs each file and its folder in Commit, and the folders above that may not be on disk.
//
// Nothing is committed before boot.json says that this process uses the folder: otherwise a crash would look like the clean stop
// before it.
//
// # What it does not do
//
// It keeps no budget and knows no recency: that is package cache. It doesn't verify content at Commit; the caller has. It
// doesn't follow symbolic links and doesn't touch files that it did not make: those are ignored and logged.
package disk
