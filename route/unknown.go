package route

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/registrymirror/mirror/internal/text"
)

// Error is one line of at most 300 bytes: the requested name, the configured ones, and how to add it.
func (e *UnknownError) Error() string {
	if e.Via == ViaDefault {
		return fmt.Sprintf("%s names no upstream and there is no default (configured: %s); send ns=HOST, put HOST/ "+
			"before the name, or set defaultUpstream", quote(e.Key), listed(e.Have))
	}
	return fmt.Sprintf("%s is not an upstream of this mirror (configured: %s); correct the name, or add it under "+
		"upstreams in the mirror's configuration", quote(e.Key), listed(e.Have))
}

// listed shows the first names within about 100 bytes, and how many more there are.
func listed(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, name := range names {
		if i > 0 && b.Len()+len(name) > 80 {
			fmt.Fprintf(&b, " and %d more", len(names)-i)
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(shorten(name))
	}
	return b.String()
}

func quote(s string) string { return strconv.QuoteToASCII(shorten(s)) }

// shorten cuts a name that is longer than most hosts' names.
func shorten(name string) string { return text.Cut(name, 63) }
