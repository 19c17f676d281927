package node

import (
	"cmp"
	"encoding/json"
	"maps"
	"net/url"
	"path"
	"slices"
	"strings"

	"golang.org/x/net/http/httpproxy"
)

// unitFolders are where systemd looks for units and their drop-in files, the strongest first.
var unitFolders = []string{"/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"}

// runtimeUnits are the units that the runtimes run in, by the product.
var runtimeUnits = map[string][]string{
	"containerd": {"containerd"},
	"k3s":        {"k3s", "k3s-agent"},
	"RKE2":       {"rke2-server", "rke2-agent"},
	"MicroK8s":   {"snap.microk8s.daemon-containerd"},
	"k0s":        {"k0scontroller", "k0sworker"},
	"Docker":     {"docker"},
	podman:       {"crio"},
}

// variable is one of a runtime's environment.
type variable struct {
	name, value string
	file        string
	line        int
}

// environment is what a runtime is started with, by name.
type environment map[string]variable

// first is a variable as Go's clients read it: in capital letters, or else in small ones.
func (e environment) first(name string) variable {
	if v := e[name]; v.value != "" {
		return v
	}
	return e[strings.ToLower(name)]
}

// proxies finds the mirrors that a runtime asks through a proxy, as its environment has one and does not except the mirror.
func (c *checker) proxies() {
	for _, m := range c.Mirrors {
		product := m.Client
		if m.Client == "containerd" {
			product = c.product
		}
		u, err := url.Parse(m.URL)
		if err != nil {
			continue
		}
		for _, unit := range runtimeUnits[product] {
			c.proxy(u, product, unit)
		}
	}
}

// proxy checks one mirror and one unit.
func (c *checker) proxy(mirror *url.URL, product, unit string) {
	e := c.unit(unit)
	if e == nil {
		return
	}
	if product == "Docker" {
		c.daemonProxies(e)
	}
	if product == "MicroK8s" {
		c.environmentFile(e, "/var/snap/microk8s/current/args/containerd-env")
	}
	if product == "k3s" || product == "RKE2" {
		for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"} {
			if v, ok := e["CONTAINERD_"+name]; ok { // for containerd alone
				e[name] = v
			}
		}
	}
	except := e.first("NO_PROXY")
	config := httpproxy.Config{HTTPProxy: e.first("HTTP_PROXY").value, HTTPSProxy: e.first("HTTPS_PROXY").value, NoProxy: except.value}
	proxy, err := config.ProxyFunc()(mirror)
	if err == nil && proxy == nil {
		return
	}
	v := e.first(strings.ToUpper(mirror.Scheme) + "_PROXY")
	through := "a proxy"
	if proxy != nil { // without its login
		through = "the proxy " + baseOf(proxy)
	}
	but := ""
	if product == "k3s" || product == "RKE2" {
		but = "; " + product + " excepts addresses of Services and pods by itself"
	}
	remedy := "add " + mirror.Hostname() + " to " + cmp.Or(except.name, "NO_PROXY") + " in " + cmp.Or(except.file, v.file)
	if !strings.HasSuffix(v.file, ".json") {
		remedy += ", then systemctl daemon-reload"
	}
	c.find(Warning, "proxy", v.file, v.line, unit+" asks "+through+" for the mirror at "+baseOf(mirror)+" ("+v.name+but+"): where the proxy does not "+
		"reach it, images are pulled past it, and the mirror takes all nodes for one client", remedy+", and restart "+unit)
}

