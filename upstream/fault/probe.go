package fault

// Verdict is what a further question has shown about content that was refused or not found.
type Verdict string

// The verdicts.
const (
	// VerdictRepositoryMissing is a registry that answers a request for the list of tags with: there is no such repository.
	VerdictRepositoryMissing Verdict = "repository-missing"
	// VerdictTagMissing is a list of tags that can be read and that lacks the tag, or is of a repository which has no
	// manifest for it.
	VerdictTagMissing Verdict = "tag-missing"
	// VerdictLoginNeeded is a token service that gives no token without a login, not even one that opens nothing.
	VerdictLoginNeeded Verdict = "login-needed"
	// VerdictUnknown is a registry whose answer does not decide it.
	VerdictUnknown Verdict = "unknown"
)

// Probe is a further question and its result.
type Probe struct {
	Verdict Verdict
	Step    Step // the question
}
