// Package point names the moments in the life of content and of facts at which a process may be killed without loss.
//
//	point.Hit("disk/renamed")     a line in the code, which a normal build compiles to nothing
//
// Promise: built with the tag crashpoints, the process kills itself with SIGKILL when it comes to the point that the
// environment variable MIRROR_CRASH names: NAME, or NAME:N for the Nth time that it comes there. Nothing is done after that:
// no deferred call, no flush.
//
// Guarantees: each name stands in Names and in one place of the code, which a test compares. What the kernel has is not lost:
// only a power loss does that, and no process can do it to itself.
package point

// Names are all points, in the order in which content and facts meet them.
var Names = []string{
	// A process begins.
	"disk/locked",          // the folder is ours, the former holder's name still stands in the lock file
	"disk/swept",           // a file that a former process left in the spool is gone; there may be more
	"disk/note",            // the record of this start, or this stop, is on disk under another name
	"disk/noted",           // it has its name, and the folder is not synced
	"disk/suspect",         // content from before a crash of the machine is about to be hashed
	"disk/suspect-hashed",  // it is hashed, and not removed or served yet
	"disk/suspect-removed", // it was wrong and is gone
	"disk/settled",         // all of it is hashed and synced, and that is not recorded
	"disk/resumed",         // an unfinished download of the process before is open again, its record is still there
	"recency/aside",        // a damaged recency.bin is set aside, and there is no new one
	"recency/snapshot",     // a new one is on disk under another name
	"recency/renamed",      // it has its name, and the folder is not synced
	"state/aside",          // a damaged state is set aside, and the last good copy is not in its place
	"cache/loaded",         // what is stored is known

	// A blob comes.
	"disk/spooled",       // its spool has a name and nothing in it
	"disk/allocated",     // and its space
	"flight/opened",      // the source has agreed, nothing has come
	"flight/wrote",       // bytes are in the spool: the first, some, the last
	"flight/hashing",     // some are hashed
	"flight/fetched",     // the last is in the spool
	"flight/hashed",      // the hash is complete and compared with nothing
	"flight/right",       // the digest is right, readers have been told, nothing is kept
	"disk/commit",        // the commit begins
	"disk/trimmed",       // the spool has its size
	"disk/folder",        // the folder for it is there
	"disk/synced",        // durability strict: the spool is on disk, with its mark
	"disk/renamed",       // it has its name
	"disk/folder-synced", // durability strict: and that is on disk
	"flight/committed",   // the cache knows of it

	// A manifest comes: bytes, references, tag.
	"pull/fetched",    // its bytes are in memory
	"cache/put",       // in a spool
	"pull/put",        // stored
	"catalog/learn",   // what it refers to is about to be recorded
	"catalog/learnt",  // and is
	"pull/learnt",     // the tag is not
	"catalog/move",    // the tag is about to be recorded
	"catalog/moved",   // and is
	"pull/recorded",   // all is, and no caller has been told
	"catalog/flushed", // the time of a tag's check is recorded
	"state/tx",        // a transaction of state.db begins
	"state/in-tx",     // all is in it, and nothing is committed
	"state/committed", // it is on disk

	// Work in the background.
	"disk/sync",          // fresh content is about to be synced
	"disk/syncfs",        // it is, and has no mark
	"disk/marked",        // a piece of it has; there may be more
	"cache/evict",        // a victim has been chosen
	"disk/unlink",        // its file is about to go
	"disk/unlinked",      // it is gone
	"cache/evicted",      // and the cache knows
	"recency/append",     // a batch is about to be appended to recency.bin
	"recency/appended",   // it is, and is not synced
	"recency/synced",     // it is on disk
	"state/copied",       // the daily copy of state.db is made under another name
	"state/copy-checked", // and found good
	"state/copy-renamed", // it has its name, and the folder is not synced

	// A process changes or ends.
	"serve/reload",   // a new configuration is read
	"serve/reloaded", // and in use
	"disk/kept",      // stopping in order: an unfinished download has its record, and nothing of it is synced
	"disk/closing",   // all is synced, and the clean mark is not made
	"disk/clean",     // it is made
	"serve/stopped",  // all is closed, the lock is given back

	// The configuration of a node is written, and taken back.
	"node/folder",   // the folder of a registry is there
	"node/part",     // half of a file is written under another name
	"node/written",  // all of it is, and synced
	"node/named",    // it has its name, and the folder is not synced
	"node/kept",     // the file that was there is copied aside, and ours is not written
	"node/swept",    // ours is about to be taken back; nothing unfinished is left
	"node/restored", // the file that was there is back
	"node/removed",  // ours is gone, and its folder is not
}
