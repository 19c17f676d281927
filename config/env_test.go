package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

func TestVariablesWin(t *testing.T) {
	t.Parallel()
	c := parse(t, "listen: :5000\ndrain: 1s\n",
		"MIRROR_LISTEN=:6000", "MIRROR_ADMIN_LISTEN=127.0.0.1:6001", "MIRROR_ADMIN_TOKENFILE=token",
		"MIRROR_CACHE_MIN_FREE=10%", "MIRROR_CACHE_SIZE=1TiB", "MIRROR_ERRORPHRASE=false", "MIRROR_METRICS_LISTEN=",
		"MIRROR_LOG_LEVEL=debug", "MIRROR_CLIENTS_FALL_BACK=false", "MIRROR_DEFAULT_UPSTREAM=index.docker.io",
		"PATH=/bin", "MIRROR", "mirror_listen=x")
	got := []any{
		c.Listen, c.Admin.Listen, c.Admin.TokenFile, c.Cache.MinFree.Percent, int64(c.Cache.Size.Bytes), c.ErrorPhrase,
		c.Log.Level, c.ClientsFallBack, c.DefaultUpstream, c.Drain,
	}
	want := []any{
		":6000", "127.0.0.1:6001", "token", 10.0, int64(1 << 40), false,
		"debug", false, "docker.io", time.Second,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	wantOver := []config.Override{
		{Variable: "MIRROR_ADMIN_LISTEN", Path: "admin.listen"},
		{Variable: "MIRROR_ADMIN_TOKENFILE", Path: "admin.tokenFile"},
		{Variable: "MIRROR_CACHE_MIN_FREE", Path: "cache.minFree"},
		{Variable: "MIRROR_CACHE_SIZE", Path: "cache.size"},
		{Variable: "MIRROR_CLIENTS_FALL_BACK", Path: "clientsFallBack"},
		{Variable: "MIRROR_DEFAULT_UPSTREAM", Path: "defaultUpstream"},
		{Variable: "MIRROR_ERRORPHRASE", Path: "errorPhrase"},
		{Variable: "MIRROR_LISTEN", Path: "listen"},
		{Variable: "MIRROR_LOG_LEVEL", Path: "log.level"},
		{Variable: "MIRROR_METRICS_LISTEN", Path: "metrics.listen"},
	}
	if diff := cmp.Diff(wantOver, c.Overrides); diff != "" {
		t.Error(diff)
	}
}

func TestVariable(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"listen": "MIRROR_LISTEN", "cache.minFree": "MIRROR_CACHE_MIN_FREE", "tls.http2": "MIRROR_TLS_HTTP2",
		"clientsFallBack": "MIRROR_CLIENTS_FALL_BACK", "admin.tokenFile": "MIRROR_ADMIN_TOKENFILE",
	} {
		if got := config.Variable(path); got != want {
			t.Errorf("Variable(%q) = %q, want %q", path, got, want)
		}
	}
}

// Variables that begin like ours and aren't settings: the command line's own, and what a kubelet sets in every pod of a
// namespace with Services called mirror, mirror-admin and mirror-cache-size.
func TestOtherVariablesAreLeftAlone(t *testing.T) {
	t.Parallel()
	c := parse(t, "",
		"MIRROR_ADMIN=http://mirror:5001", "MIRROR_ADMIN_TOKEN_FILE=/run/token", "MIRROR_ADMIN_CA=/run/ca",
		"MIRROR_ADMIN_CERT=/run/cert", "MIRROR_ADMIN_KEY=/run/key", "MIRROR_CONFIG=/etc/mirror.yaml",
		"MIRROR_SERVICE_HOST=10.0.0.1", "MIRROR_SERVICE_PORT=5000", "MIRROR_SERVICE_PORT_REGISTRY=5000",
		"MIRROR_PORT=tcp://10.0.0.1:5000", "MIRROR_PORT_5000_TCP=tcp://10.0.0.1:5000",
		"MIRROR_PORT_5000_TCP_PROTO=tcp", "MIRROR_PORT_5000_TCP_PORT=5000", "MIRROR_PORT_5000_TCP_ADDR=10.0.0.1",
		"MIRROR_ADMIN_SERVICE_HOST=10.0.0.2", "MIRROR_ADMIN_PORT=tcp://10.0.0.2:5001",
		"MIRROR_CACHE_SIZE_PORT_53_UDP_ADDR=10.0.0.3", "MIRROR_CACHE_SIZE_SERVICE_HOST=10.0.0.3",
		"MIRROR_REGION=eu", "MIRRORS=x")
	if len(c.Overrides) > 0 {
		t.Errorf("set by them: %v", c.Overrides)
	}
}

