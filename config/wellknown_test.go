package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/config"
)

func TestWhatIsKnownOfAnUpstream(t *testing.T) {
	t.Parallel()
	hub := []string{"index.docker.io", "registry-1.docker.io"}
	tests := []struct {
		name, text         string
		url                string
		authHosts, aliases []string
		library            bool
		wantDefault        string
	}{
		{"nothing said", "{docker.io: }", "https://registry-1.docker.io", []string{"auth.docker.io"}, hub, true, "docker.io"},
		{
			"in capitals", "{Docker.IO: {}}", "https://registry-1.docker.io",
			[]string{"auth.docker.io"},
			hub, true, "docker.io",
		},
		{
			"another endpoint", "{docker.io: {endpoints: ['https://mirror.gcr.io']}}", "https://mirror.gcr.io",
			[]string{"auth.docker.io"},
			hub, true, "docker.io",
		},
		{
			"other token services", "{docker.io: {authHosts: [a.example.com]}}", "https://registry-1.docker.io",
			[]string{"a.example.com"},
			hub, true, "docker.io",
		},
		{
			"no token service", "{docker.io: {authHosts: []}}", "https://registry-1.docker.io",
			[]string{},
			hub, true, "docker.io",
		},
		{
			"an alias more", "{docker.io: {aliases: [hub, index.docker.io]}}", "https://registry-1.docker.io",
			[]string{"auth.docker.io"},
			[]string{"hub", "index.docker.io", "registry-1.docker.io"},
			true, "docker.io",
		},
		{
			"an alias that is an upstream of its own", "{docker.io: {}, index.docker.io: {endpoints: ['https://a']}}",
			"https://registry-1.docker.io",
			[]string{"auth.docker.io"},
			hub[1:], true, "docker.io",
		},
		{
			"an alias that another upstream has", "{docker.io: {}, corp: {aliases: [index.docker.io]}}",
			"https://registry-1.docker.io",
			[]string{"auth.docker.io"},
			hub[1:], true, "docker.io",
		},
		{"not known", "{registry.example.com:5000: {}}", "https://registry.example.com:5000", nil, nil, false, ""},
		{"a word", "{corp: {endpoints: ['http://10.0.0.5:5000']}}", "http://10.0.0.5:5000", nil, nil, false, ""},
		{"an IPv6 address", "{'[fd00::1]:5000': {}}", "https://[fd00::1]:5000", nil, nil, false, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := parse(t, "upstreams: "+tt.text)
			u := c.Upstreams[0]
			got := []any{u.Endpoints, u.AuthHosts, u.Aliases, u.Library, c.DefaultUpstream}
			want := []any{[]config.Endpoint{{URL: tt.url}}, tt.authHosts, tt.aliases, tt.library, tt.wantDefault}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Behind a proxy downloads come from the hosts of these lists alone. They are not redirectHosts: those may have private
// addresses, which is the operator's to grant.
func TestWellKnownCDNs(t *testing.T) {
	t.Parallel()
	for _, u := range config.Default().Upstreams {
		if len(u.CDNHosts) == 0 {
			t.Errorf("%s: no download would pass a proxy", u.Name)
		}
		if len(u.RedirectHosts) > 0 {
			t.Errorf("%s: private addresses are granted to %q", u.Name, u.RedirectHosts)
		}
	}
	printed, err := config.Default().YAML()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(config.Default().Upstreams, parse(t, string(printed)).Upstreams, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("what is printed is not what is known: %s", diff)
	}
	for text, want := range map[string][]string{
		"{ghcr.io: {}}": {"pkg-containers.githubusercontent.com"},
		"{ghcr.io: {cdnHosts: ['*.CDN.example.com', a:8443]}}":      {"*.cdn.example.com", "a:8443"},
		"{ghcr.io: {cdnHosts: []}}":                                 {},
		"{registry.example.com: {}}":                                nil,
		"{corp: {endpoints: ['https://ghcr.io'], aliases: [ghcr]}}": nil,
	} {
		if diff := cmp.Diff(want, parse(t, "upstreams: "+text).Upstreams[0].CDNHosts); diff != "" {
			t.Errorf("%s: %s", text, diff)
		}
	}
}

func TestDefaultUpstream(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                           "docker.io",
		"defaultUpstream: ''":        "",
		"defaultUpstream: ghcr.io":   "ghcr.io",
		"upstreams: {ghcr.io: {}}":   "",
		"upstreams: {docker.io: {}}": "docker.io",
		"defaultUpstream: INDEX.docker.io\nupstreams: {docker.io: {}}": "docker.io",
		"defaultUpstream: hub\nupstreams: {ghcr.io: {aliases: [Hub]}}": "ghcr.io",
		"upstreams: {ghcr.io: {aliases: [docker.io]}}":                 "ghcr.io",
	} {
		c := parse(t, text)
		if c.DefaultUpstream != want {
			t.Errorf("%q: the default is %q, want %q", text, c.DefaultUpstream, want)
		}
	}
}

// Two configurations never share memory: app changes none, but a test or a later reader may.
func TestConfigurationsAreApart(t *testing.T) {
	t.Parallel()
	a := config.Default()
	a.Upstreams[0].Endpoints[0].URL, a.Upstreams[0].AuthHosts[0], a.Upstreams[0].Aliases[0] = "x", "x", "x"
	a.Upstreams[0].CDNHosts[0] = "x"
	if b := config.Default(); b.Upstreams[0].Endpoints[0].URL == "x" || b.Upstreams[0].AuthHosts[0] == "x" ||
		b.Upstreams[0].Aliases[0] == "x" || b.Upstreams[0].CDNHosts[0] == "x" {
		t.Error("the table of well-known registries was changed")
	}
}

func TestItself(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		endpoint config.Endpoint
		want     bool
	}{
		{"docker.io", config.Endpoint{URL: "https://registry-1.docker.io"}, true},
		{"docker.io", config.Endpoint{URL: "https://index.docker.io"}, true},
		{"docker.io", config.Endpoint{URL: "https://mirror.gcr.io"}, false},
		{"docker.io", config.Endpoint{URL: "https://harbor.example.com", Prefix: "hub"}, false},
		{"ghcr.io", config.Endpoint{URL: "https://ghcr.io", Proxy: "none"}, true},
		{"ghcr.io", config.Endpoint{URL: "https://ghcr.io", Prefix: "acme"}, false},
		{"reg.example.com:5000", config.Endpoint{URL: "http://reg.example.com:5000"}, true},
		{"reg.example.com:5000", config.Endpoint{URL: "http://reg.example.com"}, false},
		{"corp", config.Endpoint{URL: "http://10.0.0.5:5000"}, false},
	} {
		if got := (config.Upstream{Name: tt.name}).Itself(tt.endpoint); got != tt.want {
			t.Errorf("%s at %+v: %t, want %t", tt.name, tt.endpoint, got, tt.want)
		}
	}
}
