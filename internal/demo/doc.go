// Package demo has the registries and the client of mirror demo: the registries fail in common ways, and the client pulls
// from them as containerd does and returns the errors of containerd.
//
// Everything is on loopback and in memory, with generated images. The package uses the standard library alone: it is part of
// the program, while the scripted registry of the tests (internal/origin) is not.
package demo
