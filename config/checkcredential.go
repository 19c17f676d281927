package config

import (
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/clouds"
	"github.com/registrymirror/mirror/internal/strictyaml"
	"github.com/registrymirror/mirror/internal/text"
)

// leastLifetime is the shortest lifetime of a helper's answer: with a shorter one it would run for nearly each request.
const leastLifetime = 10 * time.Second

// namePattern is what a credential may be called: it is a label of metrics.
var namePattern = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$`)

// anonymousName stands in the metrics of limits for requests without a credential.
const anonymousName = "anonymous"

// variablePattern is what an environment variable may be called.
var variablePattern = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// globPattern is a glob of repositories: segments with * for letters, or ** for segments.
var globPattern = regexp.MustCompile(`^(\*\*|[a-z0-9*]([a-z0-9._*-]*[a-z0-9*])?)(/(\*\*|[a-z0-9*]([a-z0-9._*-]*[a-z0-9*])?))*$`)

// CloudHost is the host for which a source of a cloud (ecr, gar, acr) logs in: the upstream's name where that is a
// registry of the cloud, else the endpoint to which the credential goes. False: neither is.
func (u Upstream) CloudHost(source string) (string, bool) {
	if u.IsPattern() {
		return u.Name, cloudOf(u.Name) == source
	}
	hosts := []string{u.Name}
	endpoints := u.Endpoints
	if endpoints == nil {
		endpoints = endpointsOf(u.Name)
	}
	if len(endpoints) > 0 {
		last := endpoints[len(endpoints)-1] // it is believed where none is the registry itself
		for _, e := range endpoints {
			if u.Itself(e) {
				last = e
			}
		}
		if at, err := url.Parse(last.URL); err == nil {
			hosts = append(hosts, strings.ToLower(at.Host))
		}
	}
	for _, h := range hosts {
		if clouds.Named(source).Is(h) {
			return h, true
		}
	}
	return "", false
}

// Sources are the keys of the sources that a credential has: one, where it is valid.
func (c Credential) Sources() []string {
	has := map[string]bool{
		"passwordFile": c.PasswordFile != "", "passwordEnv": c.PasswordEnv != "", "dockerConfig": c.DockerConfig != "",
		"helper": c.Helper != "", "plugin": c.Plugin != nil, "ecr": c.ECR != nil, "gar": c.GAR != nil, "acr": c.ACR != nil,
	}
	var list []string
	for _, key := range []string{"passwordFile", "passwordEnv", "dockerConfig", "helper", "plugin", "ecr", "gar", "acr"} {
		if has[key] {
			list = append(list, key)
		}
	}
	return list
}

// checkCredentials checks the credentials of an upstream, at their path.
func (u *Upstream) checkCredentials(found *mistakes, path string) {
	names := map[string]int{}
	for i, c := range u.Credentials {
		at := strictyaml.Index(path, i)
		switch first, twice := names[c.Name]; {
		case c.Name == "":
			found.add(at+".name", "a credential has no name", "add one, as in name: hub: it is what logs and metrics call it")
		case !namePattern.MatchString(c.Name):
			found.add(at+".name", quoted(c.Name)+" is not a name", "write letters, digits, -, . or _, at most 63")
		case c.Name == anonymousName:
			found.add(at+".name", "is what the mirror calls pulls without a credential", "choose another")
		case twice:
			found.add(at+".name", fmt.Sprintf("%q is credentials[%d] already", c.Name, first), "give each its own")
		default:
			names[c.Name] = i
		}
		u.checkSource(found, c, at)
		checkGlobs(found, c.Repositories, at+".repositories")
	}
}

// checkSource checks where a credential comes from.
func (u *Upstream) checkSource(found *mistakes, c Credential, at string) {
	sources := c.Sources()
	const all = "passwordFile, passwordEnv, dockerConfig, helper, plugin, ecr, gar or acr"
	switch len(sources) {
	case 0:
		found.add(at, "a credential has no source", "add one of "+all)
		return
	case 1:
	default:
		found.add(at+"."+sources[1], "a second source, beside "+sources[0],
			"a credential has one: remove it, or write another credential")
		return
	}
	source := sources[0]
	password := source == "passwordFile" || source == "passwordEnv"
	switch {
	case password && c.Username == "":
		found.add(at+"."+source, "has no username", "add it beside "+source)
	case !password && c.Username != "":
		found.add(at+".username", source+" brings its own", "remove it")
	}
	switch {
	case c.Lifetime == 0:
	case source != "helper" && source != "dockerConfig":
		found.add(at+".lifetime", "is for the answers of helpers, and this is "+source, "remove it")
	case c.Lifetime < leastLifetime:
		found.add(at+".lifetime", text.Duration(c.Lifetime)+" is too short: the helper would run all the time",
			"write at least "+text.Duration(leastLifetime)+", as in 1h")
	}
	switch source {
	case "passwordEnv":
		if !variablePattern.MatchString(c.PasswordEnv) { // never shown: it may be the password
			found.add(at+".passwordEnv", "is not the name of a variable", "write its name, as in HUB_PASSWORD, not the password")
		}
	case "helper":
		checkHelper(found, c.Helper, at+".helper")
	case "plugin":
		c.Plugin.check(found, at+".plugin")
	case "ecr", "gar", "acr":
		u.checkCloud(found, source, at+"."+source)
	}
}

func checkHelper(found *mistakes, helper, at string) {
	switch name := filepath.Base(helper); {
	case strings.ContainsAny(helper, " \t\r\n"):
		found.add(at, quoted(helper)+" is more than a program", "it takes no arguments: write docker-credential-NAME")
	case strings.Contains(helper, "/") && !filepath.IsAbs(helper):
		found.add(at, quoted(helper)+" is neither a name nor a full path", "write docker-credential-NAME, or begin with /")
	case !strings.Contains(helper, "/") && !strings.HasPrefix(name, "docker-credential-"):
		found.add(at, quoted(helper)+" is not the name of a credential helper", "write docker-credential-"+strings.ToLower(name))
	}
}

// secretWords are in the names of variables that hold secrets.
var secretWords = []string{"SECRET", "TOKEN", "PASS", "CREDENTIAL", "PRIVATE", "ACCESS_KEY", "API_KEY"}

func (p *Plugin) check(found *mistakes, at string) {
	switch {
	case p.Command == "":
		found.add(at+".command", "a plugin has no command", "add the program, as in command: ecr-credential-provider")
	case strings.Contains(p.Command, "/") && !filepath.IsAbs(p.Command):
		found.add(at+".command", quoted(p.Command)+" is neither a name nor a full path", "write a name, or begin with /")
	}
	for _, name := range slices.Sorted(maps.Keys(p.Env)) {
		upper := strings.ToUpper(name)
		secret := slices.ContainsFunc(secretWords, func(w string) bool { return strings.Contains(upper, w) })
		switch key := strictyaml.Join(at+".env", name); {
		case !variablePattern.MatchString(name):
			found.add(key, quoted(name)+" is not the name of a variable", "write letters, digits and _")
		case secret && !slices.ContainsFunc([]string{"_FILE", "_URI", "_PATH", "_DIR"}, func(end string) bool {
			return strings.HasSuffix(upper, end)
		}):
			found.add(key, "a secret has no place in this file", "set the variable for the mirror itself: the plugin gets it too")
		}
	}
}

// checkCloud checks that a source of a cloud is for a registry of that cloud, and of use.
func (u *Upstream) checkCloud(found *mistakes, source, at string) {
	host, ok := u.CloudHost(source)
	switch c := clouds.Named(source); {
	case !ok:
		found.add(at, fmt.Sprintf("%s is not a registry of %s's", quoted(u.Name), c.Owner),
			source+" is for "+c.Example)
	case u.Access == "public" && source == "ecr" && !clouds.PublicECR(host):
		// Under access: public a login is used for public images alone, and this registry has none.
		found.add(at, "a registry without public images has no use for it under access: public",
			"set access: rules, and a rule that lets clients pull, as in "+ruleFor(u.Name))
	}
}

// checkGlobs checks globs of repositories of one upstream.
func checkGlobs(found *mistakes, globs []string, path string) {
	for i, g := range globs {
		if !globPattern.MatchString(g) {
			found.add(strictyaml.Index(path, i), quoted(g)+" is not a glob of repositories",
				"write them as the registry calls them, without its name, as in acme/** or library/nginx")
		}
	}
}
