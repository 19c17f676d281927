package config

import (
	"slices"
	"strings"
)

// hints say what to write instead of a key or value that other programs use, by the path where it stands.
var hints = map[string]map[string]string{
	"": {
		"port":       "the port is part of listen, as in listen: 127.0.0.1:5000",
		"address":    `did you mean "listen"?`,
		"addr":       `did you mean "listen"?`,
		"host":       `did you mean "listen"?`,
		"registries": `did you mean "upstreams"?`,
		"registry":   `did you mean "upstreams"?`,
		"mirrors":    `did you mean "upstreams"?`,
		"remotes":    `did you mean "upstreams"?`,
		"proxy":      "a registry to mirror goes under upstreams; a web proxy is proxy at an endpoint, or HTTPS_PROXY",
		"storage":    `did you mean "cache"?`,
		"ca":         "that of a registry is upstreams.NAME.endpoints[].ca, that of clients' certificates clients.ca",
		"http":       "the address is listen, the certificate tls",
		"debug":      "write log: {level: debug}",
		"verbose":    "write log: {level: debug}",
	},
	"tls": {
		"crt": `did you mean "cert"?`, "certificate": `did you mean "cert"?`, "certFile": `did you mean "cert"?`,
		"keyFile": `did you mean "key"?`,
	},
	"admin": {
		"token": tokenHint, "tokens": `did you mean "operators.tokens"?`, "ca": `did you mean "operators.ca"?`, "clientCA": `did you mean "operators.ca"?`,
		"mtls": `did you mean "operators.ca"?`, "users": `did you mean "operators"?`, "rules": `did you mean "operators.rights"?`,
	},
	"admin.operators": {
		"rules": `did you mean "rights"?`, "roles": `did you mean "rights"?`, "token": `did you mean "tokens"?`, "tokenFile": `did you mean "tokens"?`,
		"clientCA": `did you mean "ca"?`, "revoked": `did you mean "crl"?`,
	},
	"admin.operators.rights.*": {
		"right": `did you mean "may"?`, "role": `did you mean "may"?`, "can": `did you mean "may"?`, "users": whoHint, "names": whoHint,
	},
	"cache": {"path": `did you mean "dir"?`, "directory": `did you mean "dir"?`, "maxSize": `did you mean "size"?`, "ttl": tagHint},
	"upstreams.*": {
		"url": endpointHint, "remote": endpointHint, "remoteurl": endpointHint, "mirror": endpointHint, "host": endpointHint, "server": endpointHint,
		"insecure": insecureHint, "skipVerify": insecureHint, "insecureSkipVerify": insecureHint, "skip_verify": insecureHint,
		"tls": insecureHint, "plainHTTP": insecureHint,
		"username": loginHint, "user": loginHint, "password": loginHint, "passwordFile": loginHint, "passwordEnv": loginHint, "auth": loginHint,
		"login": loginHint, "dockerConfig": loginHint, "token": loginHint,
		"private": "write access: rules, and a rule that lets clients pull",
		"block":   `did you mean "deny"?`, "blocked": `did you mean "deny"?`, "exclude": `did you mean "deny"?`, "allow": `did you mean "only"?`,
		"include": `did you mean "only"?`,
		"maxAge":  "it belongs at tags.maxAge", "ttl": tagHint,
	},
	"upstreams.*.access": {
		"private": accessHint, "authenticated": accessHint, "restricted": accessHint, "login": accessHint, "auth": accessHint,
		"anonymous": `write public, or leave access out`, "open": `write public, or leave access out`,
		"clients": `write client`, "passthrough": `write client`, "user": `write client`,
	},
	"upstreams.*.endpoints.*": {
		"insecure": insecureHint, "skipVerify": insecureHint, "insecureSkipVerify": insecureHint, "skip_verify": insecureHint,
		"caFile": `did you mean "ca"?`, "cert": `did you mean "clientCert"?`, "key": `did you mean "clientKey"?`,
		"username": loginHint, "password": loginHint, "host": `did you mean "url"?`, "server": `did you mean "url"?`, "path": `did you mean "prefix"?`,
	},
	"upstreams.*.credentials.*": {
		"password": passwordHint, "pass": passwordHint, "passwd": passwordHint, "secret": passwordHint, "token": passwordHint,
		"auth": passwordHint, "identityToken": passwordHint, "apiKey": passwordHint,
		"user": `did you mean "username"?`, "login": `did you mean "username"?`,
		"file": `did you mean "passwordFile"?`, "env": `did you mean "passwordEnv"?`, "tokenFile": `did you mean "passwordFile"?`,
		"secretName": "mount the secret into the mirror's pod, and name its folder with dockerConfig",
	},
	"webhooks.*": {
		"secret": webhookSecretHint, "token": webhookSecretHint, "tokenFile": `did you mean "secretFile"?`,
		"registry": `did you mean "upstream"?`, "host": `did you mean "upstream"?`, "kind": `did you mean "type"?`,
	},
	"webhooks.*.type": {
		"docker": "write dockerhub", "hub": "write dockerhub", "docker.io": "write dockerhub", "docker-hub": "write dockerhub",
		"ghcr": "write github", "ghcr.io": "write github", "quay.io": "write quay", "forgejo": "write gitea",
		"registry": "write distribution", "acr": "write distribution", "azure": "write distribution", "zot": genericHint, "ecr": genericHint,
		"gar": genericHint, "artifactory": genericHint, "jfrog": genericHint, "nexus": genericHint, "ci": genericHint, "custom": genericHint,
	},
	"clients": {
		"users": `did you mean "htpasswd"?`, "passwords": `did you mean "htpasswd"?`, "passwordFile": `did you mean "htpasswd"?`,
		"basic": `did you mean "htpasswd"?`, "token": `did you mean "tokens"?`, "tokenFile": `did you mean "tokens"?`,
		"bearer": `did you mean "tokens"?`, "clientCA": `did you mean "ca"?`, "caFile": `did you mean "ca"?`, "mtls": `did you mean "ca"?`, "revoked": `did you mean "crl"?`,
		"serviceAccounts": `did you mean "kubernetes"?`, "maxRequests": limitsHint, "bandwidth": limitsHint, "rateLimit": limitsHint,
		"concurrency": limitsHint,
	},
	"clients.limits": {
		"requests": `did you mean "maxRequests"?`, "concurrency": `did you mean "maxRequests"?`, "maxConnections": `did you mean "maxRequests"?`,
		"rate": `did you mean "bandwidth"?`, "maxBandwidth": `did you mean "bandwidth"?`, "total": `did you mean "totalBandwidth"?`,
		"perAddress": `did you mean "byAddress"?`, "byIP": `did you mean "byAddress"?`, "perIP": `did you mean "byAddress"?`,
	},
	"clients.kubernetes": {
		"aud": `did you mean "audience"?`, "iss": `did you mean "issuer"?`, "jwksUri": `did you mean "jwks"?`, "jwks_uri": `did you mean "jwks"?`,
		"jwksURL": `did you mean "jwks"?`, "keys": `did you mean "jwks"?`, "keysFile": `did you mean "jwksFile"?`, "caFile": `did you mean "ca"?`,
		"server": "the API server is kubernetes.server", "tokenFile": "the mirror's own token is kubernetes.tokenFile",
	},
	"rules.*": {
		"allow": `did you mean "pull"?`, "repositories": `did you mean "pull"?`, "images": `did you mean "pull"?`,
		"users": whoHint, "clients": whoHint, "for": whoHint,
		"deny": "what no rule allows is refused; names for which a registry is never asked are upstreams.NAME.deny",
	},
}

