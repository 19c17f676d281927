package config

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/glob"
	"github.com/registrymirror/mirror/internal/strictyaml"
)

// ruleHostPattern is a glob of upstreams: the letters of hosts and ports, and *.
var ruleHostPattern = regexp.MustCompile(`^(\*\*|[a-z0-9*\[]([a-z0-9._*:\[\]-]*[a-z0-9*\]])?)$`)

// anyClient are the values of `who` that mean each client that can connect to the mirror.
var anyClient = []string{"anonymous", "*"}

// identities are the other forms of `who`, and the settings by which clients get such an identity.
var identities = []struct {
	prefix  string
	pattern *regexp.Regexp
	form    string
	set     func(Clients) bool
	setting string
}{
	{
		"node:", regexp.MustCompile(`^node:[a-z0-9*]([a-z0-9.*-]*[a-z0-9*])?$`), "node:NAME, as in node:worker-1 or node:*",
		func(c Clients) bool { return c.CA != "" }, "clients.ca",
	},
	{
		"sa:", regexp.MustCompile(`^sa:[a-z0-9*-]+/[a-z0-9.*-]+$`), "sa:NAMESPACE/NAME, as in sa:builds/kaniko or sa:builds/*",
		func(c Clients) bool { return c.Kubernetes.Audience != "" }, "clients.kubernetes",
	},
	{
		"", regexp.MustCompile(`^[A-Za-z0-9._@+*-]{1,128}$`), "the name of a user, node:NAME, sa:NAMESPACE/NAME, anonymous or *",
		func(c Clients) bool { return c.Htpasswd != "" || c.Tokens != "" }, "clients.htpasswd or clients.tokens",
	},
}

// ruleFor is a rule for an upstream, as an example.
func ruleFor(upstream string) string {
	return fmt.Sprintf("{who: [anonymous], pull: [%q]}", upstream+"/**")
}

// checkRules checks the rules, and that an upstream that needs one has one.
func (c *Config) checkRules(found *mistakes) {
	for i, r := range c.Rules {
		at := strictyaml.Index("rules", i)
		r.checkWho(found, at, c.Clients)
		if len(r.Pull) == 0 {
			found.add(at+".pull", "a rule names no repositories", "add pull, as in docker.io/acme/**")
		}
		for j, glob := range r.Pull {
			if message, hint := c.Upstreams.checkGlob(glob); message != "" {
				found.add(strictyaml.Index(at+".pull", j), message, hint)
			}
		}
	}
	for _, u := range c.Upstreams {
		if u.Access == "rules" && len(u.Credentials) > 0 && !c.Ruled(u) {
			found.add(u.path()+".credentials", "these credentials are never used: no rule covers "+u.Name,
				"add one to rules, as in "+ruleFor(u.Name))
		}
	}
}

// ForAll reports whether a rule is for every client that can connect.
func (r Rule) ForAll() bool {
	return slices.ContainsFunc(r.Who, func(who string) bool { return slices.Contains(anyClient, who) })
}

// checkWho checks the clients of a rule. An identity that no client can have is a mistake: the operator relies on it.
func (r Rule) checkWho(found *mistakes, at string, by Clients) {
	if len(r.Who) == 0 {
		found.add(at+".who", "the rule names no client", "add who: [anonymous]")
	}
	for j, who := range r.Who {
		if slices.Contains(anyClient, who) {
			continue
		}
		for _, kind := range identities {
			if !strings.HasPrefix(who, kind.prefix) {
				continue
			}
			switch {
			case !kind.pattern.MatchString(who):
				found.add(strictyaml.Index(at+".who", j), quoted(who)+" is not a client", "write "+kind.form)
			case !kind.set(by):
				found.add(strictyaml.Index(at+".who", j), "no client can identify itself as "+quoted(who), "set "+kind.setting+
					`, or write anonymous for each client that can connect to the mirror`)
			}
			break
		}
	}
}

// checkGlob says what is wrong with a glob of a rule. One that matches nothing is a mistake: the operator relies on it.
func (us Upstreams) checkGlob(glob string) (message, hint string) {
	host, name, message, hint := us.splitGlob(glob)
	if message != "" {
		return message, hint
	}
	var others []string
	access := "" // of the others
	for _, u := range us {
		switch {
		case !u.inGlob(host):
			continue
		case u.Access == "rules":
			if message, _ := u.checkLibrary(name); message != "" && host == u.Name {
				return message, "write " + u.Name + "/library/" + name
			}
			return "", ""
		}
		if access == "" || access == u.Access {
			access, others = u.Access, append(others, u.Name)
		}
	}
	if len(others) > 0 {
		return fmt.Sprintf("rules do not apply to %s, whose access is %s", strings.Join(others, " and "), access),
			"set access: rules there, or remove this"
	}
	var ruled []string
	for _, u := range us {
		if u.Access == "rules" && !u.IsPattern() { // a pattern would let more be pulled than was meant
			ruled = append(ruled, u.Name)
		}
	}
	return "no upstream is called " + quoted(host),
		cmp.Or(strictyaml.DidYouMean(strictyaml.Nearest(host, ruled)), "add it under upstreams with access: rules")
}

