package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
)

// Load reads the file at path and lets the variables of env (NAME=VALUE, as from os.Environ) override it. With an empty
// path there is no file: defaults and variables alone. The error is an *Invalid where the content is wrong, else what
// kept the file from being read. What is relative to the file has its full path, so that messages say where it is.
func Load(path string, env []string) (*Config, error) {
	text, err := Read(path)
	if err != nil {
		return nil, err
	}
	return text.Parse(path, env)
}

// Parse is Load for a text that Read has read from path.
func (t Text) Parse(path string, env []string) (*Config, error) {
	dir := filepath.Dir(path)
	if full, err := filepath.Abs(dir); err == nil { // without a working folder it stays as it is
		dir = full
	}
	return parse(path, dir, t.Data, env)
}

// readFile reads a regular file, up to one byte more than may be in it. Anything else would be another one, or none, when
// it is read again; and a file without a byte is what an accident leaves, not what somebody wrote.
func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; check the path given by --config or MIRROR_CONFIG", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, unreadable(err)
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, fmt.Errorf("%s is a folder; name the file in it", path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file; write the configuration to one", path)
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, unreadable(err)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%s is empty; write settings to it, or leave out --config for the defaults", path)
	}
	return data, err
}

func unreadable(err error) error { return fmt.Errorf("%w; let the user that runs mirror read it", err) }

// Parse is Load for a file whose bytes are at hand. The name is that of the file: it stands in problems, and relative
// paths in data are relative to its folder.
func Parse(name string, data []byte, env []string) (*Config, error) {
	return parse(name, filepath.Dir(name), data, env)
}

// parse is Parse with the folder that relative paths are relative to.
func parse(name, dir string, data []byte, env []string) (*Config, error) {
	d := &decoder{file: name, places: map[string]place{}, wrong: map[string]bool{}}
	c := defaults()
	whole := d.decode(data, c)
	d.overlay(env, c)
	if whole {
		d.check(c)
	}
	if len(d.problems) > 0 {
		sortProblems(d.problems)
		for i := range d.problems {
			d.problems[i].redact()
		}
		return nil, &Invalid{File: name, Problems: d.problems}
	}
	c.complete(d.places)
	if name != "" {
		c.locate(dir, d.places)
	}
	return c, nil
}

// complete fills in what depends on other settings: the list of upstreams and what is known of each.
func (c *Config) complete(places map[string]place) {
	if c.Upstreams == nil {
		for _, k := range wellKnown {
			c.Upstreams = append(c.Upstreams, newUpstream(k.Name))
		}
	}
	taken := map[string]bool{}
	for _, u := range c.Upstreams {
		taken[u.Name] = true
		for _, alias := range u.Aliases {
			taken[alias] = true
		}
	}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		k, _ := known(u.Name)
		u.Library = k.Library
		if u.AuthHosts == nil {
			u.AuthHosts = slices.Clone(k.AuthHosts)
		}
		if u.CDNHosts == nil {
			u.CDNHosts = slices.Clone(k.CDNHosts)
		}
		if u.Endpoints == nil {
			u.Endpoints = endpointsOf(u.Name)
		}
		for _, alias := range k.Aliases {
			if !taken[alias] { // what the operator says of a name goes first
				u.Aliases = append(u.Aliases, alias)
			}
		}
	}
	if u := c.Upstreams.named(c.DefaultUpstream); u != nil {
		c.DefaultUpstream = u.Name
	} else if _, set := places["defaultUpstream"]; !set {
		c.DefaultUpstream = ""
	}
}

// endpointsOf is where a name leads without further words; a pattern leads nowhere itself.
func endpointsOf(name string) []Endpoint {
	if strings.Contains(name, "*") {
		return nil
	}
	if k, ok := known(name); ok && k.Endpoints != nil {
		return slices.Clone(k.Endpoints)
	}
	return []Endpoint{{URL: "https://" + name}}
}

// named returns the upstream with that name or alias, or nil.
func (us Upstreams) named(name string) *Upstream {
	name = strings.ToLower(name)
	for i := range us {
		if us[i].Name == name || slices.Contains(us[i].Aliases, name) {
			return &us[i]
		}
	}
	return nil
}

// locate makes the relative paths of the file, and of defaults, relative to dir. What a variable says is relative to
// the working folder, as for any other program.
func (c *Config) locate(dir string, places map[string]place) {
	visit(reflect.ValueOf(c).Elem(), spot{}, func(s spot, f field, v reflect.Value) {
		switch text := v.String(); {
		case f.path == "" || text == "":
		case filepath.IsAbs(text) || places[s.path].variable != "":
			v.SetString(filepath.Clean(text))
		default:
			v.SetString(filepath.Join(dir, text))
		}
	})
}

// Files are the files that settings name, without cache.dir: whoever watches the configuration watches them too.
func (c *Config) Files() []string {
	var files []string
	visit(reflect.ValueOf(c).Elem(), spot{}, func(_ spot, f field, v reflect.Value) {
		if f.path == "file" && v.String() != "" && !slices.Contains(files, v.String()) {
			files = append(files, v.String())
		}
	})
	return files
}
