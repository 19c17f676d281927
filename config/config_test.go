package config_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/config"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// parse is config.Parse for text that must be right.
func parse(t *testing.T, text string, env ...string) *config.Config {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(text), env)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// problems is what Parse says of text that must be wrong, a line each, without the count.
func problems(t *testing.T, text string, env ...string) []string {
	t.Helper()
	c, err := config.Parse("config.yaml", []byte(text), env)
	invalid, ok := errors.AsType[*config.Invalid](err)
	if !ok || c != nil {
		t.Fatalf("Parse gave (%v, %v), want nil and an *Invalid", c, err)
	}
	var lines []string
	for _, p := range invalid.Problems {
		lines = append(lines, p.String())
	}
	if text := strings.Join(lines, "\n"); strings.Count(text, "\n") != len(lines)-1 ||
		len(lines) <= 100 && !strings.HasPrefix(err.Error(), text+"\n") {
		t.Fatalf("%d problems, not one a line:\n%v", len(invalid.Problems), err)
	}
	return lines
}

func TestEmptySectionsAreTheDefaults(t *testing.T) {
	t.Parallel()
	c := parse(t, `
clients: {}
webhooks: {}
kubernetes: {events: false, feed: false}
warm: {schedules: []}
upstreams:
  docker.io:
    access: public
`)
	want := config.Default()
	want.Cache.Dir = "mirror-data"
	want.Upstreams = want.Upstreams[:1]
	want.Webhooks = config.Webhooks{}
	want.Warm.Schedules = []config.Schedule{}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
}

