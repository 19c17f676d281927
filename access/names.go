package access

import (
	"fmt"
	"slices"

	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/oci"
)

// Names bounds which repositories of an upstream the mirror asks for at all, whichever client wants them. The zero Names, and a
// nil *Names, bound nothing. They are immutable.
type Names struct {
	// Only are globs of the repositories that may be asked for. Empty: all.
	Only []string
	// Deny are globs of those that may not. They count before Only.
	Deny []string
}

// Check returns a *BlockedError for a repository that may not be asked for.
func (n *Names) Check(repo oci.Repo) error {
	if n == nil {
		return nil
	}
	for _, g := range n.Deny {
		if glob.Path(g, repo.Name) {
			return &BlockedError{Repo: repo, Setting: "deny", Glob: g}
		}
	}
	if len(n.Only) > 0 && !slices.ContainsFunc(n.Only, func(g string) bool { return glob.Path(g, repo.Name) }) {
		return &BlockedError{Repo: repo, Setting: "only"}
	}
	return nil
}

// BlockedError says that a repository may not be asked for at its upstream.
type BlockedError struct {
	Repo    oci.Repo
	Setting string // deny or only
	Glob    string // of deny
	// Mirrored is as in ForbiddenError.
	Mirrored bool
}

func (e *BlockedError) Error() string {
	if e.Glob != "" {
		return fmt.Sprintf("%s fits %s, which %s of %s excludes", e.Repo, e.Glob, e.Setting, e.Repo.Host)
	}
	return fmt.Sprintf("%s fits nothing that %s of %s lists", e.Repo, e.Setting, e.Repo.Host)
}
