package upstream

import (
	"io"

	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
	"github.com/registrymirror/mirror/upstream/transfer"
)

// Error and the other facts that a Registry gives are here under the names by which its callers know them: see packages
// fault, limit, endpoint and transfer.
type ( //nolint:revive // each type is documented in its own package
	Error    = fault.Error
	Step     = fault.Step
	StepName = fault.StepName
	Probe    = fault.Probe
	Verdict  = fault.Verdict

	RealmError    = fault.RealmError
	RedirectError = fault.RedirectError
	AwayError     = fault.AwayError
	AddressError  = fault.AddressError
	ProxyError    = fault.ProxyError
	QueueError    = fault.QueueError
	ContentError  = fault.ContentError
	ContentKind   = fault.ContentKind

	Budget = limit.Budget
	Spent  = limit.Spent
	Use    = limit.Use

	Exchange       = endpoint.Exchange
	EndpointState  = endpoint.State
	EndpointStatus = endpoint.Status

	Body = transfer.Body
)

// NewBody makes a body of bytes that come from somewhere else than a Registry.
func NewBody(rc io.ReadCloser, size int64, host string) *Body {
	return transfer.NewBody(rc, size, host)
}

// The states of an endpoint.
const (
	EndpointUnknown  = endpoint.StateUnknown
	EndpointUp       = endpoint.StateUp
	EndpointDegraded = endpoint.StateDegraded
	EndpointOpen     = endpoint.StateOpen
)

// ErrNotAsked is in the Step of a request that was not made: see fault.ErrNotAsked.
var ErrNotAsked = fault.ErrNotAsked

// The steps.
const (
	StepDNS          = fault.StepDNS
	StepDial         = fault.StepDial
	StepProxy        = fault.StepProxy
	StepTLS          = fault.StepTLS
	StepPing         = fault.StepPing
	StepToken        = fault.StepToken
	StepManifest     = fault.StepManifest
	StepBlobRegistry = fault.StepBlobRegistry
	StepBlobHost     = fault.StepBlobHost
	StepBody         = fault.StepBody
	StepList         = fault.StepList
	StepQueue        = fault.StepQueue
)

// The shapes of error bodies.
const (
	BodyErrors  = fault.BodyErrors
	BodyDetails = fault.BodyDetails
	BodyMessage = fault.BodyMessage
	BodyText    = fault.BodyText
	BodyHTML    = fault.BodyHTML
	BodyXML     = fault.BodyXML
)

// The ways in which a successful answer can be wrong.
const (
	ContentDigest      = fault.ContentDigest
	ContentSize        = fault.ContentSize
	ContentRange       = fault.ContentRange
	ContentLength      = fault.ContentLength
	ContentEncoding    = fault.ContentEncoding
	ContentNextPage    = fault.ContentNextPage
	ContentTooLarge    = fault.ContentTooLarge
	ContentNotManifest = fault.ContentNotManifest
	ContentNotRegistry = fault.ContentNotRegistry
	ContentStalled     = fault.ContentStalled
	ContentSlow        = fault.ContentSlow
)

// The verdicts.
const (
	VerdictRepositoryMissing = fault.VerdictRepositoryMissing
	VerdictTagMissing        = fault.VerdictTagMissing
	VerdictLoginNeeded       = fault.VerdictLoginNeeded
	VerdictUnknown           = fault.VerdictUnknown
)
