// Package doctor walks the pull of one image step by step, and says why the first step that breaks does so, and what to do.
//
// Promise: every step is made by the code that pulls (upstream.Registry's Inspect), over connections of its own, with
// nothing remembered; diagnose.Explain says what a step's error means, as for a pull that failed. A step that worked says
// what it has shown; the steps after one that broke are listed as not tried.
//
// It does not pull: a layer costs one byte, and nothing is cached. Its texts hold no secret: they are what
// diagnose.Clean leaves.
package doctor
