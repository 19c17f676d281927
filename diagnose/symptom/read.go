package symptom

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
)

// Failure is what failed, for one reason, as often as the input says.
type Failure struct {
	Reason  diagnose.Reason `json:"reason"`
	Class   diagnose.Class  `json:"class"`
	Summary string          `json:"summary"`
	Remedy  string          `json:"remedy"`
	Image   string          `json:"image,omitempty"` // empty where the text names none
	ID      string          `json:"id,omitempty"`    // of the mirror's record, where the text shows one
	Count   int64           `json:"count"`
	Text    string          `json:"text,omitempty"` // the text that says so, without secrets
}

// Report is what an input tells, the most frequent failure first.
type Report struct {
	Failures []Failure        `json:"failures"`
	Classes  map[string]int64 `json:"classes"`
}

// MaxInput is how many bytes are read.
const MaxInput = 256 << 20

// ErrTooLarge says that an input is longer than MaxInput.
var ErrTooLarge = errors.New("the input is larger than 256 MiB; give it in parts")

// Read reads an input to its end. Its errors are the reader's, and ErrTooLarge.
func Read(r io.Reader) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(b) > MaxInput {
		return nil, ErrTooLarge
	}
	// What Windows writes into a file is UTF-16, or begins with a mark.
	if b, _, err = transform.Bytes(unicode.BOMOverride(transform.Nop), b); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	c := &counter{found: make(map[group]*tally)}
	if !c.document(b) {
		c.text(string(b))
	}
	return c.report(), nil
}

// tier says how near a line is to the failure: of several accounts of one failure the nearest counts.
type tier int

const (
	event  tier = iota // the kubelet's event of the failure
	record             // a log line
	status             // what a pod waits for, a back-off: it repeats
	tiers
)

// group is what is counted together.
type group struct {
	reason diagnose.Reason
	image  string
	id     string
}

type tally struct {
	counts          [tiers]int64
	text            string
	summary, remedy string
}

type counter struct{ found map[group]*tally }

// said is one text that a client or the kubelet has said.
type said struct {
	text  string
	tier  tier
	count int64
	image string          // where it is known beside the text
	why   diagnose.Reason // likewise
}

// pages is where the pages of reasons are.
const pages = "/docs/failures/"

var (
	// about tells what speaks of a pull that failed from all else that fails in a cluster. The text is in lower case.
	about = phrasesOf(
		`failed to pull (and unpack )?image`, `pullimage`, `pulling image failed`, `\berrimagepull\b`,
		`\bimagepullbackoff\b`, `invalidimagename`, `errimageneverpull`, `image pull failed`,
		`error response from daemon: (get "?https?://|head "?https?://|manifest |pull access|error parsing|toomanyrequests|received unexpected|no matching manifest|unauthorized|denied|.*registry)`,
		`initializing source docker://`, `reading manifest \S+ in `, `error pulling (image|candidate)`,
		`unable to pull `, `pull access denied`, `pinging (container|docker) registry`,
		`failed to resolve (reference|image)`, `failed to copy: httpread`, `not continuing with pull`,
		`failed to register layer`, `failed commit on ref "?(layer|manifest|config|index)-`,
		`no match(ing)? (manifest|for) .*(manifest|platform)`, `no image found in (manifest list|image index)`,
		`failed to inspect image`, `couldn't parse image (reference|name)`, `failed to apply default image tag`,
		`with pull policy of never`, `back-off pulling image`, `toomanyrequests: `, `manifest for \S+ not found`,
		`manifest unknown`, `failed to extract layer`, `(storing|writing) blob`, `parsing image configuration`,
		`error pulling image configuration`, `layer verification failed`, `msg="pull failed"`,
	)
	// not is what says that nothing failed, or not for good, or that it was no pull.
	not = phrasesOf(
		`\blevel="?(info|debug|warning)\b`, `successfully pulled`, `\bnormal\s+(pulling|pulled)\b`, `failed, retrying`,
		`failed to push`, `pushing (image|manifest)`, `attempting next endpoint`, `debu\[`, `info\[`,
	)
	ours     = phrasesOf(`\blevel="?(warn|warning)"? .*msg="pull failed"`)
	backoff  = phrasesOf(`back-off pulling image`, `imagepullbackoff`)
	bare     = regexp.MustCompile(`^\W*(Error: )?(ErrImagePull|ImagePullBackOff|InvalidImageName)\W*$`)
	syncing  = phrasesOf(`error syncing pod`, `failed to "startcontainer"`)
	kubelet  = phrasesOf(`(^|\s)failed to pull image \\?"`, `(^|\s)failed to apply default image tag`, `(^|\s)container image \\?".*never`)
	times    = regexp.MustCompile(`\(x(\d+) over [^)]*\)`)
	sentence = regexp.MustCompile(`\(mirror: (.*?) ?\[([0-9a-f]{8})\]\)`)
	// page is the end of a mirror's error body, as clients print it that print all of it: the id, and the reason's page.
	page = regexp.MustCompile(`;? failure ([0-9a-f]{8}), https?://\S+` + pages + `([a-z-]+)\.md`)
	code = regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)*: `)
	// asked is the URL that such a client names.
	asked = regexp.MustCompile(`://[^/\s]+/v2/([^\s?]+)/manifests/([^\s?:]+(?::[0-9a-f]+)?)(?:\?ns=([^\s&:]+))?`)
	more  = regexp.MustCompile(`^\s*(errors:|denied:|unauthorized:|unknown:|manifest unknown|name unknown|toomanyrequests:|unavailable:)`)
	attr  = regexp.MustCompile(`\b(reason|ref|id|summary|remedy)=("(?:[^"\\]|\\.)*"|\S+)`)

	images = []*regexp.Regexp{
		regexp.MustCompile(`(?i)(?:failed to pull image|pull and unpack image|pulling image|default image tag|container image|image name|image reference|inspect image) \\*"([^"\\\s]+)\\*"`),
		regexp.MustCompile(`(?i)(?:resolve reference|image=|image pull failed for) ?\\*"([^"\\\s]+)\\*"`),
		regexp.MustCompile(`docker://([^\s:]+(?::\d+/[^\s:]+)?(?::[\w.-]+)?(?:@sha256:[0-9a-f]+)?)`),
		regexp.MustCompile(`(?i)manifest for (\S+) not found`),
		regexp.MustCompile(`(?i)pull access denied for ([^\s,]+)`),
		regexp.MustCompile(`(?i)error pulling (?:image|candidate) ([^\s"(]+):? `),
	}
	manifest = regexp.MustCompile(`(?i)reading manifest (\S+) in ([^\s:]+(?::\d+/[^\s:]+)?)`)
)

