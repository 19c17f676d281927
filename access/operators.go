package access

import (
	"fmt"
	"slices"

	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/oci"
)

// Right is what an operator may do. The zero Right is none.
type Right int

// The rights of operators. The second includes the first.
const (
	Read    Right = iota + 1 // see the state of the mirror, and what is recorded of images
	Operate                  // change it
)

// String is the right as the configuration has it.
func (r Right) String() string {
	switch r {
	case Read:
		return "read"
	case Operate:
		return "operate"
	}
	return fmt.Sprintf("right %d", int(r))
}

// OperatorRule gives a right to some operators.
type OperatorRule struct {
	// Who: names of operators, in which * is any characters.
	Who []string
	// May is the right.
	May Right
	// Images are UPSTREAM/REPOSITORY as in Rule.Pull: the right is for these alone. Empty: it is for all images, and for what is not of
	// an image.
	Images []string
}

// Operators say what each operator may do. The zero Operators, and a nil *Operators, give no right. They are immutable.
type Operators struct{ rules []operatorRule }

type operatorRule struct {
	OperatorRule
	images []pattern
}

// NewOperators makes the rights of rules that have been checked.
func NewOperators(list ...OperatorRule) *Operators {
	o := new(Operators)
	for _, from := range list {
		o.rules = append(o.rules, operatorRule{from, patterns(from.Images)})
	}
	return o
}

// Scope is what an operator may do. All rules that name the operator count.
func (o *Operators) Scope(name string) *Scope {
	s := new(Scope)
	if o == nil || name == "" {
		return s
	}
	for _, r := range o.rules {
		if !slices.ContainsFunc(r.Who, func(who string) bool { return glob.Text(who, name) }) {
			continue
		}
		for right := Read; right <= min(r.May, Operate); right++ {
			s.of[right].all = s.of[right].all || len(r.images) == 0
			s.of[right].images = append(s.of[right].images, r.images...)
		}
	}
	return s
}

// Scope is what one operator may do. The zero Scope, and a nil *Scope, allow nothing. It is immutable.
type Scope struct{ of [Operate + 1]scope }

type scope struct {
	all    bool
	images []pattern
}

// Everything is the scope of an operator that may do all.
func Everything() *Scope {
	return &Scope{[...]scope{Read: {all: true}, Operate: {all: true}}}
}

// Allows reports whether a right is there for a repository.
func (s *Scope) Allows(r Right, repo oci.Repo) bool {
	return s.AllowsAll(r) || s.AllowsSome(r) && fitsOne(s.of[r].images, repo)
}

// AllowsAll reports whether a right is there for all images, and for what is not of an image.
func (s *Scope) AllowsAll(r Right) bool { return s != nil && known(r) && s.of[r].all }

// AllowsSome reports whether a right is there for some images, or for all.
func (s *Scope) AllowsSome(r Right) bool {
	return s != nil && known(r) && (s.of[r].all || len(s.of[r].images) > 0)
}

func known(r Right) bool { return r == Read || r == Operate }