const (
	limitsHint        = "it belongs below limits, as in limits: {maxRequests: 64, bandwidth: 100MiB}"
	whoHint           = `did you mean "who"?`
	passwordHint      = "a secret does not go here: put it into a file of its own, and name that with passwordFile"
	webhookSecretHint = "a secret does not go here: put it into a file of its own, and name that with secretFile"
	genericHint       = "write generic: it takes {\"image\": \"HOST/REPOSITORY:TAG\"}"
	tokenHint         = "a secret does not go here: put it into a file of its own, and name that with tokenFile"
	loginHint         = "it belongs into the upstream's credentials, as in credentials: [{name: hub, username: ci-bot, passwordFile: hub.pass}]"
	endpointHint      = "where it is asked goes into endpoints, as in endpoints: [https://registry.example.com]"
	insecureHint      = "certificates are always checked: name your authority with ca at the endpoint, or write http:// where the registry has no TLS"
	tagHint           = "how long a tag is served without asking is upstreams.NAME.tags.maxAge"
	accessHint        = "a private registry needs access: client, where clients' own credentials decide; or access: rules, credentials, and rules " +
		`that say what clients may pull, as in {who: [anonymous], pull: ["registry.example.com/base/**"]}`
)

// mappingHint says what to write where a mapping should be and a value is, or a list that begins with it.
func mappingHint(path, value string, list bool) string {
	isBool := strings.EqualFold(value, "true") || strings.EqualFold(value, "false")
	switch {
	case path == "upstreams" && isHostPort(strings.ToLower(value)):
		return "write " + value + ": {}, one a line"
	case path == "upstreams":
		return ""
	case path == "upstreams.*" && !list && strings.Contains(value, "://"):
		return "write {endpoints: [" + value + "]}"
	case path == "upstreams.*" && !list:
		return "write {}, or keys below it"
	case isBool && !list && switches[path] != "":
		return "write " + switches[path]
	case isBool && !list, wraps[path] == "":
		return ""
	}
	return "write " + strings.ReplaceAll(wraps[path], "VALUE", value)
}