// text reads lines. What an error of several lines goes on with belongs to the line before it.
func (c *counter) text(s string) {
	before := ""
	flush := func() {
		if before != "" {
			c.line(before)
		}
		before = ""
	}
	for line := range strings.Lines(s) {
		line = strings.TrimRight(line, "\r\n")
		if before != "" && more.MatchString(line) && about.in(strings.ToLower(before)) {
			before += " " + strings.TrimSpace(line)
			continue
		}
		flush()
		before = line
	}
	flush()
}

func (c *counter) line(line string) {
	trimmed := strings.TrimSpace(line)
	if strings.HasPrefix(trimmed, "{") && c.document([]byte(trimmed)) {
		return
	}
	if i := strings.Index(trimmed, ": {"); i > 0 && c.document([]byte(trimmed[i+2:])) { // a journal's prefix
		return
	}
	s := said{text: trimmed, tier: record, count: 1}
	if m := times.FindStringSubmatch(trimmed); m != nil {
		s.count, _ = strconv.ParseInt(m[1], 10, 64)
	}
	switch lower := strings.ToLower(trimmed); {
	case ours.in(lower):
		c.own(trimmed)
		return
	case backoff.in(lower) && !kubelet.in(lower), syncing.in(lower):
		s.tier = status
	case kubelet.in(lower):
		s.tier = event
	}
	c.add(s)
}

// own reads a line of a mirror's log.
func (c *counter) own(line string) {
	v := make(map[string]string)
	for _, m := range attr.FindAllStringSubmatch(line, -1) {
		if v[m[1]] = m[2]; strings.HasPrefix(m[2], `"`) {
			if s, err := strconv.Unquote(m[2]); err == nil {
				v[m[1]] = s
			}
		}
	}
	c.told(v["reason"], v["ref"], v["id"], v["summary"], v["remedy"])
}

