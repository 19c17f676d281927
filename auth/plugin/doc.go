// Package plugin takes credentials from a kubelet credential provider: a program that speaks
// credentialprovider.kubelet.k8s.io/v1, as the clouds install them on nodes.
//
// Promise: the program is asked about one image at a time, ahead of the end of what it said; what it says is cached as
// it wants (for the image, the registry, or everything), but never for less than a minute. Of its answer the entry that
// fits the image best is used, by the kubelet's rules, and none that is empty. A program that fails is told of, and what
// it said last stays in use.
//
// It does not read the kubelet's CredentialProviderConfig: program, arguments and environment are the operator's.
package plugin
