package node

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"reflect"
	"slices"
	"strings"
)

// Runtime is the containerd of a node, as its configuration has it.
type Runtime struct {
	product string // "containerd", or a product that brings its own
	file    string // the main file; it need not be there
	socket  string
	files   *cri // nil: there are none
}

// products are those that make containerd's configuration anew at each start, and what to do there instead.
var products = map[string]string{
	"k3s":   "k3s makes its configuration at each start: write registries.yaml instead, see mirror setup k3s",
	"RKE2":  "RKE2 makes its configuration at each start: write registries.yaml instead, see mirror setup rke2",
	"k0s":   "k0s makes its configuration at each start: write the table registry of the CRI plugin, with config_path, into a file of /etc/k0s/containerd.d",
	"Talos": "Talos has its configuration from its own documents: see mirror setup talos",
}

// OpenRuntime reads the configuration of the containerd of the node whose root is given. File is its main file; empty: the usual
// places are tried. An error says what keeps containerd from starting with it, and what to do.
func OpenRuntime(root fs.FS, file string) (*Runtime, error) {
	c := &checker{root: root}
	r := &Runtime{product: "containerd", file: file}
	if file == "" {
		r.file = containerdFiles[len(containerdFiles)-1].file
		for _, f := range containerdFiles {
			if c.exists(f.file) {
				r.product, r.file = f.product, f.file
				break
			}
		}
	}
	r.socket = sockets[r.product]
	if !c.exists(r.file) {
		if file != "" {
			return nil, fmt.Errorf("%s is not there: name the main configuration file of containerd", file)
		}
		return r, nil
	}
	if r.files = c.load(r.file); r.files == nil {
		f := c.Findings[len(c.Findings)-1]
		return nil, fmt.Errorf("%s:%d: %s; %s", f.File, f.Line, f.Cause, f.Remedy)
	}
	for _, keys := range [][]string{{"grpc", "address"}, {"plugins", "io.containerd.server.v1.grpc", "address"}} {
		if d := r.files.last(keys...); d != nil {
			r.socket = d.text(keys...)
		}
	}
	return r, nil
}

// sockets are where containerd answers, unless its configuration says otherwise.
var sockets = map[string]string{
	"containerd": "/run/containerd/containerd.sock",
	"k3s":        "/run/k3s/containerd/containerd.sock",
	"RKE2":       "/run/k3s/containerd/containerd.sock",
	"MicroK8s":   "/var/snap/microk8s/common/run/containerd.sock",
	"k0s":        "/run/k0s/containerd.sock",
	"Talos":      "/run/containerd/containerd.sock",
}

// Socket is where it answers.
func (r *Runtime) Socket() string { return r.socket }

// AtEnd is the Line of a part that goes to the end of its file.
const AtEnd = -1

// ConfigPath is what is to be changed so that it reads the hosts.toml files of a folder: no file if it does already. An error says
// what has to be changed by hand before: with config_path its CRI plugin would not load.
func (r *Runtime) ConfigPath(dir string, release Release) (Output, error) {
	var out Output
	if r.files == nil {
		return r.newFile(dir, release), nil
	}
	p := r.effective(release)
	if p == nil { // no file has a table of the CRI plugin
		p = &cri{version: r.files.version, docs: r.files.docs[:1]}
	}
	if err := p.refuse(release); err != nil {
		return out, err
	}
	for _, name := range texts(r.files.docs[0].get("disabled_plugins")) {
		if name == "cri" || strings.HasSuffix(name, ".cri") {
			out.Notes = append(out.Notes, fmt.Sprintf("%s:%d has the CRI plugin disabled: Kubernetes does not pull with this containerd, and ctr reads "+
				"the files with --hosts-dir %s.", r.file, r.files.docs[0].line("disabled_plugins"), dir))
			return out, nil
		}
	}
	d := p.last(p.key("registry", "config_path")...)
	if d != nil {
		switch value, line := d.text(p.key("registry", "config_path")...), d.line(p.key("registry", "config_path")...); {
		case value == dir:
			out.Notes = append(out.Notes, fmt.Sprintf("%s reads this folder: %s:%d.", release, d.file, line))
			return out, nil
		case !strings.Contains(value, ":"):
			out.Notes = append(out.Notes, fmt.Sprintf("%s does not read this folder: config_path in %s:%d is %s. Take that folder: --install=%s.",
				release, d.file, line, value, value))
			if todo := products[r.product]; todo != "" {
				out.Notes = []string{fmt.Sprintf("%s does not read this folder: config_path in %s:%d is %s. %s.", release, d.file, line, value, todo)}
			}
			return out, nil
		default:
			out.Notes = append(out.Notes, fmt.Sprintf("%s may not read this folder: config_path in %s:%d is a list, of which containerd 2.1 and later read "+
				"nothing. The lines above name one folder.", release, d.file, line))
		}
	} else {
		out.Notes = append(out.Notes, fmt.Sprintf("%s does not read this folder yet: config_path is not set. The lines above set it.", release))
	}
	if todo := products[r.product]; todo != "" {
		out.Notes = []string{fmt.Sprintf("%s does not read this folder. %s.", release, todo)}
		return out, nil
	}
	f, certain := p.edit(dir, dropIns(r.files, release))
	out.Files = []File{f}
	if !certain {
		out.Notes = append(out.Notes, f.Path+" has this table in a form that no line can be named for: write config_path into it by hand.")
	}
	out.Notes = append(out.Notes, noRestart)
	return out, nil
}

