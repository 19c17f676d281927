package docker_test

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/auth/docker"
)

// A login is given out for a host that its entry names, and for no other; an error quotes nothing of the text.
func FuzzLogin(f *testing.F) {
	f.Add(`{"auths":{"ghcr.io":{"auth":"Ym90OnB3"}}}`, "ghcr.io", "acme/app")
	f.Add(`{"auths":{"*.gcr.io/acme":{"username":"u","password":"p"}}}`, "eu.gcr.io", "acme/app")
	f.Add(`{"https://index.docker.io/v1/":{"auth":"Ym90OnB3"}}`, "docker.io", "library/nginx")
	f.Add(`{"auths":{"ghcr.io":{"auth":7}}}`, "ghcr.io", "")
	f.Fuzz(func(t *testing.T, text, host, repository string) {
		login, at, problem := docker.Login([]byte(text), host, repository)
		if at == "" || problem != "" {
			if !login.IsAnonymous() && login.Username == "" {
				t.Errorf("a secret without an entry that is good: at %q, %q", at, problem)
			}
			return
		}
		pattern, path, _ := strings.Cut(at, "/")
		if strings.Count(pattern, ".") != strings.Count(host, ".") && pattern != "docker.io" {
			t.Errorf("%q is used for %q", at, host)
		}
		if path != "" && repository != path && !strings.HasPrefix(repository, path+"/") {
			t.Errorf("%q is used for repository %q", at, repository)
		}
	})
}

// The match of hosts is that of a regular expression in which * stands for what is not a dot. No host has an empty label.
func FuzzMatches(f *testing.F) {
	f.Add("*.gcr.io", "eu.gcr.io")
	f.Add("a*b*c.io:5000", "axxbyyc.io:5000")
	f.Add("*", "")
	f.Add("ab*ba.io", "aba.io")
	f.Fuzz(func(t *testing.T, pattern, host string) {
		if strings.Count(pattern, ":") > 1 || strings.Count(host, ":") > 1 || strings.Count(pattern, "*") > 6 ||
			!strings.Contains(pattern, ":") && strings.HasSuffix(host, ":") || strings.HasSuffix(pattern, ":") {
			return
		}
		name, port, _ := strings.Cut(pattern, ":")
		if own, _, _ := strings.Cut(host, ":"); slices.Contains(strings.Split(own, "."), "") {
			return
		}
		re := "(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(name), `\*`, `[^.]*`)
		if port != "" {
			re += ":" + regexp.QuoteMeta(port)
		}
		r, err := regexp.Compile(re + "$")
		if err != nil {
			return
		}
		if strings.ContainsAny(port, ".*") || strings.Contains(host[strings.LastIndex(host, ":")+1:], "*") {
			return
		}
		if got, want := docker.Matches(pattern, host), r.MatchString(host); got != want {
			t.Errorf("%q for %q: %t, want %t", pattern, host, got, want)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add(`{"ServerURL":"x","Username":"bot","Secret":"pw"}`)
	f.Add(`{"Username":"<token>","Secret":"rt"}`)
	f.Add("credentials not found in native keychain\n")
	f.Fuzz(func(t *testing.T, out string) {
		c, found, err := docker.Answer([]byte(out))
		if found != (!c.Password.IsZero() || !c.Identity.IsZero()) || found && err != nil {
			t.Errorf("%v, %t, %v", c, found, err)
		}
	})
}
