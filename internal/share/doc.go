// Package share divides requests and bandwidth among clients.
//
//	Limits   the limits, and the clients that use them now
//	Request  one request of a client: it waits for its turn, and for each piece of its body
//
// Two limits hold for each client: requests at once, and bytes a second. One holds for all of them: bytes a second, which clients that
// have something to send get in turn, a piece each. So a client with a hundred requests has as much as one with a single request, and
// what a client leaves is for the others.
//
// Guarantees: a client has no more requests at once than it may have; requests of a client get their turns in their order; a client's
// state lives as long as its requests, and for the moment in which its bandwidth recovers, for maxIdle clients at most.
//
// Not here: what a client is (package client), and the answer to a request that had no turn (server).
package share
