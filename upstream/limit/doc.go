// Package limit keeps what an endpoint of a registry has said of its rate limits, and decides which requests are worth
// making. It makes no request itself.
//
//	a request is planned ──► Admit ──► it may be made ──► its answer: Learn (headers), then Accepted or Refused (429)
//	                           │
//	                           └──► not now: a Pause. RecheckDue says when one HEAD may ask whether there is more
//
// It guarantees:
//
//   - A credential with nothing left is not used for requests that count, until the time that the registry named, or
//     until the registry says that there is more.
//   - Requests that are under way are subtracted from what is left, so many at once stay within the limit.
//   - Nothing is believed forever: after LongestTrust one request is made in spite of a pause.
//   - What is remembered is bounded: budgets by address, everything else by credential.
//
// No limit is known beforehand: all of it comes from answers.
package limit
