package node

import (
	"fmt"
	"path"
	"slices"
	"strings"
)

// containerdFiles are the places of containerd's configuration. The first that is there counts: products that bring a containerd of
// their own do not read the last.
var containerdFiles = []struct{ product, file string }{
	{"k3s", "/var/lib/rancher/k3s/agent/etc/containerd/config.toml"},
	{"RKE2", "/var/lib/rancher/rke2/agent/etc/containerd/config.toml"},
	{"MicroK8s", "/var/snap/microk8s/current/args/containerd.toml"},
	{"k0s", "/etc/k0s/containerd.toml"},
	{"Talos", "/etc/cri/containerd.toml"},
	{"containerd", "/etc/containerd/config.toml"},
}

// cri is the configuration of containerd's CRI plugin: the main file, then those that it imports. Later ones win.
type cri struct {
	version int64
	docs    []*document
}

// table is where version 1, 2 and 3 of the configuration have the settings of images.
func (p *cri) table() []string {
	switch {
	case p.version >= 3:
		return []string{"plugins", "io.containerd.cri.v1.images"}
	case p.version == 2:
		return []string{"plugins", "io.containerd.grpc.v1.cri"}
	}
	return []string{"plugins", "cri"}
}

// last is the file that has the last word about a key, nil: none has it.
func (p *cri) last(keys ...string) *document {
	for _, d := range slices.Backward(p.docs) {
		if v := d.get(keys...); v != nil && v != "" {
			return d
		}
	}
	return nil
}

func (p *cri) key(keys ...string) []string { return append(p.table(), keys...) }

func (c *checker) containerd() {
	c.product = "containerd"
	i := slices.IndexFunc(containerdFiles, func(f struct{ product, file string }) bool { return c.exists(f.file) })
	if i < 0 {
		if c.exists("/usr/bin/containerd") || c.exists("/usr/local/bin/containerd") || c.exists("/etc/containerd") {
			c.find(Broken, "config-path-missing", CertsDir, 0, "containerd has no config.toml, so config_path is not set: CRI reads no hosts.toml",
				configPathRemedy)
			c.hosts(CertsDir, "containerd")
		}
		return
	}
	product, main := containerdFiles[i].product, containerdFiles[i].file
	c.product = product
	p := c.load(main)
	if p == nil {
		c.hosts(CertsDir, "containerd")
		return
	}
	for _, name := range texts(p.docs[0].get("disabled_plugins")) {
		if name == "cri" || strings.HasSuffix(name, ".cri") {
			c.find(Note, "cri-disabled", main, p.docs[0].line("disabled_plugins"), "the CRI plugin is disabled, as Docker's package of containerd "+
				"does: Kubernetes does not pull with this containerd", "for a node of Kubernetes, take "+name+" out of disabled_plugins")
			return
		}
	}
	c.notImported(p)
	c.replaced(p)
	dirs := c.registry(p)
	found := false
	for _, dir := range dirs {
		found = c.hosts(dir, "containerd") || found
	}
	if !found && len(dirs) > 0 {
		c.find(Broken, "no-hosts-toml", dirs[0], 0, "no registry has a hosts.toml in this folder",
			"mirror setup containerd --mirror URL --install="+dirs[0]+" (k3s, RKE2 and MicroK8s: mirror setup of that)")
	}
	c.rancher(product)
	c.snapshotters(p)
}

const configPathRemedy = `set config_path = "/etc/containerd/certs.d" (mirror setup containerd prints the table), and restart containerd`

// load reads the main file and its imports; nil: one of them keeps containerd from starting.
func (c *checker) load(main string) *cri {
	p := &cri{}
	var seen []string
	for pending := []string{main}; len(pending) > 0; pending = pending[1:] {
		file := pending[0]
		if slices.Contains(seen, file) {
			continue
		}
		seen = append(seen, file)
		if !c.exists(file) {
			c.find(Broken, "import-missing", main, p.docs[0].line("imports"), "imports names "+file+", which is not there: containerd does not start",
				"remove it from imports, or write "+path.Dir(file)+"/*.toml, which may match no file")
			return nil
		}
		d := c.toml(file, "containerd does not start with it")
		if d == nil {
			return nil
		}
		if p.docs == nil {
			p.version, _ = d.get("version").(int64)
		}
		p.docs = append(p.docs, d)
		for _, name := range texts(d.get("imports")) {
			if !path.IsAbs(name) {
				name = path.Join(path.Dir(file), name)
			}
			if !strings.Contains(name, "*") {
				pending = append(pending, name)
				continue
			}
			for _, e := range c.list(path.Dir(name)) {
				if ok, _ := path.Match(path.Base(name), e); ok {
					pending = append(pending, path.Join(path.Dir(name), e))
				}
			}
		}
	}
	return p
}

