package diagnose

import (
	"cmp"
	"slices"
	"time"

	"github.com/distribution/distribution/v3/registry/api/errcode"
)

// Reason is a cause with a page of its own: kebab-case, stable. The table of reasons, in reasons.go, has all that is constant
// for one.
type Reason string

// Origin is how a reason comes to light.
type Origin int

// The origins.
const (
	InRequest Origin = iota // the error of a request: Explain or the front end gives the reason
	Inferred                // requests that did not come: the journal gives the reason
	OnNode                  // the text of a client: mirror explain alone gives the reason
)

// Answer is the answer that a client gets for a reason of a request.
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

// byReason is the table by reason.
var byReason = func() map[Reason]properties {
	rows := make(map[Reason]properties, len(reasons))
	for _, p := range reasons {
		rows[p.reason] = p
	}
	return rows
}()

// row is the row of a reason, that of Unknown for a reason that is not in the table.
func (r Reason) row() properties {
	if p, ok := byReason[r]; ok {
		return p
	}
	return byReason[Unknown]
}

// Class returns the class that the reason belongs to.
func (r Reason) Class() Class { return r.row().class }

// Origin returns how the reason comes to light.
func (r Reason) Origin() Origin { return r.row().origin }

// Answer returns the answer that a client gets for the reason, that of InternalError for a reason that no request has.
func (r Reason) Answer() Answer { return cmp.Or(r.row().answer, broken) }

// Advice returns the sentence about the reason where only the text of a client is known.
func (r Reason) Advice() Advice { return r.row().advice }

// Page returns where the page about the reason is, below the root of the repository and of the listeners.
func (r Reason) Page() string { return "docs/failures/" + string(r) + ".md" }

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
