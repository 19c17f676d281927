package symptom

import (
	"cmp"
	"regexp"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/bounded"
)

// tier is how near a message is to the failure: of several reports of one failure the nearest counts.
type tier int

const (
	event  tier = iota // the kubelet's event of the failure
	logged             // a line of a log, or the error of a command
	status             // a pod's waiting state, a back-off, an exit code: they repeat an error
	hint               // a line of level info or warning; it counts where no other line reports a failure
	tiers
)

// group is the key by which failures are counted.
type group struct {
	reason diagnose.Reason
	image  string // canonical; empty: not known
	id     string // of a mirror's record; empty: not from a mirror
	host   string // only where no image is known
}

// tally counts how often each program reports the failures of a group. A failure that two programs report happened once; a
// failure that one program reports twice happened twice.
type tally struct {
	counts          [tiers]map[string]int64
	image           string // as it is shown
	host            string
	text            string
	summary, remedy string
	mirror          bool // a mirror itself reports it
	facts           facts
	first, last     time.Time
}

// counter collects the failures of a text.
type counter struct {
	found   map[group]*tally
	lines   int
	columns columns
	near    near
	known   memory
	err     func() error // why reading ends early; nil: it continues
	count   int64        // of the Event whose message comes next, from a line above it; 0: not given
}

// message is one text of a client or the kubelet.
type message struct {
	record
	tier   tier
	count  int64
	reason diagnose.Reason // where a field beside the text has it
}

var (
	times = regexp.MustCompile(`\(x(\d{1,12}) over [^)]{0,30}\)`)
	// row is a row of kubectl's tables of events.
	row = regexp.MustCompile(`(?:^|\s)(?:Warning|Normal)\s+\w+\s`)
	// events is an event as the kubelet logs it.
	events = regexp.MustCompile(`Event\(api\.ObjectReference|Event\(v1\.ObjectReference`)
	// commands are the first words of a line with which a program names itself or its part.
	commands = regexp.MustCompile(`^(?:[✘✖!] |for |[a-z_]+(?:\.[a-z_]+)+:|(?:[\w./-]+: )?(?i:error response from daemon|error|fatal|failed to solve|ctr|failed|caused by|[\w.]+exception)\b)`)
)

// take fills in the fields from a record.
func (s *message) take(r record) {
	source := cmp.Or(s.source, r.source)
	s.record, s.tier = r, logged
	s.source = source
	lower := strings.ToLower(r.text)
	if v := r.fields["message"]; v != "" && strings.EqualFold(r.fields["type"], "warning") {
		s.text, s.source, s.tier, s.level = v, "event", event, ""
		lower = strings.ToLower(v)
	}
	if m := times.FindStringSubmatch(r.text); m != nil {
		s.count = max(s.count, number(m[1]))
	}
	isRow := row.MatchString(r.text) || events.MatchString(r.text)
	switch {
	case backoff.in(lower) && !strings.Contains(lower, "failed to pull image \""), repeated.in(lower), bare.MatchString(lastWords(s.text)):
		s.tier = status
	case isRow, s.level == "" && r.source == "" && kubelet.in(lower):
		s.tier, s.source = event, "event"
	case s.level == "info", s.level == "warning":
		s.tier = hint
	case s.level == "debug":
		s.tier = tiers
	}
	if s.source == "" || s.source == s.level {
		s.source += strings.ToLower(commands.FindString(s.text)) + "-"
	}
}

func number(digits string) (n int64) {
	for _, d := range digits {
		n = n*10 + int64(d-'0')
	}
	return n
}

// addOwn counts a failure that the log of a mirror explains.
func (c *counter) addOwn(reason, image, id, summary, remedy string, at time.Time) {
	if r := diagnose.Reason(reason); r.Class() != diagnose.ClassUnknown {
		t := c.at(group{reason: r, image: canonical(image), id: id})
		t.add(logged, "mirror", 1, at)
		t.image, t.mirror = canonical(image), true
		t.summary, t.remedy = diagnose.Clean(summary), diagnose.Clean(remedy)
	}
}

func (c *counter) at(g group) *tally {
	t := c.found[g]
	if t == nil {
		t = &tally{}
		c.found[g] = t
	}
	return t
}

func (t *tally) add(by tier, source string, n int64, at time.Time) {
	if t.counts[by] == nil {
		t.counts[by] = make(map[string]int64)
	}
	if len(t.counts[by]) < 100 || t.counts[by][source] > 0 {
		t.counts[by][source] += max(n, 1)
	}
	if !at.IsZero() {
		if t.first.IsZero() || at.Before(t.first) {
			t.first = at
		}
		if at.After(t.last) {
			t.last = at
		}
	}
}

