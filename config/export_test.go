package config

import (
	"maps"
	"slices"
)

// Paths are those of all settings, sorted, with * for a key or index that the operator chooses.
func Paths() []string { return slices.Sorted(slices.Values(paths())) }

// Unavailable are the paths of the settings of which nothing is built.
func Unavailable() []string {
	return slices.DeleteFunc(slices.Sorted(maps.Keys(unavailable)), isAvailable)
}

// MatchHost is matchHost.
func MatchHost(glob, host string) bool { return matchHost(glob, host) }
