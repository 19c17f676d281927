package symptom

import (
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/registrymirror/mirror/diagnose"
)

// lines cuts a text into logical lines: it joins rows that terminals, k9s, YAML and PowerShell wrapped, and removes colours and
// cursor movements.
type lines struct {
	rest  string
	ahead []physical
}

// physical is a line of the text without the prefix that a CI system or a journal puts before each line.
type physical struct {
	text  string
	shift int // characters of the prefix
	at    time.Time
}

// line is a logical line. A text that was wrapped by columns does not show whether a row ended with a space: text has one
// there, tight has none.
type line struct {
	text  string
	tight string // empty: the line has only one reading
	key   bool   // it is the value of a YAML key
	shift int
	at    time.Time // before it; zero: none
}

const (
	mostJoined = 64   // rows of one logical line
	narrow     = 60   // columns: a shorter row was not wrapped
	widest     = 4096 // bytes of a row that is joined with others
	console    = 200  // columns: a longer row was not wrapped by a terminal
)

var (
	// ansi is a colour or a movement, also where the escape character was lost.
	ansi = regexp.MustCompile(`\x1b\][^\x07\x1b]{0,200}(?:\x07|\x1b\\)|\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>()][0-9A-B]?|\[(?:\d{1,3}(?:;\d{1,3}){0,4}|0?)m`)
	// fresh matches the beginning of a row that does not continue another.
	fresh = regexp.MustCompile(`^(?:\s*$` +
		`|\s*\[?\d{4}[-/]\d\d[-/]\d\d[T ]|\s*\[?\d\d:\d\d:\d\d|[A-Z][a-z]{2} [ \d]\d \d\d:|[IWEF]\d{4} \d\d:` +
		`|(?:ctr|docker|podman|crictl|nerdctl|buildah|skopeo|helm|crane|oras|imgpkg)(?:\.exe)?: ` +
		`|\s*(?:time|level|ts|t)=|\s*[{}\[#$>+*•✘✖✔✓×!-]|\s*\.\.\.|\s*at |\s*[│┃║╭╰┌└]|\s*\|` +
		`|\s*\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}\s|\s*\d+[smhdy]\d*[smhd]?\s|\s*<(?:unknown|invalid)>\s|.*\s(?:Warning|Normal)\s+\w+\s` +
		`|\s*(?:Error|ERROR|FATA|FATAL|WARN|WARNING|INFO|DEBU|DEBUG)(?:\b|\[)` +
		`|\s*(?:Warning|Normal)\s|\s*(?:Failed|Caused by|Traceback|File "|Step |STEP |PS |See '|See "|make|Trying|Pulling|Copying|Events:|Using |NAME |LAST |Digest:|Status:|At line:)` +
		`|\s*"[a-zA-Z]+": |\s*[A-Z][A-Za-z -]{1,24}:(?:\s|$)|\s*[a-zA-Z]+: ?$|\S+[$#%] )`)
	// unfinished matches the end of a row that another must continue.
	unfinished = regexp.MustCompile(`(?i)(?:=|\b(?:to|and|from|for|of|the|in|with|image|reference|request|failed|unexpected|status|dial|tcp|get|head|error|while))$`)
	// never matches rows that do not continue another, whatever its end.
	never = regexp.MustCompile(`^\s*(?:"[A-Za-z_]+"\s*:|[{\[]|\d+[smhdy]\d*[smhd]?\s|\d{4}-\d\d|[│|]|(?:Warning|Normal)\s)`)
	// steps matches the progress lines of a program.
	steps = regexp.MustCompile(`^\s*(?:INFO|DEBU|WARN|TRAC)\[`)
	// tries matches the line in which old Podman names the registry whose error it shows below; its last line has all errors.
	tries = regexp.MustCompile(`^Trying to pull \S+\.\.\.`)
	// powershell matches a row of the error that PowerShell puts around that of a program.
	powershell = regexp.MustCompile(`(?i)^\s*\+?\s*(?:categoryinfo|fullyqualifiederrorid)\s*:|^\s*\+ ~|^\s*At (?:line:|\S+:)\d+`)
	// middle matches the beginning of a row that continues a sentence.
	middle = regexp.MustCompile(`^ ?["'(]?[a-z0-9%/.]`)
	key    = regexp.MustCompile(`^(\s*)(?:- )?(?:message|note|msg|error|err|reason|detail|details|stderr|stoppedReason|Message): +([>|][+-]?\d*|['"]?)(.*)$`)
)

