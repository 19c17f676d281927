// Package boltfile opens files of bbolt that may be damaged.
//
// Promise: whatever the file holds (bytes of a torn write, another program's, pages that point in circles), Open returns a
// database that can be used, or an error that says whether the file is damaged or the disk fails.
//
// bbolt trusts its file: on damaged pages it panics, faults on another goroutine than the caller's, recurses without end or
// takes all memory, and only the panic can be caught. So Open locks the file, reads it page by page with every length
// checked, and only then has bbolt map it. Damage that comes later is a panic or a fault of the call that meets it: View,
// Update and Close turn these into a *DamageError.
//
// A Reader reads a file that is not checked yet, without bbolt: it checks the pages on its way, one by one.
//
// What it does not do: it sets nothing aside and restores nothing, which is for the owner of the file to decide.
package boltfile
