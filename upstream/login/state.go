package login

import (
	"cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/upstream/fault"
)

// phase says as whom the next request is made. It goes forward only.
type phase int

const (
	asFirst     phase = iota // with the credential that fits best, or, past a limit, the next one with something left
	asOther                  // with another one of ours, after a refusal
	asAnonymous              // without a credential: there is none, or ours was refused, or has nothing left
)

// outcome is how a request ended, as far as it decides what follows.
type outcome int

const (
	accepted      outcome = iota
	failed                // in a way that no other login changes
	exhausted             // it was not made: nothing is left of a limit
	pausing               // it was not made, and the limit ends in a moment
	limited               // status 429
	challenged            // without an Authorization, and the registry says which one it asks for
	unchallenged          // without an Authorization, and the registry does not say which one it asks for
	guessRefused          // by the token service, which is that of another repository: this one may have its own
	loginRefused          // the password by the registry, or the credential by the token service
	tokenRefused          // by the registry
	rightsRefused         // to the password, which is right
)

// action is what follows an outcome.
type action int

const (
	finish             action = iota // the outcome stands
	recheckLimit                     // ask by HEAD, which costs nothing, whether the limit still holds
	waitForReset                     // let the pause pass
	answerChallenge                  // with what the registry asks for
	answerNewChallenge               // it asks for something else than it was given
	askAtRoot                        // what /v2/ asks for
	askWithoutLogin                  // so that the registry says which token service is this repository's
	renewToken                       // get another token for the same credential
	renewCredential                  // get another credential of the same source
	noteFailedRenewal                // the renewed credential was refused, too: it is not renewed again for a while
	leaveRefused                     // go on with another credential of ours, once, else anonymously
	leaveExhausted                   // go on with another credential that has something left, else anonymously
)

// actionsOf are the actions that may follow an outcome, in the order in which they are tried.
var actionsOf = map[outcome][]action{
	exhausted:     {recheckLimit, leaveExhausted},
	pausing:       {recheckLimit, waitForReset, leaveExhausted},
	limited:       {leaveExhausted},
	challenged:    {answerChallenge},
	unchallenged:  {askAtRoot},
	guessRefused:  {askWithoutLogin, renewCredential, noteFailedRenewal, leaveRefused},
	loginRefused:  {answerNewChallenge, renewCredential, noteFailedRenewal, leaveRefused},
	tokenRefused:  {answerNewChallenge, renewToken, leaveRefused},
	rightsRefused: {leaveRefused},
}

// state is how far one request has come.
type state struct {
	phase         phase
	credential    auth.Credential // with which the next request is made
	tried         actions
	refusalStands bool // see Operation

	guessErr     error // why the token service refused, until a request without a login has shown whether it is the right one
	refusedErr   error // what a credential of ours met, once the request is made without it
	exhaustedErr error // the limit of a credential of ours, once the request is made without it
}

// step is the action that follows an outcome: the first one that is possible and was not tried.
func (s *state) step(o outcome) action {
	for _, a := range actionsOf[o] {
		if !s.tried[a] && s.possible(a) {
			return a
		}
	}
	return finish
}

func (s *state) possible(a action) bool {
	switch a {
	case askWithoutLogin:
		return !s.tried[answerChallenge] // it has said
	case renewCredential, leaveExhausted:
		return s.phase != asAnonymous
	case noteFailedRenewal:
		return s.phase != asAnonymous && s.tried[renewCredential]
	case leaveRefused:
		return s.phase != asAnonymous && !s.refusalStands
	}
	return true
}

// use goes on with another credential, to which each action is open again that is about the credential.
func (s *state) use(c auth.Credential) {
	s.credential, s.guessErr = c, nil
	if c.IsAnonymous() {
		s.phase = asAnonymous
	}
	s.tried.remove(
		recheckLimit, answerNewChallenge, askWithoutLogin, renewToken, renewCredential, noteFailedRenewal, leaveRefused,
		leaveExhausted,
	)
}

// renew goes on with a newer credential of the same source.
func (s *state) renew(c auth.Credential) {
	s.credential, s.guessErr = c, nil
	s.tried.remove(askWithoutLogin, renewToken)
}

// reason is the error of a request that ends with err: what our credential met, if the request was made without it. A request that
// was not made for the sake of clients proves nothing else.
func (s *state) reason(err error) error {
	for _, e := range []error{s.exhaustedErr, err} {
		if fault.Is[*fault.ReserveError](e) {
			return e
		}
	}
	return cmp.Or(s.refusedErr, s.exhaustedErr, err)
}

// actions is a set of them.
type actions [leaveExhausted + 1]bool

func (t *actions) remove(list ...action) {
	for _, a := range list {
		t[a] = false
	}
}
