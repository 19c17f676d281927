package fault

// Verdict is what a further question has shown of what was refused or not found.
type Verdict string

// The verdicts.
const (
	// VerdictRepositoryMissing is a registry's own word, to its list of tags, that there is no such repository.
	VerdictRepositoryMissing Verdict = "repository-missing"
	// VerdictTagMissing is a list of tags that can be read and that lacks the tag, or is of a repository which has no
	// manifest for it.
	VerdictTagMissing Verdict = "tag-missing"
	// VerdictLoginNeeded is a token service that gives nobody a token without a login, not even one that opens nothing.
	VerdictLoginNeeded Verdict = "login-needed"
	// VerdictUntold is a registry that was asked and does not say.
	VerdictUntold Verdict = "untold"
)

// Probe is a further question, and what came of it.
type Probe struct {
	Verdict Verdict
	Step    Step // the question
}
