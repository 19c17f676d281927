// Package warm pulls images ahead of time: jobs, their plans, and the keeps of what they have fetched.
//
//	Submit ──► queued ──► manifests of each image ──► does it fit? ──► blobs, each once ──► done, kept for a time
//	                          │ waits for a rate window,     │ no: refused, and no blob was asked for
//	                          │ or for a registry            └──► failed, with the numbers
//	                          └──► missing, forbidden: that image has failed, the others go on
//
// Promise: a job that was accepted goes on after a restart, fetches nothing that is here already, and says of each image that
// it did not bring why, and what to do about it.
//
// Guarantees:
//   - A blob is fetched once, however many images and jobs have it. The number of blobs on their way is bounded, and so is the
//     number of goroutines, however many jobs there are. Jobs take turns.
//   - A job waits for a rate window without end, and for a registry that is down, or a full disk, up to Options.Patience. What
//     does not change by waiting is a failure at once.
//   - What jobs keep, with what is in use, never takes more room than it may: a job that is larger is refused before one of its
//     blobs is asked for, with the numbers.
//   - A reader of Watch that is slow gets the latest state, and holds up nothing.
//
// One mutex guards all jobs; no network and no disk is used under it. The goroutine of Run chooses what is done next, with one
// goroutine for each manifest tree or blob that is being fetched; a second one writes what has changed to the table.
//
// A cancel ends the downloads that no other job wants, and all keeps of the job. What has come stays in the cache, as other
// content does, until it is evicted.
//
// What it does not do: it makes no request itself, and knows no rights, limits and retries of registries: that is pull's. That
// no pull of a client waits behind a job is a promise of pull, upstream/transfer and cache/flight.
package warm
