// Package identity tells which client sends a request: by a password, a token, a certificate, or the token of a service account.
//
//	Authorization: Basic   user and password of a file of bcrypt hashes, or a name and its token
//	Authorization: Bearer  a token of a file of hashes, or of a service account of Kubernetes
//	client certificate     the node that it names
//
// Promise: a request has an identity only if it has shown it by one of these ways, and never a better one than it has shown.
//
// Guarantees:
//   - What was shown once is not computed or asked again: a pull sends its login with each of its requests.
//   - A password costs the same whether the user exists or not. Wrong passwords are limited for each user at each address, for each
//     user, and for each address; a login of another user at the same address is still checked.
//   - Nothing here holds a password or a token in clear: what is remembered is a keyed hash. All that is remembered is bounded.
//   - A request that names a registry may carry a login for that registry: it is ignored, and is not an error.
//
// Not here: what a client may read (access), and the name of a client that has no identity (client).
package identity
