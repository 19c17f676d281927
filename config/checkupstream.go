package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/oci"
)

func (d *decoder) checkUpstreams(c *Config) {
	owners := map[string]string{} // names and aliases, by who has them
	for _, u := range c.Upstreams {
		owners[u.Name] = u.Name
	}
	for i := range c.Upstreams {
		u := &c.Upstreams[i]
		path := spot{}.key("upstreams").chosen(u.Name).path
		d.checkName(u, path)
		d.checkEndpoints(u, path)
		d.checkHosts(u.AuthHosts, path+".authHosts")
		d.checkHosts(u.RedirectHosts, path+".redirectHosts")
		d.checkCDNHosts(u.CDNHosts, path+".cdnHosts")
		d.checkAliases(u, path, owners)
		d.checkCredentials(u, path+".credentials")
		if u.Tags.Wait > maxWait {
			d.bad(path+".tags.wait", fmt.Sprintf("%s is too long: clients give up", formatDuration(u.Tags.Wait)),
				"write at most "+formatDuration(maxWait))
		}
	}
	d.checkDefault(c)
}

func (d *decoder) checkName(u *Upstream, path string) {
	switch {
	case u.IsPattern():
		d.checkPattern(u, path)
	case strings.Contains(u.Name, "://"):
		hint := "write the host alone"
		if parsed, err := url.Parse(u.Name); err == nil && isHostPort(parsed.Host) {
			hint = "write " + parsed.Host + "; where it is asked goes under endpoints"
		}
		d.bad(path, "a name is a host, without a scheme", hint)
	case strings.Contains(u.Name, "/"):
		host, _, _ := strings.Cut(u.Name, "/")
		d.bad(path, "a name is a host, without a path", "write "+host)
	case !isHostPort(u.Name):
		d.bad(path, quoted(u.Name)+" is not HOST or HOST:PORT", "write it as it stands in image names, as in ghcr.io")
	case registryOf(u.Name) != "" && u.Endpoints == nil:
		d.bad(path, quoted(u.Name)+" is not a registry", didYouMean(registryOf(u.Name)))
	case canonical(u.Name) != "" && u.Endpoints == nil:
		d.bad(path, "another name of "+canonical(u.Name), "write "+canonical(u.Name))
	}
}

func (d *decoder) checkEndpoints(u *Upstream, path string) {
	path += ".endpoints"
	if u.IsPattern() {
		return // it has none, see checkPattern
	}
	if u.Endpoints != nil && len(u.Endpoints) == 0 {
		d.bad(path, "names no endpoint", "add its URL, or remove the key for "+endpointsOf(u.Name)[0].URL)
	}
	seen := map[string]int{}
	for i, e := range u.Endpoints {
		at := spot{path: path}.index(i).path
		where := at
		if _, ok := d.places[at+".url"]; ok {
			where += ".url"
		}
		if e.URL == "" {
			d.bad(where, "has no url", "add it, as in url: https://registry.example.com")
			continue
		}
		if message, hint := checkURL(e.URL); message != "" {
			d.bad(where, message, hint)
			continue
		}
		u.Endpoints[i].URL = strings.ToLower(strings.TrimRight(e.URL, "/"))
		u.Endpoints[i].Prefix = strings.Trim(e.Prefix, "/")
		d.checkEndpoint(&u.Endpoints[i], at)
		key := u.Endpoints[i].URL + "/" + u.Endpoints[i].Prefix // its name in metrics
		if first, twice := seen[key]; twice {
			d.bad(where, fmt.Sprintf("the same as endpoints[%d]", first), "remove one of the two")
			continue
		}
		seen[key] = i
	}
}

// checkEndpoint checks what an endpoint has besides its URL.
func (d *decoder) checkEndpoint(e *Endpoint, at string) {
	if e.Prefix != "" && !oci.IsRepository(e.Prefix) {
		d.bad(at+".prefix", quoted(e.Prefix)+" is not what a repository can begin with",
			"lower case, without host and tag, as in hub-proxy")
	}
	if strings.HasPrefix(e.URL, "http://") {
		for key, file := range map[string]string{"ca": e.CA, "clientCert": e.ClientCert} {
			if file != "" {
				d.bad(at+"."+key, "the endpoint is plain HTTP, which has no certificate", "write https:// or remove "+key)
			}
		}
	}
	switch {
	case e.ClientCert != "" && e.ClientKey == "":
		d.bad(at+".clientCert", "has no clientKey", "add the file with its key; it may be the same file")
	case e.ClientCert == "" && e.ClientKey != "":
		d.bad(at+".clientKey", "has no clientCert", "add the file with the certificate of this key")
	}
	if e.Proxy != "" && e.Proxy != "none" {
		d.checkProxy(e.Proxy, at+".proxy")
	}
	d.checkHosts(e.AuthHosts, at+".authHosts")
}

