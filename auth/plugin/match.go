package plugin

import (
	"cmp"
	"path"
	"strings"
)

// pattern is a name in an answer, as matchImages of the kubelet has it: a host with as many labels as the image's, each of
// which may be a glob (*, ?, [a-z]); a port, which must be the same; and the letters with which the path begins.
type pattern struct{ host, port, path string }

func parsePattern(s string) (pattern, bool) {
	if _, rest, ok := strings.Cut(s, "://"); ok {
		s = rest
	}
	host, rest, _ := strings.Cut(s, "/")
	host, port, _ := strings.Cut(host, ":")
	if host == "" || strings.ContainsAny(s, " \t\r\n") {
		return pattern{}, false
	}
	return pattern{host: strings.ToLower(host), port: port, path: strings.TrimLeft(rest, "/")}, true
}

// fits reports whether the pattern is for an image, HOST[:PORT][/REPOSITORY].
func (p pattern) fits(image string) bool {
	i, ok := parsePattern(image)
	ps, is := strings.Split(p.host, "."), strings.Split(i.host, ".")
	if !ok || p.port != i.port || !strings.HasPrefix(i.path, p.path) || len(ps) != len(is) {
		return false
	}
	for n := range ps {
		if ok, err := path.Match(ps[n], is[n]); err != nil || !ok {
			return false
		}
	}
	return true
}

// better reports whether p is more specific than q.
func (p pattern) better(q pattern) bool {
	return cmp.Or(
		cmp.Compare(len(q.path), len(p.path)),
		cmp.Compare(strings.Count(p.host, "*"), strings.Count(q.host, "*")),
		cmp.Compare(len(q.host), len(p.host)),
		cmp.Compare(p.host+p.path, q.host+q.path),
	) < 0
}
