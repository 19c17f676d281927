// Package faults is the fault matrix: everything real between a client's socket and an upstream's, put together over a
// scripted registry, and broken in one numbered way at a time.
//
//	clients ──> server ──> pull ──> cache, flight ──> store on a disk that may fail
//	  oracle                 └────> upstream ──> scripted registry
//
// Promise: a response ends cleanly only with all the bytes that its header announced, and only if they are right;
// everything else is a visible break. No byte is fetched twice without cause. Faults that can be healed without the client's
// help are not seen by clients. And when the faults are over, a pull works without help.
//
// A trial is a fault, a size, a crowd and what its clients do, all drawn from one seed. It runs in a bubble of
// testing/synctest over a network in memory, so stalls of ten minutes take none, and a trial that leaves a goroutine
// behind fails. The order in which goroutines run is the scheduler's: a seed repeats the trial, not each of its races.
//
//	go test ./internal/faults                              a slice of it
//	go test ./internal/faults -trials 100000 -large 50     as make faults does
//	go test ./internal/faults -only F8 -seed 7 -trials 1   one trial again
//
// Not here: faults that need another process or another machine. The table says where each of them is shown.
package faults
