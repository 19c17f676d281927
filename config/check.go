package config

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// maxWait is the longest that a pull may wait for an upstream: clients give up soon after.
const maxWait = 25 * time.Second

// leastSize is the smallest size that makes sense. A smaller one is a number without its unit.
const leastSize = 1 << 20

// mistakes are what checks have found, in the order in which they looked.
type mistakes []strictyaml.Mistake

// add notes a mistake in the value at a path. Where that has its default, the mistake is in the first of the settings beside
// it that is set.
func (m *mistakes) add(path, message, hint string, beside ...string) {
	*m = append(*m, strictyaml.Mistake{Path: path, Message: message, Hint: hint, Beside: beside})
}

// quoted is text as a message shows it, without a password.
func quoted(text string) string { return strictyaml.Quoted(text) }

// Check returns the mistakes that no single type shows: in addresses, URLs and names, and in combinations of settings. It
// puts names and addresses into their usual form.
func (c *Config) Check() []strictyaml.Mistake {
	found := new(mistakes)
	c.checkListeners(found)
	checkPair(found, "tls", c.TLS.Cert, c.TLS.Key)
	checkPair(found, "admin.tls", c.Admin.TLS.Cert, c.Admin.TLS.Key)
	if c.TLS.HTTP2 && c.TLS.Cert == "" && c.TLS.Key == "" {
		found.add("tls.http2", "true has no effect without a certificate", "set tls.cert and tls.key, or remove it")
	}
	c.Admin.checkHosts(found)
	if c.Clients.CA != "" && c.TLS.Cert == "" && c.TLS.Key == "" {
		found.add("clients.ca", "clients show certificates over TLS alone", "set tls.cert and tls.key")
	}
	if c.Clients.CRL != "" && c.Clients.CA == "" {
		found.add("clients.crl", "it has no effect without clients.ca", "set clients.ca, or remove it")
	}
	c.Clients.Kubernetes.check(found)
	c.Clients.checkLimits(found)
	c.Cache.check(found)
	c.checkUpstreams(found)
	c.checkRules(found)
	c.checkOperators(found)
	c.checkWebhooks(found)
	c.Kubernetes.check(found)
	c.Warm.check(found)
	checkPlatforms(found, "platforms", c.Platforms)
	c.checkSchedules(found)
	c.checkProxies(found)
	return *found
}

// checkProxies checks networks, and clears the bits behind their prefixes.
func (c *Config) checkProxies(found *mistakes) {
	for i, text := range c.TrustedProxies {
		p, err := netip.ParsePrefix(text)
		if err == nil && p.Addr().Is4In6() {
			err = errors.New("IPv4 in IPv6")
		}
		if err == nil {
			c.TrustedProxies[i] = p.Masked().String()
			continue
		}
		hint := "as in 10.0.0.0/8 or fd00::/8"
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
			hint = "write " + netip.PrefixFrom(a, a.BitLen()).String() + " for one address"
		}
		found.add(strictyaml.Index("trustedProxies", i), quoted(text)+" is not a network in CIDR notation", hint)
	}
}

func (k Kubernetes) check(found *mistakes) {
	if u, err := url.Parse(k.Server); k.Server != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil ||
		u.RawQuery != "" || strings.Trim(u.Path, "/") != "") {
		found.add("kubernetes.server", quoted(k.Server)+" is not the URL of an API server",
			"write https://HOST:PORT; plain HTTP would show the token")
	}
	checkNamespaces(found, "kubernetes.feedNamespaces", k.FeedNamespaces)
	checkNamespaces(found, "kubernetes.feedExcluded", k.FeedExcluded)
	if k.Feed && len(k.FeedNamespaces) == 0 {
		found.add("kubernetes.feedNamespaces", "the feed has no namespace", `write ["*"] for all, or set kubernetes.feed to false`, "kubernetes.feed")
	}
}

func checkNamespaces(found *mistakes, path string, globs []string) {
	for i, text := range globs {
		if !namespaceGlob.MatchString(text) {
			found.add(strictyaml.Index(path, i), quoted(text)+" is not a glob of namespaces", "as in prod, team-* or *")
		}
	}
}

// namespaceGlob is a glob of namespaces: their letters, and *.
var namespaceGlob = regexp.MustCompile(`^[a-z0-9*]([a-z0-9*-]{0,61}[a-z0-9*])?$`)

