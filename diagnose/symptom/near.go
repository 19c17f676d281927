package symptom

import (
	"regexp"
	"strings"
)

// deepestLine is how often one logger's line is in another's.
const deepestLine = 3

// near remembers the lines above a failure, which may name the image that the failure is about.
type near struct {
	lines [60]heard
	n     int // of lines that were heard
}

// heard is a line that is parsed when its content is needed.
type heard struct {
	raw   string
	known bool
	image string
	step  string // of BuildKit
	began bool   // a pull
	ended bool
	push  bool // a push: its errors are left out
}

func (n *near) hear(raw string) {
	n.lines[n.n%len(n.lines)] = heard{raw: raw}
	n.n++
}

// ask returns the line that many lines above, parsed, and nil where there is none.
func (n *near) ask(above int) *heard {
	if above >= min(n.n, len(n.lines)) {
		return nil
	}
	h := &n.lines[(n.n-1-above)%len(n.lines)]
	if !h.known {
		h.known = true
		lower := strings.ToLower(h.raw)
		if len(lower) <= widest && (strings.Contains(lower, "pull") || strings.Contains(lower, "image") || strings.Contains(lower, "from ") ||
			strings.Contains(lower, "metadata") || strings.Contains(lower, "copy") || strings.Contains(lower, "fetch")) {
			r := peel(h.raw, deepestLine)
			h.image, h.step = mention(r.text), r.step
			h.began = h.image != "" && begins.MatchString(r.text)
		}
		h.push = pushes.MatchString(h.raw)
		h.ended = strings.Contains(h.raw, "Status: ")
	}
	return h
}

// image is the one that was named last, by that step if there is one.
func (n *near) image(step string) string {
	last := ""
	for i := range n.lines {
		h := n.ask(i)
		if h == nil {
			break
		}
		if h.image == "" {
			continue
		}
		if step == "" || h.step == step {
			return h.image
		}
		if last == "" {
			last = h.image
		}
	}
	return last
}

var (
	pushes = regexp.MustCompile(`(?i)\bpush refers to|\b(?:docker|podman|buildah|crane|oras|helm|nerdctl) (?:image )?push\b|pushing (?:image|manifest|layers)|=> exporting to image`)
	// fetches are words of errors that no push has.
	fetches = regexp.MustCompile(`pull|load metadata|resolve|reading manifest|initializing source`)
)

// pushing reports whether a text in lower case is the error of a push that a line above has begun.
func (n *near) pushing(lower string) bool {
	if fetches.MatchString(lower) {
		return false
	}
	for i := range 30 {
		switch h := n.ask(i); {
		case h == nil || h.began:
			return false
		case h.push:
			return true
		}
	}
	return false
}

// awaits reports whether a line above has begun a pull, of which no end was told.
func (n *near) awaits() bool {
	const soon = 20
	for i := range soon {
		switch h := n.ask(i); {
		case h == nil || h.ended:
			return false
		case h.began:
			return true
		}
	}
	return false
}
