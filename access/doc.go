// Package access is what a client may read. The operator's rules say it for the upstreams that go by them, and what was
// learnt of a repository under them is not given to everybody when they are gone.
//
// Guarantees:
//   - What no rule names is forbidden, whether it is there or not: to say no, nobody has to look.
//   - Rules without a right to anything are the zero Rules, and nil.
//   - That a repository is private is on disk before anything else that was learnt of it, and survives a crash.
//
// Not here: who a client is. Nobody can identify themselves yet, so a rule is for everybody.
package access
