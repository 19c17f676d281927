// Package disk is a cache.Store on a directory of one file system.
//
// Promise: whatever Open returns is either exactly what Commit was given, or was damaged behind our back after it was
// known to be on disk, which the scrubber finds; after a crash nothing is served that was not known to be on disk or
// hashed again.
//
//	LOCK                      held by flock: one process per folder; says who
//	boot.json                 whether we stopped in peace; the boot of the machine, for where there are no marks
//	blobs/sha256/ab/abcd...   content; the name is the digest of the bytes
//	spool/<random>            content on its way; emptied at Open, but for what has a record
//	spool/<random>.json       the record of an unfinished download that a stop in order has left
//	scrub.json                how far the scrubber has come; disposable
//
// # Durability
//
// A cache's content can be fetched again and proves itself by its digest, so a commit need not wait for the disk. By
// default it doesn't: Commit renames, and every 30 seconds one syncfs covers all commits since the last; then each of
// them gets a mark (the extended attribute user.mirror.synced). The state of a blob is therefore in its own inode:
//
//	commit ──> fresh ──syncfs, mark──> known to be on disk
//
// Unless Close came first, content without the mark is suspect when the next process begins: it is hashed, as the disk
// has it, before it is first served, and in the background; what is wrong is removed. That is some 30 seconds' worth.
// It is so even where the machine runs on: a disk that has failed may have been mounted anew meanwhile. Where the file
// system keeps no extended attributes the boot id has to do: while it is the same all content is trusted, else all of
// it is suspect, which costs time but no right byte.
//
// A failed syncfs leaves it open which bytes are lost, and later reads don't tell. So all fresh content goes with it,
// and what is in the spool at that time does not commit. What can't be removed is not served, and tried again.
//
// Unfinished downloads outlive a stop in order, with a record of what is there, and no other: after a crash nobody knows
// which bytes of a spool are on disk, and no digest tells before the end.
//
// Strict durability syncs each file and its folder in Commit, and the folders above where they may not be on disk.
//
// Nothing is committed before boot.json says that this process is using the folder: else a crash would be taken for the
// stop in peace before.
//
// # What it does not do
//
// It keeps no budget and knows no recency: that is package cache. It doesn't verify what it is told to commit; the
// caller has. It doesn't follow symbolic links and doesn't touch files it did not make: those are ignored and logged.
package disk
