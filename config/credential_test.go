package config_test

import (
	"strings"
	"testing"
)

// Each mistake in a credential is told with its line and column and what to write, and never shows what may be a secret.
func TestCredentialsWithMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, text, want string }{
		{"unknown key", "{nmae: x, helper: docker-credential-a}", `4:10: upstreams.docker.io.credentials[0].nmae: unknown key (did you mean "name"?)`},
		{"no name", "{helper: docker-credential-a}", `4:9: upstreams.docker.io.credentials[0].name: a credential has no name (add one`},
		{"bad name", "{name: 'a b', helper: docker-credential-a}", `4:16: upstreams.docker.io.credentials[0].name: "a b" is not a name`},
		{"no source", "{name: x}", "4:9: upstreams.docker.io.credentials[0]: a credential has no source (add one of passwordFile,"},
		{
			"two sources", "{name: x, helper: docker-credential-a, ecr: {}}",
			"4:48: upstreams.docker.io.credentials[0].ecr: a second source, beside helper",
		},
		{"no user", "{name: x, passwordFile: p}", "4:33: upstreams.docker.io.credentials[0].passwordFile: has no username"},
		{"a user too many", "{name: x, username: u, dockerConfig: p}", "4:29: upstreams.docker.io.credentials[0].username: dockerConfig brings"},
		{"a password in its place", "{name: x, username: u, passwordEnv: 'hunter2!'}", "4:45: upstreams.docker.io.credentials[0].passwordEnv: is not"},
		{"password", "{name: x, username: u, password: hunter2}", `credentials[0].password: unknown key (a secret does not go here: put it into a file`},
		{"lifetime of a file", "{name: x, username: u, passwordFile: p, lifetime: 1h}", "is for the answers of helpers, and this is passwordFile"},
		{"too short a lifetime", "{name: x, helper: docker-credential-a, lifetime: 1s}", "1s is too short: the helper would run all the time"},
		{"helper's suffix", "{name: x, helper: Pass}", `"Pass" is not the name of a credential helper (write docker-credential-pass)`},
		{"helper with arguments", "{name: x, helper: docker-credential-a get}", "is more than a program"},
		{"helper's relative path", "{name: x, helper: bin/docker-credential-a}", "is neither a name nor a full path"},
		{"plugin without a command", "{name: x, plugin: {args: [a]}}", "4:19: upstreams.docker.io.credentials[0].plugin.command: a plugin has no command"},
		{"plugin's relative path", "{name: x, plugin: {command: bin/p}}", "is neither a name nor a full path"},
		{"plugin's bad variable", "{name: x, plugin: {command: p, env: {a-b: c}}}", `"a-b" is not the name of a variable`},
		{
			"plugin's secret", "{name: x, plugin: {command: p, env: {AWS_SECRET_ACCESS_KEY: hunter2}}}",
			"4:69: upstreams.docker.io.credentials[0].plugin.env.AWS_SECRET_ACCESS_KEY: a secret has no place in this file",
		},
		{"ecr elsewhere", "{name: x, ecr: {}}", `4:19: upstreams.docker.io.credentials[0].ecr: "docker.io" is not a registry of Amazon's (ecr is for`},
		{"gar elsewhere", "{name: x, gar: {}}", `"docker.io" is not a registry of Google's (gar is for gcr.io`},
		{"acr elsewhere", "{name: x, acr: {}}", `"docker.io" is not a registry of Azure's (acr is for NAME.azurecr.io)`},
		{"ecr with more", "{name: x, ecr: {region: a}}", "credentials[0].ecr.region: unknown key (nothing can be set here)"},
		{"bad glob", "{name: x, helper: docker-credential-a, repositories: [docker.io/Library]}", `"docker.io/Library" is not a glob`},
		{"part of a segment", "{name: x, helper: docker-credential-a, repositories: [a/b**c]}", ""},
		{"regular expression", "{name: x, helper: docker-credential-a, repositories: ['a.*?']}", `is not a glob of repositories`},
		{"twice", "{name: x, helper: docker-credential-a}\n      - {name: x, dockerConfig: p, repositories: [a]}", `5:16: upstreams.docker.io.credentials[1].name: "x" is credentials[0] already`},
		{
			"for the same", "{name: x, helper: docker-credential-a, repositories: [a, 'b/**']}\n      - {name: y, dockerConfig: p, repositories: ['b/**']}", "",
		},
		{"the name of anonymous pulls", "{name: anonymous, helper: docker-credential-a}", "4:16: upstreams.docker.io.credentials[0].name: is what the mirror calls pulls without"},
		{"for all and for some", "{name: x, helper: docker-credential-a}\n      - {name: y, dockerConfig: p, repositories: ['b/**']}", ""},
		{"a variable that names a file", "{name: x, plugin: {command: p, env: {AWS_WEB_IDENTITY_TOKEN_FILE: /t}}}", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			text := "upstreams:\n  docker.io:\n    credentials:\n      - " + tt.text + "\n"
			if tt.want == "" {
				parse(t, text)
				return
			}
			got := problems(t, text)
			if len(got) != 1 || !strings.Contains(got[0], tt.want) || !strings.HasPrefix(got[0], "config.yaml:") {
				t.Errorf("problems:\n%s\nwant one with\n%s", strings.Join(got, "\n"), tt.want)
			}
			if strings.Contains(strings.Join(got, " "), "hunter2") {
				t.Errorf("a secret shows: %q", got)
			}
		})
	}
}

// A login of a cloud goes by the name, or by the endpoint that the credential is sent to.
func TestCloudHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, source, endpoints, want string }{
		{"public.ecr.aws", "ecr", "", "public.ecr.aws"},
		{"europe-docker.pkg.dev", "gar", "", "europe-docker.pkg.dev"},
		{"corp", "gar", "[https://europe-docker.pkg.dev]", "europe-docker.pkg.dev"},
		{"corp", "acr", "[https://mirror.example.com, https://a.azurecr.io]", "a.azurecr.io"},
		{"gcr.io", "gar", "[https://mirror.example.com]", "gcr.io"},
		{"docker.io", "acr", "[https://a.azurecr.io, https://registry-1.docker.io]", ""}, // a.azurecr.io gets no credential
		{"a.azurecr.io.evil.example", "acr", "", ""},
		{"xgcr.io", "gar", "", ""},
	} {
		text := "{credentials: [{name: x, " + tt.source + ": }]"
		if tt.endpoints != "" {
			text += ", endpoints: " + tt.endpoints
		}
		text = "upstreams: {'" + tt.name + "': " + text + "}}\ndefaultUpstream: ''\n"
		if tt.want == "" {
			if got := problems(t, text); len(got) != 1 || !strings.Contains(got[0], "is not a registry of") {
				t.Errorf("%s: %q", text, got)
			}
			continue
		}
		u, _ := parse(t, text).Upstreams.Get(tt.name)
		if got, ok := u.CloudHost(tt.source); !ok || got != tt.want {
			t.Errorf("%s: %q, want %q", text, got, tt.want)
		}
	}
}
