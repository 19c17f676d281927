package pull

import (
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
)

const (
	// maxPage is how many entries of a list a client may ask for at once.
	maxPage = 1000
	// A registry may have so many parameters of its own in its links, with names of so many bytes.
	maxLinked, maxLinkedName = 8, 64
)

// passed are the parameters of lists that mean something: by the spec, or to Quay.
var passed = []string{"n", "last", "artifactType", "next_page"}

// linked are the other parameters that a site's links to further pages have had. Any parameter beside these is the client's own:
// if it were passed on, one question could be made any number of different ones. Safe for concurrent use.
type linked struct {
	mu    sync.Mutex // guards names; a leaf
	names []string
}

// learn takes in the query of a link.
func (l *linked) learn(query string) {
	for pair := range strings.SplitSeq(query, "&") {
		name, _, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(name)
		if err != nil || name == "" || name == "ns" || len(name) > maxLinkedName || slices.Contains(passed, name) {
			continue
		}
		l.mu.Lock()
		if len(l.names) < maxLinked && !slices.Contains(l.names, name) {
			l.names = append(l.names, name)
		}
		l.mu.Unlock()
	}
}

// known is the part of a query that is passed on, written in one way.
func (l *linked) known(query url.Values) url.Values {
	l.mu.Lock()
	names := slices.Concat(passed, l.names)
	l.mu.Unlock()
	q := make(url.Values, len(names))
	for _, name := range names {
		if v := query[name]; len(v) > 0 {
			q[name] = v[:1] // servers read one value, so a second one does not make another question
		}
	}
	if n := q.Get("n"); n != "" && strings.Trim(n, "0123456789") == "" {
		count, err := strconv.ParseUint(n, 10, 64)
		if err != nil {
			count = maxPage
		}
		q.Set("n", strconv.FormatUint(min(count, maxPage), 10))
	}
	return q
}
