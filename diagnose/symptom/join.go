package symptom

import (
	"cmp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

// entry is a group that may become a failure of the report.
type entry struct {
	key group
	*tally
	by    tier
	total int64
}

func (c *counter) entries() []*entry {
	all := make([]*entry, 0, len(c.found))
	for g, t := range c.found {
		e := &entry{key: g, tally: t}
		for i := range t.counts {
			if len(t.counts[i]) == 0 {
				continue
			}
			e.by = tier(i)
			for _, n := range t.counts[i] {
				e.total = max(e.total, n)
			}
			break
		}
		all = append(all, e)
	}
	slices.SortFunc(all, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.key.reason, b.key.reason), cmp.Compare(a.key.image, b.key.image), cmp.Compare(a.key.id, b.key.id),
			cmp.Compare(a.key.host, b.key.host))
	})
	return all
}

// join makes one entry of the several reports of one failure. It returns how many of mostPairs are left.
func join(all []*entry) (left int) {
	hasErrors := slices.ContainsFunc(all, func(e *entry) bool { return e.by != hint })
	byImage, byReason := make(map[string][]*entry), make(map[diagnose.Reason][]*entry)
	for _, e := range all {
		if hasErrors && e.by == hint {
			e.total = 0
			continue
		}
		if e.key.image != "" {
			byImage[e.key.image] = append(byImage[e.key.image], e)
		}
		byReason[e.key.reason] = append(byReason[e.key.reason], e)
	}
	for _, same := range byImage {
		mirrored(same)
	}
	left = mostPairs
	for _, same := range byReason {
		unnamed(same, &left)
	}
	echoes(all)
	return max(left, 0)
}

// mirrored joins the kubelet's events with those of a mirror about the same image: the mirror knows the reason.
func mirrored(same []*entry) {
	i := slices.IndexFunc(same, func(e *entry) bool { return e.mirror })
	if i < 0 {
		return
	}
	var n int64
	for _, e := range same {
		if e.key.id == "" && e.key.reason.Class() != diagnose.ClassClient {
			n += e.total
			e.total = 0
		}
	}
	same[i].total = max(same[i].total, n)
}

const (
	// mostPairs bounds the pairs of entries that are compared for one report. Further entries are counted without being joined.
	mostPairs = 1 << 20
	// mostSegments bounds the segments from the end of an image's name that are compared with the short name of a registry.
	mostSegments = 16
)

// unnamed joins an entry without an image or a tag with an entry of the same reason that has one. It compares at most as many
// pairs as are left.
func unnamed(same []*entry, left *int) {
	by := namesOf(same)
	for _, e := range same {
		if e.key.id != "" || e.total == 0 {
			continue
		}
		var n int64
		for _, list := range by.candidates(e) {
			for _, o := range list {
				if *left--; *left < 0 {
					return
				}
				if o == e || o.total == 0 || !o.names(e) {
					continue
				}
				n += o.total
				o.text = cmp.Or(o.text, e.text)
			}
		}
		e.total = max(0, e.total-n)
	}
}

// exact are the entries that may name the image of another one more exactly, by the fields of that other one.
type exact struct {
	all    []*entry
	byHost map[string][]*entry
	byName map[string][]*entry // the whole name without tag, and its last segments where an entry has these for a name
}

func namesOf(same []*entry) exact {
	x := exact{byHost: make(map[string][]*entry), byName: make(map[string][]*entry)}
	wanted := make(map[string]bool)
	for _, e := range same {
		if name, ok := e.inexact(); ok {
			wanted[name] = true
		}
	}
	for _, o := range same {
		if o.key.id != "" || o.key.image == "" {
			continue
		}
		x.all = append(x.all, o)
		x.byHost[hub(o.host)] = append(x.byHost[hub(o.host)], o)
		name, _ := split(o.image)
		if wanted[name] {
			x.byName[name] = append(x.byName[name], o)
		}
		end := len(name)
		for range mostSegments {
			if end = strings.LastIndexByte(name[:end], '/'); end < 0 {
				break
			}
			if last := name[end:]; wanted[last] {
				x.byName[last] = append(x.byName[last], o)
			}
		}
	}
	return x
}

