// Package docker takes credentials from the files of docker login and Kubernetes: a config.json, a mounted dockerconfigjson
// secret, and docker credential helpers.
//
// Promise: a file that changes is in use within seconds, whether it was written, replaced, or swapped as the kubelet swaps
// a mounted secret; one that is broken or gone changes nothing but the state. The entry that fits a repository best is
// used, and never one that does not fit its host, label by label. A helper that fails is an error, and never taken for one
// that has no credential.
//
// It does not write: neither the file nor a helper's store.
package docker
