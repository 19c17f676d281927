package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/config"
)

func TestYAMLReadsBack(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"defaults": "",
		"everything": `
listen: :443
tls: {cert: /run/tls.crt, key: /run/tls.key}
admin: {listen: ":5001", tokenFile: /run/token}
metrics: {listen: :9090}
drain: 1h30m
errorPhrase: false
log: {level: warn, format: text}
cache: {dir: /data, size: 123456789, minFree: 1GiB, durability: strict}
defaultUpstream: ""
upstreams:
  "10.0.0.5:5000": {endpoints: [{url: "http://10.0.0.5:5000"}], aliases: ["123", "true"]}
  "[fd00::1]:5000": {endpoints: [{url: "https://[fd00::1]:5000", ca: /run/ca.crt}]}
  several: {endpoints: [{url: "https://a", prefix: a/b, proxy: none}, {url: "https://b", clientCert: /c, clientKey: /k},
    {url: "https://c", authHosts: [c]}, "https://d"]}
  logins:
    credentials:
      - {name: a, username: b, passwordFile: /c, repositories: ["**", d/*]}
      - {name: e, dockerConfig: /f, lifetime: 90s, repositories: [g]}
      - {name: "123", plugin: {command: h, args: ["true"], env: {I: "yes", J: ""}, annotations: {k: l}}, repositories: [m]}
  gcr.io: {credentials: [{name: n, gar: }]}
  o.azurecr.io: {credentials: [{name: p, acr: {}}]}
  docker.io: {authHosts: [], tags: {maxAge: 0, wait: 1500ms, staleIfError: 100h1m, minAge: 1h, immutable: ['^\d', "a: b"],
    patterns: [{match: "library/*:v*", maxAge: 0s, wait: 1s, staleIfError: 0s, minAge: 0s, minAgeUnknown: hold, deleted: drop, serveStaleFirst: false},
      {match: "**:*", serveStaleFirst: true}]},
    pins: {"library/app:1.0": "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"}}
`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := parse(t, text)
			out, err := c.YAML()
			if err != nil {
				t.Fatal(err)
			}
			again, err := config.Parse("config.yaml", out, nil)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if diff := cmp.Diff(c, again, cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s\n%s", diff, out)
			}
		})
	}
}

