// Package diagnose turns an error into a Finding: the reason why a pull failed, the evidence, and the remedy.
//
// Promise: a reason is given only when a fact separates it from similar ones. If an upstream makes two causes look
// the same (missing or private, rejected or not allowed), the reason says that it is undecided.
//
// Guarantees:
//   - Explain reads typed facts: *fault.Error with its steps, status and code, the types of net, crypto/x509 and
//     syscall below it, and the types of our own packages. It never matches the text of our own errors. The
//     message of a registry is read only if registries do not separate two causes by status and code.
//   - Every text of a Finding is one line of printable characters without URL queries, so that it can go into a
//     header, a log or an Event as it is.
//   - Explain is deterministic and does no I/O. It looks at the clock for one thing: whether a certificate that is not
//     valid has expired or is not yet valid.
//
// The table of reasons (reasons.go) is the one place for the constants of a reason: class, the status and code that a
// client gets, and the advice if only the text of a client is known. Package server answers by it, symptom explains by it,
// and tests hold the pages and the list in docs/failures to it.
//
// Not here: writing an answer (server), counting and remembering (journal), reading the text of clients (symptom).
package diagnose
