package diagnose

import (
	"slices"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Reason is a cause with a page of its own: kebab-case, stable. The table of reasons, in reasons.go, has all that is constant
// for one.
type Reason string

// Origin says what shows that a pull failed for a reason.
type Origin int

// The origins.
const (
	InRequest Origin = iota // the error of a request: Explain or the front end gives the reason
	Inferred                // requests that did not come: the journal gives the reason
	OnNode                  // the text of a client: mirror explain alone gives the reason
)

// Answer is what a client gets for a reason of a request.
type Answer struct {
	Status int
	// Code is one that every client knows: containerd prints others as "unknown".
	Code errcode.ErrorCode
	// RetryAfter is sent where the upstream did not ask for another time. Zero: the header is not sent.
	RetryAfter time.Duration
}

// Advice is the meaning of a reason and the remedy where only the text of a client is known, as for mirror explain. The
// placeholders {host}, {registry}, {image}, {repository}, {such}, {address}, {name} and {provider} are filled in by the reader.
type Advice struct {
	Summary string
	Remedy  string
	Command string // that shows the cause or mends it; empty: none does
}

var rows = func() map[Reason]*properties {
	byReason := make(map[Reason]*properties, len(reasons))
	for i := range reasons {
		byReason[reasons[i].reason] = &reasons[i]
	}
	return byReason
}()

// Reasons returns every reason, in the order of the table.
func Reasons() []Reason {
	all := make([]Reason, len(reasons))
	for i, p := range reasons {
		all[i] = p.reason
	}
	return all
}

// Classes returns every class that a reason has, sorted.
func Classes() []Class {
	all := make([]Class, len(reasons))
	for i, p := range reasons {
		all[i] = p.class
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// Class returns the class that the reason belongs to, ClassUnknown for a reason that is not in the table.
func (r Reason) Class() Class {
	if p, ok := rows[r]; ok {
		return p.class
	}
	return ClassUnknown
}

// Origin returns what shows the reason, OnNode for a reason that is not in the table.
func (r Reason) Origin() Origin {
	if p, ok := rows[r]; ok {
		return p.origin
	}
	return OnNode
}

// Answer returns what a client gets for the reason, that of InternalError for a reason without an answer.
func (r Reason) Answer() Answer {
	if p, ok := rows[r]; ok && p.answer != (Answer{}) {
		return p.answer
	}
	return broken
}

// Advice returns what to tell about the reason where only the text of a client is known.
func (r Reason) Advice() Advice {
	if p, ok := rows[r]; ok {
		return p.advice
	}
	return Advice{}
}

// Page returns where the page about the reason is, below the root of the repository and of the listeners.
func (r Reason) Page() string { return "docs/failures/" + string(r) + ".md" }
