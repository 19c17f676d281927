// Package login authenticates requests to a registry: it chooses a credential, learns what the registry asks for, gets and
// renews tokens, and decides what follows a refusal.
//
// A Transport is for one operation at one endpoint. Its RoundTrip makes a request, and makes it again as long as something
// can be done about the outcome:
//
//	 ┌──────────────────────────── make it again ◄───────────────────────────┐
//	 ▼                                                                       │ it has changed something
//	is a limit reached? ──► get the Authorization ──► request ──► outcome ──► step: the next action
//	                                                                         │ there is none
//	                                                                         └──► the answer, or the error
//
// The table actionsOf has the actions of each outcome; it is the whole of the decision.
//
// It guarantees:
//
//   - A credential or token is sent to its own endpoint and to token services that the operator named, and to no other
//     host. One function attaches it, and checks the origin that the request goes to.
//   - After a refusal these actions may follow, each at most once for a credential: (1) renew the token, (2) renew the
//     credential, (3) use one other credential, (4) make the request anonymously. If that is refused too, the refusal of the
//     credential is the error.
//   - Of several credentials that fit, the one with most left of its limits is used; one with nothing left is not used for
//     requests that count.
//   - For each token only one request runs at a time, however many operations wait for it. A token in use is renewed before it
//     ends.
//   - What is remembered is bounded.
//
// It follows no redirects and reads no content.
package login