// checkProxy says what is wrong with the URL of a proxy, without ever showing a password in it.
func (d *decoder) checkProxy(text, at string) {
	const write = "write http:// or https:// with a host and a port, as in http://proxy.example.com:3128, or none"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		d.bad(at, "not a URL", write)
	case u.User != nil:
		d.bad(at, "a user or password in a URL is not allowed", "remove it, or give it in HTTPS_PROXY, without this key")
	case u.Scheme != "http" && u.Scheme != "https":
		d.bad(at, quoted(text)+" has no http:// or https://", write)
	case !isHostPort(strings.ToLower(u.Host)):
		d.bad(at, quoted(text)+" has no valid host", write)
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		d.bad(at, quoted(text)+" has more than a host", write)
	}
}

// checkHosts checks a list of hosts, and puts them in lower case.
func (d *decoder) checkHosts(hosts []string, path string) {
	for i, h := range hosts {
		at := spot{path: path}.index(i).path
		hosts[i] = strings.ToLower(h)
		if strings.Contains(h, "*") {
			d.bad(at, "a pattern is "+notYet, "name each host")
			continue
		}
		d.checkHost(hosts[i], at)
	}
}

func (d *decoder) checkHost(h, at string) {
	switch {
	case isHostPort(h):
	case strings.Contains(h, "://"):
		d.bad(at, "a host has no scheme", "write HOST or HOST:PORT")
	default:
		d.bad(at, quoted(h)+" is not HOST or HOST:PORT", "as in auth.example.com or 10.0.0.5:5001")
	}
}

// checkCDNHosts checks a list of public hosts, in which a label may be *, and puts them in lower case.
func (d *decoder) checkCDNHosts(hosts []string, path string) {
	for i, h := range hosts {
		at := spot{path: path}.index(i).path
		hosts[i] = strings.ToLower(h)
		host, _, _ := strings.Cut(hosts[i], ":")
		labels := strings.Split(host, ".")
		_, err := netip.ParseAddr(host)
		switch {
		case err == nil || strings.HasPrefix(h, "["):
			d.bad(at, quoted(h)+" is an address; these are names of public hosts", "an address goes into redirectHosts")
		case slices.ContainsFunc(labels, func(l string) bool { return l != "*" && strings.Contains(l, "*") }):
			d.bad(at, quoted(h)+" has a * beside other letters", "a * stands for one whole label: *.cdn.example.com")
		case slices.Contains(labels[max(len(labels)-2, 0):], "*"):
			d.bad(at, quoted(h)+" names no domain", "the last two labels can't be *: *.cdn.example.com")
		default:
			d.checkHost(strings.ReplaceAll(hosts[i], "*", "x"), at)
		}
	}
}

// checkAliases checks the aliases of an upstream, puts them in lower case, and enters them among the owners.
func (d *decoder) checkAliases(u *Upstream, path string, owners map[string]string) {
	for i, alias := range u.Aliases {
		at := spot{path: path + ".aliases"}.index(i).path
		alias = strings.ToLower(alias)
		u.Aliases[i] = alias
		if !isHostPort(alias) {
			d.bad(at, quoted(alias)+" is not a host or a word", "as in index.docker.io or corp")
			continue
		}
		if owner, taken := owners[alias]; taken {
			message := fmt.Sprintf("%q is an alias of %s already", alias, owner)
			if owner == alias {
				message = fmt.Sprintf("%q is the name of an upstream already", alias)
			}
			d.bad(at, message, "remove it from one of the two")
			continue
		}
		owners[alias] = u.Name
	}
}

// checkDefault finds the default among the upstreams as they will be, with what is known of them.
func (d *decoder) checkDefault(c *Config) {
	if _, set := d.places["defaultUpstream"]; !set || c.DefaultUpstream == "" {
		return
	}
	whole := Config{Upstreams: append(Upstreams{}, c.Upstreams...)}
	if c.Upstreams == nil {
		whole.Upstreams = nil
	}
	whole.complete(nil)
	if u := whole.Upstreams.named(c.DefaultUpstream); u != nil && u.IsPattern() {
		d.bad("defaultUpstream", quoted(c.DefaultUpstream)+" is many registries", "name one of them")
		return
	} else if u != nil {
		return
	}
	var names []string
	for _, u := range whole.Upstreams {
		names = append(names, u.Name)
	}
	hint := didYouMean(Nearest(c.DefaultUpstream, names))
	if hint == "" {
		hint = "add it under upstreams, or write one that is there: " + strings.Join(names, ", ")
	}
	d.bad("defaultUpstream", quoted(c.DefaultUpstream)+" is not among the upstreams", hint)
}
