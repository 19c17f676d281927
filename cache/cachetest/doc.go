// Package cachetest holds what every cache.Store and cache.Index must pass, and fakes of both in memory.
//
// TestStore and TestIndex are the conformance suites: an implementation calls them from a test of its own. Store and
// Index are kept in memory and pass the suites; nothing in them waits for anything but their own locks, so they work in
// a synctest bubble. Faulty makes the calls of any store fail as disks do. Check compares a cache with its store.
package cachetest
