package login

import (
	"slices"
	"testing"

	"github.com/registrymirror/mirror/auth"
)

// TestStep walks the actions of each outcome, as if none of them changed anything.
func TestStep(t *testing.T) {
	t.Parallel()
	ours := auth.Credential{Username: "bot", Password: auth.NewSecret("secret")}
	for _, tt := range []struct {
		name    string
		outcome outcome
		state   state
		want    []action
	}{
		{"accepted", accepted, state{}, nil},
		{"failed", failed, state{}, nil},
		{"a limit", exhausted, state{}, []action{recheckLimit, leaveExhausted}},
		{"a limit that ends in a moment", pausing, state{}, []action{recheckLimit, waitForReset, leaveExhausted}},
		{"a limit of anonymous requests", exhausted, state{phase: asAnonymous}, []action{recheckLimit}},
		{"429", limited, state{}, []action{leaveExhausted}},
		{"a challenge", challenged, state{}, []action{answerChallenge}},
		{"a challenge that was answered", challenged, state{tried: actions{answerChallenge: true}}, nil},
		{"no challenge", unchallenged, state{}, []action{askAtRoot}},
		{
			"a guessed token service", guessRefused,
			state{},
			[]action{askWithoutLogin, renewCredential, noteFailedRenewal, leaveRefused},
		},
		{
			"the token service that the challenge named", guessRefused,
			state{tried: actions{answerChallenge: true}},
			[]action{renewCredential, noteFailedRenewal, leaveRefused},
		},
		{
			"a login", loginRefused,
			state{},
			[]action{answerNewChallenge, renewCredential, noteFailedRenewal, leaveRefused},
		},
		{"a login of a question", loginRefused, state{refusalStands: true}, []action{answerNewChallenge, renewCredential, noteFailedRenewal}},
		{"an anonymous login", loginRefused, state{phase: asAnonymous}, []action{answerNewChallenge}},
		{"a token", tokenRefused, state{}, []action{answerNewChallenge, renewToken, leaveRefused}},
		{"an anonymous token", tokenRefused, state{phase: asAnonymous}, []action{answerNewChallenge, renewToken}},
		{"rights", rightsRefused, state{phase: asOther}, []action{leaveRefused}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := tt.state
			var got []action
			for a := s.step(tt.outcome); a != finish; a = s.step(tt.outcome) {
				got = append(got, a)
				s.tried[a] = true
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("actions %v, want %v", got, tt.want)
			}
		})
	}
	// Another credential opens what is about the credential, and nothing else.
	var s state
	for a := range s.tried {
		s.tried[a] = true
	}
	s.use(ours)
	if s.step(challenged) != finish || s.step(loginRefused) != answerNewChallenge || s.phase != asFirst {
		t.Errorf("after another credential: %+v", s)
	}
	s.use(auth.Credential{})
	if s.phase != asAnonymous || s.step(rightsRefused) != finish {
		t.Errorf("without a credential: %+v", s)
	}
}
