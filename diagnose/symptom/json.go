package symptom

import (
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

// value reads what kubectl -o json, journalctl -o json and the JSON logs of runtimes and of the mirror write.
func (c *counter) value(v any) {
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
		c.told(text(o, "reason"), text(o, "ref"), text(o, "id"), text(o, "summary"), text(o, "remedy"))
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
	for _, list := range []string{"items", "events"} {
		if l, ok := o[list].([]any); ok {
			for _, x := range l {
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

// event reads an Event of core/v1 or events.k8s.io/v1, or what has its fields.
func (c *counter) event(o map[string]any) {
	message := text(o, "message")
	if message == "" {
		message = text(o, "note")
	}
	s := said{text: message, tier: event, count: 1}
	if n, ok := o["count"].(float64); ok && n >= 1 && n < 1e12 {
		s.count = int64(n)
	}
	if series, ok := o["series"].(map[string]any); ok {
		if n, ok := series["count"].(float64); ok && n >= 1 && n < 1e12 {
			s.count = int64(n)
		}
	}
	lower := strings.ToLower(message)
	switch reason := text(o, "reason"); {
	case reason == "Pulling" || reason == "Pulled" || reason == "Created" || reason == "Started":
		return
	case backoff.in(lower) && !kubelet.in(lower), bare.MatchString(strings.TrimSpace(message)):
		s.tier = status
	}
	c.add(s)
}

// pod reads what the containers of a pod wait for.
func (c *counter) pod(o map[string]any) {
	st, _ := o["status"].(map[string]any)
	for _, list := range []string{"initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"} {
		l, _ := st[list].([]any)
		for _, x := range l {
			cs, _ := x.(map[string]any)
			state, _ := cs["state"].(map[string]any)
			waiting, _ := state["waiting"].(map[string]any)
			reason := text(waiting, "reason")
			s := said{text: reason + ": " + text(waiting, "message"), tier: status, count: 1, image: text(cs, "image")}
			if reason == "ErrImageNeverPull" {
				s.why = diagnose.NeverPull
			}
			c.add(s)
		}
	}
}

// logged reads a log line.
func (c *counter) logged(o map[string]any) {
	var parts []string
	for _, k := range []string{"MESSAGE", "message", "msg", "log", "error", "err"} {
		if t := text(o, k); t != "" {
			parts = append(parts, t)
		}
	}
	level := strings.ToLower(text(o, "level"))
	if len(parts) == 0 || level == "info" || level == "debug" || level == "warning" {
		return
	}
	s := strings.Join(parts, ": ")
	if strings.HasPrefix(strings.TrimSpace(s), "{") { // a line in a line leads nowhere good
		s = strings.TrimLeft(strings.TrimSpace(s), "{")
	}
	if img := text(o, "image"); img != "" && strings.TrimSpace(s) != "" {
		s += ` image="` + img + `"`
	}
	c.line(s)
}

func text(o map[string]any, key string) string {
	s, _ := o[key].(string)
	return s
}
