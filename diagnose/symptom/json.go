package symptom

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

// value reads the output of kubectl -o json and journalctl -o json, and the JSON logs of runtimes and of the mirror.
func (c *counter) value(v any) {
	if c.err() != nil {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			c.value(x)
		}
	case map[string]any:
		c.object(v)
	}
}

func (c *counter) object(o map[string]any) {
	if text(o, "msg") == "pull failed" && text(o, "reason") != "" {
		at, _ := stamp(text(o, "time"))
		c.addOwn(text(o, "reason"), text(o, "ref"), text(o, "id"), text(o, "summary"), text(o, "remedy"), at)
		return
	}
	switch text(o, "kind") {
	case "Event":
		c.event(o)
		return
	case "Pod":
		c.pod(o)
		return
	}
	if inner, ok := o["jsonPayload"].(map[string]any); ok { // Google's logs
		c.object(inner)
		return
	}
	for _, list := range []string{"items", "events"} {
		if l, ok := o[list].([]any); ok {
			for _, x := range l {
				if c.err() != nil {
					return
				}
				if e, ok := x.(map[string]any); ok && text(e, "kind") == "" && text(e, "message") != "" {
					c.event(e)
				} else {
					c.value(x)
				}
			}
			return
		}
	}
	c.logged(o)
}

// event reads an Event of core/v1 or events.k8s.io/v1, or an object with its fields.
func (c *counter) event(o map[string]any) {
	note := cmp.Or(text(o, "message"), text(o, "note"))
	s := message{record: record{text: note, source: "event"}, tier: event, count: 1}
	s.count = cmp.Or(countOf(o), s.count)
	if series, ok := o["series"].(map[string]any); ok {
		s.count = cmp.Or(countOf(series), s.count)
		s.at, _ = stamp(text(series, "lastObservedTime"))
	}
	for _, k := range []string{"lastTimestamp", "deprecatedLastTimestamp", "eventTime", "firstTimestamp"} {
		if s.at.IsZero() {
			s.at, _ = stamp(text(o, k))
		}
	}
	lower := strings.ToLower(note)
	switch reason := text(o, "reason"); {
	case reason == "Pulling" || reason == "Pulled" || reason == "Created" || reason == "Started":
		return
	case backoff.in(lower) && !kubelet.in(lower), bare.MatchString(strings.TrimSpace(note)):
		s.tier = status
	}
	s.add(c)
}

// pod reads why the containers of a pod are waiting.
func (c *counter) pod(o map[string]any) {
	st, _ := o["status"].(map[string]any)
	for _, list := range []string{"initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"} {
		l, _ := st[list].([]any)
		for _, x := range l {
			cs, _ := x.(map[string]any)
			state, _ := cs["state"].(map[string]any)
			waiting, _ := state["waiting"].(map[string]any)
			reason := text(waiting, "reason")
			r := record{text: reason + ": " + text(waiting, "message"), source: "pod", image: text(cs, "image")}
			s := message{record: r, tier: status, count: 1}
			if reason == "ErrImageNeverPull" {
				s.reason = diagnose.NeverPull
			}
			s.add(c)
		}
	}
}

// errorFields are the fields in which programs put their errors, the message of a log line first.
var errorFields = []string{"MESSAGE", "message", "msg", "log", "textPayload", "Log", "Msg", "error", "err"}

// logged reads a log line, or a document of another kind: the answer of a cloud, an operator or an API.
func (c *counter) logged(o map[string]any) {
	var parts []string
	for _, k := range errorFields {
		if t := text(o, k); t != "" && !slices.ContainsFunc(parts, func(p string) bool { return strings.Contains(p, t) }) {
			parts = append(parts, t)
		}
	}
	if len(parts) > 0 && c.entry(o, parts) {
		return
	}
	c.walk(o, make(map[string]bool), deepest)
}

// entry reads a log line, and reports whether it is about a failed pull.
func (c *counter) entry(o map[string]any, parts []string) bool {
	all := strings.Join(parts, ": ")
	if strings.HasPrefix(strings.TrimSpace(all), "{") { // a JSON line within a JSON line is not parsed again
		all = strings.TrimLeft(strings.TrimSpace(all), "{")
	}
	first, rest, several := strings.Cut(all, "\n")
	if several && rest != "" && len(parts) == 1 && !pulls(strings.ToLower(first)) {
		before := len(c.found)
		c.text(all)
		return len(c.found) > before
	}
	r := peel(strings.ReplaceAll(all, "\n", " "), deepestLine)
	c.near.add(r.text)
	if l := text(o, "level") + text(o, "severity"); l != "" && r.level == "" {
		r.level = levelOf(l)
	}
	if r.level == "debug" {
		return true
	}
	if r.source == "" {
		r.source = place(parts[0]) + " "
	}
	r.image = cmp.Or(text(o, "image"), r.image)
	for _, k := range []string{"ts", "time", "timestamp", "TimeStamp", "@timestamp"} {
		if at, ok := stamp(text(o, k)); ok {
			r.at = at
		}
	}
	s := message{count: countOf(o)}
	s.take(r)
	return s.add(c)
}

// deepest is the depth to which documents are read, and mostSeen the number of texts of one that are compared.
const (
	deepest  = 24
	mostSeen = 1000
)

// walk reads the texts of a document of an unknown kind. Equal texts count once.
func (c *counter) walk(v any, seen map[string]bool, depth int) {
	if depth == 0 {
		return
	}
	switch v := v.(type) {
	case []any:
		for _, x := range v {
			c.walk(x, seen, depth-1)
		}
	case map[string]any:
		for _, k := range slices.Sorted(maps.Keys(v)) {
			c.walk(v[k], seen, depth-1)
		}
	case string:
		if !relevant(v) {
			return
		}
		for line := range strings.Lines(v) {
			line = strings.TrimSpace(line)
			if r := peel(line, deepestLine); line != "" && !seen[r.text] && len(seen) < mostSeen {
				seen[r.text] = true
				c.near.add(r.text)
				var s message
				s.take(r)
				s.add(c)
			}
		}
	}
}

// countOf is how often an Event came, by its field; 0: it does not say.
func countOf(o map[string]any) int64 {
	if n, ok := o["count"].(float64); ok && n >= 1 && n < 1e12 {
		return int64(n)
	}
	return 0
}

func text(o map[string]any, key string) string {
	s, _ := o[key].(string)
	return s
}
