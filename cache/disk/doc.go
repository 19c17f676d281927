// Package disk is a cache.Store on a directory of one file system.
//
// Promise: whatever Open returns is either exactly what Commit was given, or was damaged behind our back while no
// machine crashed; after a crash of the machine nothing is served that was not known to be on disk or hashed again.
//
//	LOCK                      held by flock: one process per folder; says who
//	boot.json                 the boot of the machine whose unsynced content is trusted; whether we stopped in peace
//	blobs/sha256/ab/abcd...   content; the name is the digest of the bytes
//	spool/<random>            content on its way; emptied at Open
//
// # Durability
//
// A cache's content can be fetched again and proves itself by its digest, so a commit need not wait for the disk. By
// default it doesn't: Commit renames, and every 30 seconds one syncfs covers all commits since the last; then each of
// them gets a mark (the extended attribute user.mirror.synced). The state of a blob is therefore in its own inode:
//
//	commit ──> fresh ──syncfs, mark──> known to be on disk
//
// When the process dies, the page cache still has all of it: nothing is lost. When the machine dies, which the changed
// boot id tells unless Close came first, content without the mark is suspect: it is hashed before it is first served,
// and in the background; what is wrong is removed. Where the file system keeps no extended attributes all content is
// suspect then, which costs time but no right byte. A failed syncfs leaves it open which bytes are lost, and later
// reads don't tell, so it takes all fresh content with it.
//
// Strict durability instead syncs each file and its folder in Commit.
//
// # What it does not do
//
// It keeps no budget and knows no recency: that is package cache. It doesn't verify what it is told to commit; the
// caller has. It doesn't follow symbolic links and doesn't touch files it did not make: those are ignored and logged.
package disk
