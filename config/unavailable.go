package config

import "strings"

// unavailable lists the settings that have a name and a meaning but aren't built yet. A file that sets one is refused:
// a setting that is accepted works. A row is deleted with the change that builds it.
//
// The key is a path in which * stands for any key or index. Today is the text of the value that is true of the mirror
// as it is and may therefore be written; without it only an empty list or mapping may. Instead says what to do. Also is
// another value that may be written.
var unavailable = map[string]row{
	"clients":         {instead: "remove it: each client that can connect to the mirror may use it"},
	"webhooks":        {instead: "remove it: tags are checked when they are older than tags.maxAge"},
	"kubernetes.feed": {today: "false", instead: "remove it"},
	"warm.schedules":  {instead: "remove it"},

	"upstreams.*.access": {
		today: "public", also: "rules", partly: true,
		instead: "remove it, or write rules: clients' own credentials are not asked for",
	},
	"upstreams.*.pins":                 {instead: "remove it"},
	"upstreams.*.rateLimitReserve":     {instead: "remove it"},
	"upstreams.*.tags.minAge":          {today: "0s", instead: "remove it"},
	"upstreams.*.tags.serveStaleFirst": {today: "false", instead: "remove it"},
	"upstreams.*.tags.immutable":       {instead: "remove it"},
	"upstreams.*.tags.patterns":        {instead: "remove it: tags.maxAge holds for every tag of the upstream"},
}

// row is a setting that isn't built.
type row struct {
	today, also, instead string
	partly               bool // today is a choice that is built, beside others that aren't
}

// isAvailable reports whether a pattern is of a setting of which something is built.
func isAvailable(pattern string) bool {
	r, ok := unavailable[pattern]
	return !ok || r.partly
}

// available reports whether a setting and all that it is part of are built, at least in part.
func available(pattern string) bool {
	for ; pattern != ""; pattern = parent(pattern) {
		if !isAvailable(pattern) {
			return false
		}
	}
	return true
}

// anyAvailable reports whether something can be set at a path or below it.
func anyAvailable(pattern string) bool {
	leaf := true
	for _, p := range paths() {
		if strings.HasPrefix(p, pattern+".") {
			if leaf = false; available(p) {
				return true
			}
		}
	}
	return leaf
}

const notYet = "not available yet"
