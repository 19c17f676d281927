package config

import "slices"

// Default returns the configuration where nothing is set: the well-known registries, anonymously.
func Default() *Config {
	c := defaults()
	c.complete(false)
	return c
}

// Paths are those of all settings, sorted, with * for a key or index that the operator chooses.
func Paths() []string { return slices.Sorted(slices.Values(schema.Paths())) }

// Variable is the variable that sets a path.
func Variable(path string) string { return schema.Variable(path) }

// MatchHost is matchHost.
func MatchHost(glob, host string) bool { return matchHost(glob, host) }

// RestartPaths are the settings that take effect only when the mirror is started again.
func RestartPaths() (paths []string) {
	for _, s := range restartValues(&Config{}) {
		paths = append(paths, s.path)
	}
	return paths
}
