// Package kube is the API server of a Kubernetes cluster as the mirror uses it: plain HTTPS with the token of a service
// account, and Events for people who look at a pod.
//
// A runtime drops what a registry says with a 404, and shortens the rest. An Event stands where the person looks: in
// "kubectl describe pod", below the kubelet's own.
//
//	Poster.Failed ─> bounded queue ─> Run: looks for pods that wait for the image, 2 s, 8 s, 20 s and 60 s later
//	   (full: counted, lost)              └─> an Event on each: created, or its count raised
//
// Promise: nothing here delays a pull. An Event that can't be posted is counted and dropped, and the log says why, once.
//
// Guarantees:
//   - Only pods whose own status says that they can't pull the image get an Event: a failure that the node has recovered from
//     gets none.
//   - One Event for each pod and failure. Its count goes up at most once in ten minutes; at most five requests are sent in a
//     second.
//   - The token goes to the configured API server alone, over TLS that is verified; no redirect is followed.
//
// Not here: why something failed (diagnose), and what is a failure (journal).
package kube
