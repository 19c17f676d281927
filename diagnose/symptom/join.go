package symptom

import (
	"cmp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/diagnose"
)

// entry is a group on its way into the report.
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

// join makes one entry of the several accounts of one failure.
func join(all []*entry) {
	worried := slices.ContainsFunc(all, func(e *entry) bool { return e.by != hint })
	byImage, byReason := make(map[string][]*entry), make(map[diagnose.Reason][]*entry)
	for _, e := range all {
		if worried && e.by == hint {
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
	for _, same := range byReason {
		unnamed(same)
	}
	echoes(all, byImage)
}

// mirrored joins the kubelet's events with those that a mirror has posted about the same image, which knows why.
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

// unnamed joins an entry without an image or a tag with an entry of the same reason that has one.
func unnamed(same []*entry) {
	for _, e := range same {
		if e.key.id != "" || e.total == 0 {
			continue
		}
		var n int64
		for _, o := range same {
			if o == e || o.total == 0 || o.key.id != "" || !o.names(e) {
				continue
			}
			n += o.total
			o.text = cmp.Or(o.text, e.text)
		}
		e.total = max(0, e.total-n)
	}
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
	if first, _, _ := strings.Cut(other, "/"); !strings.ContainsAny(first, ".:") { // as its registry names it
		return strings.HasSuffix(mine, "/"+other)
	}
	return mine == other || strings.HasPrefix(other, "docker.io/") && strings.HasSuffix(mine, strings.TrimPrefix(strings.TrimPrefix(other, "docker.io"), "/library"))
}

// echoes drops entries that only repeat another one: a back-off, an exit code, an error without its cause.
func echoes(all []*entry, byImage map[string][]*entry) {
	known := func(e *entry) bool { return e.key.reason != diagnose.Unknown && e.total > 0 }
	anyKnown, anyTold := false, false
	for _, e := range all {
		anyKnown = anyKnown || known(e)
		anyTold = anyTold || e.total > 0 && e.by < status
	}
	for _, e := range all {
		if e.total == 0 || e.by != status {
			continue
		}
		same := byImage[e.key.image]
		switch {
		case e.key.reason == diagnose.Unknown && e.key.image == "" && (anyKnown || anyTold),
			e.key.reason == diagnose.Unknown && slices.ContainsFunc(same, known),
			e.key.reason == diagnose.Unknown && slices.ContainsFunc(same, func(o *entry) bool { return o != e && o.total > 0 && o.by < status }):
			e.total = 0
		case e.key.reason == diagnose.Unknown && e.key.image != "":
			// By another name: a pod's short name beside the runtime's full one.
			for _, o := range all {
				if known(o) && sameRepository(o.image, e.image) {
					e.total = 0
				}
			}
		}
	}
}

func sameRepository(a, b string) bool {
	a, _ = split(a)
	b, _ = split(b)
	return a != "" && a == b
}

// report makes the report of all failures that were found.
func (c *counter) report() *Report {
	r := &Report{Failures: []Failure{}, Classes: make(map[string]int64), Lines: c.lines}
	all := c.entries()
	join(all)
	for _, e := range all {
		if e.total == 0 {
			continue
		}
		f := Failure{
			Reason: e.key.reason, Class: e.key.reason.Class(), Image: e.image, Host: diagnose.Clean(e.host), ID: e.key.id, Count: e.total,
			Text: e.text, First: e.first, Last: e.last, Page: Page(e.key.reason),
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

// Page is where the page about a reason is.
func Page(r diagnose.Reason) string { return strings.TrimPrefix(pages, "/") + string(r) + ".md" }
