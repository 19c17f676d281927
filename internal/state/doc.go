// Package state keeps small facts that outlive a restart: tables with compare-and-swap on one file, state.db.
//
//	writers ──> queue ──> one transaction for all that wait ──> fsync ──> each gets its own result
//	readers ──> memory map, beside the writers
//
// Promise: a write that returned nil is on disk, and whatever happened to the file, Open returns a state that works: the file
// itself, else the last good copy, else an empty one. It logs what was lost.
//
// Guarantees:
//   - Concurrent writers share a transaction and its fsync; no writer waits for a timer. Transactions are bounded, in items
//     and bytes: large writes come in pieces and take turns, and a small one waits for no more than the piece that is being
//     written.
//   - Tables that can be learned again have a budget each: above it, items of the owners with most in that table are removed.
//     The file is written again at a start that finds it mostly free, and so is the last good copy.
//   - A large file is open at once: its expendable tables are checked in the background, or by the first write. Reads check what
//     they read until then, and writes wait.
//   - A copy replaces the last good one only when it has been checked, so damage never spreads to it.
//   - An item that is not what was written, under that key in that table, is never returned. Open puts the one of the last
//     good copy in its place.
//   - A damaged page or a failing disk is an error of the call that met it, not the end of the process. After a write met
//     damage, all writes fail until the restart, which opens the last good copy.
//
// What it does not do: it does not know what keys and values mean, only the owner of a table does. It does not share the
// file with another process: the cache's lock keeps that away, and Open fails when the file is locked.
package state
