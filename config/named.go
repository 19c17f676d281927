package config

import "reflect"

// Named is a file, or folder, that a setting names.
type Named struct {
	Path string // of the setting: upstreams.ghcr.io.credentials[0].passwordFile
	Key  string // its last part: passwordFile
	File string
}

// Named are all files that settings name, without cache.dir, in the order of the file.
func (c *Config) Named() (list []Named) {
	visit(reflect.ValueOf(c).Elem(), spot{}, func(s spot, f field, v reflect.Value) {
		if (f.path == "file" || f.path == "own") && v.String() != "" {
			list = append(list, Named{Path: s.path, Key: f.key, File: v.String()})
		}
	})
	return list
}

// Places returns what makes a Problem of a setting of a file whose bytes are at hand: it has the place where the setting is
// written. For what is wrong with it elsewhere, as with a file that it names.
func Places(name string, data []byte, env []string) func(path, message, hint string) Problem {
	d := &decoder{file: name, places: map[string]place{}, wrong: map[string]bool{}}
	c := defaults()
	d.decode(data, c)
	d.overlay(env, c)
	return func(path, message, hint string) Problem {
		d.problems = nil
		d.wrong = map[string]bool{}
		d.bad(path, message, hint)
		p := d.problems[0]
		p.redact()
		return p
	}
}
