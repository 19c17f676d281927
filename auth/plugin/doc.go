// Package plugin takes credentials from a kubelet credential provider: a program that speaks
// credentialprovider.kubelet.k8s.io/v1, as the clouds install them on nodes.
//
// Promise: the program is asked for one image at a time, before its last answer expires; an answer is cached as the program
// says (for the image, the registry, or all images), but never for less than a minute. The entry of the answer that
// fits the image best is used, by the kubelet's rules, and none that is empty. A program that fails is an error, and its
// last answer stays in use.
//
// It does not read the kubelet's CredentialProviderConfig: program, arguments and environment are the operator's.
package plugin
