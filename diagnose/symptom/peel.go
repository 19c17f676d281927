package symptom

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// record is a message without the fields that CI systems, journals and loggers put around it.
type record struct {
	text   string
	source string // the place in a program that writes it: an error that one place writes twice happened twice
	level  string // of the innermost logger, in lower case; empty: not known
	image  string
	step   string // of BuildKit
	at     time.Time
	fields map[string]string // of a log line in key=value
}

const mostPrefixes = 8 // of one line: a pod's log in a journal in a CI system's log has four

var prefixes = []*regexp.Regexp{
	regexp.MustCompile(`^\s*\[?(\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,:]\d+)?(?:Z|[+-]\d\d:?\d\d)?)(?: UTC| ?[+-]\d{4})?\]?:?(?: \d\d[OE][+ ]?)?(?:\s+|$)`),
	regexp.MustCompile(`^\s*\[?\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)?\]?\s+`),
	regexp.MustCompile(`^\s*\[?\d\d:\d\d:\d\d(?:[.,]\d+)?\]?\s+`),
	regexp.MustCompile(`^\s*[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? \S+ [\w@./+-]+(?:\[\d+\])?:\s+`),
	regexp.MustCompile(`^\s*\[?(?:Container|docker|agent|main|java-[\w-]+|docker-java-stream-[-\w]+|[\w./-]*ImagePull[\w-]*)\]\s+`),
	regexp.MustCompile(`^\s*\[[\d-]{1,30}[T ]?[\d:.]{0,20}\]\s+`),
	regexp.MustCompile(`^\s*(?:##\[\w+\]|::\w+(?: [^:]{0,200})?::)`),
	regexp.MustCompile(`^\s*Step #\d+(?: - "[^"]{0,100}")?: `),
	regexp.MustCompile(`^\s*(?:std(?:out|err)) [FP] `),
	regexp.MustCompile(`^\s*\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}:\s+`),
	regexp.MustCompile(`^\s*[a-z0-9][\w.-]{0,60}\s+\| `),
	regexp.MustCompile(`^\s*(?:\| |> )`),
}

var (
	// beginning matches the beginning of a level, by which levels has its name.
	beginning = regexp.MustCompile(`^(?:warn|info|debu|trac|fat|crit|panic|err)`)
	levels    = map[string]string{
		"warn": "warning", "info": "info", "debu": "debug", "trac": "debug", "fat": "fatal", "crit": "fatal", "panic": "fatal", "err": "error",
	}
	klog     = regexp.MustCompile(`^\s*([IWEF])\d{4} \d\d:\d\d:\d\d\.\d+\s+\d+ ([\w.-]+(?:/[\w.-]+)*):\d+\]\s+`)
	bracket  = regexp.MustCompile(`^\s*\[?(INFO|DEBUG|TRACE|WARN|WARNING|ERROR|ERR|FATAL|CRITICAL)\]?\s*[:|-]?\s+`)
	logrus   = regexp.MustCompile(`^\s*(INFO|WARN|ERRO|FATA|DEBU|TRAC)\[[^\]]{1,30}\]\s*`)
	buildkit = regexp.MustCompile(`^\s*#(\d+)(?: \d+\.\d+)? `)
	logfmt   = regexp.MustCompile(`^[\w.@-]{1,40}=\S`)
	// structured is a message of klog or logr, followed by keys and values.
	structured = regexp.MustCompile(`^"(?:[^"\\]|\\.)*"\s+[\w./-]+=`)
	took       = regexp.MustCompile(`\s+\d+\.\d+s\s*$`) // at the end of a progress line
	quoted     = regexp.MustCompile(`^"(?:[^"\\]|\\.)*"`)
)

// peel removes the fields around a message. depth bounds how many loggers' lines may be nested.
func peel(s string, depth int) record {
	r := record{text: strings.TrimSpace(clip(s))}
	for range mostPrefixes {
		if !r.strip() {
			break
		}
	}
	switch {
	case structured.MatchString(r.text):
		q := quoted.FindString(r.text)
		r.logged(unquote(q), pairs(r.text[len(q):]), depth)
	case logfmt.MatchString(r.text):
		if v := pairs(r.text); v["msg"] != "" || v["level"] != "" && v["error"] != "" {
			r.logged(v["msg"], v, depth)
		}
	}
	return r
}

