package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// maxWait is how long a pull waits for an upstream at most; clients give up soon after.
const maxWait = 25 * time.Second

// leastSize is the smallest size that anybody means. Less is a number that lost its unit.
const leastSize = 1 << 20

// bad reports a mistake in the value at path. Where that has its default, the mistake is in what it goes with: the
// first of the other paths that is set.
func (d *decoder) bad(path, message, hint string, others ...string) {
	if d.wrong[path] {
		return
	}
	p := Problem{File: d.file, Path: path, Message: message, Hint: hint}
	at, ok := d.places[path]
	for i := 0; !ok && i < len(others); i++ {
		at, ok = d.places[others[i]]
	}
	for up := parent(path); !ok && up != ""; up = parent(up) {
		at, ok = d.places[up]
	}
	if p.Variable = at.variable; p.Variable != "" {
		p.File = ""
	} else {
		p.Line, p.Column = max(at.line, 1), max(at.column, 1)
	}
	d.problems = append(d.problems, p)
}

// check reports the mistakes that no single type shows: addresses, URLs, names, and what goes with what.
func (d *decoder) check(c *Config) {
	d.checkListeners(c)
	d.checkTLS(c)
	d.checkAdminHosts(c.Admin.Hosts)
	d.checkCache(c)
	d.checkUpstreams(c)
	d.checkRules(c)
	d.checkKubernetes(c.Kubernetes)
	d.checkPlatforms(c.Platforms)
	d.checkProxies(c.TrustedProxies)
}

// checkProxies checks networks, and writes them as networks are written.
func (d *decoder) checkProxies(list []string) {
	for i, text := range list {
		at := spot{path: "trustedProxies"}.index(i).path
		p, err := netip.ParsePrefix(text)
		if err == nil && p.Addr().Is4In6() {
			err = errors.New("IPv4 in IPv6")
		}
		if err == nil {
			list[i] = p.Masked().String()
			continue
		}
		hint := "as in 10.0.0.0/8 or fd00::/8"
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" && !a.Is4In6() {
			hint = "write " + netip.PrefixFrom(a, a.BitLen()).String() + " for one address"
		}
		d.bad(at, quoted(text)+" is no network in CIDR notation", hint)
	}
}

func (d *decoder) checkKubernetes(k Kubernetes) {
	if u, err := url.Parse(k.Server); k.Server != "" && (err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil ||
		u.RawQuery != "" || strings.Trim(u.Path, "/") != "") {
		d.bad("kubernetes.server", quoted(k.Server)+" is no URL of an API server", "write https://HOST:PORT; plain HTTP would show the token")
	}
}

func (d *decoder) checkListeners(c *Config) {
	listeners := []struct{ path, addr string }{
		{"listen", c.Listen}, {"admin.listen", c.Admin.Listen}, {"metrics.listen", c.Metrics.Listen},
	}
	for i, l := range listeners {
		if l.path == "metrics.listen" && l.addr == "" {
			continue
		}
		host, port, message := splitListen(l.addr)
		if message != "" {
			d.bad(l.path, message, "write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface")
			continue
		}
		for _, other := range listeners[:i] {
			otherHost, otherPort, message := splitListen(other.addr)
			if message != "" || port == "0" || port != otherPort {
				continue
			}
			if host == otherHost || isWildcard(host) || isWildcard(otherHost) {
				d.bad(l.path, fmt.Sprintf("%s is taken: %s is %s", l.addr, other.path, quoted(other.addr)),
					"give each listener a port of its own", other.path)
			}
		}
		if l.path == "admin.listen" && !isLoopback(host) && c.Admin.TokenFile == "" {
			d.bad(l.path, quoted(l.addr)+" is not a loopback address, and there is no token",
				"set admin.tokenFile, or listen on 127.0.0.1")
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

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && ip.Unmap().IsLoopback()
}

func (d *decoder) checkTLS(c *Config) {
	d.checkPair("tls", c.TLS.Cert, c.TLS.Key)
	d.checkPair("admin.tls", c.Admin.TLS.Cert, c.Admin.TLS.Key)
	if c.TLS.HTTP2 && c.TLS.Cert == "" && c.TLS.Key == "" {
		d.bad("tls.http2", "true has no effect without a certificate", "set tls.cert and tls.key, or remove it")
	}
}

// checkPair checks that a certificate and its key are both named.
func (d *decoder) checkPair(at, cert, key string) {
	switch {
	case cert != "" && key == "":
		d.bad(at+".key", "missing: "+at+".cert needs its private key", "set both, or neither for plain HTTP", at+".cert")
	case key != "" && cert == "":
		d.bad(at+".cert", "missing: "+at+".key needs its certificate", "set both, or neither for plain HTTP", at+".key")
	}
}

// checkAdminHosts checks the further names of the admin listener.
func (d *decoder) checkAdminHosts(list []string) {
	for i, name := range list {
		list[i] = strings.ToLower(name)
		if _, err := netip.ParseAddr(name); err != nil && !isHost(list[i]) {
			d.bad(spot{path: "admin.hosts"}.index(i).path, quoted(name)+" is not the name of a host",
				"write it without https:// and port, as in mirror-admin.corp.example")
		}
	}
}

func (d *decoder) checkCache(c *Config) {
	if c.Cache.Dir == "" {
		d.bad("cache.dir", "has no folder", "name one, as in /var/lib/mirror")
	}
	if s := c.Cache.Size; s.Percent == 0 && s.Bytes < leastSize {
		d.bad("cache.size", fmt.Sprintf("%d bytes is too little", s.Bytes), unitHint(s.Bytes))
	}
	if b := c.Cache.MinFree.Bytes; b > 0 && b < leastSize {
		d.bad("cache.minFree", fmt.Sprintf("%d bytes is too little", b),
			fmt.Sprintf("write a unit, as in %d%% or 10GiB; 0 turns it off", min(int64(b), 5)))
	}
}

func unitHint(s Size) string {
	if s > 0 && s < 100_000 {
		return fmt.Sprintf("write a unit, as in %dGiB", int64(s))
	}
	return "write at least 1MiB, as in 20GiB"
}

// isHost reports whether s, in lower case, is a host name of DNS or an IPv4 address.
func isHost(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

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

// checkURL says what is wrong with the URL of an endpoint, without ever showing a password in it.
func checkURL(text string) (message, hint string) {
	const write = "write http:// or https:// with a host, as in https://registry.example.com:5000"
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "not a URL", write
	case u.User != nil:
		return "a user or password in a URL is not allowed", "remove it: a login goes into the upstream's credentials"
	case u.Scheme != "http" && u.Scheme != "https":
		return quoted(text) + " has no http:// or https://", write
	case !isHostPort(strings.ToLower(u.Host)):
		return quoted(text) + " has no valid host", write
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || strings.HasSuffix(text, "#"):
		return quoted(text) + " has more than a host", "remove everything from the ? or # on"
	case strings.Trim(u.Path, "/") == "v2":
		return quoted(text) + " has more than a host", "remove /v2: it is added to each request"
	case strings.Trim(u.Path, "/") != "":
		return "a path below the host is " + notYet, "where it begins the names of its repositories, write it as prefix"
	}
	return "", ""
}