func TestNoConfigurationAtAll(t *testing.T) {
	t.Parallel()
	c, err := config.Load("", nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default(), c); diff != "" {
		t.Errorf("Load without a file is not Default:\n%s", diff)
	}
	got := []any{
		c.Listen, c.Admin.Listen, c.Metrics.Listen, c.TLS.Enabled(), c.Cache.Dir, int64(c.Cache.Size.Bytes),
		c.Cache.MinFree.Percent, c.Cache.Durability, c.Drain, c.ErrorPhrase, c.ClientsFallBack, c.Log.Level, c.Log.Format,
		c.DefaultUpstream, len(c.Files()),
	}
	want := []any{
		"127.0.0.1:5000", "127.0.0.1:5001", "", false, "./mirror-data", int64(20 << 30),
		5.0, "relaxed", time.Minute, true, true, "info", "auto",
		"docker.io", 0,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	hub, _ := c.Upstreams.Get("docker.io")
	if diff := cmp.Diff(config.Upstream{
		Name: "docker.io", Library: true,
		Endpoints: []config.Endpoint{{URL: "https://registry-1.docker.io"}},
		AuthHosts: []string{"auth.docker.io"},
		CDNHosts: []string{
			"production.cloudfront.docker.com", "production.cloudflare.docker.com",
			"docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com",
		},
		Aliases: []string{"index.docker.io", "registry-1.docker.io"},
		Access:  "public", ClientLogins: clientLogins, MaxTransfers: 32,
		Tags: config.Tags{
			MaxAge: time.Minute, Wait: 5 * time.Second, StaleIfError: 168 * time.Hour, Deleted: "keep", MinAgeUnknown: "serve",
		},
		RateLimitReserve: 20,
	}, hub); diff != "" {
		t.Error(diff)
	}
	gitlab, _ := c.Upstreams.Get("registry.gitlab.com")
	if gitlab.Library || gitlab.Endpoints[0].URL != "https://registry.gitlab.com" || gitlab.AuthHosts[0] != "gitlab.com" {
		t.Errorf("registry.gitlab.com is %+v", gitlab)
	}
}

func TestAnEmptyFileIsTheDefaults(t *testing.T) {
	t.Parallel()
	want := config.Default()
	want.Cache.Dir = "mirror-data" // beside the file
	for name, text := range map[string]string{
		"nothing": "", "comments": "# a\n# b\n", "null": "null\n", "a mapping": "{}\n", "a document": "---\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(want, parse(t, text)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// clientLogins are the defaults.
var clientLogins = config.ClientLogins{MaxAge: 10 * time.Minute, StaleIfError: time.Hour}

func TestEverySettingThatIsBuilt(t *testing.T) {
	t.Parallel()
	c, err := config.Parse("/etc/mirror/config.yaml", []byte(`
listen: 0.0.0.0:443
tls: {cert: tls.crt, key: /run/tls.key, http2: false}
admin: {listen: ":5001", tokenFile: admin.token, tls: {cert: admin.crt, key: /run/admin.key}, hosts: [Mirror.Corp.Example, "::1"]}
metrics: {listen: "[::1]:9090"}
drain: 1h30m
errorPhrase: false
log: {level: debug, format: json}
cache: {dir: data, size: 1.5TiB, minFree: 10GB, durability: strict, parallelAbove: 1GiB, scrub: 0s}
defaultUpstream: CORP
platforms: [linux/amd64, Linux/arm/v7]
clientsFallBack: false
trustedProxies: [10.1.2.3/8, "fd00::/8"]
kubernetes: {feed: true, feedNamespaces: ["team-*", prod], feedExcluded: [kube-*]}
warm:
  maxJobs: 10
  maxImages: 100
  maxBytes: 100GiB
  maxShare: 25%
  parallel: 4
  keep: 24h
  patience: 10m
  schedules:
    - {name: night, cron: "0 5 * * *", timeZone: Europe/Berlin, images: [registry.example.com:5000/acme/app:1], platforms: [Linux/arm64], with: [referrers], keep: 1h}
    - {onTagMove: true, images: [a.azurecr.io/app]}
upstreams:
  Registry.Example.com:5000:
    endpoints: [{url: "HTTP://10.0.0.5:5000/", ca: ""}]
    authHosts: [Auth.example.com, "10.0.0.6:5001"]
    redirectHosts: ["[fd00::1]:9000"]
    aliases: [Corp]
    access: public
    maxTransfers: 4
    tags: {maxAge: 0, wait: 500ms, staleIfError: 24h, deleted: drop, minAge: 24h, minAgeUnknown: hold, serveStaleFirst: true, immutable: ['^v\d'], patterns: [
      {match: "**:latest", maxAge: 0s, serveStaleFirst: false}, {match: "acme/*:v*", staleIfError: 1h, wait: 1s, minAge: 1h, minAgeUnknown: serve, deleted: keep}]}
    pins: {acme/app:1.0: sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08}
    credentials:
      - {name: hub, username: bot, passwordFile: hub.pass, repositories: ["library/**"]}
      - {name: env, username: bot, passwordEnv: HUB_TOKEN, repositories: [a, "b/*"]}
      - {name: pulled, dockerConfig: registries/, lifetime: 30m, repositories: ["c-*/**/d"]}
      - {name: helper, helper: docker-credential-pass, lifetime: 12h}
      - name: node
        plugin: {command: p, args: [a, b], env: {A: B}, tokenFile: /run/token, annotations: {a.b/c: d}}
        repositories: [e]
  Public.ECR.aws: {credentials: [{name: aws, ecr: }]}
  europe-docker.pkg.dev: {credentials: [{name: google, gar: {keyFile: key.json}}]}
  a.azurecr.io: {credentials: [{name: azure, acr: {}}]}
  other.example.com:
    endpoints:
      - {url: https://other.example.com, ca: ca.crt, clientCert: client.crt, clientKey: /run/client.key, proxy: none}
      - {url: https://harbor.example.com, prefix: /other-proxy/, proxy: "http://proxy:3128", authHosts: [Login.example.com]}
      - {url: https://mirror.example.com, authHosts: []}
`), nil)
	if err != nil {
		t.Fatal(err)
	}
	tags := config.Tags{
		MaxAge: time.Minute, Wait: 5 * time.Second, StaleIfError: 168 * time.Hour, Deleted: "keep", MinAgeUnknown: "serve",
	}
	cloud := func(name string, c config.Credential) config.Upstream {
		u := config.Upstream{
			Name: name, Endpoints: []config.Endpoint{{URL: "https://" + name}}, Access: "public", ClientLogins: clientLogins, MaxTransfers: 32, Tags: tags,
			RateLimitReserve: 20, Credentials: []config.Credential{c},
		}
		if known, ok := config.Default().Upstreams.Get(name); ok {
			u.CDNHosts = known.CDNHosts
		}
		return u
	}
	want := &config.Config{
		Listen: "0.0.0.0:443",
		TLS:    config.TLS{Cert: "/etc/mirror/tls.crt", Key: "/run/tls.key"},
		Admin: config.Admin{
			Listen: ":5001", TokenFile: "/etc/mirror/admin.token", Hosts: []string{"mirror.corp.example", "::1"},
			TLS: config.AdminTLS{Cert: "/etc/mirror/admin.crt", Key: "/run/admin.key"},
		},
		Metrics: config.Metrics{Listen: "[::1]:9090"},
		Drain:   90 * time.Minute,
		Log:     config.Log{Level: "debug", Format: "json"},
		Cache: config.Cache{
			Dir: "/etc/mirror/data", Size: config.DiskShare{Bytes: 3 << 39}, MinFree: config.DiskShare{Bytes: 10e9},
			Durability: "strict", ParallelAbove: 1 << 30,
		},
		DefaultUpstream: "registry.example.com:5000",
		TrustedProxies:  []string{"10.0.0.0/8", "fd00::/8"},
		Platforms:       []string{"linux/amd64", "linux/arm/v7"},
		Kubernetes:      config.Kubernetes{Feed: true, FeedNamespaces: []string{"team-*", "prod"}, FeedExcluded: []string{"kube-*"}},
		Warm: config.Warm{
			MaxJobs: 10, MaxImages: 100, MaxBytes: 100 << 30, MaxShare: 25, Parallel: 4, Keep: 24 * time.Hour, Patience: 10 * time.Minute,
			Schedules: []config.Schedule{
				{
					Name: "night", Cron: "0 5 * * *", TimeZone: "Europe/Berlin", Images: []string{"registry.example.com:5000/acme/app:1"}, Platforms: []string{"linux/arm64"},
					With: []string{"referrers"}, Keep: time.Hour,
				},
				{Name: "schedule-2", OnTagMove: true, Images: []string{"a.azurecr.io/app"}},
			},
		},
		Upstreams: config.Upstreams{
			{
				Name:          "registry.example.com:5000",
				Endpoints:     []config.Endpoint{{URL: "http://10.0.0.5:5000"}},
				AuthHosts:     []string{"auth.example.com", "10.0.0.6:5001"},
				RedirectHosts: []string{"[fd00::1]:9000"},
				Aliases:       []string{"corp"},
				Access:        "public", ClientLogins: clientLogins,
				MaxTransfers: 4,
				Tags: config.Tags{
					Wait: 500 * time.Millisecond, StaleIfError: 24 * time.Hour, MinAge: 24 * time.Hour, MinAgeUnknown: "hold",
					Deleted: "drop", ServeStaleFirst: true, Immutable: []string{`^v\d`},
					Patterns: []config.TagPattern{
						{Match: "**:latest", MaxAge: new(time.Duration(0)), ServeStaleFirst: new(false)},
						{
							Match: "acme/*:v*", StaleIfError: new(time.Hour), Wait: new(time.Second), MinAge: new(time.Hour),
							MinAgeUnknown: "serve", Deleted: "keep",
						},
					},
				},
				Pins:             map[string]string{"acme/app:1.0": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"},
				RateLimitReserve: 20,
				Credentials: []config.Credential{
					{Name: "hub", Username: "bot", PasswordFile: "/etc/mirror/hub.pass", Repositories: []string{"library/**"}},
					{Name: "env", Username: "bot", PasswordEnv: "HUB_TOKEN", Repositories: []string{"a", "b/*"}},
					{
						Name: "pulled", DockerConfig: "/etc/mirror/registries", Lifetime: 30 * time.Minute,
						Repositories: []string{"c-*/**/d"},
					},
					{Name: "helper", Helper: "docker-credential-pass", Lifetime: 12 * time.Hour},
					{Name: "node", Repositories: []string{"e"}, Plugin: &config.Plugin{
						Command: "p", Args: []string{"a", "b"}, Env: map[string]string{"A": "B"}, TokenFile: "/run/token",
						Annotations: map[string]string{"a.b/c": "d"},
					}},
				},
			},
			cloud("public.ecr.aws", config.Credential{Name: "aws", ECR: &config.ECR{}}),
			cloud("europe-docker.pkg.dev", config.Credential{Name: "google", GAR: &config.GAR{KeyFile: "/etc/mirror/key.json"}}),
			cloud("a.azurecr.io", config.Credential{Name: "azure", ACR: &config.ACR{}}),
			{
				Name: "other.example.com",
				Endpoints: []config.Endpoint{
					{
						URL: "https://other.example.com", CA: "/etc/mirror/ca.crt", ClientCert: "/etc/mirror/client.crt",
						ClientKey: "/run/client.key", Proxy: "none",
					},
					{
						URL: "https://harbor.example.com", Prefix: "other-proxy", Proxy: "http://proxy:3128",
						AuthHosts: []string{"login.example.com"},
					},
					{URL: "https://mirror.example.com", AuthHosts: []string{}},
				},
				Access: "public", ClientLogins: clientLogins, MaxTransfers: 32, Tags: tags, RateLimitReserve: 20,
			},
		},
	}
	if diff := cmp.Diff(want, c); diff != "" {
		t.Error(diff)
	}
	files := []string{
		"/etc/mirror/tls.crt", "/run/tls.key", "/etc/mirror/admin.token", "/etc/mirror/admin.crt", "/run/admin.key", "/etc/mirror/ca.crt",
		"/etc/mirror/client.crt", "/run/client.key",
	}
	if diff := cmp.Diff(files, c.Files()); diff != "" {
		t.Error(diff)
	}
}

func TestLoadReadsAFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, []byte("listen: :5000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(path, []string{"MIRROR_CACHE_DIR=here"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != ":5000" || c.Cache.Dir != "here" {
		t.Errorf("listen %q, cache.dir %q", c.Listen, c.Cache.Dir)
	}

	_, err = config.Load(filepath.Join(dir, "missing.yaml"), nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("a missing file: %v", err)
	}
}

// What can't be read again, or says nothing, is refused, and never waited for.
func TestLoadSaysWhatToDo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, text := range map[string]string{"empty": "", "blank": " \n\t\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		dir:                         "is a folder; name the file in it",
		filepath.Join(dir, "pipe"):  "is a pipe and not a regular file; write the configuration to one",
		os.DevNull:                  "is a device and not a regular file; write the configuration to one",
		filepath.Join(dir, "empty"): "is empty; write settings to it, or leave out --config for the defaults",
		filepath.Join(dir, "blank"): "is empty; write settings to it, or leave out --config for the defaults",
	} {
		_, err := config.Load(path, nil)
		if want := "read the configuration: " + path + " " + want; err == nil || err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	}
}

// What a file names is told with its full path, also where the file was named by a relative one.
func TestPathsAreFull(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "c.yaml"), []byte("cache: {dir: data}\ntls: {cert: a, key: /b}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	c, err := config.Load("c.yaml", nil)
	if err != nil {
		t.Fatal(err)
	}
	at, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	if c.Cache.Dir != filepath.Join(at, "data") || c.TLS.Cert != filepath.Join(at, "a") || c.TLS.Key != "/b" {
		t.Errorf("%s, %s, %s", c.Cache.Dir, c.TLS.Cert, c.TLS.Key)
	}
	_, err = config.Parse("c.yaml", []byte("x: 1\n"), nil)
	if err == nil || !strings.HasPrefix(err.Error(), "c.yaml:1:1: ") {
		t.Errorf("a problem has the name that was given: %v", err)
	}
}