func (l *lines) fill(n int) bool {
	for len(l.ahead) < n {
		if l.rest == "" {
			return false
		}
		raw, rest, _ := strings.Cut(l.rest, "\n")
		l.rest = rest
		raw = strings.TrimSuffix(raw, "\r")
		if has(raw, "\x1b", "m[", "[3", "[0m") {
			raw = ansi.ReplaceAllString(raw, "")
		}
		raw = plain(raw)
		// A progress bar writes over its own line.
		for part := range strings.SplitSeq(raw, "\r") {
			l.ahead = append(l.ahead, without(part))
		}
	}
	return true
}

var (
	// typed are the quotes of word processors and web pages.
	typed = strings.NewReplacer("“", `"`, "”", `"`, "„", `"`, "&quot;", `"`, "&#34;", `"`, "&#39;", "'", "&lt;", "<", "&gt;", ">", "&amp;", "&", "\u00a0", " ")
	// cells is a row of a table whose fields are in quotes, with quotes doubled.
	cells = regexp.MustCompile(`^"[^"]*"[,;]".*""`)
)

// plain restores the quotes that web pages, word processors and spreadsheets changed.
func plain(raw string) string {
	if has(raw, "\u201c", "\u201e", "&", "\u00a0") {
		raw = typed.Replace(raw)
	}
	if strings.HasPrefix(raw, `"`) && cells.MatchString(raw) {
		raw = strings.ReplaceAll(raw, `""`, `"`)
	}
	return raw
}

// outer matches the prefixes of log lines, up to the text and its indentation.
var outer = []*regexp.Regexp{
	regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (?:\d\d[OE][+ ]?|std(?:out|err) [FP] )?`),
	regexp.MustCompile(`^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d+)? \S+ [\w@./+-]+(?:\[\d+\])?: `),
	regexp.MustCompile(`^\d\d:\d\d:\d\d(?:\.\d+)? `),
	regexp.MustCompile(`^Step #\d+(?: - "[^"]{0,100}")?: `),
	regexp.MustCompile(`^\[Container\] \d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:\.\d+)? `),
	regexp.MustCompile(`^[a-z0-9][\w.-]{0,60} +\| `),
	regexp.MustCompile(`^> `),
}

func without(raw string) physical {
	p := physical{text: raw}
	for range 3 { // a pod's log in a CI system's has two
		before := len(p.text)
		for i, re := range outer {
			m := re.FindStringSubmatch(p.text)
			if m == nil {
				continue
			}
			if i == 0 {
				p.at, _ = stamp(m[1])
			}
			p.shift += utf8.RuneCountInString(m[0])
			p.text = p.text[len(m[0]):]
			break
		}
		if len(p.text) == before {
			break
		}
	}
	return p
}

func (l *lines) peek(i int) (string, bool) {
	if !l.fill(i + 1) {
		return "", false
	}
	return l.ahead[i].text, true
}

func (l *lines) drop(n int) { l.ahead = l.ahead[n:] }

// next is the next logical line, and false at the end.
func (l *lines) next() (line, bool) {
	row, ok := l.peek(0)
	if !ok {
		return line{}, false
	}
	before := l.ahead[0]
	ln := l.logical(row)
	ln.at, ln.shift = before.at, before.shift
	return ln, true
}

func (l *lines) logical(row string) line {
	if inner, ok := boxed(row); ok {
		return l.box(inner)
	}
	if m := key.FindStringSubmatch(row); m != nil {
		if folded, ok := l.folded(len(m[1]), m[2], m[3]); ok {
			return line{text: folded, key: true}
		}
	}
	return l.wrapped(row)
}

