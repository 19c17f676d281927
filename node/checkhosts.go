package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
)

// hosts checks the hosts.toml files below a folder, and reports whether there is one.
func (c *checker) hosts(dir, client string) (found bool) {
	if c.folders[dir] {
		return true
	}
	c.folders[dir] = true
	names := c.list(dir)
	if slices.Contains(names, "_backup") {
		c.find(Warning, "owned-by-spegel", path.Join(dir, "_backup"), 0, "Spegel owns this folder: it removes what others write there at each "+
			"start, and puts its copy back when it is removed", "let one program alone write it: uninstall Spegel first, or leave the mirror to it")
	}
	if owner := "/etc/containerd/thar-be-registries.toml"; dir == CertsDir && c.exists(owner) {
		c.find(Warning, "owned-by-bottlerocket", owner, 0, "Bottlerocket makes "+dir+" of its settings, as a whole: what others write there is lost",
			"give the mirror as settings.container-registry.mirrors: mirror setup bottlerocket")
	}
	for _, name := range names {
		file := path.Join(dir, name, hostsFile)
		if name == "_backup" || !c.exists(file) {
			continue
		}
		found = true
		registry := name
		if short, ok := strings.CutSuffix(name, "_"); ok && strings.Contains(short, "_") { // host_port_
			i := strings.LastIndex(short, "_")
			registry = short[:i] + ":" + short[i+1:]
		}
		c.hostsTOML(file, registry, client)
	}
	return found
}

// hostsTOML checks the file of a registry; that of all others is called _default.
func (c *checker) hostsTOML(file, registry, client string) {
	d := c.toml(file, client+" pulls the images of "+registry+" from the registry itself, and says so in its log alone")
	if d == nil {
		return
	}
	server, hosts := d.text("server"), d.keys("host")
	name := registry
	if registry == "_default" {
		name = "*"
	}
	if len(hosts) == 0 {
		c.find(Warning, "no-host", file, 0, "it has no [host.\"URL\"]: images are pulled from server, and containerd 1.x takes a file with server "+
			"alone for broken", "add [host.\"http://MIRROR:5000\"]: mirror setup containerd prints the whole file")
		return
	}
	mirrors := 0
	for _, host := range hosts {
		u := urlOf(host)
		if u == nil {
			c.find(Broken, "host-url", file, d.line("host", host), host+" is not a URL: the file is not used", "write it as http://10.0.0.7:5000")
			continue
		}
		if itself(u.Host, registry) {
			continue // settings of the registry itself
		}
		mirrors++
		c.address(file, d.line("host", host), u)
		m := Mirror{URL: baseOf(u), Client: client, File: file, Line: d.line("host", host), Header: make(http.Header)}
		c.tls(d, host, u, &m)
		c.pairs(d, host, &m)
		c.capabilities(d, host)
		for k := range d.table("host", host, "header") {
			value := strings.Join(texts(d.get("host", host, "header", k)), ", ")
			m.Header.Set(k, value)
			switch {
			case !strings.EqualFold(k, "Authorization"):
			case isLogin(value) && isInClear(u):
				c.find(Warning, "login-in-clear", file, d.line("host", host, "header", k), "Authorization goes to "+host+" in clear text: the network "+
					"can read it", "give the mirror a certificate, and write https:// with its ca: mirror setup tls makes them")
			case !isLogin(value):
				c.find(Broken, "login-form", file, d.line("host", host, "header", k), "Authorization has no scheme, so the mirror does not know the "+
					"login", `write Authorization = "Bearer TOKEN"`)
			}
		}
		if m.Header.Values("X-Dragonfly-Registry") != nil {
			c.find(Warning, "owned-by-dragonfly", file, d.line("host", host, "header", "X-Dragonfly-Registry"), "Dragonfly has written this file: "+
				host+" is its proxy", "let one program alone write this folder; Dragonfly can have the mirror as its source")
		}
		c.mirror(m, name)
	}
	if mirrors == 0 {
		return
	}
	switch u := urlOf(server); {
	case server == "" && registry != "_default":
		c.find(Note, "no-server", file, 0, "it has no server: containerd goes on to "+Registry{Name: registry}.server()+" if the mirror does not answer",
			"nothing to do, if that is where the registry is; else add server")
	case server != "" && registry == "_default" && u != nil && !slices.ContainsFunc(hosts, func(h string) bool {
		v := urlOf(h)
		return v != nil && v.Host == u.Host
	}):
		c.find(Broken, "default-server", file, d.line("server"), "server of _default is "+server+": images of every other registry are looked for "+
			"there, if the mirror does not answer", "remove server from this file: containerd then goes on to the registry of the image")
	}
}