// add counts a message, if it is about a failed pull, and reports whether it is.
func (s *message) add(c *counter) bool {
	text := clip(strings.ReplaceAll(s.text, `\"`, `"`))
	if s.tier == tiers {
		return false // a debug line
	}
	isBody := wholeBody(text) != nil
	if lower := strings.ToLower(text); s.reason == "" && (!isBody && !pulls(lower) && !s.ends(c, lower) || not.in(lower) || c.near.pushing(lower)) {
		return false
	}
	about := c.subject(text, s)
	if isBody {
		about.image = requestedOf(text)
		about.host = hostOf("", about.image)
	}
	g := group{reason: s.reason}
	name := shown(about.image)
	switch {
	case about.relative:
		name = diagnose.Clean(about.image)
		g.image = name
	case about.image != "" && (!about.beside || s.tier != status):
		g.image = canonical(about.image)
	default:
		g.host = about.host
	}
	var own ownText
	if o, ok := ownOf(text); ok {
		if known := c.known.own(o, text, about.image); o.certain || known.reason != diagnose.Unknown {
			own, g.id = o, o.id
			g.reason = cmp.Or(g.reason, known.reason)
			about.host = cmp.Or(known.host, hostOf("", about.image)) // the mirror knows at which host the pull failed
		}
	}
	if g.reason == "" {
		g.reason = c.known.reason(text, about.image)
	}
	if g.reason == diagnose.TagNotFound && g.id == "" && strings.Contains(g.image, "@sha256:") {
		g.reason = diagnose.DigestNotFound
	}
	if g.id != "" {
		g.host = ""
	}
	t := c.at(g)
	t.add(s.tier, s.source, s.count, s.at)
	if t.text == "" || s.tier == event {
		t.text = diagnose.Clean(text)
	}
	if about.image != "" && (t.image == "" || len(name) < len(t.image)) {
		t.image = name
	}
	t.host = cmp.Or(t.host, about.host)
	t.mirror = t.mirror || mirrors.MatchString(text)
	t.facts.add(text)
	if own.summary != "" {
		t.summary, t.remedy = diagnose.Clean(own.summary), diagnose.Clean(own.remedy)
	}
	return true
}

// ends reports whether a text is the error of the pull that a line above began.
func (s *message) ends(c *counter, lower string) bool {
	return (s.level == "fatal" || after.MatchString(lower)) && !ran.in(lower) && c.near.awaits()
}

// memory keeps the results for earlier texts: a log repeats a failure in the same words.
type memory struct {
	subjects map[string]subject
	reasons  map[[2]string]diagnose.Reason // by text and image
	owns     map[ownKey]ownReason
	misses   int // ids for which no reason was found
}

// ownKey is a mirror's sentence beside an image.
type ownKey struct {
	own   ownText
	image string
}

// ownReason is the reason of a mirror's sentence, and the host at which the pull failed.
type ownReason struct {
	reason diagnose.Reason
	host   string // empty: the id is of another image, or cut off
}

const (
	remembered = 500  // texts
	mostMisses = 1000 // ids for which no reason is found, since they are of another image or invented; further ones are not tried
)

// remember is the value of a key, which is found if it is not in the map.
func remember[K comparable, V any](m *map[K]V, key K, find func() V) V {
	v, ok := (*m)[key]
	if !ok {
		v = find()
		bounded.Put(m, key, v, remembered)
	}
	return v
}

func (m *memory) subject(text string) subject {
	return remember(&m.subjects, text, func() subject { return subjectOf(text) })
}

func (m *memory) reason(text, image string) diagnose.Reason {
	return remember(&m.reasons, [2]string{text, image}, func() diagnose.Reason { return classify(text, image) })
}

// own is the reason of a mirror's sentence and the host: by its id, else by its link, else by its words.
func (m *memory) own(o ownText, text, image string) ownReason {
	return remember(&m.owns, ownKey{o, image}, func() ownReason {
		if o.id != "" && m.misses < mostMisses {
			if r, host, ok := byID(o, text, image); ok {
				return ownReason{r, host}
			}
			m.misses++
		}
		if page := diagnose.Reason(o.page); page.Class() != diagnose.ClassUnknown {
			return ownReason{reason: page}
		}
		return ownReason{reason: byWords(o.summary)}
	})
}

// subject finds the image and host of a text, in the text itself or in the lines above it.
func (c *counter) subject(text string, s *message) subject {
	about := c.known.subject(text)
	if s.image != "" {
		about.image, about.relative = s.image, false
	}
	if _, rest := split(about.image); rest != "" && !about.relative {
		if about.host == "" {
			about.host = hostOf("", about.image)
		}
		return about
	}
	if beside := c.near.image(s.step); beside != "" {
		repo, rest := split(canonical(beside))
		known, tag := split(about.image)
		switch {
		case about.image == "", about.relative && strings.HasSuffix(repo, "/"+known),
			tag == "" && rest != "" && strings.TrimSuffix(canonical(known), ":latest") == repo:
			about.beside = about.image == ""
			about.image, about.relative = beside, false
		}
	}
	if about.host == "" && !about.relative {
		about.host = hostOf("", about.image)
	}
	return about
}

// fitting is the reading of a wrapped text that says more.
func fitting(spaced, tight string) string {
	worth := func(text string) (n int) {
		about := subjectOf(text)
		if classify(text, about.image) != diagnose.Unknown {
			n += 2
		}
		if about.image != "" {
			n++
		}
		if bare.MatchString(lastWords(text)) {
			n++
		}
		return n
	}
	if worth(tight) >= worth(spaced) {
		return tight
	}
	return spaced
}

// lastWords returns the text after the columns of an event.
func lastWords(text string) string {
	if i := strings.LastIndex(text, "Error: "); i >= 0 {
		return text[i:]
	}
	return text
}

// requestedOf is the image of a request to a mirror, by its URL; empty where that does not name the registry.
func requestedOf(text string) string {
	m := requested.FindStringSubmatch(text)
	if m == nil || m[4] != "manifests" || m[6] == "" && isRelative(m[3]) {
		return ""
	}
	return requestedFrom(text)
}