// newFile is the configuration of a node that has none. That of version 2 is read by containerd 1.x and 2.x.
func (r *Runtime) newFile(dir string, release Release) Output {
	p := &cri{version: 2}
	if release.major() >= 2 {
		p.version = 3
	}
	return Output{
		Files: []File{{Path: r.file, Content: fmt.Sprintf("version = %d\n\n%s", p.version, p.setting(dir))}},
		Notes: []string{
			fmt.Sprintf("%s does not read this folder yet: there is no %s. The lines above are all of it.", release, r.file),
			noRestart,
		},
	}
}

// effective is what containerd makes of its files: 1.x takes the table of the CRI plugin from the last file that has one, 2.x merges
// them. Nil: no file has it. A containerd whose version is not known is taken for 1.x where its files may be of that.
func (r *Runtime) effective(release Release) *cri {
	if release.major() >= 2 || r.files.version >= 3 {
		return r.files
	}
	d := r.files.last(r.files.table()...)
	if d == nil {
		return nil
	}
	return &cri{version: r.files.version, docs: []*document{d}}
}

// refuse finds the settings with which config_path keeps the CRI plugin from loading.
func (p *cri) refuse(release Release) error {
	var wrong []error
	keys := p.key("registry", "mirrors")
	if d := p.last(keys...); d != nil && len(d.table(keys...)) > 0 {
		wrong = append(wrong, fmt.Errorf("%s:%d: registry.mirrors is set: beside config_path it keeps the CRI plugin from loading, and the node becomes "+
			"NotReady; without config_path no hosts.toml is read. Remove the tables of registry.mirrors (%s), and run this again",
			d.file, d.line(keys...), strings.Join(d.keys(keys...), ", ")))
	}
	keys = p.key("registry", "configs")
	if d := p.last(keys...); d != nil && p.version <= 2 && release.major() < 2 {
		for _, host := range d.keys(keys...) {
			if at := append(slices.Clone(keys), host, "tls"); d.get(at...) != nil {
				wrong = append(wrong, fmt.Errorf("%s:%d: registry.configs.%s.tls is set: beside config_path it keeps the CRI plugin of containerd 1.x from "+
					"loading. Write ca or skip_verify into the hosts.toml of that registry, remove this table, and run this again",
					d.file, d.line(at...), quote(host)))
			}
		}
	}
	return errors.Join(wrong...)
}

// dropIns is the folder of files that the main file imports and this release merges; empty: there is none.
func dropIns(p *cri, release Release) string {
	if release.major() < 2 && p.version < 3 {
		return ""
	}
	main := p.docs[0]
	for _, name := range texts(main.get("imports")) {
		if path.Base(name) != "*.toml" || strings.Contains(path.Dir(name), "*") {
			continue
		}
		if !path.IsAbs(name) {
			name = path.Join(path.Dir(main.file), name)
		}
		return path.Dir(name)
	}
	return ""
}

// header is the table of the registries.
func (p *cri) header() string {
	if p.version < 2 {
		return "[plugins.cri.registry]"
	}
	return "[plugins." + quote(p.table()[1]) + ".registry]"
}

// setting is the whole table.
func (p *cri) setting(dir string) string {
	return p.header() + "\n  config_path = " + quote(dir) + "\n"
}

// edit is the change that sets config_path, in the file that has the last word. It is certain where the changed file was read again
// and says what it has to.
func (p *cri) edit(dir, dropIns string) (f File, certain bool) {
	d, keys := p.docs[0], p.key("registry", "config_path")
	for _, other := range slices.Backward(p.docs) {
		if other.get(keys...) != nil {
			d = other
			break
		}
	}
	if dropIns != "" && (d == p.docs[0] || path.Dir(d.file) != dropIns) {
		return File{Path: path.Join(dropIns, "99-mirror.toml"), Content: fmt.Sprintf("version = %d\n\n%s", p.version, p.setting(dir))}, true
	}
	f = File{Path: d.file, Part: true, Line: AtEnd, Content: "\n" + p.setting(dir)}
	lines := strings.Split(string(d.content), "\n")
	margin := func(line string) string { return line[:len(line)-len(strings.TrimLeft(line, " \t"))] }
	if line := d.lines[at(keys)]; line > 0 {
		f.Line, f.Content = line, margin(lines[line-1])+"config_path = "+quote(dir)+"\n"
	} else if line := d.heads[at(p.key("registry"))]; line > 0 {
		f.Line, f.Content = line, lines[line-1]+"\n"+margin(lines[line-1])+"  config_path = "+quote(dir)+"\n"
	}
	changed, err := parseTOML(d.file, f.Apply(d.content))
	if err == nil && changed.text(keys...) == dir && reflect.DeepEqual(without(d.tree, keys), without(changed.tree, keys)) {
		return f, true
	}
	return File{Path: d.file, Part: true, Content: p.setting(dir)}, false
}

// Apply is the content of a file with a part in its place.
func (f File) Apply(content []byte) []byte {
	switch text := string(content); {
	case f.Line == AtEnd:
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		return []byte(text + f.Content)
	case f.Line > 0:
		lines := strings.SplitAfter(text, "\n")
		lines[f.Line-1] = f.Content
		return []byte(strings.Join(lines, ""))
	}
	return []byte(f.Content)
}

// without is a tree without a key, and without the tables around it that have nothing else.
func without(tree map[string]any, keys []string) map[string]any {
	tree = maps.Clone(tree)
	if len(keys) == 1 {
		delete(tree, keys[0])
		return tree
	}
	below, _ := tree[keys[0]].(map[string]any)
	if below = without(below, keys[1:]); len(below) == 0 {
		delete(tree, keys[0])
	} else {
		tree[keys[0]] = below
	}
	return tree
}
