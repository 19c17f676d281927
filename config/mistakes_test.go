package config_test

import (
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
)

// Mistakes of people that have not read the documentation yet. The message says what to write instead.
func TestTypicalMistakes(t *testing.T) {
	t.Parallel()
	hub := "upstreams:\n  docker.io:\n    "
	for _, tt := range []struct{ text, says string }{
		{hub + "credentials: [{name: a, username: u, password: s3cret}]", "a secret does not go here: put it into a file of its own, and name that with passwordFile"},
		{hub + "credentials: [{name: a, user: u, passwordFile: p}]", `user: unknown key (did you mean "username"?)`},
		{hub + "credentials: [{name: a, token: t}]", "name that with passwordFile"},
		{hub + "credentials: {name: a, username: u, passwordFile: p}", "must be a list (put a - before its first key, or the whole in brackets: [{...}])"},
		{hub + "username: u\n    passwordFile: p", "as in credentials: [{name: hub, username: ci-bot, passwordFile: hub.pass}]"},
		{hub + "url: https://x", "where it is asked goes into endpoints, as in endpoints: [https://registry.example.com]"},
		{hub + "remote: https://x", "goes into endpoints"},
		{hub + "insecure: true", "certificates are always checked: name your authority with ca at the endpoint"},
		{hub + "ca: corp.crt", "ca: unknown key (it belongs at endpoints[].ca)"},
		{hub + "clientCert: corp.crt", "clientCert: unknown key (it belongs at endpoints[].clientCert)"},
		{hub + "endpoints: https://x.example.com", "must be a list (write it in brackets: [https://x.example.com])"},
		{hub + "endpoints: {url: https://x.example.com}", "put a - before its first key"},
		{hub + "endpoints: [{url: https://x, insecureSkipVerify: true}]", "certificates are always checked"},
		{hub + "access: private", "is not one of public, rules, client (a private registry needs access: client, where clients' own credentials decide; or"},
		{hub + "access: publik", `is not one of public, rules, client (did you mean "public"?)`},
		{hub + "tags: {deleted: kep}", `(did you mean "keep"?)`},
		{hub + "tags: {minAge: 1d}", "(a day is 24h: write 24h)"},
		{"tls: {http2: off}", "(write false)"},
		{"*.azurecr.io: {}", `a word that begins with * needs quotes (write "*.azurecr.io")`},
		{"upstreams:\n  *.azurecr.io: {}", `needs quotes (write "*.azurecr.io")`},
		{"upstreams:\n  *.dkr.ecr.*.amazonaws.com: {}\n", `needs quotes (write "*.dkr.ecr.*.amazonaws.com")`},
		{"upstreams:\n  *-docker.pkg.dev: {}\n", `needs quotes (write "*-docker.pkg.dev")`},
		{"upstreams: {*.azurecr.io: {}}", `needs quotes (write "*.azurecr.io")`},
		{"rules:\n  - {who: [*], pull: [docker.io/**]}\n", `needs quotes (write "*")`},
		{"rules:\n  - {who: [anonymous], pull: [*.azurecr.io/base/**]}\n", `needs quotes (write "*.azurecr.io/base/**")`},
		{"rules:\n  - who: [anonymous]\n    pull:\n      - **\n", `needs quotes (write "**")`},
		{"upstreams: [docker.io, ghcr.io]", "write docker.io: {}, one a line"},
		{"upstreams:\n  - ghcr.io\n", "write ghcr.io: {}, one a line"},
		{"upstreams: ghcr.io", "write ghcr.io: {}, one a line"},
		{"upstreams:\n  hub.docker.com: {}", `"hub.docker.com" is not a registry (did you mean "docker.io"?)`},
		{"upstreams:\n  dockerhub: {}", `did you mean "docker.io"?`},
		{"upstreams:\n  Docker: {}", `did you mean "docker.io"?`},
		{"upstreams:\n  github.com: {}", `did you mean "ghcr.io"?`},
		{"upstreams:\n  gallery.ecr.aws: {}", `did you mean "public.ecr.aws"?`},
		{"upstreams:\n  gitlab.com: {}", `did you mean "registry.gitlab.com"?`},
		{"upstreams: {docker.io: true}", "must have keys (write {}, or keys below it)"},
		{"upstreams: {docker.io: https://registry-1.docker.io}", "(write {endpoints: [https://registry-1.docker.io]})"},
		{"upstreams: {docker.io: 'https://bot:s3cret@registry-1.docker.io'}", "***@registry-1.docker.io"},
		{"rules: [docker.io/**]", "(write {who: [anonymous], pull: [docker.io/**]})"},
		{hub + "credentials: [hub]", "(write {name: hub, username: USER, passwordFile: FILE})"},
		{hub + "credentials: [{name: a, ecr: true}]", "ecr: is one value and must have keys (write {})"},
		{hub + "credentials: [{name: a, plugin: ecr-credential-provider}]", "(write {command: ecr-credential-provider, args: []})"},
		{hub + "tags: 5m", "(write {maxAge: 5m})"},
		{"log: debug", "(write {level: debug})"},
		{"admin: 127.0.0.1:5001", "(write {listen: 127.0.0.1:5001})"},
		{"metrics: ':9090'", "(write {listen: :9090})"},
		{"tls: true", "(write {cert: FILE, key: FILE})"},
		{"cache_dir: /x", "it belongs at cache.dir"},
		{"log-level: debug", "it belongs at log.level"},
		{"logLevel: debug", "it belongs at log.level"},
		{hub + "credentials: [{name: a, username: u, password_file: p}]", `did you mean "passwordFile"?`},
		{"registries: {}", `did you mean "upstreams"?`},
		{"port: 5000", "the port is part of listen"},
		{"proxy: {remoteurl: https://registry-1.docker.io}", "a registry to mirror goes under upstreams"},
		{"storage: {}", `did you mean "cache"?`},
		{"debug: true", "write log: {level: debug}"},
		{"admin: {token: s3cret}", "name that with tokenFile"},
		{"cache: {path: /x}", `did you mean "dir"?`},
		{"cache: {size: 500X}", "or a percentage, as in 20GiB or 80%"},
		{"cache: {size: 101%}", "is not a percentage from 0% to 100%"},
		{"ca: x", "that of a registry is upstreams.NAME.endpoints[].ca, that of clients"},
		{"rules: [{users: [a], pull: ['**']}]", `did you mean "who"?`},
	} {
		got := strings.Join(problems(t, tt.text), "\n")
		if !strings.Contains(got, tt.says) {
			t.Errorf("%s\n  says  %s\n  want  %s", tt.text, got, tt.says)
		}
		for _, lacking := range []string{"webhooks", "warm", "pins", "s3cret"} {
			if strings.Contains(got, lacking) {
				t.Errorf("%s\n  names what there is not: %s", tt.text, got)
			}
		}
	}
}