func (w Warm) check(found *mistakes) {
	for _, n := range []struct {
		name  string
		value int
	}{{"maxJobs", w.MaxJobs}, {"maxImages", w.MaxImages}, {"parallel", w.Parallel}} {
		if n.value < 1 {
			found.add("warm."+n.name, fmt.Sprintf("%d is too few", n.value), "write 1 or more")
		}
	}
	if w.MaxShare == 0 {
		found.add("warm.maxShare", "0% leaves no room for any job", "write more, as in 50%")
	}
	if w.MaxBytes > 0 && w.MaxBytes < leastSize {
		found.add("warm.maxBytes", fmt.Sprintf("%d bytes is too little", w.MaxBytes), "write a unit, as in 100GiB; 0 turns it off")
	}
	if w.Keep <= 0 {
		found.add("warm.keep", "a job would keep nothing", "write a time, as in 72h")
	}
	if w.Patience <= 0 {
		found.add("warm.patience", "a job would not wait", "write a time, as in 1h")
	}
}

// isLocal reports whether clients of this machine alone reach the main listener.
func (c *Config) isLocal() bool {
	host, _, err := net.SplitHostPort(c.Listen)
	return err == nil && isLoopback(host)
}

func (c *Config) checkListeners(found *mistakes) {
	listeners := []struct{ path, addr string }{
		{"listen", c.Listen}, {"admin.listen", c.Admin.Listen}, {"metrics.listen", c.Metrics.Listen},
	}
	for i, l := range listeners {
		if l.path == "metrics.listen" && l.addr == "" {
			continue
		}
		host, port, message := splitListen(l.addr)
		if message != "" {
			found.add(l.path, message, "write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface")
			continue
		}
		for _, other := range listeners[:i] {
			otherHost, otherPort, message := splitListen(other.addr)
			if message != "" || port == "0" || port != otherPort {
				continue
			}
			if host == otherHost || isWildcard(host) || isWildcard(otherHost) {
				found.add(l.path, fmt.Sprintf("%s is taken: %s is %s", l.addr, other.path, quoted(other.addr)),
					"give each listener a port of its own", other.path)
			}
		}
		if l.path == "admin.listen" && !isLoopback(host) && !c.Admin.HasKeys() {
			found.add(l.path, quoted(l.addr)+" is not a loopback address, and there is no token",
				"set admin.tokenFile or admin.operators, or listen on 127.0.0.1")
		}
	}
}

// splitListen returns the parts of an address to listen on, or what is wrong with it.
func splitListen(addr string) (host, port, message string) {
	if addr == "" {
		return "", "", "has no address"
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", "", quoted(addr) + " is not an address"
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || strconv.FormatUint(n, 10) != port {
		return "", "", quoted(addr) + " has no port from 0 to 65535"
	}
	if _, err := netip.ParseAddr(host); host != "" && err != nil && !isHost(strings.ToLower(host)) {
		return "", "", quoted(addr) + " has no valid host"
	}
	return host, port, ""
}

func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "" || err == nil && ip.IsUnspecified()
}

// LocalHost is the host by which this machine reaches a listener: its own, or a loopback address where it listens on all. A listener on
// [::] takes IPv4, too, and a container may have no ::1.
func LocalHost(host string) string {
	if isWildcard(host) {
		return "127.0.0.1"
	}
	return host
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

// checkPair checks that a certificate and its key are both named.
func checkPair(found *mistakes, at, cert, key string) {
	switch {
	case cert != "" && key == "":
		found.add(at+".key", "missing: "+at+".cert needs its private key", "set both, or neither for plain HTTP", at+".cert")
	case key != "" && cert == "":
		found.add(at+".cert", "missing: "+at+".key needs its certificate", "set both, or neither for plain HTTP", at+".key")
	}
}

// checkHosts checks the further names of the admin listener, and puts them in lower case.
func (a *Admin) checkHosts(found *mistakes) {
	for i, name := range a.Hosts {
		a.Hosts[i] = strings.ToLower(name)
		if _, err := netip.ParseAddr(name); err != nil && !isHost(a.Hosts[i]) {
			found.add(strictyaml.Index("admin.hosts", i), quoted(name)+" is not the name of a host",
				"write it without https:// and port, as in mirror-admin.corp.example")
		}
	}
}

func (c Cache) check(found *mistakes) {
	if c.Dir == "" {
		found.add("cache.dir", "has no folder", "name one, as in /var/lib/mirror")
	}
	if s := c.Size; s.Percent == 0 && s.Bytes < leastSize {
		hint := "write at least 1MiB, as in 20GiB"
		if n := int64(s.Bytes); n > 0 && n < 100_000 {
			hint = fmt.Sprintf("write a unit, as in %dGiB", n)
		}
		found.add("cache.size", fmt.Sprintf("%d bytes is too little", s.Bytes), hint)
	}
	if b := c.MinFree.Bytes; b > 0 && b < leastSize {
		found.add("cache.minFree", fmt.Sprintf("%d bytes is too little", b),
			fmt.Sprintf("write a unit, as in %d%% or 10GiB; 0 turns it off", min(int64(b), 5)))
	}
}

// hostName is labels of at most 63 characters that neither begin nor end with a dash.
var hostName = regexp.MustCompile(`^[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*$`)

// isHost reports whether s, in lower case, is a host name of DNS or an IPv4 address.
func isHost(s string) bool { return len(s) <= 253 && hostName.MatchString(s) }

// isHostPort reports whether s, in lower case, is HOST or HOST:PORT; an IPv6 address stands in brackets.
func isHostPort(s string) bool {
	host, port := s, ""
	if i := strings.LastIndexByte(s, ':'); i >= 0 && !strings.HasSuffix(s, "]") {
		host, port = s[:i], s[i+1:]
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return false
		}
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		ip, err := netip.ParseAddr(inner)
		return ok && err == nil && ip.Is6() && ip.Zone() == ""
	}
	return isHost(host)
}

