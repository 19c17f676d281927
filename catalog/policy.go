package catalog

import (
	"regexp"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/glob"
)

// Policy is how fresh a tag must be, and which of its digests it is served with.
type Policy struct {
	MaxAge       time.Duration // younger copies are served without asking
	Wait         time.Duration // how long a pull waits for the check of an older copy
	StaleIfError time.Duration // how old a copy may be and still be served when the upstream does not answer
	// MinAge is how long a digest must have been known before the tag is served with it. 0: not at all.
	MinAge time.Duration
	// HoldUnknown refuses a tag of which no digest is known for MinAge. False: it is served.
	HoldUnknown bool
	// Immutable says that the tag never moves: it is served with the first digest that was seen.
	Immutable bool
	// ServeStaleFirst says that a copy older than MaxAge is served at once, and checked meanwhile.
	ServeStaleFirst bool
	// DropDeleted says that a tag which the upstream no longer has is no longer served, nor its content. False: it is
	// served for as long as StaleIfError allows.
	DropDeleted bool
}

// Policies are the policies of an upstream's tags.
type Policies struct {
	Base      Policy          // of tags that no pattern matches
	Patterns  []PatternPolicy // the first that matches a tag counts
	Immutable []*regexp.Regexp
}

// PatternPolicy is the policy of the tags that a glob of REPOSITORY:TAG matches.
type PatternPolicy struct {
	Match  string
	Policy Policy
}

func (p PatternPolicy) matches(repository, tag string) bool {
	name, of, _ := strings.Cut(p.Match, ":")
	return glob.Text(of, tag) && glob.Path(name, repository)
}

// For returns the policy of a tag. Content about a digest, as signatures are, changes as more of it is made, and is as safe
// as the digest: like a digest, it is never held back.
func (p Policies) For(repository, tag string) Policy {
	policy := p.Base
	for _, of := range p.Patterns {
		if of.matches(repository, tag) {
			policy = of.Policy
			break
		}
	}
	if IsArtifactTag(tag) {
		policy.MinAge, policy.Immutable = 0, false
		return policy
	}
	for _, r := range p.Immutable {
		policy.Immutable = policy.Immutable || r.MatchString(tag)
	}
	return policy
}