func TestYAMLSaysWhatIsInEffect(t *testing.T) {
	t.Parallel()
	c := parse(t, "log: {level: debug}\n"+
		"upstreams: {docker.io: {}, corp: {endpoints: [{url: https://corp, ca: ca.crt}]}}\n",
		"MIRROR_CACHE_SIZE=1TiB", "MIRROR_LOG_FORMAT=json", "MIRROR_DEFAULT_UPSTREAM=")
	out, err := c.YAML()
	if err != nil {
		t.Fatal(err)
	}
	want := `listen: 127.0.0.1:5000 # a change needs a restart
admin:
  listen: 127.0.0.1:5001 # a change needs a restart
  tokenFile: ""
  hosts: [] # a change needs a restart
metrics:
  listen: "" # a change needs a restart
drain: 1m # a change needs a restart
errorPhrase: true # a change needs a restart
log:
  level: debug
  format: json # from MIRROR_LOG_FORMAT; a change needs a restart
cache:
  dir: mirror-data # a change needs a restart
  size: 1TiB # from MIRROR_CACHE_SIZE; a change needs a restart
  minFree: 5% # a change needs a restart
  durability: relaxed # a change needs a restart
  parallelAbove: 64MiB # a change needs a restart
  scrub: 24h # a change needs a restart
defaultUpstream: "" # from MIRROR_DEFAULT_UPSTREAM
clientsFallBack: true # a change needs a restart
trustedProxies: [] # a change needs a restart
platforms: []
rules: []
upstreams:
  docker.io:
    endpoints: ['https://registry-1.docker.io']
    authHosts: [auth.docker.io]
    redirectHosts: []
    cdnHosts: [production.cloudfront.docker.com, production.cloudflare.docker.com, ` +
		`docker-images-prod.6aa30f8b08e16409b46e0173d6de2f56.r2.cloudflarestorage.com]
    aliases: [index.docker.io, registry-1.docker.io]
    access: public
    clientLogins:
      maxAge: 10m
      staleIfError: 1h
    credentials: []
    maxTransfers: 32
    tags:
      maxAge: 1m
      staleIfError: 168h
      wait: 5s
      minAge: 0s
      minAgeUnknown: serve
      deleted: keep
      serveStaleFirst: false
      immutable: []
      patterns: []
    pins: {}
    rateLimitReserve: 20%
  corp:
    endpoints: [{url: 'https://corp', ca: ca.crt}]
    authHosts: []
    redirectHosts: []
    cdnHosts: []
    aliases: []
    access: public
    clientLogins:
      maxAge: 10m
      staleIfError: 1h
    credentials: []
    maxTransfers: 32
    tags:
      maxAge: 1m
      staleIfError: 168h
      wait: 5s
      minAge: 0s
      minAgeUnknown: serve
      deleted: keep
      serveStaleFirst: false
      immutable: []
      patterns: []
    pins: {}
    rateLimitReserve: 20%
webhooks: {}
kubernetes:
  events: false # a change needs a restart
  server: "" # a change needs a restart
  tokenFile: "" # a change needs a restart
  caFile: "" # a change needs a restart
  feed: false # a change needs a restart
  feedNamespaces: ['*'] # a change needs a restart
  feedExcluded: [] # a change needs a restart
  coverage: false # a change needs a restart
  coverageByNode: false # a change needs a restart
warm:
  maxJobs: 200 # a change needs a restart
  maxImages: 10000 # a change needs a restart
  maxBytes: '0' # a change needs a restart
  maxShare: 50% # a change needs a restart
  parallel: 8 # a change needs a restart
  keep: 72h # a change needs a restart
  patience: 1h # a change needs a restart
  schedules: []
`
	if diff := cmp.Diff(want, string(out)); diff != "" {
		t.Error(diff)
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	withTLS := "tls: {cert: a.crt, key: a.key}\n"
	tests := []struct {
		name, running, wanted string
		want                  []string
	}{
		{"nothing", "", "", nil},
		{"the same in other words", "drain: 60s\nlisten: 127.0.0.1:5000", "drain: 1m", nil},
		{
			"what a running mirror takes up", "",
			"log: {level: debug}\ndefaultUpstream: ghcr.io\nadmin: {tokenFile: x}\n" +
				"upstreams: {ghcr.io: {tags: {maxAge: 1h}}}", nil,
		},
		{"TLS on", "", withTLS, []string{"tls"}},
		{"TLS off", withTLS, "", []string{"tls"}},
		{"the admin listener's TLS on", "", "admin: {tls: {cert: a, key: b}}\n", []string{"admin.tls"}},
		{"another certificate of it", "admin: {tls: {cert: a, key: b}}\n", "admin: {tls: {cert: c, key: b}}\n", nil},
		{"HTTP/2", withTLS, "tls: {cert: a.crt, key: a.key, http2: true}", []string{"tls.http2"}},
		{"another certificate", withTLS, "tls: {cert: b.crt, key: b.key}", nil},
		{
			"listeners", "", "listen: :5000\nadmin: {listen: localhost:5001}\nmetrics: {listen: :5002}",
			[]string{"listen", "admin.listen", "metrics.listen"},
		},
		{
			"the cache", "", "cache: {dir: x, size: 1GiB, minFree: 1%, durability: strict, parallelAbove: 1GiB, scrub: 1h}",
			[]string{"cache.dir", "cache.size", "cache.minFree", "cache.durability", "cache.parallelAbove", "cache.scrub"},
		},
		{
			"the rest", "", "drain: 1s\nerrorPhrase: false\nlog: {format: json}\nclientsFallBack: false\ntrustedProxies: [10.0.0.0/8]",
			[]string{"drain", "errorPhrase", "log.format", "clientsFallBack", "trustedProxies"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, config.Diff(parse(t, tt.running), parse(t, tt.wanted))); diff != "" {
				t.Error(diff)
			}
		})
	}
	want := "listen tls tls.http2 admin.listen admin.tls admin.hosts metrics.listen drain errorPhrase log.format cache.dir cache.size cache.minFree " +
		"cache.durability cache.parallelAbove cache.scrub clientsFallBack trustedProxies kubernetes.events kubernetes.server kubernetes.tokenFile kubernetes.caFile kubernetes.feed kubernetes.feedNamespaces kubernetes.feedExcluded kubernetes.coverage kubernetes.coverageByNode " +
		"warm.maxJobs warm.maxImages warm.maxBytes warm.maxShare warm.parallel warm.keep warm.patience"
	if got := strings.Join(config.RestartPaths(), " "); got != want {
		t.Errorf("RestartPaths:\n%s, want\n%s", got, want)
	}
}
