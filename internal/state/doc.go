// Package state keeps small facts that outlive a restart: tables with compare-and-swap on one file, state.db.
//
//	writers ──> queue ──> one transaction for all that wait ──> fsync ──> each gets its own result
//	readers ──> memory map, beside the writers
//
// Promise: a write that returned nil is on disk, and whatever happened to the file, Open gives a state to go on with:
// the file itself, else the last good copy, else an empty one, and it logs what was lost.
//
// Guarantees:
//   - Writers that meet share a transaction and its fsync; no writer waits for a timer. Transactions are bounded, in items and
//     bytes: large writes come in pieces and take turns, and a small one waits for no more than the piece that is being
//     written.
//   - Tables that can be learnt anew have a budget each: above it, the owners with most in that table make room. The file is written anew at a start that
//     finds it mostly free, and the last good copy likewise.
//   - A copy replaces the last good one only when it has been checked, so damage never spreads to it.
//   - An item that is not what was written, under that key in that table, is never read. Open puts that of the last good
//     copy in its place.
//   - A damaged page or a failing disk is an error of the call that met it, not the end of the process. After a write
//     met one, all writes fail until the restart, which opens the last good copy.
//
// Not here: what keys and values mean, which the owner of a table knows alone. Two processes on one file: the cache's
// lock keeps the second away, and Open fails when the file is locked.
package state
