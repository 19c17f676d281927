package journal

import (
	"strings"
	"time"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/glob"
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
	return f.Image == "" || glob.Text(f.Image, x.Image) || glob.Text(f.Image, repository(x.Image))
}

// repository is an image without its tag and digest.
func repository(image string) string {
	image, _, _ = strings.Cut(image, "@")
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		image = image[:i]
	}
	return image
}

// Summary counts failed pulls.
type Summary struct {
	Classes map[string]int64 `json:"classes"`
	Reasons map[string]int64 `json:"reasons"`
	Images  map[string]int64 `json:"images"`
	Clients map[string]int64 `json:"clients"`
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