// notImported finds the files beside the main one that containerd does not read.
func (c *checker) notImported(p *cri) {
	for _, dir := range []string{"conf.d", "config.d"} {
		dir = path.Join(path.Dir(p.docs[0].file), dir)
		for _, name := range c.list(dir) {
			file := path.Join(dir, name)
			if path.Ext(name) != ".toml" || slices.ContainsFunc(p.docs, func(d *document) bool { return d.file == file }) {
				continue
			}
			level := Warning
			if d := c.toml(file, "containerd would not start with it"); d != nil && hasRegistry(d) {
				level = Broken
			}
			c.find(level, "not-imported", file, 0, "containerd does not read it: imports in "+p.docs[0].file+" does not name it",
				fmt.Sprintf(`add imports = ["%s/*.toml"] at the top of %s, and restart containerd`, dir, p.docs[0].file))
		}
	}
}

// hasRegistry reports whether a file has settings of registries, for any version.
func hasRegistry(d *document) bool {
	return slices.ContainsFunc([]int64{1, 2, 3}, func(version int64) bool {
		p := cri{version: version}
		return d.table(p.key("registry")...) != nil
	})
}

// replaced finds imported files with which containerd 1.x loses the settings of registries.
func (c *checker) replaced(p *cri) {
	if p.version > 2 {
		return
	}
	for i, d := range p.docs[1:] {
		if d.table(p.table()...) == nil || d.table(p.key("registry")...) != nil {
			continue
		}
		for _, former := range p.docs[:i+1] {
			if former.table(p.key("registry")...) != nil {
				c.find(Warning, "import-replaces", d.file, d.line(p.table()...), fmt.Sprintf("containerd 1.x takes the whole table of the CRI plugin "+
					"from the last file that has one: registry of %s, line %d, is lost (2.x merges them)", former.file, former.line(p.key("registry")...)),
					"repeat [plugins."+quote(p.table()[1])+".registry] with its config_path in this file")
				break
			}
		}
	}
}

// registry checks the settings of registries, and returns the folders of hosts.toml files; nil: the mirrors are named without them.
func (c *checker) registry(p *cri) []string {
	switches := c.localPull(p)
	d := p.last(p.key("registry", "config_path")...)
	for _, old := range []string{"mirrors", "configs", "auths"} {
		c.legacy(p, old, d != nil)
	}
	if d == nil {
		if old := p.last(p.key("registry", "mirrors")...); old != nil && len(old.table(p.key("registry", "mirrors")...)) > 0 {
			return nil
		}
		c.noConfigPath(p, switches)
		return []string{CertsDir}
	}
	value, line := d.text(p.key("registry", "config_path")...), d.line(p.key("registry", "config_path")...)
	dirs := strings.Split(value, ":")
	if len(dirs) == 1 {
		return dirs
	}
	remedy := "name one folder: config_path = " + quote(dirs[0])
	switch {
	case p.version >= 3 && switches == "":
		c.find(Broken, "config-path-list", d.file, line, "config_path is a list of folders, "+value+": containerd 2.1 and later take it for the "+
			"name of one folder, and read no hosts.toml", remedy)
	case p.version >= 3:
		c.find(Warning, "config-path-list", d.file, line, "config_path is a list of folders, "+value+", which containerd 2.1 and later can read "+
			"for as long as "+switches+" makes them pull in the old way", remedy)
	default:
		c.find(Warning, "config-path-list", d.file, line, "config_path is a list of folders, "+value+": containerd 1.x reads it, 2.1 and later "+
			"do not", remedy)
	}
	return dirs
}

