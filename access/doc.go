// Package access decides which repositories which clients may read. The operator's rules say so for the upstreams that have
// access: rules. Names bound which repositories an upstream is asked for at all. Content that was first fetched while rules applied
// stays private after they are removed. Grants are the rights that registries have shown to clients' own logins, for upstreams with
// access: client.
//
// Guarantees:
//   - A repository that no rule names is forbidden, whether it exists or not: to refuse it, nothing is looked up.
//   - The zero Rules and a nil *Rules allow nothing.
//   - Of a client's login no more is kept than a hash with a key of the process, and a bounded number of these.
//   - That a repository is private is on disk before anything else that was learnt about it, and survives a crash.
//
// Not here: how a client shows its identity (identity).
package access
