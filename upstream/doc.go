// Package upstream speaks to one registry: it asks for tags, manifests, blobs and lists, and follows its redirects. A
// registry may have several endpoints: itself, replicas, and mirrors of it. They are asked in their order. If an endpoint fails,
// the next one continues, in the middle of a blob too.
//
// A Registry joins these packages, each below the ones that use it:
//
//	upstream        which endpoint, which operation; redirects; manifests and lists; tells a missing repository from
//	                a private one, if the registry does
//	  transfer      fetches a range of a blob, resumes it after a broken connection, limits how many run at once
//	  login         authenticates one request: credentials, challenges, tokens
//	    endpoint    one address: its connections, and whether it works
//	      fault     failures of requests as typed facts
//	        header  the headers of registries
//	        limit   what a registry has said of its rate limits
//
// Beside what these packages guarantee:
//
//   - A manifest that was asked for by digest has that digest. A blob is not hashed here: the flight verifies its digest.
//   - When the registry itself answers that content does not exist, or that we have no right to it, that is the answer.
//     When a mirror of it answers so, the next endpoint is asked. No request is
//     refused only because an endpoint counts as down.
//   - Every failure is one *fault.Error, with each step that was tried: which host, which address, which answer.
//   - Data from the network is bounded: manifests at 4 MiB, a page of a list at 64 MiB (above 4 MiB only its known members are
//     kept), token answers at 1 MiB, error bodies at 64 KiB, a pause between two bytes at the stall timeout.
//
// It does not cache content, share requests between callers (tokens and probes apart), or decide what a failure means: that
// is the work of pull and diagnose.
package upstream
