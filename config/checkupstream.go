package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/strictyaml"
	"github.com/registrymirror/mirror/oci"
)

func (c *Config) checkUpstreams(found *mistakes) {
	if c.Upstreams != nil && len(c.Upstreams) == 0 {
		found.add("upstreams", "names no registry", "add one, as in ghcr.io: {}; or remove the key for the well-known ones")
	}
	owners := map[string]string{} // the upstream of each name and alias
	for _, u := range c.Upstreams {
		owners[u.Name] = u.Name
	}
	for i := range c.Upstreams {
		c.Upstreams[i].check(found, owners)
	}
	c.checkDefault(found)
}

// path is that of the upstream's settings.
func (u *Upstream) path() string { return strictyaml.Join("upstreams", u.Name) }

func (u *Upstream) check(found *mistakes, owners map[string]string) {
	path := u.path()
	u.checkName(found, path)
	u.checkEndpoints(found, path+".endpoints")
	checkHosts(found, u.AuthHosts, path+".authHosts")
	checkHosts(found, u.RedirectHosts, path+".redirectHosts")
	checkCDNHosts(found, u.CDNHosts, path+".cdnHosts")
	u.checkAliases(found, path+".aliases", owners)
	u.checkCredentials(found, path+".credentials")
	u.checkClientLogins(found, path)
	u.checkTags(found, path+".tags")
	u.checkPins(found, path+".pins")
	checkGlobs(found, u.Deny, path+".deny")
	checkGlobs(found, u.Only, path+".only")
}

func (u *Upstream) checkName(found *mistakes, path string) {
	switch {
	case u.IsPattern():
		u.checkPattern(found, path)
	case strings.Contains(u.Name, "://"):
		hint := "write the host alone"
		if parsed, err := url.Parse(u.Name); err == nil && isHostPort(parsed.Host) {
			hint = "write " + parsed.Host + "; where it is asked goes under endpoints"
		}
		found.add(path, "a name is a host, without a scheme", hint)
	case strings.Contains(u.Name, "/"):
		host, _, _ := strings.Cut(u.Name, "/")
		found.add(path, "a name is a host, without a path", "write "+host)
	case !isHostPort(u.Name):
		found.add(path, quoted(u.Name)+" is not HOST or HOST:PORT", "write it as it stands in image names, as in ghcr.io")
	case registryOf(u.Name) != "" && u.Endpoints == nil:
		found.add(path, quoted(u.Name)+" is not a registry", strictyaml.DidYouMean(registryOf(u.Name)))
	case canonical(u.Name) != "" && u.Endpoints == nil:
		found.add(path, "another name of "+canonical(u.Name), "write "+canonical(u.Name))
	}
}

func (u *Upstream) checkEndpoints(found *mistakes, path string) {
	if u.IsPattern() {
		return // it has none, see checkPattern
	}
	if u.Endpoints != nil && len(u.Endpoints) == 0 {
		found.add(path, "names no endpoint", "add its URL, or remove the key for "+endpointsOf(u.Name)[0].URL)
	}
	seen := map[string]int{}
	for i := range u.Endpoints {
		e, at := &u.Endpoints[i], strictyaml.Index(path, i)
		if e.URL == "" {
			found.add(at, "has no url", "add it, as in url: https://registry.example.com")
			continue
		}
		if message, hint := checkEndpointURL(e.URL); message != "" {
			found.add(at+".url", message, hint)
			continue
		}
		e.URL = strings.ToLower(strings.TrimRight(e.URL, "/"))
		e.Prefix = strings.Trim(e.Prefix, "/")
		e.check(found, at)
		key := e.URL + "/" + e.Prefix // its name in metrics
		if first, twice := seen[key]; twice {
			found.add(at+".url", fmt.Sprintf("the same as endpoints[%d]", first), "remove one of the two")
			continue
		}
		seen[key] = i
	}
}

// check checks the settings of an endpoint besides its URL.
func (e *Endpoint) check(found *mistakes, at string) {
	if e.Prefix != "" && !oci.IsRepository(e.Prefix) {
		found.add(at+".prefix", quoted(e.Prefix)+" is not what a repository can begin with",
			"lower case, without host and tag, as in hub-proxy")
	}
	if strings.HasPrefix(e.URL, "http://") {
		for key, file := range map[string]string{"ca": e.CA, "clientCert": e.ClientCert} {
			if file != "" {
				found.add(at+"."+key, "the endpoint is plain HTTP, which has no certificate", "write https:// or remove "+key)
			}
		}
	}
	switch {
	case e.ClientCert != "" && e.ClientKey == "":
		found.add(at+".clientCert", "has no clientKey", "add the file with its key; it may be the same file")
	case e.ClientCert == "" && e.ClientKey != "":
		found.add(at+".clientKey", "has no clientCert", "add the file with the certificate of this key")
	}
	if e.Proxy != "" && e.Proxy != "none" {
		checkProxy(found, e.Proxy, at+".proxy")
	}
	checkHosts(found, e.AuthHosts, at+".authHosts")
}

