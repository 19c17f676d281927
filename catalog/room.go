package catalog

import (
	"bytes"
	"strings"
	"time"
)

// Owner returns how many bytes of a key of a tag, of content or of a repository are the name of its upstream, and of its
// repository, both with the separator.
func Owner(key string) (upstream, repository int) {
	upstream = strings.IndexByte(key, '/') + 1
	if at := strings.IndexByte(key, '@'); at >= 0 {
		return upstream, at + 1
	}
	return upstream, strings.LastIndexByte(key, ':') + 1
}

// Age is when a stored tag was last checked: of a repository's tags the oldest are forgotten first. Of other tables, and
// of a record that can't be read, it is 0.
func Age(table string, value []byte) int64 {
	if table != "tags" {
		return 0
	}
	// It is asked for each of a hundred thousand: encoding/json takes ten times as long.
	_, rest, _ := bytes.Cut(value, []byte(`"checked":"`))
	text, _, _ := bytes.Cut(rest, []byte{'"'})
	at, err := time.Parse(time.RFC3339Nano, string(text))
	if err != nil {
		return 0
	}
	return at.UnixNano()
}