// strip removes one prefix, and reports whether there was one.
func (r *record) strip() bool {
	if m := klog.FindStringSubmatch(r.text); m != nil {
		r.level, r.source = map[string]string{"I": "info", "W": "warning", "E": "error", "F": "fatal"}[m[1]], m[2]
		if r.level == "warning" {
			r.level = "error" // old kubelets log failures as warnings
		}
		r.text = strings.TrimSpace(r.text[len(m[0]):])
		return true
	}
	if m := logrus.FindStringSubmatch(r.text); m != nil {
		r.level, r.source = levelOf(m[1]), "logrus"
		r.text = r.text[len(m[0]):]
		return true
	}
	if m := buildkit.FindStringSubmatch(r.text); m != nil {
		r.step, r.source = m[1], "step "+m[1]
		r.text = r.text[len(m[0]):]
		return true
	}
	if m := bracket.FindStringSubmatch(r.text); m != nil && len(m[0]) < len(r.text) {
		r.level = levelOf(m[1])
		if m[1] == "WARNING" && strings.Contains(m[0], ":") {
			r.level = "" // how CI systems begin a sentence
		}
		r.source = strings.TrimSpace(r.source + " " + r.level)
		r.text = r.text[len(m[0]):]
		return true
	}
	for i, p := range prefixes {
		m := p.FindStringSubmatch(r.text)
		if m == nil || len(m[0]) == len(r.text) && i > 0 {
			continue
		}
		if i == 0 {
			if at, ok := stamp(m[1]); ok {
				r.at = at
			}
		}
		r.text = r.text[len(m[0]):]
		return true
	}
	if m := took.FindStringIndex(r.text); m != nil {
		r.text = r.text[:m[0]]
		return true
	}
	return false
}

// stamp reads a time with its zone, or in UTC.
func stamp(s string) (time.Time, bool) {
	s = strings.Replace(strings.Replace(s, " ", "T", 1), ",", ".", 1)
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999Z0700", "2006-01-02T15:04:05.999999999"} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

func levelOf(s string) string {
	s = strings.ToLower(s)
	return cmp.Or(levels[beginning.FindString(s)], s)
}

// logged takes a line of keys and values. A message that is a line of another logger is read as that line.
func (r *record) logged(msg string, v map[string]string, depth int) {
	r.fields = v
	if l := v["level"]; l != "" {
		r.level = levelOf(l)
	}
	r.image = v["image"]
	if at, ok := stamp(v["time"]); ok {
		r.at = at
	}
	if depth > 0 && (logfmt.MatchString(msg) || klog.MatchString(msg)) {
		inner := peel(msg, depth-1)
		if inner.level != "" {
			r.text, r.level, r.source, r.fields = inner.text, inner.level, inner.source, inner.fields
			if inner.image != "" {
				r.image = inner.image
			}
			return
		}
	}
	r.text = msg
	for _, k := range []string{"error", "err"} {
		if e := v[k]; e != "" && !strings.Contains(msg, e) {
			r.text = strings.TrimPrefix(r.text+": "+e, ": ")
		}
	}
	if r.source == "" || r.source == "logrus" {
		r.source = place(msg)
	}
}

// place is the constant beginning of a message: it identifies the place in the program that writes it.
func place(msg string) string {
	if i := strings.IndexAny(msg, `:"'0123456789/`); i >= 0 {
		msg = msg[:i]
	}
	return strings.TrimSpace(msg[:min(len(msg), 40)])
}

// unquote is a text without its quotes and escapes.
func unquote(q string) string {
	if s, err := strconv.Unquote(q); err == nil {
		return s
	}
	return strings.ReplaceAll(q[1:len(q)-1], `\"`, `"`)
}

// pairs reads key=value and key="value" of a line.
func pairs(s string) map[string]string {
	v := make(map[string]string)
	for len(v) < 64 {
		eq := strings.IndexByte(s, '=')
		if eq < 0 {
			return v
		}
		k := s[:eq]
		if i := strings.LastIndexAny(k, " \t"); i >= 0 {
			k = k[i+1:]
		}
		s = s[eq+1:]
		value := ""
		if q := quoted.FindString(s); q != "" {
			s, value = s[len(q):], unquote(q)
		} else {
			value, s, _ = strings.Cut(s, " ")
		}
		if _, ok := v[k]; !ok {
			v[k] = value
		}
	}
	return v
}
