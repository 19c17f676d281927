package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/strictyaml"
)

// Load reads the file at path and lets the variables of env (NAME=VALUE, as from os.Environ) override it. With an empty
// path there is no file: defaults and variables alone. The error is an *Invalid where the content is wrong, else the reason
// why the file could not be read. Paths that are relative to the file become full ones, so that messages say where it is.
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

// Refuse is an *Invalid with mistakes that show outside of a valid configuration, as in a file that a setting names. Nil: there
// are none.
func (t Text) Refuse(path string, env []string, list []Mistake) error {
	doc := schema.Decode(path, t.Data, env, defaults())
	doc.Report(list...)
	return doc.Err()
}

// MaxFile is the largest file that a setting may name, in bytes.
const MaxFile = 4 << 20

// readFile reads a regular file, up to one byte more than may be in it. A pipe or device could not be read twice. An empty
// file is an accident: an operator who wants the defaults names no file.
func readFile(path string) ([]byte, error) {
	f, err := regular.Open(path)
	kind, other := errors.AsType[*regular.KindError](err)
	switch {
	case errors.Is(err, syscall.EISDIR):
		return nil, fmt.Errorf("%s is a folder; name the file in it", path)
	case other:
		return nil, fmt.Errorf("%s is %s and not a regular file; write the configuration to one", path, kind.Kind)
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; check the path given by --config or MIRROR_CONFIG", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%w; let the user that runs mirror read it", err)
	case err != nil:
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, strictyaml.MaxSize+1))
	if err == nil && len(bytes.TrimSpace(data)) == 0 {
		return nil, fmt.Errorf("%s is empty; write settings to it, or leave out --config for the defaults", path)
	}
	return data, err
}

// Parse is Load for a file that was read. The name is that of the file: it stands in problems, and relative paths in data
// are relative to its folder.
func Parse(name string, data []byte, env []string) (*Config, error) {
	return parse(name, filepath.Dir(name), data, env)
}

// parse is Parse with the folder that relative paths are relative to.
func parse(name, dir string, data []byte, env []string) (*Config, error) {
	c := defaults()
	doc := schema.Decode(name, data, env, c)
	if doc.Readable {
		doc.Report(c.Check()...)
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	c.Overrides = doc.Overrides
	c.complete(doc.IsSet("defaultUpstream"))
	if name != "" {
		c.locate(dir, doc)
	}
	return c, nil
}

// complete fills in the values that depend on other settings.
func (c *Config) complete(defaultIsSet bool) {
	c.completeUpstreams()
	if !defaultIsSet {
		c.DefaultUpstream = defaultUpstream
	}
	if u := c.Upstreams.Named(c.DefaultUpstream); u != nil {
		c.DefaultUpstream = u.Name
	} else if !defaultIsSet {
		c.DefaultUpstream = ""
	}
}

// wholeUpstreams are the upstreams as they will be once they are complete. For checks, which come before that.
func (c *Config) wholeUpstreams() Upstreams {
	whole := Config{Upstreams: slices.Clone(c.Upstreams)}
	whole.completeUpstreams()
	return whole.Upstreams
}

// completeUpstreams fills in the list of upstreams, and the known settings of each.
func (c *Config) completeUpstreams() {
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
			if !taken[alias] { // the operator's own use of a name goes first
				u.Aliases = append(u.Aliases, alias)
			}
		}
	}
}

// endpointsOf are the endpoints of a name that has none configured. A pattern has none.
func endpointsOf(name string) []Endpoint {
	if strings.Contains(name, "*") {
		return nil
	}
	if k, ok := known(name); ok && k.Endpoints != nil {
		return slices.Clone(k.Endpoints)
	}
	return []Endpoint{{URL: "https://" + name}}
}

// Named returns the upstream with that name or alias, or nil.
func (us Upstreams) Named(name string) *Upstream {
	name = strings.ToLower(name)
	for i := range us {
		if us[i].Name == name || slices.Contains(us[i].Aliases, name) {
			return &us[i]
		}
	}
	return nil
}

// locate makes the relative paths of the file, and of defaults, relative to dir. Those of variables are relative to the
// working folder, as for any other program.
func (c *Config) locate(dir string, doc *strictyaml.Document) {
	schema.Visit(c, func(s strictyaml.Setting) {
		switch text := s.Value.String(); {
		case s.Field.Path == "" || text == "":
		case filepath.IsAbs(text) || doc.FromVariable(s.Path):
			s.Value.SetString(filepath.Clean(text))
		default:
			s.Value.SetString(filepath.Join(dir, text))
		}
	})
}

// Named is a file, or folder, that a setting names.
type Named struct {
	Path    string // of the setting: upstreams.ghcr.io.credentials[0].passwordFile
	Key     string // its last part: passwordFile
	File    string
	Watched bool // a change of it takes effect by a reload; else the component that uses it reads it again
}

// IsSecret reports whether the file holds secrets.
func (n Named) IsSecret() bool { return secrets[n.Key] }

// secrets are the settings whose files hold secrets.
var secrets = map[string]bool{
	"key": true, "clientKey": true, "tokenFile": true, "passwordFile": true, "secretFile": true, "keyFile": true,
	"dockerConfig": true, "htpasswd": true, "tokens": true,
}

// Named are all files that settings name, without cache.dir, in the order of the file.
func (c *Config) Named() (list []Named) {
	schema.Visit(c, func(s strictyaml.Setting) {
		if (s.Field.Path == "file" || s.Field.Path == "own") && s.Value.String() != "" {
			list = append(list, Named{Path: s.Path, Key: s.Key, File: s.Value.String(), Watched: s.Field.Path == "file"})
		}
	})
	return list
}

// Files are the files to watch for changes that take effect.
func (c *Config) Files() []string {
	var files []string
	for _, n := range c.Named() {
		if n.Watched && !slices.Contains(files, n.File) {
			files = append(files, n.File)
		}
	}
	return files
}