// checkProxy checks the URL of a proxy. No message shows a password in it.
func checkProxy(found *mistakes, text, at string) {
	const write = "write http:// or https:// with a host and a port, as in http://proxy.example.com:3128, or none"
	u, message, hint := checkURL(text, write, "remove it, or give it in HTTPS_PROXY, without this key")
	switch {
	case message != "":
		found.add(at, message, hint)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		found.add(at, quoted(text)+" has more than a host", write)
	}
}

// checkHosts checks a list of hosts, and puts them in lower case.
func checkHosts(found *mistakes, hosts []string, path string) {
	for i, h := range hosts {
		at := strictyaml.Index(path, i)
		hosts[i] = strings.ToLower(h)
		if strings.Contains(h, "*") {
			found.add(at, "a pattern is not available yet", "name each host")
			continue
		}
		checkHost(found, hosts[i], at)
	}
}

func checkHost(found *mistakes, h, at string) {
	switch {
	case isHostPort(h):
	case strings.Contains(h, "://"):
		found.add(at, "a host has no scheme", "write HOST or HOST:PORT")
	default:
		found.add(at, quoted(h)+" is not HOST or HOST:PORT", "as in auth.example.com or 10.0.0.5:5001")
	}
}

// checkCDNHosts checks a list of public hosts, in which a label may be *, and puts them in lower case.
func checkCDNHosts(found *mistakes, hosts []string, path string) {
	for i, h := range hosts {
		at := strictyaml.Index(path, i)
		hosts[i] = strings.ToLower(h)
		host, _, _ := strings.Cut(hosts[i], ":")
		labels := strings.Split(host, ".")
		_, err := netip.ParseAddr(host)
		switch {
		case err == nil || strings.HasPrefix(h, "["):
			found.add(at, quoted(h)+" is an address; these are names of public hosts", "an address goes into redirectHosts")
		case slices.ContainsFunc(labels, func(l string) bool { return l != "*" && strings.Contains(l, "*") }):
			found.add(at, quoted(h)+" has a * beside other letters", "a * stands for one whole label: *.cdn.example.com")
		case slices.Contains(labels[max(len(labels)-2, 0):], "*"):
			found.add(at, quoted(h)+" names no domain", "the last two labels can't be *: *.cdn.example.com")
		default:
			checkHost(found, strings.ReplaceAll(hosts[i], "*", "x"), at)
		}
	}
}

// checkAliases checks the aliases of an upstream, puts them in lower case, and enters them among the owners.
func (u *Upstream) checkAliases(found *mistakes, path string, owners map[string]string) {
	for i, alias := range u.Aliases {
		at := strictyaml.Index(path, i)
		alias = strings.ToLower(alias)
		u.Aliases[i] = alias
		if !isHostPort(alias) {
			found.add(at, quoted(alias)+" is not a host or a word", "as in index.docker.io or corp")
			continue
		}
		if owner, taken := owners[alias]; taken {
			message := fmt.Sprintf("%q is an alias of %s already", alias, owner)
			if owner == alias {
				message = fmt.Sprintf("%q is the name of an upstream already", alias)
			}
			found.add(at, message, "remove it from one of the two")
			continue
		}
		owners[alias] = u.Name
	}
}

// checkDefault looks for the default among the upstreams as they will be, with their well-known aliases.
func (c *Config) checkDefault(found *mistakes) {
	if c.DefaultUpstream == "" {
		return
	}
	upstreams := c.wholeUpstreams()
	if u := upstreams.Named(c.DefaultUpstream); u != nil {
		if u.IsPattern() {
			found.add("defaultUpstream", quoted(c.DefaultUpstream)+" is many registries", "name one of them")
		}
		return
	}
	var names []string
	for _, u := range upstreams {
		names = append(names, u.Name)
	}
	found.add("defaultUpstream", quoted(c.DefaultUpstream)+" is not among the upstreams",
		cmp.Or(strictyaml.DidYouMean(strictyaml.Nearest(c.DefaultUpstream, names)),
			"add it under upstreams, or write one that is there: "+strings.Join(names, ", ")))
}