// unit is the environment that a unit of systemd gives its program: by DefaultEnvironment, by Environment in the unit and its drop-in
// files, and by EnvironmentFile. Nil: the unit is not there.
func (c *checker) unit(name string) environment {
	var files []string
	for _, dir := range unitFolders {
		if file := path.Join(dir, name+".service"); c.exists(file) {
			files = append(files, file)
			break
		}
	}
	if files == nil {
		return nil
	}
	dropIns := make(map[string]string) // the strongest folder of each name
	for _, dir := range slices.Backward(unitFolders) {
		for _, f := range c.list(path.Join(dir, name+".service.d")) {
			if path.Ext(f) == ".conf" {
				dropIns[f] = path.Join(dir, name+".service.d", f)
			}
		}
	}
	for _, f := range slices.Sorted(maps.Keys(dropIns)) {
		files = append(files, dropIns[f])
	}
	e, own := make(environment), make(environment)
	const system = "/etc/systemd/system.conf"
	c.eachLine(system, func(key, value string, line int) {
		if key == "DefaultEnvironment" {
			e.assign(value, system, line)
		}
	})
	specifiers := strings.NewReplacer("%N", name, "%p", name, "%n", name+".service")
	var others []string
	for _, file := range files {
		c.eachLine(file, func(key, value string, line int) {
			switch {
			case key == "Environment" && value == "":
				clear(own)
			case key == "Environment":
				own.assign(value, file, line)
			case key == "EnvironmentFile" && value == "":
				others = nil
			case key == "EnvironmentFile":
				others = append(others, specifiers.Replace(strings.TrimPrefix(value, "-")))
			}
		})
	}
	maps.Copy(e, own)
	for _, file := range others {
		c.environmentFile(e, file)
	}
	return e
}

// assign takes over the variables of a line of a unit.
func (e environment) assign(text, file string, line int) {
	for _, word := range words(text) {
		if name, value, ok := strings.Cut(word, "="); ok {
			e[name] = variable{name, value, file, line}
		}
	}
}

// environmentFile reads a file of lines NAME=VALUE, as those in /etc/default.
func (c *checker) environmentFile(e environment, file string) {
	c.eachLine(file, func(name, value string, line int) {
		name = strings.TrimPrefix(name, "export ")
		e[name] = variable{name, strings.Join(words(value), " "), file, line}
	})
}

// daemonProxies are those of daemon.json, which dockerd takes before its environment.
func (c *checker) daemonProxies(e environment) {
	const file = "/etc/docker/daemon.json"
	b, err := c.read(file)
	if err != nil {
		return
	}
	var daemon struct {
		Proxies map[string]any `json:"proxies"`
	}
	if json.Unmarshal(b, &daemon) != nil {
		return // a finding of docker
	}
	for key, name := range map[string]string{"http-proxy": "HTTP_PROXY", "https-proxy": "HTTPS_PROXY", "no-proxy": "NO_PROXY"} {
		if value, _ := daemon.Proxies[key].(string); value != "" {
			e[name] = variable{key, value, file, lineOf(b, key)}
		}
	}
}

// eachLine calls do with each line NAME=VALUE of a unit or of an environment file, and its number. A line that ends in a backslash goes
// on in the next one.
func (c *checker) eachLine(file string, do func(name, value string, line int)) {
	b, err := c.read(file)
	if err != nil {
		return
	}
	text, first := "", 0
	for i, raw := range strings.Split(string(b), "\n") {
		line := strings.TrimSpace(raw)
		if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
			continue
		}
		if text == "" {
			first = i + 1
		}
		more := false
		line, more = strings.CutSuffix(line, `\`)
		if text += line; more {
			text += " "
			continue
		}
		if name, value, ok := strings.Cut(text, "="); ok {
			do(strings.TrimSpace(name), strings.TrimSpace(value), first)
		}
		text = ""
	}
}

// words are those of a line of systemd: with quotes around one, or a part of it, it may have spaces.
func words(text string) (list []string) {
	var b strings.Builder
	quoted, open := rune(0), false
	escaped := false
	for _, r := range text {
		switch {
		case escaped:
			b.WriteRune(r)
			escaped = false
		case r == '\\' && quoted != '\'':
			escaped, open = true, true
		case r == quoted:
			quoted = 0
		case quoted == 0 && (r == '"' || r == '\''):
			quoted, open = r, true
		case quoted == 0 && (r == ' ' || r == '\t'):
			if open {
				list = append(list, b.String())
			}
			b.Reset()
			open = false
		default:
			b.WriteRune(r)
			open = true
		}
	}
	if open {
		list = append(list, b.String())
	}
	return list
}
