package journal

import (
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// Filter chooses failures. The zero value of a field chooses all.
type Filter struct {
	ID     string
	Reason diagnose.Reason
	Class  diagnose.Class
	// Image is an image, a repository, which stands for all of its images, or either with * for any characters.
	Image    string
	Client   string
	Since    time.Time // seen at that time or later
	Declined bool      // also those that were declined
}

func (f *Filter) match(x *Failure) bool {
	if f.ID != "" && f.ID != x.ID || f.Reason != "" && f.Reason != x.Reason || f.Class != "" && f.Class != x.Class ||
		x.LastSeen.Before(f.Since) || x.Outcome == Declined && !f.Declined {
		return false
	}
	if _, ok := x.Clients[f.Client]; f.Client != "" && f.Client != x.Client && !ok {
		return false
	}
	return f.Image == "" || glob(f.Image, x.Image) || glob(f.Image, repository(x.Image))
}

// repository is an image without its tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// glob matches with * for any characters, in linear time for each of them.
func glob(pattern, s string) bool {
	parts := strings.Split(pattern, "*")
	if len(parts) == 1 {
		return pattern == s
	}
	if !strings.HasPrefix(s, parts[0]) {
		return false
	}
	s = s[len(parts[0]):]
	last := parts[len(parts)-1]
	for _, p := range parts[1 : len(parts)-1] {
		_, rest, ok := strings.Cut(s, p)
		if !ok {
			return false
		}
		s = rest
	}
	return strings.HasSuffix(s, last)
}

// Summary counts failed pulls.
type Summary struct {
	Classes, Reasons, Images, Clients map[string]int64
}

// Summary counts the pulls behind the failures that f chooses. A failure that was seen since f.Since counts whole.
func (r *Record) Summary(f Filter) Summary {
	s := Summary{
		Classes: make(map[string]int64), Reasons: make(map[string]int64),
		Images: make(map[string]int64), Clients: make(map[string]int64),
	}
	for _, x := range r.Failures(f) {
		s.Classes[string(x.Class)] += x.Count
		s.Reasons[string(x.Reason)] += x.Count
		s.Images[x.Image] += x.Count
		for c, n := range x.Clients {
			s.Clients[c] += n
		}
	}
	return s
}
