// Package upstream speaks to one registry: it asks for tags, manifests, blobs and lists, and follows its redirects. A
// registry may have several endpoints: itself, others like it, and mirrors of it. They are asked in their order, and the
// next one goes on where one fails, in the middle of a blob too.
//
// A Registry joins what is built in rooms of their own, each below the ones that use it:
//
//	upstream        which endpoint, which operation; redirects; manifests and lists; missing or private?
//	  transfer      a range of a blob, through breaks; whose turn it is
//	  login         one request let in: credentials, challenges, tokens
//	    endpoint    one address: its connections, and whether it works
//	      fault     facts about failures
//	        header  the headers of registries
//	        limit   what a registry has said of its rate limits
//
// It guarantees:
//
//   - A credential or token goes to its own endpoint and to token services that the operator named, and to no other host.
//     One function attaches it; redirects are followed by hand; a request to another host goes over a transport that
//     refuses to carry credentials.
//   - An address that is not public is dialled only for hosts that the operator named, or where a registry which is
//     itself private redirects to it. It is checked after DNS, on the address that is being dialled.
//   - A manifest that was asked for by digest has that digest. A Body yields exactly the range that was asked for, or ends
//     with an error. It is not hashed here: the flight verifies a blob's digest.
//   - An endpoint that is down costs nothing while another one answers, and is never the reason for a failure: it is
//     asked last.
//   - When a credential has nothing left of a limit, no request that counts is made with it until the registry says that
//     there is more, or the time that it named has come. Of several credentials that fit, the one with most left is used.
//   - When the registry itself answers that content does not exist, or that we have no right to it, that is the answer.
//     When a mirror of it answers so, the next endpoint is asked.
//   - Every failure is one *fault.Error, with each step that was tried: which host, which address, which answer.
//   - Data from the network is bounded: manifests and lists at 4 MiB, token answers at 1 MiB, error bodies at 64 KiB, a
//     pause between two bytes at the stall timeout.
//
// It does not cache content, share requests between callers (tokens and probes apart), or decide what a failure means: that
// is the work of pull and diagnose.
package upstream
