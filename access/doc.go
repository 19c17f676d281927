// Package access decides which repositories clients may read. The operator's rules say so for the upstreams that have access:
// rules. Content that was first fetched while rules applied stays private after they are removed.
//
// Guarantees:
//   - A repository that no rule names is forbidden, whether it exists or not: to refuse it, nothing is looked up.
//   - The zero Rules and a nil *Rules allow nothing.
//   - That a repository is private is on disk before anything else that was learnt about it, and survives a crash.
//
// Not here: the identity of a client. Clients can't identify themselves yet, so a rule is for every client.
package access