// boxed returns the text between the borders of a box.
func boxed(row string) (string, bool) {
	row = strings.TrimSpace(row)
	first, n := utf8.DecodeRuneInString(row)
	last, m := utf8.DecodeLastRuneInString(row)
	if first != last || len(row) < n+m || len(row) > widest || !strings.ContainsRune("│┃║", first) {
		return "", false
	}
	return strings.TrimPrefix(strings.TrimSuffix(row[n:len(row)-m], " "), " "), true
}

// box joins the rows of a box that belong together: a row that is full to the border continues in the next.
func (l *lines) box(inner string) line {
	text, width, n := inner, utf8.RuneCountInString(inner), 1
	for ; n < mostJoined && width >= narrow; n++ {
		row, _ := l.peek(n)
		next, ok := boxed(row)
		end := strings.TrimRight(inner, " ")
		if !ok || strings.TrimSpace(next) == "" || fresh.MatchString(next) && !unfinished.MatchString(end) {
			break
		}
		room := width - utf8.RuneCountInString(end)
		if room > 1 && room > utf8.RuneCountInString(firstWord(next)) {
			break
		}
		if room > 1 {
			text, next = strings.TrimRight(text, " ")+" ", strings.TrimLeft(next, " ")
		}
		text += next
		inner = next
	}
	l.drop(n)
	return line{text: strings.TrimRight(text, " ")}
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(strings.TrimLeft(s, " "), " ")
	return word
}

