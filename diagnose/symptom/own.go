package symptom

import (
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

var (
	// inStatus is a mirror's sentence with its id in a status line or an Event.
	inStatus = regexp.MustCompile(`\(mirror: (.*?) ?\[([0-9a-f]{8})\]\)`)
	// cutOff is a mirror's sentence in a status line or an Event that a program has cut before the id.
	cutOff = regexp.MustCompile(`(?:\b[45]\d\d [A-Z][A-Za-z' -]{1,40}|Failed to pull image \\?"[^"]*": ?)\(mirror: (.*)$`)
	// codes matches the code that clients print before the message of a registry's error body.
	codes = regexp.MustCompile(`(?i)\b(?:denied|unauthorized|unavailable|unknown|toomanyrequests|too many requests|unsupported|invalid): `)
	// marked is a message up to the id at its end.
	marked = regexp.MustCompile(`^(.{1,400}?) \[([0-9a-f]{8})\]`)
	// whole is the end of a mirror's error body, as clients print it that print all of it: the id and the reason's page.
	whole = regexp.MustCompile(`;? failure ([0-9a-f]{8}), https?://\S+` + pages + `([a-z-]+)\.md`)
	// errorCode matches the code that such a client prints before the message.
	errorCode = regexp.MustCompile(`\b[A-Z]+(_[A-Z]+)*: `)
)

// ownText is a mirror's sentence in a text.
type ownText struct {
	summary, remedy string
	id              string // empty: it was cut off
	page            string // the reason whose page the text links to; empty: it has no link
	certain         bool   // the form of the text shows that it is a mirror's
}

func ownTextOf(sentence, id string) ownText {
	o := ownText{id: id}
	o.summary, o.remedy, _ = strings.Cut(sentence, "; ")
	return o
}

// ownOf finds a mirror's sentence in a text.
func ownOf(text string) (o ownText, ok bool) {
	if m := wholeBody(text); m != nil {
		words := text[:m[0]]
		if at := errorCode.FindAllStringIndex(words, -1); at != nil {
			words = words[at[len(at)-1][1]:]
		} else {
			words = ""
		}
		o = ownTextOf(strings.TrimSuffix(words, " ["+text[m[2]:m[3]]+"]"), text[m[2]:m[3]])
		o.page, o.certain = text[m[4]:m[5]], true
		return o, true
	}
	if strings.Contains(text, "(mirror: ") {
		m := inStatus.FindStringSubmatch(text)
		if m == nil {
			if m = cutOff.FindStringSubmatch(text); m == nil {
				return o, false
			}
			m = append(m, "")
		}
		o = ownTextOf(m[1], m[2])
		o.certain = true
		return o, true
	}
	return inBody(text)
}

// inBody finds a mirror's sentence where a client has printed only the message of the error body: Podman and CRI-O, whose
// error continues with the error of the next host.
func inBody(text string) (o ownText, ok bool) {
	all := codes.FindAllStringIndex(text, 16)
	for _, at := range all {
		if m := marked.FindStringSubmatch(text[at[1]:]); m != nil {
			return ownTextOf(m[1], m[2]), true
		}
	}
	for _, at := range all { // of a version whose messages had no id
		message, _, _ := strings.Cut(text[at[1]:], "]")
		if o = ownTextOf(strings.TrimRight(message, "\"' "), ""); byWords(o.summary) != diagnose.Unknown {
			return o, true
		}
	}
	return ownText{}, false
}

// wholeBody returns where the end of a mirror's error body is in a text, nil where the text has none.
func wholeBody(text string) []int {
	if !strings.Contains(text, pages) {
		return nil
	}
	return whole.FindStringSubmatchIndex(text)
}

// mostNames bounds how many names of hosts in a sentence are tried with its id.
const mostNames = 8

// named matches a word that may be the name or address of a host.
var named = regexp.MustCompile(`\[[0-9a-fA-F:]+\](?::\d+)?|[A-Za-z0-9][\w-]*(?:\.[\w-]+)*(?::\d{1,5}\b)?`)

// otherHosts are the hosts of registries that have hosts by other names.
var otherHosts = map[string][]string{"docker.io": {"registry-1.docker.io", "auth.docker.io"}}

// ownReasons are the reasons that a mirror's sentence can have.
var ownReasons = slices.DeleteFunc(diagnose.Reasons(), func(r diagnose.Reason) bool { return r.Origin() == diagnose.OnNode })

// byID finds the reason and the host whose fingerprint an id is, for an image that a text names; see Finding.ID. It works
// whatever the words are and where they are cut, and finds none where neither the sentence nor the image names the host.
func byID(o ownText, text string, names ...string) (r diagnose.Reason, host string, ok bool) {
	hosts, images := candidates(o, text, names)
	for _, r := range ownReasons {
		for _, h := range hosts {
			for _, image := range images {
				if (diagnose.Finding{Reason: r, Host: h}).ID(image) == o.id {
					return r, h, true
				}
			}
		}
	}
	return diagnose.Unknown, "", false
}

// candidates are the hosts and images that an id may be of.
func candidates(o ownText, text string, names []string) (hosts, images []string) {
	hosts, images = []string{""}, []string{""} // a mirror that refuses a connection knows neither
	addHost := func(h string) {
		if h = strings.TrimSuffix(h, ":443"); len(hosts) <= mostNames && !slices.Contains(hosts, h) {
			hosts = append(hosts, h)
		}
	}
	addImage := func(image string) {
		if !slices.Contains(images, image) {
			images = append(images, image)
		}
	}
	for _, image := range append(names, requestedFrom(text)) {
		if image == "" {
			continue
		}
		image = canonical(image)
		repo, _ := split(image)
		addImage(image)
		addImage(repo)
		registry, _, _ := strings.Cut(repo, "/")
		addHost(registry)
		for _, h := range otherHosts[registry] {
			addHost(h)
		}
	}
	for _, part := range []string{o.summary, o.remedy} {
		for _, h := range named.FindAllString(part, 8*mostNames) {
			if strings.ContainsAny(h, ".:") || h == "localhost" {
				addHost(h)
			}
		}
	}
	return hosts, images
}

// common has the words of the most common reasons, for sentences whose id is cut off, or is of another image than the text
// names. Others are unknown then; an id finds the mirror's own record.
var common = []struct {
	reason diagnose.Reason
	words  *regexp.Regexp
}{
	{diagnose.ConnectRefused, regexp.MustCompile(`refused the connection`)},
	{diagnose.DNSNotFound, regexp.MustCompile(`^there is no host \S+ in DNS`)},
	{diagnose.NotFoundOrNoAccess, regexp.MustCompile(`has no credentials for \S+, which is private or doesn't exist`)},
	{diagnose.TagNotFound, regexp.MustCompile(`^\S+ has no [^\s@]+:[^\s@]+$`)},
	{diagnose.RateLimited, regexp.MustCompile(`^\S+ limits .*, and the limit is reached`)},
}

func byWords(summary string) diagnose.Reason {
	for _, c := range common {
		if c.words.MatchString(summary) {
			return c.reason
		}
	}
	return diagnose.Unknown
}
