// Package endpoint is one address of an upstream: what may be dialled on its behalf, the connections to it and to where it
// redirects, single HTTP exchanges with their steps, and its health.
//
// It guarantees:
//
//   - An address that is not public is dialled only for hosts that the operator named, or if a registry that is itself
//     private redirects to it. It is checked after DNS, on the address that is being dialled.
//   - Requests to other hosts go over transports that refuse credentials, or that do not have the endpoint's certificate.
//   - Bodies are bounded in time: no longer pause between two bytes than the stall timeout, and a least pace for documents.
//   - An endpoint that is down is asked after the others, never skipped: its health decides the order alone.
//
// It attaches no credential, follows no redirect, and repeats no request: its callers do.
package endpoint
