// Package guard names the checks on which the promises hang, so that the tests can be tested: a build in which they are
// variables (go build -overlay) goes without one of them, and some test has to turn red. In every other build each of them is the
// constant true, and costs nothing.
//
// It is not a switch for operators: released binaries are built without an overlay.
package guard

// The guards, each with the promise that it keeps.
const (
	Size         = off != "size"         // a source that says another size is not believed
	Digest       = off != "digest"       // nothing is kept or ended well with another digest
	HoldBack     = off != "holdback"     // the last 64 KiB wait for the digest
	ContentRange = off != "contentrange" // a part of a blob is the part that was asked for
	Realm        = off != "realm"        // tokens are asked for where the operator said
	Address      = off != "address"      // a host that the operator did not name is dialled at public addresses alone
	Embedded     = off != "embedded"     // an IPv6 address that stands for an IPv4 address is judged as that one, too
	Claim        = off != "claim"        // an endpoint that contradicts a publisher's manifest is not at fault
	Lease        = off != "lease"        // what a pull will ask for next is not evicted
	Arrival      = off != "arrival"      // a size that is only claimed reserves nothing, and evicts nothing
	Relay        = off != "relay"        // a slow source does not slow down readers that have another one
	Unread       = off != "unread"       // what is fetched with no reader left is bounded by client
	Held         = off != "held"         // slow readers don't keep new content from being stored
	Reservation  = off != "reservation"  // a download has its room before it begins
	Turns        = off != "turns"        // one client does not keep all transfers of an endpoint
	Membership   = off != "membership"   // that content is cached gives no client a right to read it
	Reference    = off != "reference"    // a manifest that names content does not prove that its repository has it
	Own          = off != "own"          // under access: client a login reads what its registry has shown to it, and nothing else
	Command      = off != "command"      // a command to paste holds no word of a foreign text that a shell would run
	Public       = off != "public"       // under access: public our credentials read nothing that is private
	Site         = off != "site"         // a page of another site can't use the operator's side through a browser
	Whole        = off != "whole"        // half a configuration is not used
	Seat         = off != "seat"         // one client's connections leave room for others'
	Flood        = off != "flood"        // HTTP/2 frames without requests, and resets, end a connection
	Share        = off != "share"        // what one client fills is not taken from another
	Away         = off != "away"         // a registry that the endpoint sends on to is asked for a token where the operator named it
	Pace         = off != "pace"         // a document that comes too slowly is given up
	Limits       = off != "limits"       // a client has no more requests at once, and no more bandwidth, than it may have
	Memory       = off != "memory"       // documents have their room before they are read
)