// folded joins the rows of a YAML scalar, if it has quotes or more than one row.
func (l *lines) folded(indent int, mark, value string) (string, bool) {
	closed := func(s string) bool {
		switch mark {
		case "'":
			s = strings.ReplaceAll(s, "''", "")
			return strings.HasSuffix(s, "'")
		case `"`:
			return strings.HasSuffix(s, `"`) && !strings.HasSuffix(s, `\"`)
		}
		return false
	}
	text := value
	n := 1
	for ; n < mostJoined && !closed(text); n++ {
		row, ok := l.peek(n)
		trimmed := strings.TrimSpace(row)
		if !ok || len(row) > widest || trimmed == "" || len(row)-len(strings.TrimLeft(row, " ")) <= indent {
			break
		}
		if mark == "" && yamlKey.MatchString(row) {
			break // a mapping
		}
		if mark == `"` && strings.HasSuffix(text, `\`) {
			text = strings.TrimSuffix(text, `\`) + strings.TrimPrefix(trimmed, `\`)
		} else {
			text = strings.TrimLeft(text+" "+trimmed, " ")
		}
		if closed(trimmed) {
			n++
			break
		}
	}
	if n == 1 && !closed(text) {
		return "", false
	}
	l.drop(n)
	switch mark {
	case "'":
		text = strings.ReplaceAll(strings.TrimSuffix(text, "'"), "''", "'")
	case `"`:
		if u, err := strconv.Unquote(`"` + text); err == nil {
			text = strings.ReplaceAll(u, "\n", " ")
		} else {
			text = strings.ReplaceAll(strings.TrimSuffix(text, `"`), `\"`, `"`)
		}
	}
	return text, true
}

var yamlKey = regexp.MustCompile(`^\s*(?:- )?[A-Za-z][\w.-]*:(?:\s|$)`)

// wrapped joins a row with those that continue it.
func (l *lines) wrapped(first string) line {
	rows := []string{first}
	width := utf8.RuneCountInString(first)
	// A terminal does not put a time stamp before each row that it wraps.
	if l.ahead[0].shift == 0 && !steps.MatchString(first) && width >= narrow && len(first) <= widest && mayBeCut(first) {
		for len(rows) < mostJoined {
			row, ok := l.peek(len(rows))
			end := strings.TrimRight(rows[len(rows)-1], " ")
			if !ok || len(row) > widest || strings.TrimSpace(row) == "" || firstWord(row) == firstWord(first) || powershell.MatchString(row) ||
				fresh.MatchString(row) && (never.MatchString(row) || !unfinished.MatchString(end)) {
				break
			}
			grown := max(width, utf8.RuneCountInString(row))
			if roomFor(append(rows, row), grown) && !lacks(rows, row) || grown > console && !lacks(rows, row) {
				break
			}
			if pulls(strings.ToLower(row)) && explains(rows) {
				break // two failures, each with its cause
			}
			width = grown
			rows = append(rows, row)
		}
	}
	joined := line{text: joinRows(rows, math.MaxInt)}
	if len(rows) > 1 && byColumns(rows, width) {
		joined.tight = joinRows(rows, width)
	}
	n := len(rows)
	for range 4 { // the error of a program that another one called, below its own
		row, _ := l.peek(n)
		end := strings.TrimSpace(joined.text)
		if !strings.HasSuffix(end, ":") || !strings.Contains(end, " ") || !mayBeCut(end) || !strings.HasPrefix(row, " ") || len(row) > widest ||
			strings.TrimSpace(row) == "" || never.MatchString(row) || more.MatchString(row) {
			break
		}
		joined = line{text: joined.text + " " + strings.TrimSpace(row)}
		n++
	}
	n = l.mirrors(&joined, n)
	for n < mostJoined { // further lines of an error
		row, ok := l.peek(n)
		if !ok || len(row) > widest || !more.MatchString(row) || !mayConcern(joined.text) {
			break
		}
		if n++; tries.MatchString(joined.text) {
			continue
		}
		joined.text += " " + strings.TrimSpace(row)
		if joined.tight != "" {
			joined.tight += " " + strings.TrimSpace(row)
		}
	}
	l.drop(n)
	return joined
}

// mirrors joins the list of the errors of a registry's mirrors, which has a row for each, with the error that contains it.
func (l *lines) mirrors(joined *line, n int) int {
	open := strings.LastIndex(strings.ToLower(joined.text), strings.TrimSpace(mirrorsFailed))
	if open < 0 {
		return n
	}
	text, end := joined.text, n
	closed := func() bool { return strings.Contains(text[open:], "])") || strings.Contains(text[open:], "] )") }
	for ; end < mostJoined && (!closed() || strings.HasSuffix(text, "):")); end++ {
		row, ok := l.peek(end)
		if !ok || len(row) > widest || strings.TrimSpace(row) == "" || strings.Contains(strings.ToLower(row), mirrorsFailed) {
			break // the list does not end
		}
		text = strings.TrimRight(text, " ") + " " + strings.TrimSpace(row)
	}
	if !closed() || end == n {
		return n
	}
	text = strings.Replace(text[:open]+strings.ReplaceAll(text[open:], "] )", "])"), "failed:[", "failed: [", 1)
	*joined = line{text: text, key: joined.key}
	return end
}

// lacks reports whether rows are about a failed pull, without its cause, and another continues a sentence.
func lacks(rows []string, next string) bool {
	if len(rows) > 8 || !middle.MatchString(next) || pulls(strings.ToLower(next)) {
		return false
	}
	text := strings.Join(rows, " ")
	lower := strings.ToLower(text)
	return gate.in(lower) && !not.in(lower) && classify(text, "") == diagnose.Unknown && !bare.MatchString(lastWords(text))
}

// explains reports whether rows have the reason of a failed pull.
func explains(rows []string) bool {
	text := strings.Join(rows, " ")
	return pulls(strings.ToLower(text)) && classify(text, "") != diagnose.Unknown
}

// roomFor reports whether the first word of a row would have fitted into the row before it.
func roomFor(rows []string, width int) bool {
	for i, row := range rows[1:] {
		if utf8.RuneCountInString(rows[i])+1+utf8.RuneCountInString(firstWord(row)) <= width {
			return true
		}
	}
	return false
}

// joinRows joins rows by spaces, but for one that is as wide as the terminal: it is joined as it is.
func joinRows(rows []string, width int) string {
	text := rows[0]
	for i, row := range rows[1:] {
		if utf8.RuneCountInString(rows[i]) < width {
			text, row = strings.TrimRight(text, " ")+" ", strings.TrimLeft(row, " ")
		}
		text += row
	}
	return text
}

// byColumns reports whether all rows but the last are as wide as the widest, but for a space that was trimmed.
func byColumns(rows []string, width int) bool {
	return !slices.ContainsFunc(rows[:len(rows)-1], func(row string) bool { return utf8.RuneCountInString(row) < width-1 })
}

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
