package node

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// rancher checks the registries.yaml of k3s and RKE2, of which they make their folder of hosts.toml files at each start.
func (c *checker) rancher(product string) {
	name := strings.ToLower(product)
	if name != "k3s" && name != "rke2" {
		return
	}
	for _, registry := range c.list(CertsDir) {
		if c.exists(path.Join(CertsDir, registry, hostsFile)) {
			c.find(Broken, "folder-of-another", path.Join(CertsDir, registry, hostsFile), 0, product+" has a containerd of its own, which does not "+
				"read this folder", "write registries.yaml instead: mirror setup "+name)
			break
		}
	}
	file := "/etc/rancher/" + name + "/registries.yaml"
	own := "/var/lib/rancher/" + name + "/agent/etc/containerd/certs.d"
	for _, registry := range c.list(own) {
		hosts := path.Join(own, registry, hostsFile)
		if b, err := c.read(hosts); err == nil && isOurs(b) {
			c.find(Warning, "owned-by-"+name, hosts, 0, product+" makes this folder anew at each start: this file is lost then",
				"write "+file+" instead: mirror setup "+name)
			break
		}
	}
	b, err := c.read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var wanted struct {
		Mirrors map[string]struct {
			Endpoint []string `yaml:"endpoint"`
		} `yaml:"mirrors"`
	}
	if err != nil {
		c.unreadable(file, err, product+" does not start with it")
		return
	}
	if err := yaml.Unmarshal(b, &wanted); err != nil {
		line := 0
		if _, after, ok := strings.Cut(err.Error(), "line "); ok {
			_, _ = fmt.Sscan(after, &line) // 0 stays, if it is not a number
		}
		c.find(Broken, "yaml-error", file, line, err.Error()+": "+product+" does not start with it", "correct that line")
		return
	}
	for _, registry := range slices.Sorted(maps.Keys(wanted.Mirrors)) {
		for _, endpoint := range wanted.Mirrors[registry].Endpoint {
			u := urlOf(endpoint)
			if u == nil || itself(u.Host, registry) || slices.ContainsFunc(c.Mirrors, func(m Mirror) bool {
				return m.URL == baseOf(u) && slices.Contains(m.Registries, registry)
			}) {
				continue
			}
			c.find(Warning, "restart-needed", file, lineOf(b, endpoint), product+" has not made a hosts.toml of the endpoint "+endpoint+" for "+registry+
				": it reads this file at its start alone", "restart "+product)
		}
	}
	if _, ok := wanted.Mirrors["*"]; ok {
		c.find(Note, "wildcard", file, lineOf(b, "*"), `"*" does not work in some releases of `+product+" with containerd 2.x",
			"name the registries that matter besides")
	}
}

// snapshotters checks those that fetch layers by themselves.
func (c *checker) snapshotters(p *cri) {
	defaultOf, runtimes := p.key("snapshotter"), []string{"plugins", "io.containerd.cri.v1.runtime", "containerd", "runtimes"}
	if p.version <= 2 {
		defaultOf, runtimes = p.key("containerd", "snapshotter"), p.key("containerd", "runtimes")
	}
	places := [][]string{defaultOf}
	for _, d := range p.docs {
		for _, runtime := range d.keys(runtimes...) {
			places = append(places, append(slices.Clone(runtimes), runtime, "snapshotter"))
		}
	}
	var seen []string
	for _, keys := range places {
		d := p.last(keys...)
		if d == nil || slices.Contains(seen, d.text(keys...)) {
			continue
		}
		name := d.text(keys...)
		seen = append(seen, name)
		address := ""
		if proxy := p.last("proxy_plugins", name, "address"); proxy != nil {
			address = proxy.text("proxy_plugins", name, "address")
		}
		switch {
		case strings.Contains(name+address, "soci"):
			c.resolver(p, d.file, d.line(keys...), name, "SOCI", "/etc/soci-snapshotter-grpc/config.toml")
		case strings.Contains(name+address, "stargz"):
			c.resolver(p, d.file, d.line(keys...), name, "stargz", "/etc/containerd-stargz-grpc/config.toml")
		case strings.Contains(name+address, "nydus"):
			own := c.toml("/etc/nydus/config.toml", "the nydus snapshotter does not start with it")
			if own == nil || own.text("remote", "mirrors_config", "dir") == "" {
				c.find(Broken, "snapshotter-resolver", d.file, d.line(keys...), "the nydus snapshotter fetches layers by itself, and /etc/nydus/config.toml "+
					"names no mirror: layers are pulled past it", "set dir = "+quote(CertsDir)+" in its table [remote.mirrors_config], and restart it")
			}
		}
	}
}

