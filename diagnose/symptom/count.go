package symptom

import (
	"cmp"
	"regexp"
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// tier says how near a line is to the failure: of several accounts of one failure the nearest counts.
type tier int

const (
	event  tier = iota // the kubelet's event of the failure
	told               // a line of a log, or the error of a command
	status             // a pod's waiting state, a back-off, an exit code: they repeat an error
	hint               // a line of level info or warning; it counts where no other line tells of a failure
	tiers
)

// group is the key by which failures are counted.
type group struct {
	reason diagnose.Reason
	image  string // canonical; empty: not known
	id     string // of a mirror's record
	host   string // where no image is known
}

// tally counts how often each program told of the failures of a group. A failure that two programs tell of happened once;
// a failure that one program tells of twice happened twice.
type tally struct {
	counts          [tiers]map[string]int64
	image           string // as it is shown
	host            string
	text            string
	summary, remedy string
	mirror          bool // a mirror itself has said so
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
	err     func() error // why reading ends early; nil: it goes on
	count   int64        // of the Event whose message comes next, as a line above it says; 0: none says so
}

// said is one text that a client or the kubelet has said.
type said struct {
	text   string
	tier   tier
	teller string
	count  int64
	image  string          // where it is known beside the text
	step   string          // of BuildKit
	worst  bool            // the program ended with it
	why    diagnose.Reason // where it is known beside the text
	at     time.Time
}

var (
	times = regexp.MustCompile(`\(x(\d{1,12}) over [^)]{0,30}\)`)
	// row is a row of kubectl's tables of events.
	row = regexp.MustCompile(`(?:^|\s)(?:Warning|Normal)\s+\w+\s`)
	// events is an event as the kubelet logs it.
	events = regexp.MustCompile(`Event\(api\.ObjectReference|Event\(v1\.ObjectReference`)
	// commands are the first words of a line, by which a program names itself or its part.
	commands = regexp.MustCompile(`^(?:[✘✖!] |for |[a-z_]+(?:\.[a-z_]+)+:|(?:[\w./-]+: )?(?i:error response from daemon|error|fatal|failed to solve|ctr|failed|caused by|[\w.]+exception)\b)`)
)

// take fills in the fields of a record.
func (s *said) take(r record) {
	s.text, s.image, s.step, s.at, s.tier = r.text, r.image, r.step, r.at, told
	s.teller, s.worst = cmp.Or(s.teller, r.teller), r.level == "fatal"
	lower := strings.ToLower(r.text)
	if v := r.fields["message"]; v != "" && strings.EqualFold(r.fields["type"], "warning") {
		s.text, s.teller, s.tier, r.level = v, "event", event, ""
		lower = strings.ToLower(v)
	}
	if m := times.FindStringSubmatch(r.text); m != nil {
		s.count = max(s.count, number(m[1]))
	}
	kind := func(p phrases) bool { return p.in(lower) }
	isRow := row.MatchString(r.text) || events.MatchString(r.text)
	switch {
	case backoff.in(lower) && !strings.Contains(lower, "failed to pull image \""), kind(repeated), bare.MatchString(lastWords(s.text)):
		s.tier = status
	case isRow, r.level == "" && r.teller == "" && kind(kubelet):
		s.tier, s.teller = event, "event"
	case r.level == "info", r.level == "warning":
		s.tier = hint
	case r.level == "debug":
		s.tier = tiers
	}
	if s.teller == "" || s.teller == r.level {
		s.teller += strings.ToLower(commands.FindString(s.text)) + "-"
	}
}

func number(digits string) (n int64) {
	for _, d := range digits {
		n = n*10 + int64(d-'0')
	}
	return n
}

// told counts a failure that a mirror has explained.
func (c *counter) told(reason, image, id, summary, remedy string, at time.Time) {
	if r := diagnose.Reason(reason); r.Class() != diagnose.ClassUnknown {
		t := c.at(group{reason: r, image: canonical(image), id: id})
		t.say(told, "mirror", 1, at)
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

func (t *tally) say(by tier, teller string, n int64, at time.Time) {
	if t.counts[by] == nil {
		t.counts[by] = make(map[string]int64)
	}
	if len(t.counts[by]) < 100 || t.counts[by][teller] > 0 {
		t.counts[by][teller] += max(n, 1)
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

// add counts a text, if it tells of a pull that failed, and reports whether it does.
func (s *said) add(c *counter) bool {
	text := clip(strings.ReplaceAll(s.text, `\"`, `"`))
	if s.tier == tiers {
		return false // steps on the way
	}
	isBody := wholeBody(text) != nil
	if lower := strings.ToLower(text); s.why == "" && (!isBody && !pulls(lower) && !s.ends(c, lower) || not.in(lower) || c.near.pushing(lower)) {
		return false
	}
	about := c.subject(text, s)
	if isBody {
		about.image = askedFor(text)
		about.host = hostOf("", about.image)
	}
	g := group{reason: s.why}
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
		if r, host := c.known.own(o, text, about.image); o.certain || r != diagnose.Unknown {
			own, g.id = o, o.id
			g.reason = cmp.Or(g.reason, r)
			about.host = cmp.Or(host, hostOf("", about.image)) // the mirror knows at which host the pull failed
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
	t.say(s.tier, s.teller, s.count, s.at)
	if t.text == "" || s.tier == event {
		t.text = diagnose.Clean(text)
	}
	if about.image != "" && (t.image == "" || len(name) < len(t.image)) {
		t.image = name
	}
	t.host = cmp.Or(t.host, about.host)
	t.mirror = t.mirror || mirrors.MatchString(text)
	t.facts.hear(text)
	if own.summary != "" {
		t.summary, t.remedy = diagnose.Clean(own.summary), diagnose.Clean(own.remedy)
	}
	return true
}

// ends reports whether a text is the error of the pull that a line above has begun.
func (s *said) ends(c *counter, lower string) bool {
	return (s.worst || after.MatchString(lower)) && !ran.in(lower) && c.near.awaits()
}

// memory keeps the results for texts that were read before: a log repeats a failure in the same words.
type memory struct {
	subjects map[string]subject
	reasons  map[[2]string]diagnose.Reason
	owns     map[ownKey]ownReason
	misses   int // of ids that told nothing
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
	mostMisses = 1000 // ids that tell nothing: of a mirror that is called otherwise, or made up; then the words tell
)

func (m *memory) subject(text string) subject {
	about, ok := m.subjects[text]
	if !ok {
		if about = subjectOf(text); m.subjects == nil || len(m.subjects) >= remembered {
			m.subjects = make(map[string]subject)
		}
		m.subjects[text] = about
	}
	return about
}

func (m *memory) reason(text, image string) diagnose.Reason {
	k := [2]string{text, image}
	r, ok := m.reasons[k]
	if !ok {
		if r = classify(text, image); m.reasons == nil || len(m.reasons) >= remembered {
			m.reasons = make(map[[2]string]diagnose.Reason)
		}
		m.reasons[k] = r
	}
	return r
}

// own is the reason of a mirror's sentence and the host: by its id, else by its link, else by its words.
func (m *memory) own(o ownText, text, image string) (diagnose.Reason, string) {
	k := ownKey{o, image}
	known, ok := m.owns[k]
	if !ok {
		found := false
		if o.id != "" && m.misses < mostMisses {
			if known.reason, known.host, found = byID(o, text, image); !found {
				m.misses++
			}
		}
		switch page := diagnose.Reason(o.page); {
		case found:
		case page.Class() != diagnose.ClassUnknown:
			known.reason = page
		default:
			known.reason = byWords(o.summary)
		}
		if m.owns == nil || len(m.owns) >= remembered {
			m.owns = make(map[ownKey]ownReason)
		}
		m.owns[k] = known
	}
	return known.reason, known.host
}

// subject finds the image and host of a text, in the text itself or in the lines above it.
func (c *counter) subject(text string, s *said) subject {
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

// fitting is the reading of a wrapped text that tells more.
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

// askedFor is the image that a mirror was asked for, by the URL; empty where that does not say of which registry it is.
func askedFor(text string) string {
	m := asked.FindStringSubmatch(text)
	if m == nil {
		return ""
	}
	name, reference, host := m[1], m[2], m[3]
	if first, _, _ := strings.Cut(name, "/"); host == "" && !strings.ContainsAny(first, ".:") {
		return ""
	}
	if host != "" {
		name = host + "/" + name
	}
	if strings.Contains(reference, ":") {
		return name + "@" + reference
	}
	return name + ":" + reference
}
