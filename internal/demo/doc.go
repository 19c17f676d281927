// Package demo is a small world for mirror demo: registries that fail in ways which people meet, and a client that pulls
// from them as containerd does and says what containerd would say.
//
// Everything is on loopback and in memory, with images that are made here. It stands on the standard library alone: it is
// part of the program, and the scripted registry of the tests (internal/origin) is not.
package demo