func TestProblemsOfVariables(t *testing.T) {
	t.Parallel()
	for pair, want := range map[string]string{
		"MIRROR_LISTN=x":         `MIRROR_LISTN: no such setting (did you mean "MIRROR_LISTEN"?)`,
		"MIRROR_CACHE_SISE=1GiB": `MIRROR_CACHE_SISE: no such setting (did you mean "MIRROR_CACHE_SIZE"?)`,
		"MIRROR_LOG_COLOUR=red":  `MIRROR_LOG_COLOUR: no such setting (mirror config print shows the settings there are)`,
		"MIRROR_ADMIN_TOKEN=hunter2": `MIRROR_ADMIN_TOKEN: no such setting ` +
			`(did you mean "MIRROR_ADMIN_TOKENFILE"?)`,
		"MIRROR_LISTEN=bot:hunter2@host:1": `MIRROR_LISTEN: listen: "***@host:1" is not an address ` +
			`(write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface)`,
		"MIRROR_CACHE=20GiB": `MIRROR_CACHE: cache: a variable can't set it ` +
			`(set its keys one by one, or set it in the file)`,
		"MIRROR_DRAIN=": `MIRROR_DRAIN: drain: "" is not a duration ` +
			`(write a number with ms, s, m or h, as in 60s or 1h30m)`,
		"MIRROR_LOG_LEVEL=": `MIRROR_LOG_LEVEL: log.level: "" is not one of debug, info, warn, error`,
		"MIRROR_LISTEN=5000": `MIRROR_LISTEN: listen: "5000" is not an address ` +
			`(write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface)`,
		"MIRROR_LISTEN=[::]:5001": `MIRROR_LISTEN: admin.listen: 127.0.0.1:5001 is taken: listen is "[::]:5001" ` +
			`(give each listener a port of its own)`,
		"MIRROR_UPSTREAMS=ghcr.io": `MIRROR_UPSTREAMS: upstreams: a variable can't set it (set it in the file)`,
		"MIRROR_UPSTREAMS_GHCR_IO=": `MIRROR_UPSTREAMS_GHCR_IO: a variable can't set it ` +
			`(their keys are names: set it in the file)`,
		"MIRROR_PLATFORMS=linux/amd64": `MIRROR_PLATFORMS: platforms: a variable can't set it (set it in the file)`,
		"MIRROR_CLIENTS_CA=x":          `MIRROR_CLIENTS_CA: clients.ca: clients show certificates over TLS alone (set tls.cert and tls.key)`,
		"MIRROR_TLS_HTTP2=true":        `MIRROR_TLS_HTTP2: tls.http2: true has no effect without a certificate (set tls.cert and tls.key, or remove it)`,
	} {
		if diff := cmp.Diff([]string{want}, problems(t, "", pair)); diff != "" {
			t.Errorf("%s\n%s", pair, diff)
		}
	}
	got := problems(t, "", "MIRROR_CACHE_MINFREE=1%", "MIRROR_CACHE_MIN_FREE=2%")
	if len(got) != 1 || !strings.Contains(got[0], "set twice (MIRROR_CACHE_MINFREE sets it as well: remove one)") {
		t.Errorf("two spellings: %q", got)
	}
	parse(t, "", "MIRROR_CACHE_MINFREE=1%", "MIRROR_CACHE_MIN_FREE=1%", "MIRROR_TLS_HTTP2=false")
}