// resolver checks the settings of a snapshotter that has those of stargz.
func (c *checker) resolver(p *cri, file string, line int, snapshotter, product, own string) {
	d, keys := c.toml(own, "the "+product+" snapshotter does not start with it"), []string{"resolver", "host"}
	if in := []string{"plugins", "io.containerd.snapshotter.v1." + snapshotter}; p.last(in...) != nil { // built into containerd
		d, keys = p.last(in...), append(in, keys...)
	}
	setup := "mirror setup " + strings.ToLower(product)
	if d == nil || len(d.table(keys...)) == 0 {
		c.find(Broken, "snapshotter-resolver", file, line, "the "+product+" snapshotter fetches layers by itself, and "+own+" names no mirror: layers "+
			"are pulled past it", setup+" prints what is missing")
	} else if product == "SOCI" {
		for _, registry := range d.keys(keys...) {
			list, _ := d.get(append(slices.Clone(keys), registry, "mirrors")...).([]any)
			for i, e := range list {
				m, _ := e.(map[string]any)
				if host, _ := m["host"].(string); !strings.Contains(host, "://") {
					c.find(Broken, "soci-mirror-host", own, d.line(append(slices.Clone(keys), registry, "mirrors", fmt.Sprint("#", i), "host")...), "host "+
						host+" has no scheme: SOCI can't read it, and the layers of "+registry+" can't be fetched", "write it as a URL: "+setup)
				}
			}
		}
	}
	if parallel := []string{"pull_modes", "parallel_pull_unpack", "enable"}; d != nil && d.get(parallel...) == true {
		c.find(Broken, "soci-parallel", d.file, d.line(parallel...), "SOCI pulls in its parallel mode (fastImagePull of EKS), in which it fetches "+
			"layers from the registry itself, whatever its resolver says", "switch it off, or leave layers out of what the mirror is to do")
	}
}

// docker checks dockerd.
func (c *checker) docker() {
	const file, certs = "/etc/docker/daemon.json", "/etc/docker/certs.d"
	var daemon struct {
		Mirrors  []string        `json:"registry-mirrors"`
		Insecure []string        `json:"insecure-registries"`
		Features map[string]bool `json:"features"`
	}
	b, err := c.read(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return
	case err != nil:
		c.unreadable(file, err, "dockerd does not start with it")
		return
	}
	if err := json.Unmarshal(b, &daemon); err != nil {
		line := 0
		if wrong, ok := errors.AsType[*json.SyntaxError](err); ok {
			line = 1 + bytes.Count(b[:wrong.Offset], []byte("\n"))
		}
		c.find(Broken, "json-error", file, line, err.Error()+": dockerd does not start with it", "correct that line")
		return
	}
	for _, text := range daemon.Mirrors {
		if u := urlOf(text); u != nil && !itself(u.Host, "docker.io") {
			c.address(file, lineOf(b, text), u)
			m := Mirror{URL: baseOf(u), Client: "Docker", File: file, Line: lineOf(b, text)}
			if u.Scheme == "https" {
				c.folder(&m, u.Host, certs)
			}
			c.mirror(m, "docker.io")
		}
	}
	if len(daemon.Mirrors) == 0 {
		c.find(Note, "docker-mirrors", file, 0, "Docker has no registry-mirrors: what it pulls and builds goes past the mirror",
			"mirror setup docker, if images are pulled with Docker on this node")
	}
	store, said := daemon.Features["containerd-snapshotter"]
	if len(daemon.Insecure) > 0 && (store || !said) {
		level, when := Note, "with the containerd image store, that of new installations since Docker 29,"
		if said {
			level, when = Warning, "with its containerd image store (containerd-snapshotter is true)"
		}
		c.find(level, "docker-insecure", file, lineOf(b, "insecure-registries"), when+" Docker does not read insecure-registries",
			"write a hosts.toml with the mirror's http:// URL below "+certs+": mirror setup docker")
	}
	if store || !said {
		c.hosts(certs, "Docker")
	}
}