// noConfigPath finds why config_path is not set: it is missing, or stands where this version does not read it.
func (c *checker) noConfigPath(p *cri, switches string) {
	for _, d := range p.docs {
		for version := range int64(4) {
			other := cri{version: version}
			keys := other.key("registry", "config_path")
			if d.text(keys...) == "" {
				continue
			}
			c.find(Broken, "config-path-ignored", d.file, d.line(keys...), fmt.Sprintf("config_path stands in the table %s, which is not read in a "+
				"configuration of version %d: CRI reads no hosts.toml", quote(keys[1]), p.version),
				fmt.Sprintf("move it to [plugins.%s.registry], and restart containerd", quote(p.table()[1])))
			return
		}
	}
	d := p.docs[0]
	line := d.line(p.key("registry")...)
	if switches != "" {
		c.find(Warning, "config-path-missing", d.file, line, "config_path is not set: containerd before 2.2 reads no hosts.toml; later ones do for as "+
			"long as "+switches+" makes them pull in the old way", configPathRemedy)
		return
	}
	c.find(Broken, "config-path-missing", d.file, line, "config_path is not set: CRI reads no hosts.toml (2.2 and later have a list of folders in its "+
		"place, which they can't read)", configPathRemedy)
}

// legacy finds the settings of registries that config_path has replaced.
func (c *checker) legacy(p *cri, name string, configPath bool) {
	keys := p.key("registry", name)
	d := p.last(keys...)
	if d == nil || len(d.table(keys...)) == 0 {
		return
	}
	line := d.line(keys...)
	switch {
	case name == "mirrors" && configPath:
		c.find(Broken, "mirrors-and-config-path", d.file, line, "mirrors is set beside config_path: the CRI plugin does not load, and the node "+
			"becomes NotReady at the next restart of containerd", "remove the tables registry.mirrors; hosts.toml has their place")
		return
	case name == "mirrors":
		c.find(Warning, "legacy-mirrors", d.file, line, "mirrors is deprecated, and newer releases of containerd are about to remove it; without "+
			"config_path no hosts.toml is read", "replace it by config_path and hosts.toml: mirror setup containerd")
		for _, registry := range d.keys(keys...) {
			c.endpoints(d, append(keys, registry, "endpoint"), registry)
		}
		return
	}
	for _, host := range d.keys(keys...) {
		at := append(slices.Clone(keys), host, "tls")
		if name != "configs" || d.get(at...) == nil {
			continue
		}
		if p.version <= 2 && configPath {
			c.find(Broken, "configs-tls", d.file, d.line(at...), "configs."+quote(host)+".tls is set beside config_path: containerd 1.x does not load "+
				"the CRI plugin, and 2.x ignores it", "remove it, and set ca or skip_verify in the hosts.toml of that registry")
		} else if p.version >= 3 {
			c.find(Warning, "configs-tls", d.file, d.line(at...), "configs."+quote(host)+".tls is not read by containerd 2.x",
				"set ca or skip_verify in the hosts.toml of that registry")
		}
		return
	}
	c.find(Warning, "legacy-"+name, d.file, line, name+" is deprecated, and newer releases of containerd are about to remove it",
		"give the logins as imagePullSecrets, or to the mirror (docs/credentials.md)")
}

// endpoints counts the mirrors in that mirrors of containerd 1.x names.
func (c *checker) endpoints(d *document, keys []string, registry string) {
	for _, text := range texts(d.get(keys...)) {
		u := urlOf(text)
		if u == nil || itself(u.Host, registry) {
			continue
		}
		c.address(d.file, d.line(keys...), u)
		c.mirror(Mirror{URL: baseOf(u), Client: "containerd", File: d.file, Line: d.line(keys...)}, registry)
	}
}

// localPull notes the settings by which containerd 2.1 and later pull in the old way, and returns the first.
func (c *checker) localPull(p *cri) (first string) {
	in := p.table()
	if p.version <= 2 {
		return "" // of containerd 1.x, most likely, which has no other way
	}
	for _, s := range []struct {
		key string
		on  func(v any) bool
	}{
		{"use_local_image_pull", func(v any) bool { return v == true }},
		{"disable_snapshot_annotations", func(v any) bool { return v == false }},
		{"discard_unpacked_layers", func(v any) bool { return v == true }},
		{"image_pull_with_sync_fs", func(v any) bool { return v == true }},
		{"max_concurrent_downloads", func(v any) bool { return v != nil && v != int64(3) }},
	} {
		keys := append(slices.Clone(in), s.key)
		d := p.last(keys...)
		if d == nil || !s.on(d.get(keys...)) {
			continue
		}
		if first == "" {
			first = s.key
		}
		c.find(Note, "local-pull", d.file, d.line(keys...), s.key+" makes containerd 2.1 and later pull in the old way, which reads hosts.toml too",
			"nothing to do; mind that removing it changes how config_path is read")
	}
	return first
}
