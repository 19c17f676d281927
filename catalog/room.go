package catalog

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"
)

// Tables are the tables of a catalog whose records can be learnt again, with the bytes that each may take on disk. A record of
// a tag takes some 200 of them, one of content or of a client some 250.
func Tables() map[string]int64 {
	return map[string]int64{"refs": 56 << 20, "tags": 256 << 20, "clients": 32 << 20}
}

// Owner returns how many bytes of a key in these tables are the name of its upstream, and of its repository, both with the
// separator.
func Owner(key string) (upstream, repository int) {
	key, _, _ = strings.Cut(key, clientMark)
	upstream = strings.IndexByte(key, '/') + 1
	if at := strings.IndexByte(key, '@'); at >= 0 {
		return upstream, at + 1
	}
	return upstream, strings.LastIndexByte(key, ':') + 1
}

// Age is when a stored tag was last checked, or last pulled by a client: of a repository's records the oldest are forgotten
// first. Of other tables, and of a record that can't be read, it is 0.
func Age(table string, value []byte) int64 {
	if table != "tags" && table != "clients" || len(value) == 0 {
		return 0
	}
	if value[0] != '{' {
		at, n := binary.Varint(value[1:])
		if n <= 0 {
			return 0
		}
		return at
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
