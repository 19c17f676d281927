package config

import "github.com/registrymirror/mirror/internal/strictyaml"

// Named is a file, or folder, that a setting names.
type Named struct {
	Path string // of the setting: upstreams.ghcr.io.credentials[0].passwordFile
	Key  string // its last part: passwordFile
	File string
}

// Named are all files that settings name, without cache.dir, in the order of the file.
func (c *Config) Named() (list []Named) {
	schema.Visit(c, func(s strictyaml.Setting) {
		if (s.Field.Path == "file" || s.Field.Path == "own") && s.Value.String() != "" {
			list = append(list, Named{Path: s.Path, Key: s.Key, File: s.Value.String()})
		}
	})
	return list
}

// Places returns a function that makes a Problem, with its place, of a mistake that shows outside of a configuration, as in
// a file that a setting names.
func Places(name string, data []byte, env []string) func(path, message, hint string) Problem {
	doc := schema.Decode(name, data, env, defaults())
	return func(path, message, hint string) Problem {
		return doc.Problem(strictyaml.Mistake{Path: path, Message: message, Hint: hint})
	}
}
