// Package client identifies clients by their connections and requests.
//
//	Name      what logs and records call it: the node's name, else its address
//	Identity  what a client has shown of itself, for rules
//	Source    the address by which limits are counted
//	Proxies   the networks of trusted proxies, which give the client's address in X-Forwarded-For or the PROXY protocol
//	Preface   the PROXY protocol's header at the beginning of a connection
//
// Promise: a name is a label and never a right, since a client chooses it. A source can't be chosen: it is the address of the
// connection, or the one that a trusted proxy gives.
//
// Not here: how a client shows its identity (identity), what it may read (access), and how many connections it may have (server).
package client
