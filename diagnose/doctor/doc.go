// Package doctor walks the pull of one image step by step, and says of the first one that breaks why, and what to do.
//
// Promise: every step is made by the code that pulls (upstream.Registry's Examine), over connections of its own, with
// nothing remembered; what a step's error means is diagnose.Explain's word, as of a pull that failed. A step that worked
// says what it has shown; what comes after one that broke is said not to have been tried.
//
// It does not pull: a layer costs one byte, and nothing is cached. Its texts hold no secret: they are what
// diagnose.Clean leaves.
package doctor