// wraps are mappings of the one value that is often written in their place.
var wraps = map[string]string{
	"tls":                              "{cert: VALUE, key: FILE}",
	"admin":                            "{listen: VALUE}",
	"metrics":                          "{listen: VALUE}",
	"log":                              "{level: VALUE}",
	"rules.*":                          "{who: [anonymous], pull: [VALUE]}",
	"upstreams.*.tags":                 "{maxAge: VALUE}",
	"upstreams.*.credentials.*":        "{name: VALUE, username: USER, passwordFile: FILE}",
	"upstreams.*.credentials.*.plugin": "{command: VALUE, args: []}",
	"upstreams.*.credentials.*.gar":    "{keyFile: VALUE}",
}

// switches are mappings that are often written as true: what to write to switch them on.
var switches = map[string]string{
	"tls": "{cert: FILE, key: FILE}", "kubernetes": "{events: true}", "clients.kubernetes": "{audience: mirror}", "upstreams.*.credentials.*.ecr": "{}",
	"upstreams.*.credentials.*.gar": "{}", "upstreams.*.credentials.*.acr": "{}",
}

// webHosts are names of web sites and companies that people take for registries, by the registry that they mean.
var webHosts = map[string][]string{
	"docker.io": {
		"hub.docker.com", "registry.hub.docker.com", "www.docker.com", "docker.com", "dockerhub", "docker-hub", "dockerhub.com", "docker", "hub",
		"index.docker.com", "dockerhub.io", "cloud.docker.com", "app.docker.com",
	},
	"ghcr.io":                    {"github.com", "www.github.com", "ghcr", "ghcr.com", "github.io"},
	"quay.io":                    {"quay", "quay.com", "www.quay.io"},
	"registry.k8s.io":            {"k8s.io", "kubernetes.io", "registry.kubernetes.io", "k8s"},
	"gcr.io":                     {"gcr", "gcr.com", "console.cloud.google.com"},
	"mcr.microsoft.com":          {"mcr", "microsoft.com", "hub.microsoft.com"},
	"public.ecr.aws":             {"gallery.ecr.aws"},
	"registry.gitlab.com":        {"gitlab.com", "www.gitlab.com"},
	"nvcr.io":                    {"nvcr", "ngc.nvidia.com", "catalog.ngc.nvidia.com", "nvidia.com"},
	"registry.access.redhat.com": {"catalog.redhat.com", "access.redhat.com", "redhat.com"},
	"docker.elastic.co":          {"elastic.co", "www.docker.elastic.co"},
	"cgr.dev":                    {"images.chainguard.dev", "chainguard.dev"},
}

// registryOf is the registry that people mean by the name of a web site; empty: none is known.
func registryOf(site string) string {
	for registry, sites := range webHosts {
		if slices.Contains(sites, site) {
			return registry
		}
	}
	return ""
}
