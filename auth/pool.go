package auth

import (
	"cmp"
	"context"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/registrymirror/mirror/internal/glob"
)

// Member is one credential of a Pool.
type Member struct {
	Source
	// Repositories are patterns of the repositories for which it is used: * is one path segment or a part of one, ** any
	// number of segments. Nil: all.
	Repositories []string
}

// Pool is a Source that has a credential for some repositories, and another one for others. Of two that fit, the one with the
// longer pattern, without its wildcards, comes first. Where none fits, it is anonymous.
type Pool []Member

// Candidate is a source that fits a repository. Rank is the length of its pattern without wildcards: more is better.
type Candidate struct {
	Source
	Rank int
}

// All are the sources that fit a repository, the best first, and those of equal rank as they were given.
func (p Pool) All(repository string) []Candidate {
	var all []Candidate
	for _, m := range p {
		most := -1
		if len(m.Repositories) == 0 {
			most = 0
		}
		for _, pattern := range m.Repositories {
			if weight := glob.Literal(pattern); weight > most && glob.Path(pattern, repository) {
				most = weight
			}
		}
		if most >= 0 {
			all = append(all, Candidate{For(m.Source, repository), most})
		}
	}
	slices.SortStableFunc(all, func(a, b Candidate) int { return cmp.Compare(b.Rank, a.Rank) })
	return all
}

// All are the sources that a Source has for a repository: those of a Pool, else what For gives.
func All(s Source, repository string) []Candidate {
	if p, ok := s.(Pool); ok {
		return p.All(repository)
	}
	return []Candidate{{Source: For(s, repository)}}
}

// Credential is the credential for a request of no repository.
func (p Pool) Credential(ctx context.Context) (Credential, error) {
	if all := p.All(""); len(all) > 0 {
		return all[0].Credential(ctx)
	}
	return Credential{}, nil
}

// Run does the background work of all until the context ends.
func (p Pool) Run(ctx context.Context) error {
	var g errgroup.Group
	for _, m := range p {
		g.Go(func() error { return Run(ctx, m.Source) })
	}
	return g.Wait()
}
