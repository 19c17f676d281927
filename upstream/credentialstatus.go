package upstream

import "github.com/registrymirror/mirror/auth"

// CredentialStatus describes a credential without its secret, for packages that must not import auth.
type CredentialStatus = auth.Status

// CredentialStates are the states that a credential can be in, the worst last.
var CredentialStates = []auth.State{
	auth.StateUnknown, auth.StateOK, auth.StateExpiring, auth.StateExpired, auth.StateRejected, auth.StateFailing,
}
