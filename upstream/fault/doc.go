// Package fault has the facts about requests to registries that failed: an Error with each step that was tried, the typed
// causes that diagnosis tells apart, and what an answer that refuses says.
//
// It guarantees:
//
//   - A text of a registry is kept only up to a limit, as one printable line, without what looks like a secret, and without
//     the credentials and tokens that the caller names.
//   - An error body of any of the known shapes is read, whatever its Content-Type says.
//
// It makes no request and does not decide what a failure means for a pull: that is the work of package diagnose.
package fault
