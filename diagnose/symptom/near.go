package symptom

import (
	"cmp"
	"iter"
	"regexp"
	"strings"
)

// deepestLine bounds how often the line of one logger may be nested in that of another.
const deepestLine = 3

// near has the lines above a failure, which may name its image.
type near struct {
	lines [60]lineAbove
	n     int // lines that were added
}

// lineAbove is a line that is parsed when its content is needed.
type lineAbove struct {
	raw   string
	known bool
	image string
	step  string // of BuildKit
	began bool   // it begins a pull
	ended bool   // it ends one
	push  bool   // it is of a push, whose errors are left out
}

func (n *near) add(raw string) {
	n.lines[n.n%len(n.lines)] = lineAbove{raw: raw}
	n.n++
}

// above yields the lines above, parsed, the nearest first.
func (n *near) above(most int) iter.Seq[*lineAbove] {
	return func(yield func(*lineAbove) bool) {
		for i := range min(n.n, most, len(n.lines)) {
			h := &n.lines[(n.n-1-i)%len(n.lines)]
			if h.parse(); !yield(h) {
				return
			}
		}
	}
}

func (h *lineAbove) parse() {
	if h.known {
		return
	}
	h.known = true
	lower := strings.ToLower(h.raw)
	if len(lower) <= widest && has(lower, "pull", "image", "from ", "metadata", "copy", "fetch") {
		r := peel(h.raw, deepestLine)
		h.image, h.step = mention(r.text), r.step
		h.began = h.image != "" && begins.MatchString(r.text)
	}
	h.push = pushes.MatchString(h.raw)
	h.ended = strings.Contains(h.raw, "Status: ")
}

// image is the image that was named last, by the given step if that named one.
func (n *near) image(step string) (last string) {
	for h := range n.above(len(n.lines)) {
		if h.image != "" && (step == "" || h.step == step) {
			return h.image
		}
		last = cmp.Or(last, h.image)
	}
	return last
}

var (
	pushes = regexp.MustCompile(`(?i)\bpush refers to|\b(?:docker|podman|buildah|crane|oras|helm|nerdctl) (?:image )?push\b|pushing (?:image|manifest|layers)|=> exporting to image`)
	// fetches matches words that errors of a push never have.
	fetches = regexp.MustCompile(`pull|load metadata|resolve|reading manifest|initializing source`)
)

// pushing reports whether a text in lower case is the error of a push that a line above began.
func (n *near) pushing(lower string) bool {
	if fetches.MatchString(lower) {
		return false
	}
	for h := range n.above(30) {
		if h.began || h.push {
			return !h.began
		}
	}
	return false
}

// awaits reports whether a line above began a pull, and no line since ended it.
func (n *near) awaits() bool {
	for h := range n.above(20) {
		if h.ended || h.began {
			return !h.ended
		}
	}
	return false
}
