// Package drift finds tags that mean different images in different places: to clients, to pods that run, and to pods that
// would restart.
//
// Promise: Find is pure. It compares what it is given, and asks nothing. An index, the manifests of its platforms and their
// configs are one image, as Input.Same has them. Images by digest can't drift, and tags of signatures are left out.
package drift
