package config

// unavailable lists the settings that have a name and a meaning but aren't built yet. A file that sets one is refused:
// a setting that is accepted works. A row is deleted with the change that builds it.
//
// The key is a path in which * stands for any key or index. Today is the text of the value that is true of the mirror
// as it is and may therefore be written; without it only an empty list or mapping may. Instead says what to do.
var unavailable = map[string]row{
	"tls.http2":           {"false", "remove it: clients are served by HTTP/1.1, which is faster for blobs"},
	"cache.parallelAbove": {"64MiB", "remove it"},
	"trustedProxies":      {"", "remove it: clients are known by their address"},
	"platforms":           {"", "remove it"},
	"clients":             {"", "remove it: everybody who reaches the mirror is a client"},
	"rules":               {"", "remove it: upstreams have access: public"},
	"webhooks":            {"", "remove it: tags are checked when they are older than tags.maxAge"},
	"kubernetes.events":   {"false", "remove it: failures are in the log and in the error that the node prints"},
	"kubernetes.feed":     {"false", "remove it"},
	"warm.schedules":      {"", "remove it"},

	"upstreams.*.access":               {"public", "remove it: only public images are served, to everybody"},
	"upstreams.*.credentials":          {"", "remove it: upstreams are asked anonymously"},
	"upstreams.*.pins":                 {"", "remove it"},
	"upstreams.*.rateLimitReserve":     {"", "remove it"},
	"upstreams.*.tags.minAge":          {"0s", "remove it"},
	"upstreams.*.tags.deleted":         {"keep", "remove it: a tag that was deleted is kept"},
	"upstreams.*.tags.serveStaleFirst": {"false", "remove it"},
	"upstreams.*.tags.immutable":       {"", "remove it"},
	"upstreams.*.tags.patterns":        {"", "remove it: tags.maxAge holds for every tag of the upstream"},
}

type row struct{ today, instead string }

const notYet = "not available yet"