// told counts a failure that a mirror has explained.
func (c *counter) told(reason, image, id, summary, remedy string) {
	if r := diagnose.Reason(reason); r.Class() != diagnose.ClassUnknown {
		t := c.at(group{r, canonical(image), id})
		t.counts[record]++
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

// add counts a text, if it tells of a pull that failed.
func (c *counter) add(s said) {
	text := strings.ReplaceAll(s.text, `\"`, `"`)
	var whole []int // where the end of a mirror's error body is
	if strings.Contains(text, pages) {
		whole = page.FindStringSubmatchIndex(text)
	}
	if lower := strings.ToLower(s.text); s.why == "" && (whole == nil && !about.in(lower) || not.in(lower)) {
		return
	}
	image := cmp.Or(s.image, imageOf(text))
	if image == "" && whole != nil {
		image = askedFor(text)
	}
	g := group{reason: s.why, image: canonical(image)}
	var summary, remedy string
	if m := sentence.FindStringSubmatch(text); m != nil {
		g.id = m[2]
		summary, remedy, _ = strings.Cut(m[1], "; ")
		if g.reason == "" {
			g.reason = classifyOwn(summary)
		}
	}
	if whole != nil && g.id == "" {
		g.id = text[whole[2]:whole[3]]
		words := text[:whole[0]]
		if at := code.FindAllStringIndex(words, -1); at != nil {
			summary, remedy, _ = strings.Cut(words[at[len(at)-1][1]:], "; ")
		}
		if r := diagnose.Reason(text[whole[4]:whole[5]]); g.reason == "" && r.Class() != diagnose.ClassUnknown {
			g.reason = r
		}
	}
	if g.reason == "" {
		g.reason = classify(text)
	}
	if g.reason == diagnose.Unknown && s.tier != status && bare.MatchString(lastWords(text)) {
		s.tier = status // it says that it failed, and not why
	}
	if g.reason == diagnose.TagNotFound && g.id == "" && strings.Contains(image, "@sha256:") {
		g.reason = diagnose.DigestNotFound
	}
	t := c.at(g)
	t.counts[s.tier] += max(s.count, 1)
	if t.text == "" || s.tier == event {
		t.text = diagnose.Clean(text)
	}
	if summary != "" {
		t.summary, t.remedy = diagnose.Clean(summary), diagnose.Clean(remedy)
	}
}

// lastWords is what comes behind the columns of an event.
func lastWords(text string) string {
	if i := strings.LastIndex(text, "Error: "); i >= 0 {
		return text[i:]
	}
	return text
}

func imageOf(text string) string {
	for _, re := range images {
		if m := re.FindStringSubmatch(text); m != nil {
			return m[1]
		}
	}
	if m := manifest.FindStringSubmatch(text); m != nil {
		if strings.HasPrefix(m[1], "sha256:") {
			return m[2] + "@" + m[1]
		}
		return m[2] + ":" + m[1]
	}
	return ""
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

// canonical is an image as the mirror writes it, so that one image by two names is one. A name that is none stays.
func canonical(image string) string {
	ref, err := oci.ParseRef(image)
	if err != nil {
		return diagnose.Clean(image)
	}
	if ref.Digest != "" {
		ref.Tag = ""
	}
	return ref.String()
}

// report turns what was found into a report.
func (c *counter) report() *Report {
	r := &Report{Failures: []Failure{}, Classes: make(map[string]int64)}
	known := make(map[string]bool)
	anyKnown := false
	for g := range c.found {
		if g.reason != diagnose.Unknown {
			known[g.image], anyKnown = true, true
		}
	}
	for g, t := range c.found {
		f := Failure{Reason: g.reason, Class: g.reason.Class(), Image: g.image, ID: g.id, Text: t.text}
		for i := range t.counts {
			if f.Count = t.counts[i]; f.Count > 0 {
				if g.reason == diagnose.Unknown && tier(i) == status && (known[g.image] || g.image == "" && anyKnown) {
					f.Count = 0 // the echo of a failure that is told better
				}
				break
			}
		}
		if f.Count == 0 {
			continue
		}
		a := advices[g.reason]
		f.Summary, f.Remedy = cmp.Or(t.summary, a.summary, string(g.reason)), cmp.Or(t.remedy, a.remedy, "see the mirror's page of this reason")
		r.Failures = append(r.Failures, f)
		r.Classes[string(f.Class)] += f.Count
	}
	slices.SortFunc(r.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Image, b.Image),
			cmp.Compare(a.ID, b.ID))
	})
	return r
}

// document reads JSON values, and reports whether the input is nothing else.
func (c *counter) document(b []byte) bool {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return false
	}
	var values []any
	d := json.NewDecoder(bytes.NewReader(b))
	for {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false
		}
		values = append(values, v)
	}
	for _, v := range values {
		c.value(v)
	}
	return true
}

// Total is how many pulls failed.
func (r *Report) Total() (n int64) {
	for _, f := range r.Failures {
		n += f.Count
	}
	return n
}

// Line is the report in one line: how many failures are authentication, and how many missing images?
func (r *Report) Line() string {
	auth, missing := r.Classes[string(diagnose.ClassAuth)], r.Classes[string(diagnose.ClassMissing)]
	undecided := r.Classes[string(diagnose.ClassUndecided)]
	total := r.Total()
	if total == 0 {
		return "0 failures"
	}
	s := fmt.Sprintf("%d failures: %d authentication, %d missing images", total, auth, missing)
	if total == 1 {
		s = strings.Replace(s, "failures", "failure", 1)
	}
	if undecided > 0 {
		s += fmt.Sprintf(", %d either of the two", undecided)
	}
	return s + fmt.Sprintf(", %d other", total-auth-missing-undecided)
}