// tls checks the settings of a host's certificate.
func (c *checker) tls(d *document, host string, u *url.URL, m *Mirror) {
	m.SkipVerify = d.get("host", host, "skip_verify") == true
	for _, key := range []string{"ca", "skip_verify", "client"} {
		if v := d.get("host", host, key); v == nil || v == false || u.Scheme != "http" {
			continue
		}
		c.find(Warning, "tls-at-http", d.file, d.line("host", host, key), fmt.Sprintf("%s stands at %s: containerd tries https:// there first, at "+
			"each connection", key, host), "remove "+key+", or write https:// if the mirror has a certificate")
		break
	}
	for _, ca := range texts(d.get("host", host, "ca")) {
		if !path.IsAbs(ca) {
			ca = path.Join(path.Dir(d.file), ca)
		}
		m.CA = append(m.CA, ca)
		if !c.exists(ca) {
			c.find(Broken, "ca-missing", d.file, d.line("host", host, "ca"), ca+" is not there: no image of this registry can be pulled",
				"copy the certificate there, or remove ca")
		}
	}
}

// pairs checks the certificates that the node shows to a host.
func (c *checker) pairs(d *document, host string, m *Mirror) {
	value, line := d.get("host", host, "client"), d.line("host", host, "client")
	at := func(name string) string {
		if name == "" || path.IsAbs(name) {
			return name
		}
		return path.Join(path.Dir(d.file), name)
	}
	list, isList := value.([]any)
	if one, ok := value.(string); ok {
		list, isList = []any{one}, true
	}
	if value == nil {
		return
	}
	for _, e := range list {
		pair := texts(e)
		_, nested := e.([]any)
		switch {
		case nested && len(pair) == 2:
			m.Pairs = append(m.Pairs, [2]string{at(pair[0]), at(pair[1])})
		case !nested && len(pair) == 1:
			m.Pairs = append(m.Pairs, [2]string{at(pair[0]), ""})
		default:
			isList = false
		}
	}
	if !isList {
		c.find(Broken, "client-form", d.file, line, "client is not a list of pairs: containerd ignores the whole file for it",
			`write client = [["/etc/mirror/client.cert", "/etc/mirror/client.key"]]`)
		m.Pairs = nil
	}
	for _, p := range m.Pairs {
		c.pair(d.file, line, p, "no image of this registry can be pulled")
	}
}

// pair checks a certificate of the node and its key.
func (c *checker) pair(file string, line int, paths [2]string, consequence string) {
	_, err := readPair(c.read, paths)
	switch {
	case err == nil:
	case errors.Is(err, fs.ErrNotExist):
		missing := paths[0]
		if c.exists(missing) {
			missing = paths[1]
		}
		c.find(Broken, "client-missing", file, line, missing+" is not there: "+consequence, "copy the certificate and its key there, or remove client: "+
			"mirror setup tls makes them")
	case errors.Is(err, errPair):
		remedy := "write the certificate, and the key that belongs to it, in PEM: mirror setup tls makes them"
		if paths[1] == "" {
			remedy = `write client = [["CERTIFICATE", "KEY"]], a pair in brackets of its own: a file outside of them must have both`
		}
		c.find(Broken, "client-form", file, line, strings.Trim(strings.Join(paths[:], ", "), ", ")+": "+err.Error()+": "+consequence, remedy)
	default:
		c.unreadable(strings.Trim(strings.Join(paths[:], ", "), ", "), err, consequence)
	}
}

// folder reads the first folder that is there of those in which Podman, CRI-O and Docker look for the certificates of a host.
func (c *checker) folder(m *Mirror, host string, dirs ...string) {
	for _, dir := range dirs {
		dir = path.Join(dir, host)
		names := c.list(dir)
		if names == nil {
			continue
		}
		for _, name := range names {
			base := strings.TrimSuffix(name, path.Ext(name))
			switch path.Ext(name) {
			case ".crt":
				m.CA = append(m.CA, path.Join(dir, name))
			case ".cert", ".key":
				if path.Ext(name) == ".key" && slices.Contains(names, base+".cert") {
					continue
				}
				p := [2]string{path.Join(dir, base+".cert"), path.Join(dir, base+".key")}
				m.Pairs = append(m.Pairs, p)
				c.pair(path.Join(dir, name), 0, p, m.Client+" can't pull from this mirror")
			}
		}
		return
	}
}

// capabilities checks for what a host is asked.
func (c *checker) capabilities(d *document, host string) {
	have := texts(d.get("host", host, "capabilities"))
	if len(have) == 0 {
		return // all
	}
	line := d.line("host", host, "capabilities")
	has := func(want string) bool {
		return slices.ContainsFunc(have, func(s string) bool { return strings.EqualFold(s, want) })
	}
	for _, s := range have {
		switch strings.ToLower(s) {
		case "pull", "resolve", "push":
		case "referrers":
			c.find(Warning, "capability-referrers", d.file, line, "containerd before 2.2 does not know the capability referrers, and ignores the whole "+
				"file for it", `write capabilities = ["pull", "resolve"]`)
		default:
			c.find(Broken, "capability-unknown", d.file, line, s+" is not a capability: containerd ignores the whole file for it",
				`write capabilities = ["pull", "resolve"]`)
		}
	}
	switch {
	case !has("pull"):
		c.find(Broken, "capability-pull", d.file, line, "capabilities lack pull: "+host+" is not asked for content",
			`write capabilities = ["pull", "resolve"]`)
	case !has("resolve"):
		c.find(Warning, "capability-resolve", d.file, line, "capabilities lack resolve: what a tag means is asked of the registry itself, which "+
			"counts it, and must answer", `write capabilities = ["pull", "resolve"]`)
	}
}