// splitGlob returns the parts of a glob of images, or what is wrong with it.
func (us Upstreams) splitGlob(glob string) (host, name, message, hint string) {
	host, name, found := strings.Cut(glob, "/")
	switch {
	case glob == "**":
		host, name = "**", "**"
	case strings.Contains(glob, "://"):
		return "", "", quoted(glob) + " has a scheme", "write UPSTREAM/REPOSITORY, as in docker.io/acme/**"
	case !found && ruleHostPattern.MatchString(host):
		return "", "", quoted(glob) + " names no repository", "write " + glob + "/** for all of that upstream"
	case !ruleHostPattern.MatchString(host):
		return "", "", quoted(glob) + " does not begin with an upstream", "write UPSTREAM/REPOSITORY in lower case, as in docker.io/acme/**"
	case !globPattern.MatchString(name):
		return "", "", quoted(name) + " is not a glob of repositories", "as in acme/** or library/nginx; no tag, no digest"
	}
	if own := us.Named(host); own != nil && own.Name != host {
		return "", "", quoted(host) + " is another name of " + own.Name, "write " + own.Name + "/" + name
	} else if name := canonical(host); own == nil && name != "" && us.Named(name) != nil {
		return "", "", quoted(host) + " is another name of " + name, "write " + name
	}
	return host, name, "", ""
}

// checkImages says what is wrong with a glob of images of any upstream.
func (us Upstreams) checkImages(glob string) (message, hint string) {
	host, _, message, hint := us.splitGlob(glob)
	if message == "" && len(us) > 0 && !slices.ContainsFunc(us, func(u Upstream) bool { return u.inGlob(host) }) {
		return "no upstream is called " + quoted(host), "write the name of one, as under upstreams"
	}
	return message, hint
}

// inGlob reports whether the first part of a rule's glob is about an upstream, or about some of a pattern's hosts.
func (u Upstream) inGlob(host string) bool {
	return matchHost(host, u.Name) || u.IsPattern() && (u.Fits(host) || strings.Contains(host, "*") && overlap(host, u.Name))
}

// overlap reports whether a host can fit both a rule's glob and a pattern.
func overlap(glob, pattern string) bool {
	return glob == "*" || overlaps(strings.Split(glob, "."), strings.Split(pattern, "."), "**", func(a, b string) bool {
		return overlaps([]byte(a), []byte(b), '*', func(a, b byte) bool { return a == b })
	})
}

// overlaps reports whether a sequence can fit both a and b, in which star stands for any elements.
func overlaps[E comparable](a, b []E, star E, overlap func(a, b E) bool) bool {
	// fits[j] says whether a sequence can fit what is left of a, and b from j on.
	fits := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		after := slices.Clone(fits) // for a from i+1 on
		for j := len(b); j >= 0; j-- {
			switch {
			case i == len(a) && j == len(b):
				fits[j] = true
			case i < len(a) && a[i] == star:
				fits[j] = after[j] || j < len(b) && fits[j+1]
			case j < len(b) && b[j] == star:
				fits[j] = fits[j+1] || i < len(a) && after[j]
			default:
				fits[j] = i < len(a) && j < len(b) && overlap(a[i], b[j]) && after[j+1]
			}
		}
	}
	return fits[0]
}

// Ruled reports whether a rule is about an upstream, or a part of it.
func (c *Config) Ruled(u Upstream) bool {
	for _, r := range c.Rules {
		for _, glob := range r.Pull {
			if host, _, _ := strings.Cut(glob, "/"); u.inGlob(host) {
				return true
			}
		}
	}
	return false
}

// Warnings name what is valid and perhaps not meant, and say what to do about each.
func (c *Config) Warnings() []string {
	var list []string
	if c.Admin.InClear() {
		list = append(list, fmt.Sprintf("admin.listen %s is reached from other machines without TLS: the token is sent in clear; "+
			"set admin.tls.cert and admin.tls.key, or listen on 127.0.0.1", c.Admin.Listen))
	}
	for i, r := range c.Rules {
		if r.ForAll() {
			list = append(list, fmt.Sprintf("rules[%d] (%s) lets each client that can connect to the mirror pull %s; "+
				"allow connections from the network of your nodes only", i, strings.Join(r.Who, ", "), strings.Join(r.Pull, " ")))
		}
	}
	if c.Clients.Logins() && !c.TLS.Enabled() && !c.isLocal() {
		list = append(list, fmt.Sprintf("listen %s speaks plain HTTP: the passwords and tokens of clients are sent in clear; set tls.cert "+
			"and tls.key, unless a proxy in front of the mirror speaks TLS", c.Listen))
	}
	if slices.ContainsFunc(c.Rules, Rule.ForAll) {
		list = append(list, "a kubelet that checks pull secrets (KEP-2535) takes the mirror's answer for proof of any secret; put into rules "+
			"only what every pod of your nodes may have")
	}
	for _, u := range c.Upstreams {
		if u.Access == "client" && !c.TLS.Enabled() && !c.isLocal() {
			list = append(list, fmt.Sprintf("upstreams.%s has access: client, and listen %s speaks plain HTTP: clients of other machines are not "+
				"asked for their logins, and get public images alone; set tls.cert and tls.key", u.Name, c.Listen))
		}
		if u.Access == "rules" && !c.Ruled(u) {
			list = append(list, fmt.Sprintf("no client may pull anything of %s: it has access: rules, and no rule names it; add one, "+
				"as in %s", u.Name, ruleFor(u.Name)))
		}
	}
	return append(list, c.Certificates()...)
}

// Certificates warns of client certificates with which the mirror reads what clients may then read of it: under access:
// public nothing tells what a registry would show without one.
func (c *Config) Certificates() (list []string) {
	for _, u := range c.Upstreams {
		if u.Access != "public" {
			continue
		}
		for i, e := range u.Endpoints {
			if e.ClientCert != "" {
				list = append(list, fmt.Sprintf("upstreams.%s.endpoints[%d].clientCert is a login, and access is public: each client that can "+
					"connect to the mirror can pull all that this certificate may read, private images too; write access: rules, with "+
					"rules of what clients may pull", u.Name, i))
			}
		}
	}
	return list
}

// matchHost matches a host against the first part of a rule's glob, in which * alone is any host.
func matchHost(pattern, host string) bool { return pattern == "*" || glob.Host(pattern, host) }
