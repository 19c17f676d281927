// Package kube is the API server of a Kubernetes cluster as the mirror uses it: plain HTTPS with the token of a service
// account; Events for people who look at a pod; and the images that pods and workloads name.
//
// A runtime drops what a registry says with a 404, and shortens the rest. An Event stands where the person looks: in
// "kubectl describe pod", below the kubelet's own.
//
//	Poster.Failed ─> bounded queue ─> Run: looks for pods that wait for the image, 2 s, 8 s, 20 s and 60 s later
//	   (full: counted, lost)              └─> an Event on each: created, or its count raised
//
//	list, in pages ─> watch from its version ─> watch from the last change ... ─> Sink
//	   └──<── a version that is too old, a silent watch, an event that can't be read
//
// Promise: nothing here delays a pull. An Event that can't be posted is counted and dropped, and the log says why, once. A Sink
// has what the API server has, a moment later; where the API server is down, what it had.
//
// Guarantees:
//   - Only pods whose own status says that they can't pull the image get an Event: a failure that the node has recovered from
//     gets none.
//   - One Event for each pod and failure. Its count goes up at most once in ten minutes; at most five requests are sent in a
//     second.
//   - A Follower reads a list again only where the server can't go on from the last change, and asks again after a pause that grows
//     to a minute. It holds one page of a list, or one event of at most 8 MiB, of each kind in memory.
//   - The token goes to the configured API server alone, over TLS that is verified; no redirect is followed.
//
// Not here: why something failed (diagnose), and what is a failure (journal).
package kube