// inexact is the suffix of the name of an entry that names the image of this one more exactly. False: none can.
func (e *entry) inexact() (string, bool) {
	name, rest := split(e.image)
	switch {
	case e.key.id != "" || e.key.image == "" || rest != "":
		return "", false
	case isRelative(name):
		return "/" + name, true
	case strings.HasPrefix(name, hubPrefix):
		return ofHub(name), true
	}
	return name, true
}

// candidates are the entries that may name the image of this one more exactly.
func (x *exact) candidates(e *entry) [][]*entry {
	if e.key.image == "" {
		if e.host == "" || strings.HasPrefix(e.host, "auth.") {
			return [][]*entry{x.all}
		}
		return [][]*entry{x.byHost[hub(e.host)], x.byHost[""]}
	}
	if name, ok := e.inexact(); ok {
		return [][]*entry{x.byName[name]}
	}
	return nil
}

const hubPrefix = "docker.io/"

// ofHub is the suffix of the names that registries have for an image of Docker Hub.
func ofHub(name string) string {
	return "/" + strings.TrimPrefix(strings.TrimPrefix(name, hubPrefix), "library/")
}

// isRelative reports whether a name has no registry.
func isRelative(name string) bool {
	first, _, _ := strings.Cut(name, "/")
	return !strings.ContainsAny(first, ".:")
}

// names reports whether an entry names the image of another one more exactly.
func (e *entry) names(o *entry) bool {
	if e.key.image == "" {
		return false
	}
	if o.key.image == "" {
		return o.host == "" || e.host == "" || hub(o.host) == hub(e.host) || strings.HasPrefix(o.host, "auth.")
	}
	mine, tag := split(e.image)
	other, none := split(o.image)
	if none != "" || tag == "" && mine == other {
		return false
	}
	if isRelative(other) {
		return strings.HasSuffix(mine, "/"+other)
	}
	return mine == other || strings.HasPrefix(other, hubPrefix) && strings.HasSuffix(mine, ofHub(other))
}

// echoes drops entries that only repeat another one: a back-off, an exit code, an error without its cause.
func echoes(all []*entry) {
	anyKnown, anyFirst := false, false
	// By the image, and by another name of it, too: a pod's short name beside the runtime's full one.
	explained, repositories := make(map[string]bool), make(map[string]bool)
	for _, e := range all {
		if e.total == 0 {
			continue
		}
		known, first := e.key.reason != diagnose.Unknown, e.by < status
		anyKnown, anyFirst = anyKnown || known, anyFirst || first
		if known || first {
			explained[e.key.image] = true
		}
		if name, _ := split(e.image); known && name != "" {
			repositories[name] = true
		}
	}
	for _, e := range all {
		if e.total == 0 || e.by != status || e.key.reason != diagnose.Unknown {
			continue
		}
		if name, _ := split(e.image); e.key.image == "" {
			if anyKnown || anyFirst {
				e.total = 0
			}
		} else if explained[e.key.image] || repositories[name] {
			e.total = 0
		}
	}
}

// report makes the report of all failures.
func (c *counter) report() *Report {
	r := &Report{Failures: []Failure{}, Classes: make(map[string]int64), Lines: c.lines}
	all := c.entries()
	join(all)
	for _, e := range all {
		if e.total == 0 {
			continue
		}
		f := Failure{
			Reason: e.key.reason, Class: e.key.reason.Class(), Host: diagnose.Clean(e.host), Image: e.image, ID: e.key.id,
			Count: e.total, Text: e.text, First: e.first, Last: e.last, Page: e.key.reason.Page(),
		}
		f.Summary, f.Remedy, f.Command = e.advise()
		r.Failures = append(r.Failures, f)
		r.Classes[string(f.Class)] += f.Count
	}
	slices.SortFunc(r.Failures, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.Image, b.Image),
			cmp.Compare(a.ID, b.ID), cmp.Compare(a.Host, b.Host))
	})
	return r
}