// checkURL says what is wrong with a URL up to its host, without ever showing a password in it. write and login are hints:
// what to write, and where a login goes instead.
func checkURL(text, write, login string) (u *url.URL, message, hint string) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, "not a URL", write
	case u.User != nil:
		return nil, "a user or password in a URL is not allowed", login
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, quoted(text) + " has no http:// or https://", write
	case !isHostPort(strings.ToLower(u.Host)):
		return nil, quoted(text) + " has no valid host", write
	}
	return u, "", ""
}

// checkEndpointURL says what is wrong with the URL of an endpoint.
func checkEndpointURL(text string) (message, hint string) {
	u, message, hint := checkURL(text, "write http:// or https:// with a host, as in https://registry.example.com:5000",
		"remove it: a login goes into the upstream's credentials")
	switch {
	case message != "":
		return message, hint
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#"):
		return quoted(text) + " has more than a host", "remove everything from the ? or # on"
	case strings.Trim(u.Path, "/") == "v2":
		return quoted(text) + " has more than a host", "remove /v2: it is added to each request"
	case strings.Trim(u.Path, "/") != "":
		return "a path below the host is not available yet", "where it begins the names of its repositories, write it as prefix"
	}
	return "", ""
}

// Platforms are named as Go and image indexes name them.
var (
	systems       = []string{"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1"}
	architectures = []string{
		"amd64", "arm64", "arm", "386", "ppc64le", "ppc64", "s390x", "riscv64", "loong64", "mips64le", "mips64", "mipsle", "mips", "wasm",
	}
	// otherNames are names of architectures that uname and people use.
	otherNames = map[string]string{
		"x86_64": "amd64", "x86-64": "amd64", "x64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "armhf": "arm/v7",
		"i386": "386", "i686": "386", "x86": "386",
	}
	variant = regexp.MustCompile(`^v[0-9]{1,2}(\.[0-9])?$`)
)

// checkPlatforms checks a list of platforms, and puts them in lower case.
func checkPlatforms(found *mistakes, path string, list []string) {
	const hint = "write OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64"
	for i, text := range list {
		at := strictyaml.Index(path, i)
		list[i] = strings.ToLower(text)
		parts := strings.Split(list[i], "/")
		if len(parts) < 2 || len(parts) > 3 {
			found.add(at, quoted(text)+" is not a platform", hint)
			continue
		}
		system, architecture := parts[0], parts[1]
		switch other := otherNames[architecture]; {
		case !slices.Contains(systems, system):
			found.add(at, quoted(text)+" is not a platform: there is no system "+quoted(system), cmp.Or(strictyaml.DidYouMean(strictyaml.Nearest(system, systems)), hint))
		case other != "":
			found.add(at, quoted(text)+" is not a platform: images call it "+other, "write "+system+"/"+other)
		case !slices.Contains(architectures, architecture):
			found.add(at, quoted(text)+" is not a platform: there is no architecture "+quoted(architecture),
				cmp.Or(strictyaml.DidYouMean(strictyaml.Nearest(architecture, architectures)), hint))
		case len(parts) == 3 && !variant.MatchString(parts[2]):
			found.add(at, quoted(text)+" is not a platform: "+quoted(parts[2])+" is not a variant", "as in linux/arm/v7")
		case slices.Contains(list[:i], list[i]):
			found.add(at, quoted(text)+" is there already", "remove one")
		}
	}
}
