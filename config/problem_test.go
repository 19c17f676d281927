package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/config"
)

func TestProblems(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		env        []string
		want       []string
	}{
		{"an unknown key beside a near one", "upstreams:\n  ghcr.io:\n    endpoint: https://ghcr.io\n", nil, []string{
			`config.yaml:3:5: upstreams.ghcr.io.endpoint: unknown key (did you mean "endpoints"?)`,
		}},
		{"an unknown key that belongs elsewhere", "size: 20GiB\n", nil, []string{
			`config.yaml:1:1: size: unknown key (it belongs at cache.size)`,
		}},
		{"an unknown key like no other", "log: {colour: red}\n", nil, []string{
			`config.yaml:1:7: log.colour: unknown key (there are format, level)`,
		}},
		{"the wrong case", "Listen: :5000\n", nil, []string{
			`config.yaml:1:1: Listen: unknown key (did you mean "listen"?)`,
		}},
		{"a key set twice", "drain: 1s\nlisten: :5000\ndrain: 2s\n", nil, []string{
			`config.yaml:3:1: drain: set twice (the first is on line 1: remove one)`,
		}},
		{"an upstream in two cases", "upstreams:\n  ghcr.io: {}\n  GHCR.io: {}\n", nil, []string{
			`config.yaml:3:3: upstreams.ghcr.io: in the list twice (hosts have no case; the first is on line 2)`,
		}},
		{"a list for a value", "listen: [a]\n", nil, []string{
			`config.yaml:1:9: listen: is a list and must be one value`,
		}},
		{"a value for a list", "upstreams: {ghcr.io: {authHosts: a.example.com}}\n", nil, []string{
			`config.yaml:1:34: upstreams.ghcr.io.authHosts: is one value and must be a list (write it in brackets: [a.example.com])`,
		}},
		{"a value for a mapping", "cache: 20GiB\n", nil, []string{
			`config.yaml:1:8: cache: is one value and must have keys (write KEY: VALUE, one a line)`,
		}},
		{"a list for a file", "- listen\n", nil, []string{
			`config.yaml:1:1: the file is a list and must have keys (write KEY: VALUE, one a line)`,
		}},
		{"no value", "listen:\n", nil, []string{
			`config.yaml:1:8: listen: has no value (give it one, or remove the key to get the default)`,
		}},
		{"a mapping for a key", "{[a]: b}\n", nil, []string{
			`config.yaml:1:2: a key must be a word, and this is a list`,
		}},
		{"a merge", "log: &l {level: info}\n<<: *l\n", nil, []string{
			`config.yaml:2:1: << is not supported (write the keys out, or use an alias (*name) for a whole value)`,
		}},
		{"two documents", "listen: :5000\n---\nlisten: :5001\n", nil, []string{
			`config.yaml:2:1: a second document begins here (one file holds one: remove the --- and what follows)`,
		}},
		{"not YAML", "listen: [a\ndrain: 1s\n", nil, []string{
			`config.yaml:2:6: not YAML: while parsing a flow sequence: did not find expected ',' or ']' ` +
				`(what is read there begins on line 1; check quotes, brackets and indentation, which is by spaces)`,
		}},
		{"a tab", "log:\n\tlevel: debug\n", nil, []string{
			`config.yaml:2:1: not YAML: a tab in the indentation (indent with spaces)`,
		}},
		{"a tab after spaces", "log:\n  level: debug\n  \tformat: json\n", nil, []string{
			`config.yaml:3:3: not YAML: a tab in the indentation (indent with spaces)`,
		}},
		{"a zero byte", "listen: :5000\ndrain: \x00 1s\n", nil, []string{
			`config.yaml:2:8: not text: here is the control character 0x00 (is it the right file?)`,
		}},
		{"a byte of another encoding", "# caf\xe9\n", nil, []string{
			`config.yaml:1:6: not text: here is the byte 0xe9, which is not UTF-8 (is it the right file?)`,
		}},
		{"an unknown anchor", "listen: *x\n", nil, []string{
			`config.yaml:1:9: not YAML: unknown anchor 'x' referenced ` +
				`(check quotes, brackets and indentation, which is by spaces)`,
		}},

		{"a duration without a unit", "drain: 60\n", nil, []string{
			`config.yaml:1:8: drain: "60" is not a duration (it has no unit: write 60s for seconds)`,
		}},
		{"a duration in days", "drain: 7d\n", nil, []string{
			`config.yaml:1:8: drain: "7d" is not a duration (a day is 24h: write 168h)`,
		}},
		{"a duration of words", "drain: soon\n", nil, []string{
			`config.yaml:1:8: drain: "soon" is not a duration (write a number with ms, s, m or h, as in 60s or 1h30m)`,
		}},
		{"a negative duration", "drain: -1s\n", nil, []string{
			`config.yaml:1:8: drain: "-1s" is not zero or more (write as in 60s)`,
		}},
		{"a bad size", "cache: {size: 20 apples}\n", nil, []string{
			`config.yaml:1:15: cache.size: "20 apples" is not a size or a percentage of the disk (write a number with KiB, MiB, ` +
				`GiB, TiB, KB, MB, GB or TB, or a percentage, as in 20GiB or 80%)`,
		}},
		{"a size without a unit", "cache: {size: 20}\n", nil, []string{
			`config.yaml:1:15: cache.size: 20 bytes is too little (write a unit, as in 20GiB)`,
		}},
		{"no size", "cache: {size: 0}\n", nil, []string{
			`config.yaml:1:15: cache.size: 0 bytes is too little (write at least 1MiB, as in 20GiB)`,
		}},
		{"a size beyond all disks", "cache: {size: 9000000TiB}\n", nil, []string{
			`config.yaml:1:15: cache.size: "9000000TiB" is not a size that any disk has (write less, as in 20GiB)`,
		}},
		{"too many percent", "cache: {minFree: 101%}\n", nil, []string{
			`config.yaml:1:18: cache.minFree: "101%" is not a percentage from 0% to 100% (write as in 5%)`,
		}},
		{"percent without the sign", "cache: {minFree: 5}\n", nil, []string{
			`config.yaml:1:18: cache.minFree: 5 bytes is too little (write a unit, as in 5% or 10GiB; 0 turns it off)`,
		}},
		{"no folder", `cache: {dir: ""}`, nil, []string{
			`config.yaml:1:14: cache.dir: has no folder (name one, as in /var/lib/mirror)`,
		}},
		{"yes", "errorPhrase: yes\n", nil, []string{
			`config.yaml:1:14: errorPhrase: "yes" is not true or false (write true)`,
		}},
		{"no transfers", "upstreams: {ghcr.io: {maxTransfers: 0}}\n", nil, []string{
			`config.yaml:1:37: upstreams.ghcr.io.maxTransfers: "0" is not a number from 1 on (write digits alone, as in 32)`,
		}},
		{"half a transfer", "upstreams: {ghcr.io: {maxTransfers: 1.5}}\n", nil, []string{
			`config.yaml:1:37: upstreams.ghcr.io.maxTransfers: "1.5" is not a number from 1 on ` +
				`(write digits alone, as in 32)`,
		}},
		{"a word that is none of a few", "log: {level: wran}\n", nil, []string{
			`config.yaml:1:14: log.level: "wran" is not one of debug, info, warn, error (did you mean "warn"?)`,
		}},

		{"a port alone", "listen: 5000\n", nil, []string{
			`config.yaml:1:9: listen: "5000" is not an address ` +
				`(write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface)`,
		}},
		{"a port out of range", "listen: 127.0.0.1:70000\n", nil, []string{
			`config.yaml:1:9: listen: "127.0.0.1:70000" has no port from 0 to 65535 ` +
				`(write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface)`,
		}},
		{"a URL to listen on", "listen: http://localhost:5000\n", nil, []string{
			`config.yaml:1:9: listen: "http://localhost:5000" is not an address ` +
				`(write HOST:PORT, as in 127.0.0.1:5000; :5000 is every interface)`,
		}},
		{"two listeners on a port", "listen: :5000\nadmin:\n  listen: 127.0.0.1:5000\n", nil, []string{
			`config.yaml:3:11: admin.listen: 127.0.0.1:5000 is taken: listen is ":5000" ` +
				`(give each listener a port of its own)`,
		}},
		{"a default is taken", "listen: localhost:1\nmetrics: {listen: 0.0.0.0:5001}\n", nil, []string{
			`config.yaml:2:19: metrics.listen: 0.0.0.0:5001 is taken: admin.listen is "127.0.0.1:5001" ` +
				`(give each listener a port of its own)`,
		}},
		{"the place of a default", "listen: 127.0.0.1:5001\n", nil, []string{
			`config.yaml:1:9: admin.listen: 127.0.0.1:5001 is taken: listen is "127.0.0.1:5001" ` +
				`(give each listener a port of its own)`,
		}},
		{"operators without a token", "admin: {listen: 10.0.0.1:5001}\n", nil, []string{
			`config.yaml:1:17: admin.listen: "10.0.0.1:5001" is not a loopback address, and there is no token ` +
				`(set admin.tokenFile or admin.operators, or listen on 127.0.0.1)`,
		}},
		{"a certificate without a key", "tls:\n  cert: a\n", nil, []string{
			`config.yaml:2:9: tls.key: missing: tls.cert needs its private key (set both, or neither for plain HTTP)`,
		}},
		{"a key without a certificate", "tls:\n  key: a\n", nil, []string{
			`config.yaml:2:8: tls.cert: missing: tls.key needs its certificate (set both, or neither for plain HTTP)`,
		}},

		{"an API server without TLS", "kubernetes: {events: true, server: \"http://10.0.0.1:8080\"}\n", nil, []string{
			`config.yaml:1:36: kubernetes.server: "http://10.0.0.1:8080" is not the URL of an API server ` +
				`(write https://HOST:PORT; plain HTTP would show the token)`,
		}},

		{"a default that is not in the list", "defaultUpstream: docker.oi\n", nil, []string{
			`config.yaml:1:18: defaultUpstream: "docker.oi" is not among the upstreams (did you mean "docker.io"?)`,
		}},
		{"a default like no other", "defaultUpstream: acme\nupstreams: {ghcr.io: {}}\n", nil, []string{
			`config.yaml:1:18: defaultUpstream: "acme" is not among the upstreams ` +
				`(add it under upstreams, or write one that is there: ghcr.io)`,
		}},
		{"no registry", "upstreams: {}\n", nil, []string{
			`config.yaml:1:12: upstreams: names no registry ` +
				`(add one, as in ghcr.io: {}; or remove the key for the well-known ones)`,
		}},
		{"an upstream with a scheme", "upstreams:\n  https://quay.io/: {}\n", nil, []string{
			`config.yaml:2:3: upstreams.https://quay.io/: a name is a host, without a scheme ` +
				`(write quay.io; where it is asked goes under endpoints)`,
		}},
		{"an upstream with a path", "upstreams:\n  ghcr.io/acme: {}\n", nil, []string{
			`config.yaml:2:3: upstreams.ghcr.io/acme: a name is a host, without a path (write ghcr.io)`,
		}},
		{"an upstream that is not a host", "upstreams:\n  ghcr..io: {}\n", nil, []string{
			`config.yaml:2:3: upstreams.ghcr..io: "ghcr..io" is not HOST or HOST:PORT ` +
				`(write it as it stands in image names, as in ghcr.io)`,
		}},
		{"another name of a known one", "upstreams:\n  index.docker.io: {}\n", nil, []string{
			`config.yaml:2:3: upstreams.index.docker.io: another name of docker.io (write docker.io)`,
		}},
		{
			"aliases that clash", "upstreams:\n  ghcr.io: {aliases: [hub]}\n  quay.io: {aliases: [Hub, ghcr.io]}\n",
			nil,
			[]string{
				`config.yaml:3:23: upstreams.quay.io.aliases[0]: "hub" is an alias of ghcr.io already ` +
					`(remove it from one of the two)`,
				`config.yaml:3:28: upstreams.quay.io.aliases[1]: "ghcr.io" is the name of an upstream already ` +
					`(remove it from one of the two)`,
			},
		},
		{"an alias that is not a word", "upstreams: {ghcr.io: {aliases: [a b]}}\n", nil, []string{
			`config.yaml:1:33: upstreams.ghcr.io.aliases[0]: "a b" is not a host or a word (as in index.docker.io or corp)`,
		}},
		{"hosts", "upstreams:\n  ghcr.io:\n    authHosts: [https://a, a:0]\n    redirectHosts: ['*.b', a/b]\n", nil, []string{
			`config.yaml:3:17: upstreams.ghcr.io.authHosts[0]: a host has no scheme (write HOST or HOST:PORT)`,
			`config.yaml:3:28: upstreams.ghcr.io.authHosts[1]: "a:0" is not HOST or HOST:PORT ` +
				`(as in auth.example.com or 10.0.0.5:5001)`,
			`config.yaml:4:21: upstreams.ghcr.io.redirectHosts[0]: a pattern is not available yet (name each host)`,
			`config.yaml:4:28: upstreams.ghcr.io.redirectHosts[1]: "a/b" is not HOST or HOST:PORT ` +
				`(as in auth.example.com or 10.0.0.5:5001)`,
		}},
		{
			"hosts of a CDN",
			"upstreams:\n  ghcr.io:\n    cdnHosts: ['cdn*.a.example', '*.example', 10.0.0.1, '[::1]:443', 'https://a', '*', ok.a]\n",
			nil,
			[]string{
				`config.yaml:3:16: upstreams.ghcr.io.cdnHosts[0]: "cdn*.a.example" has a * beside other letters ` +
					`(a * stands for one whole label: *.cdn.example.com)`,
				`config.yaml:3:34: upstreams.ghcr.io.cdnHosts[1]: "*.example" names no domain ` +
					`(the last two labels can't be *: *.cdn.example.com)`,
				`config.yaml:3:47: upstreams.ghcr.io.cdnHosts[2]: "10.0.0.1" is an address; these are names of public hosts ` +
					`(an address goes into redirectHosts)`,
				`config.yaml:3:57: upstreams.ghcr.io.cdnHosts[3]: "[::1]:443" is an address; these are names of public hosts ` +
					`(an address goes into redirectHosts)`,
				`config.yaml:3:70: upstreams.ghcr.io.cdnHosts[4]: a host has no scheme (write HOST or HOST:PORT)`,
				`config.yaml:3:83: upstreams.ghcr.io.cdnHosts[5]: "*" names no domain ` +
					`(the last two labels can't be *: *.cdn.example.com)`,
			},
		},
		{"a wait that no client waits", "upstreams: {ghcr.io: {tags: {wait: 1m}}}\n", nil, []string{
			`config.yaml:1:36: upstreams.ghcr.io.tags.wait: 1m is too long: clients give up (write at most 25s)`,
		}},

		{"limits of clients that hold for none", "clients: {limits: {maxRequests: 8, bandwidth: 5, totalBandwidth: 2MiB}}\n", nil, []string{
			`config.yaml:1:33: clients.limits.maxRequests: it limits no client: none can identify itself (set byAddress: true if each address ` +
				`is one client, or let clients log in)`,
			`config.yaml:1:47: clients.limits.bandwidth: 5 bytes a second is too little (write 1MiB or more; 0 turns it off)`,
		}},
		{"limits of clients that don't fit", "clients: {limits: {maxRequests: 0, bandwidth: 3MiB, totalBandwidth: 2MiB, byAddress: true}}\n", nil, []string{
			`config.yaml:1:33: clients.limits.maxRequests: "0" is not a number from 1 on (write digits alone, as in 32)`,
			`config.yaml:1:47: clients.limits.bandwidth: it is more than totalBandwidth (write less, or remove it)`,
		}},
		{"addresses that no limit counts", "clients: {limits: {byAddress: true}}\n", nil, []string{
			`config.yaml:1:31: clients.limits.byAddress: true has no effect without a limit (set maxRequests, bandwidth or totalBandwidth, or remove it)`,
		}},

		{"an endpoint without a scheme", "upstreams: {a: {endpoints: [a.example.com]}}\n", nil, []string{
			`config.yaml:1:29: upstreams.a.endpoints[0]: "a.example.com" has no http:// or https:// ` +
				`(write http:// or https:// with a host, as in https://registry.example.com:5000)`,
		}},
		{"an endpoint without a host", "upstreams: {a: {endpoints: [{url: 'https://'}]}}\n", nil, []string{
			`config.yaml:1:35: upstreams.a.endpoints[0].url: "https://" has no valid host ` +
				`(write http:// or https:// with a host, as in https://registry.example.com:5000)`,
		}},
		{"an endpoint without a url", "upstreams: {a: {endpoints: [{ca: x}]}}\n", nil, []string{
			`config.yaml:1:29: upstreams.a.endpoints[0]: has no url (add it, as in url: https://registry.example.com)`,
		}},
		{"an endpoint with a password", "upstreams: {a: {endpoints: ['https://bot:hunter2@a']}}\n", nil, []string{
			`config.yaml:1:29: upstreams.a.endpoints[0]: a user or password in a URL is not allowed ` +
				`(remove it: a login goes into the upstream's credentials)`,
		}},
		{"an endpoint with v2", "upstreams: {a: {endpoints: ['https://a/v2/']}}\n", nil, []string{
			`config.yaml:1:29: upstreams.a.endpoints[0]: "https://a/v2/" has more than a host ` +
				`(remove /v2: it is added to each request)`,
		}},
		{"an endpoint with a path", "upstreams: {a: {endpoints: ['https://a/proxy']}}\n", nil, []string{
			`config.yaml:1:29: upstreams.a.endpoints[0]: a path below the host is not available yet ` +
				`(where it begins the names of its repositories, write it as prefix)`,
		}},
		{"an endpoint with a query", "upstreams: {a: {endpoints: ['https://a?x=y']}}\n", nil, []string{
			`config.yaml:1:29: upstreams.a.endpoints[0]: "https://a?x=y" has more than a host ` +
				`(remove everything from the ? or # on)`,
		}},
		{"no endpoint", "upstreams: {docker.io: {endpoints: []}}\n", nil, []string{
			`config.yaml:1:25: upstreams.docker.io.endpoints: names no endpoint ` +
				`(add its URL, or remove the key for https://registry-1.docker.io)`,
		}},
		{
			"an endpoint twice", "upstreams: {a: {endpoints: ['https://a', 'HTTPS://A/', {url: 'https://a', prefix: p}]}}\n", nil,
			[]string{`config.yaml:1:42: upstreams.a.endpoints[1]: the same as endpoints[0] (remove one of the two)`},
		},
		{"a prefix that is none", `upstreams:
  a:
    endpoints:
      - {url: 'https://a', prefix: Hub}
      - {url: 'https://b', prefix: /hub//proxy}
      - {url: 'https://c', prefix: c/hub:1}
`, nil, []string{
			`config.yaml:4:36: upstreams.a.endpoints[0].prefix: "Hub" is not what a repository can begin with ` +
				`(lower case, without host and tag, as in hub-proxy)`,
			`config.yaml:5:36: upstreams.a.endpoints[1].prefix: "hub//proxy" is not what a repository can begin with ` +
				`(lower case, without host and tag, as in hub-proxy)`,
			`config.yaml:6:36: upstreams.a.endpoints[2].prefix: "c/hub:1" is not what a repository can begin with ` +
				`(lower case, without host and tag, as in hub-proxy)`,
		}},
		{"half a client certificate", `upstreams:
  a:
    endpoints:
      - {url: 'https://a', clientCert: c}
      - {url: 'https://b', clientKey: c}
      - {url: 'http://c', clientCert: c, clientKey: c}
`, nil, []string{
			`config.yaml:4:40: upstreams.a.endpoints[0].clientCert: has no clientKey ` +
				`(add the file with its key; it may be the same file)`,
			`config.yaml:5:39: upstreams.a.endpoints[1].clientKey: has no clientCert ` +
				`(add the file with the certificate of this key)`,
			`config.yaml:6:39: upstreams.a.endpoints[2].clientCert: the endpoint is plain HTTP, which has no certificate ` +
				`(write https:// or remove clientCert)`,
		}},
		{"a proxy that is none", `upstreams:
  a:
    endpoints:
      - {url: 'https://a', proxy: 'proxy:3128'}
      - {url: 'https://b', proxy: 'http://bot:hunter2@proxy:3128'}
      - {url: 'https://c', proxy: 'http://proxy:3128/x'}
      - {url: 'https://d', proxy: none}
      - {url: 'https://e', proxy: 'http://'}
      - {url: 'https://f', proxy: 'http://proxy:3128', authHosts: ['https://x']}
`, nil, []string{
			`config.yaml:4:35: upstreams.a.endpoints[0].proxy: "proxy:3128" has no http:// or https:// ` +
				`(write http:// or https:// with a host and a port, as in http://proxy.example.com:3128, or none)`,
			`config.yaml:5:35: upstreams.a.endpoints[1].proxy: a user or password in a URL is not allowed ` +
				`(remove it, or give it in HTTPS_PROXY, without this key)`,
			`config.yaml:6:35: upstreams.a.endpoints[2].proxy: "http://proxy:3128/x" has more than a host ` +
				`(write http:// or https:// with a host and a port, as in http://proxy.example.com:3128, or none)`,
			`config.yaml:8:35: upstreams.a.endpoints[4].proxy: "http://" has no valid host ` +
				`(write http:// or https:// with a host and a port, as in http://proxy.example.com:3128, or none)`,
			`config.yaml:9:68: upstreams.a.endpoints[5].authHosts[0]: a host has no scheme (write HOST or HOST:PORT)`,
		}},
		{
			"operators", `admin:
  listen: 127.0.0.1:5001
  operators:
    tokens: operators.yaml
    ca: ca.crt
    rights:
      - {who: [], may: operate}
      - {who: [alice, 'node:a', anonymous]}
      - {who: ['*'], may: write}
      - {who: [bob], may: read, images: []}
      - {who: [bob], may: read, images: ['docker.io', 'index.docker.io/acme/**', 'none.example/**', 'docker.io/acme/**']}
upstreams: {docker.io: {}}
`, nil, []string{
				`config.yaml:5:9: admin.operators.ca: operators show certificates over TLS alone (set admin.tls.cert and admin.tls.key)`,
				`config.yaml:7:10: admin.operators.rights[0].who: the rule names no operator (write names, as in who: [alice])`,
				`config.yaml:8:9: admin.operators.rights[1].may: the rule gives no right (write read or operate)`,
				`config.yaml:8:23: admin.operators.rights[1].who[1]: "node:a" is not the name of an operator (write the name of a token or certificate, or * for each)`,
				`config.yaml:8:33: admin.operators.rights[1].who[2]: "anonymous" is not the name of an operator (write the name of a token or certificate, or * for each)`,
				`config.yaml:9:27: admin.operators.rights[2].may: "write" is not one of read, operate`,
				`config.yaml:10:33: admin.operators.rights[3].images: the list is empty (write globs, as in docker.io/acme/**, or leave it out for all images)`,
				`config.yaml:11:42: admin.operators.rights[4].images[0]: "docker.io" names no repository (write docker.io/** for all of that upstream)`,
				`config.yaml:11:55: admin.operators.rights[4].images[1]: "index.docker.io" is another name of docker.io (write docker.io)`,
				`config.yaml:11:82: admin.operators.rights[4].images[2]: no upstream is called "none.example" (write the name of one, as under upstreams)`,
			},
		},
		{"operators without a right", "admin: {operators: {tokens: t}}\n", nil, []string{
			`config.yaml:1:9: admin.operators: no operator has a right (add rights, as in rights: [{who: ["*"], may: read}, {who: [alice], may: operate}])`,
		}},
		{"rights without operators", "admin: {operators: {crl: c, rights: [{who: [a], may: read}]}}\n", nil, []string{
			`config.yaml:1:26: admin.operators.crl: it has no effect without admin.operators.ca (set admin.operators.ca, or remove it)`,
			`config.yaml:1:29: admin.operators.rights: no operator can identify itself (set admin.operators.tokens or admin.operators.ca)`,
		}},

		{"an authority for plain HTTP", "upstreams: {a: {endpoints: [{url: 'http://a', ca: c}]}}\n", nil, []string{
			`config.yaml:1:51: upstreams.a.endpoints[0].ca: the endpoint is plain HTTP, which has no certificate ` +
				`(write https:// or remove ca)`,
		}},

		{
			"one mistake is told once", "tls: {cert: [a], key: b}\nupstreams: {a: {endpoints: [~], authHosts: [~]}}\n",
			nil,
			[]string{
				`config.yaml:1:13: tls.cert: is a list and must be one value`,
				`config.yaml:2:29: upstreams.a.endpoints[0]: has no url (add it, as in url: https://registry.example.com)`,
				`config.yaml:2:45: upstreams.a.authHosts[0]: has no value (give it one, or remove the key to get the default)`,
			},
		},

		{
			"all at once, in order", "listne: x\ndrain: 1\nupstreams:\n  ghcr.io: {tags: {maxage: 1}}\n",
			[]string{"MIRROR_TLS_KEY=k", "MIRROR_CACHE_SIZE=x"},
			[]string{
				`config.yaml:1:1: listne: unknown key (did you mean "listen"?)`,
				`config.yaml:2:8: drain: "1" is not a duration (it has no unit: write 1s for seconds)`,
				`config.yaml:4:20: upstreams.ghcr.io.tags.maxage: unknown key (did you mean "maxAge"?)`,
				`MIRROR_CACHE_SIZE: cache.size: "x" is not a size or a percentage of the disk (write a number with ` +
					`KiB, MiB, GiB, TiB, KB, MB, GB or TB, or a percentage, as in 20GiB or 80%)`,
				`MIRROR_TLS_KEY: tls.cert: missing: tls.key needs its certificate ` +
					`(set both, or neither for plain HTTP)`,
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, problems(t, tt.text, tt.env...)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestTheLastLineCounts(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"a: 1\n":       "config.yaml: 1 problem",
		"a: 1\nb: 2\n": "config.yaml: 2 problems",
	} {
		_, err := config.Parse("config.yaml", []byte(text), nil)
		if !strings.HasSuffix(err.Error(), "\n"+want) {
			t.Errorf("%q ends with other than %q:\n%v", text, want, err)
		}
	}
	_, err := config.Load("", []string{"MIRROR_DRAIN=x"})
	if !strings.HasSuffix(err.Error(), "\nenvironment: 1 problem") {
		t.Errorf("without a file: %v", err)
	}
}

// What stands before an @ may be a password.
func TestProblemsHidePasswords(t *testing.T) {
	t.Parallel()
	text := `
listen: bot:hunter2@host:5000
defaultUpstream: bot:hunter2@d.example.com
upstreams:
  a.example.com:
    endpoints: ["bot:hunter2@a", "https//bot:hunter2@a", "ftp://bot:hunter2@a", "https://bot:hun@ter2@a"]
    authHosts: ["bot:hunter2@a", "https://bot:hunter2@a"]
    cdnHosts: ["*bot:hunter2@a"]
    aliases: ["bot:hunter2@a", "bot:hunter2/@a"]
  https://bot:hunter2@b.example.com/x: {endpoint: x}
  bot:hunter2@c.example.com: {endpoint: x}
  bot:hunter2@c.example.com/path: {}
`
	got := strings.Join(problems(t, text), "\n")
	if strings.Contains(got, "hunter2") || strings.Contains(got, "ter2") || !strings.Contains(got, "***@c.example.com") {
		t.Errorf("problems:\n%s", got)
	}
}

// A file with thousands of mistakes has one cause, and its operator wants to read the first.
func TestTheListOfProblemsEnds(t *testing.T) {
	t.Parallel()
	_, err := config.Parse("config.yaml", []byte(strings.Repeat("a: 1\n", 1000)), nil)
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 102 || lines[100] != "and 900 more" || lines[101] != "config.yaml: 1000 problems" {
		t.Errorf("%d lines, the last are %q", len(lines), lines[max(0, len(lines)-2):])
	}
}

// A few lines of aliases can stand for more values than there is memory for, and can point at themselves.
func TestAliasesEnd(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for _, n := range []string{"1", "2", "3", "4", "5", "6", "7", "8"} {
		before := string(n[0] - 1)
		bomb += "a" + n + ": &a" + n + " [" + strings.Repeat("*a"+before+", ", 9) + "*a" + before + "]\n"
	}
	for name, text := range map[string]string{
		"a bomb where there is nothing": bomb,
		"a bomb in a list":              bomb + "trustedProxies: *a8\n",
		"a list within itself":          "trustedProxies: &a [*a]\n",
		"a mapping within itself":       "upstreams: &a {ghcr.io: *a}\n",
		"many aliases of a long mapping": "x: &x {" + strings.Repeat("k: 1, ", 1000) + "}\n" +
			"y: [" + strings.Repeat("*x, ", 1000) + "]\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := problems(t, text); len(got) == 0 || len(got) > 3000 {
				t.Errorf("%d problems", len(got))
			}
		})
	}
	var wide strings.Builder
	wide.WriteString("upstreams:\n  a.example.com: {authHosts: &a [")
	wide.WriteString(strings.Repeat("~, ", 1000))
	wide.WriteString("]}\n")
	for i := range 100 {
		wide.WriteString("  a" + strings.Repeat("b", i%50) + "c" + strings.Repeat("b", i/50) + ": {authHosts: *a}\n")
	}
	all := problems(t, wide.String()) // each ~ is one
	if len(all) > 50_000 {
		t.Errorf("%d problems: it went on", len(all))
	}
	want := "more than 50000 values so far (use fewer aliases (*name))"
	if !strings.Contains(strings.Join(all, "\n"), want) {
		t.Errorf("no problem says %q", want)
	}
}

func TestAnAliasStandsForAValue(t *testing.T) {
	t.Parallel()
	c := parse(t, "upstreams:\n  ghcr.io: {tags: &t {maxAge: 5m}}\n  quay.io: {tags: *t}\n")
	for _, u := range c.Upstreams {
		if u.Tags.MaxAge.Minutes() != 5 {
			t.Errorf("%s: maxAge %s", u.Name, u.Tags.MaxAge)
		}
	}
}

func TestAFileOfAnotherKind(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"binary":    "\x7fELF\x02\x01\x01\x00",
		"too large": strings.Repeat("# x\n", 1<<20+1),
		"a word":    "hello",
		"deep":      strings.Repeat("[", 20_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := problems(t, text); len(got) != 1 || !strings.HasPrefix(got[0], "config.yaml:1:") {
				t.Errorf("problems: %q", got)
			}
		})
	}
}
