package config

import (
	"reflect"
	"slices"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// Default returns the configuration where nothing is set: the well-known registries, anonymously.
func Default() *Config {
	c := defaults()
	c.complete(false)
	return c
}

// Paths are those of all settings, sorted, with * for a key or index that the operator chooses.
func Paths() (all []string) {
	var walk func(t reflect.Type, at string)
	walk = func(t reflect.Type, at string) {
		switch t.Kind() {
		case reflect.Pointer:
			walk(t.Elem(), at)
		case reflect.Slice, reflect.Map:
			walk(t.Elem(), strictyaml.Join(at, "*"))
		case reflect.Struct:
			for _, f := range strictyaml.Fields(t) {
				here := strictyaml.Join(at, f.Key)
				all = append(all, here)
				walk(t.Field(f.Index).Type, here)
			}
		}
	}
	walk(reflect.TypeFor[Config](), "")
	slices.Sort(all)
	return all
}

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
