package symptom

import (
	"regexp"
	"strings"
	"unicode/utf8"
)

// columns is the place of the counts in a table of events: kubectl get events -o wide, and all of kubectl before 1.14.
type columns struct {
	at    int // of COUNT, in characters; 0: no table, or a table without counts
	shift int // characters before the header
}

// older is a row that begins with two ages and the count, or ends with an age, the count and the Event's name.
var older = regexp.MustCompile(`^\s*\d+[smhd]\w*\s+\d+[smhd]\w*\s+(\d{1,12})\s|\s\d+[smhd]\w*\s+(\d{1,12})\s+\S+\.[0-9a-f]{10,}\s*$`)

// header reports whether a line is the header of a table.
func (c *columns) header(ln line) bool {
	line := ln.text
	if !strings.Contains(line, "MESSAGE") && !strings.Contains(line, "Message") {
		return false
	}
	upper := strings.ToUpper(line)
	if !strings.Contains(upper, "MESSAGE") || !strings.Contains(upper, "REASON") && !strings.Contains(upper, "TYPE") || strings.Contains(line, ": ") {
		return false
	}
	c.at, c.shift = 0, ln.shift
	if i := max(strings.Index(upper, " COUNT"), strings.Index(upper, "\tCOUNT")); i >= 0 {
		c.at = utf8.RuneCountInString(line[:i]) + 1
	}
	return true
}

// count is the number in that column of a row; 0: it has none.
func (c *columns) count(ln line) int64 {
	line := ln.text
	if c.at == 0 {
		return 0
	}
	if m := older.FindStringSubmatch(line); m != nil {
		return number(m[1] + m[2])
	}
	at := c.at
	if c.shift == 0 {
		at -= ln.shift // a time that is a column of the table
	}
	r := []rune(line)
	for i := max(0, at-3); i < min(len(r), at+4); i++ {
		if r[i] < '0' || r[i] > '9' || i > 0 && r[i-1] != ' ' && r[i-1] != '\t' {
			continue
		}
		end := i
		for end < len(r) && r[end] >= '0' && r[end] <= '9' && end-i < 12 {
			end++
		}
		if end == len(r) || r[end] == ' ' || r[end] == '\t' {
			return number(string(r[i:end]))
		}
	}
	return 0
}