// The lists of keys name what can be set.
func TestListsOfKeysNameWhatThereIs(t *testing.T) {
	t.Parallel()
	got := strings.Join(problems(t, "xyzzy: 1\nclients: {xyzzy: 1}\nupstreams: {ghcr.io: {xyzzy: 1, tags: {xyzzy: 1}}}\n"), "\n")
	for _, want := range []string{"there are admin, cache, clients, clientsFallBack, ", "there are access, aliases, authHosts, ", "there are deleted, immutable, maxAge, minAge, minAgeUnknown, patterns, "} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
}

// A size may be a part of the disk, and what Kubernetes writes.
func TestSizesAsPeopleWriteThem(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]int64{"500G": 500e9, "500Gi": 500 << 30, "500GB": 500e9, "2T": 2e12, "80%": 800, "100000000": 1e8, "64M": 64e6} {
		c := parse(t, "cache: {size: "+text+"}\n")
		if got := c.Cache.Size.Of(1000); got != want {
			t.Errorf("%s is %d of a disk with 1000, want %d", text, got, want)
		}
	}
}

// A rule may be about some of the hosts of a pattern, and only about hosts that can be.
func TestRulesForAPartOfAPattern(t *testing.T) {
	t.Parallel()
	text := func(glob string) string {
		return "upstreams: {'*.dkr.ecr.*.amazonaws.com': {access: rules, credentials: [{name: aws, ecr: {}}]}}\n" +
			"rules: [{who: [anonymous], pull: ['" + glob + "']}]\n"
	}
	for _, glob := range []string{
		"*.dkr.ecr.eu-west-1.amazonaws.com/base/**", "*.dkr.ecr.eu-*.amazonaws.com/**", "123456789012.dkr.ecr.*.amazonaws.com/**",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com/**", "1*.dkr.ecr.*.amazonaws.com/**", "**.amazonaws.com/**", "*/**", "*.dkr.ecr.*.amazonaws.com/**",
	} {
		if _, err := config.Parse("", []byte(text(glob)), nil); err != nil {
			t.Errorf("%s: %v", glob, err)
		}
	}
	for _, glob := range []string{"*.dkr.ecr.eu-west-1.amazonaws.org/**", "*.eu-west-1.amazonaws.com/**", "*.azurecr.io/**", "a.*.dkr.ecr.*.amazonaws.com/**"} {
		got := strings.Join(problems(t, text(glob)), "\n")
		if !strings.Contains(got, "no upstream is called") || strings.Contains(got, `did you mean "*`) {
			t.Errorf("%s: %s", glob, got)
		}
	}
	c, err := config.Parse("", []byte(text("*.dkr.ecr.eu-west-1.amazonaws.com/base/**")), nil)
	if err != nil || !c.Ruled(c.Upstreams[0]) {
		t.Errorf("not ruled: %v", err)
	}
}
