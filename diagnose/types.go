package diagnose

import "time"

// Class answers the coarse question: whose problem is it?
type Class string

// The classes.
const (
	ClassNetwork   Class = "network"
	ClassTLS       Class = "tls"
	ClassAuth      Class = "auth"
	ClassMissing   Class = "missing"
	ClassUndecided Class = "undecided"
	ClassLimit     Class = "limit"
	ClassUpstream  Class = "upstream"
	ClassMirror    Class = "mirror"
	ClassClient    Class = "client"
	ClassUnknown   Class = "unknown"
)

// Reason is a cause with a page of its own: kebab-case, stable.
type Reason string

// Finding is why a pull failed: cause, evidence, remedy.
type Finding struct {
	Reason   Reason
	Class    Class
	Summary  string   // one line that stands alone: what happened, at which host
	Short    string   // Summary without the image, for where that stands beside it; empty: Summary has no more
	Remedy   string   // what to do next
	Alone    string   // the same, where clients have nowhere else to go; empty: Remedy fits there, too
	Evidence []string // facts, one a line
	Declined bool     // a refusal that leaves the node free to go on to the registry itself

	Upstream   string        // canonical name; empty where no upstream was involved
	Host       string        // host[:port] at which it broke; may differ from the upstream: a token service, a CDN
	Stage      string        // step of the pull that broke, as upstream.StepName has it; may be empty
	Status     int           // the upstream's HTTP status, 0 where it gave none
	RetryAfter time.Duration // what the upstream asked for, 0: nothing
}
