// Package endpoint makes the connections of one address of a registry.
//
// It guarantees:
//
//   - An address that is not public is dialled only for hosts that the operator named, or where a registry which is itself
//     private redirects to it. The check is made after DNS, on the address that is being dialled.
//   - A token service is the endpoint's own host or one that the operator named; a redirect leads to no other host than the
//     Policy allows.
//   - A request to a host that a redirect led to goes over a transport that refuses to carry credentials.
//   - An exchange says each step that it went through. Its body ends with an error where no byte comes for the stall timeout.
//
// It attaches no credential: that is the work of package login.
package endpoint