// lineOf is the line on which a quoted text stands for the first time; 0: it is not there.
func lineOf(b []byte, text string) int {
	for _, q := range []string{`"` + text + `"`, "'" + text + "'", text} {
		if before, _, ok := bytes.Cut(b, []byte(q)); ok {
			return 1 + bytes.Count(before, []byte("\n"))
		}
	}
	return 0
}

// containers checks the registries.conf files of Podman and CRI-O. Later files replace the entries of earlier ones.
func (c *checker) containers() {
	files := []string{"/etc/containers/registries.conf"}
	for _, name := range c.list("/etc/containers/registries.conf.d") {
		if path.Ext(name) == ".conf" {
			files = append(files, path.Join("/etc/containers/registries.conf.d", name))
		}
	}
	type place struct {
		file string
		line int
	}
	prefixes := make(map[string]place)
	for _, file := range files {
		d := c.toml(file, "Podman and CRI-O pull no image")
		if d == nil {
			continue
		}
		list, _ := d.get("registry").([]any)
		if len(list) > 0 && d.table("registries") != nil {
			c.find(Broken, "registries-mixed", file, d.line("registries"), "[registries] of the first version stands beside [[registry]] of the second: "+
				"Podman and CRI-O pull no image", "replace [registries.search] by unqualified-search-registries")
		}
		for i, e := range list {
			entry, _ := e.(map[string]any)
			line := d.line("registry", fmt.Sprint("#", i))
			location, _ := entry["location"].(string)
			prefix, _ := entry["prefix"].(string)
			if prefix == "" {
				prefix = location
			}
			if former, ok := prefixes[prefix]; ok {
				c.find(Warning, "prefix-twice", former.file, former.line, "the entry of "+prefix+" is replaced by that of "+file+", with its mirrors",
					"keep one of the two")
			}
			prefixes[prefix] = place{file, line}
			registry, _, _ := strings.Cut(prefix, "/")
			if strings.HasSuffix(location, "/"+prefix) { // in the place of the registry
				c.podmanMirror(file, line, location, entry["insecure"] == true, registry)
			}
			mirrors, _ := entry["mirror"].([]any)
			for j, e := range mirrors {
				m, _ := e.(map[string]any)
				line := d.line("registry", fmt.Sprint("#", i), "mirror", fmt.Sprint("#", j))
				at, _ := m["location"].(string)
				c.podmanMirror(file, line, at, m["insecure"] == true, registry)
				if m["pull-from-mirror"] == "digest-only" || entry["mirror-by-digest-only"] == true {
					c.find(Warning, "digest-only", file, line, "images of "+prefix+" are pulled through "+at+" by digest alone; tags go past it",
						`write pull-from-mirror = "all", and remove mirror-by-digest-only`)
				}
			}
		}
	}
}

// podmanMirror checks the location of a mirror, which has no scheme.
func (c *checker) podmanMirror(file string, line int, location string, insecure bool, registry string) {
	host, repository, _ := strings.Cut(location, "/")
	if strings.Contains(location, "://") {
		c.find(Broken, "location-scheme", file, line, "location "+location+" has a scheme, which Podman and CRI-O refuse",
			"write it without, and insecure = true for http://")
		return
	}
	scheme := "https://"
	if insecure {
		scheme = "http://"
	}
	u := urlOf(scheme + host)
	if u == nil {
		return
	}
	c.address(file, line, u)
	if repository == "" && registry != "docker.io" {
		c.find(Warning, "location-path", file, line, "location "+location+" lacks the registry's name: the mirror can't know that images of "+registry+
			" are meant, and takes them for those of its defaultUpstream", "write location = "+quote(host+"/"+registry))
	}
	m := Mirror{URL: baseOf(u), Client: podman, File: file, Line: line}
	if !insecure && !slices.ContainsFunc(c.Mirrors, func(o Mirror) bool { return o.URL == m.URL && o.Client == m.Client }) {
		c.folder(&m, host, "/etc/containers/certs.d", "/etc/docker/certs.d")
	}
	c.mirror(m, registry)
}
