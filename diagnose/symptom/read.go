package symptom

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"
	"time"

	"golang.org/x/text/encoding/unicode"
	"golang.org/x/text/transform"

	"github.com/registrymirror/mirror/diagnose"
)

// Failure is a failed pull, with its reason, as often as the input says.
type Failure struct {
	Reason  diagnose.Reason
	Class   diagnose.Class
	Summary string
	Remedy  string
	Image   string    // empty where the text names none
	Host    string    // at which it broke, as far as the text says
	Command string    // that shows the cause or mends it; empty: there is none
	Page    string    // about the reason, which mirror explain REASON prints
	ID      string    // of the mirror's record, where the text shows one
	Count   int64     // how often the input has it
	Text    string    // the text that says so, without secrets
	First   time.Time // first time in the text; zero: the text has no times
	Last    time.Time // last time in the text
}

// Report has the failures of an input, the most frequent first.
type Report struct {
	Failures []Failure
	Classes  map[string]int64 // failures by class
	Lines    int              // of text; 0: all of the input was JSON
}

// MaxInput is the largest input in bytes.
const MaxInput = 256 << 20

// ErrTooLarge says that an input is longer than MaxInput.
var ErrTooLarge = errors.New("the input is larger than 256 MiB; give it in parts")

// Read reads an input to its end. Its errors are the reader's, and ErrTooLarge.
func Read(r io.Reader) (*Report, error) { return ReadContext(context.Background(), r) }

// ReadContext is Read that ends early, with the context's error, where the context does.
func ReadContext(ctx context.Context, r io.Reader) (*Report, error) {
	b, err := io.ReadAll(io.LimitReader(r, MaxInput+1))
	if err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	if len(b) > MaxInput {
		return nil, ErrTooLarge
	}
	// Windows writes files as UTF-16, or with a byte order mark.
	if b, _, err = transform.Bytes(unicode.BOMOverride(transform.Nop), b); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	c := &counter{found: make(map[group]*tally), err: ctx.Err}
	if !c.document(b) {
		c.text(string(b))
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read: %w", err)
	}
	return c.report(), nil
}

// pages is where the pages about reasons are.
const pages = "/docs/failures/"

var (
	// ours is a line of a mirror's log, in its formats for machines and for terminals.
	ours = regexp.MustCompile(`(?i)\blevel="?(?:warn|warning)"? .*msg="pull failed"|\bWRN pull failed\b`)
	// mirrors is an Event that a mirror posted.
	mirrors = regexp.MustCompile(`Failed to pull image \\?"[^"]*\\?": \(mirror: `)
	more    = regexp.MustCompile(`^\s*(\* |errors:|denied:|unauthorized:|unknown:|manifest unknown|name unknown|toomanyrequests:|unavailable:)`)
	// nearCount and nearMessage are lines of a document that is cut off, or not JSON or YAML as a whole.
	nearCount = regexp.MustCompile(`^\s*(?:- )?"?count"?: (\d{1,12}),?$`)
	// ends has the words with which commands report the error that ended them.
	ends        = regexp.MustCompile(`[eE]rror|FATA`)
	nearMessage = regexp.MustCompile(`^\s*(?:"(message|note|msg|stderr|error|reason|stoppedReason)": )?("(?:[^"\\]|\\.)*"),?$`)
)

// text reads the lines of a text.
func (c *counter) text(s string) {
	l := lines{rest: s}
	for {
		ln, ok := l.next()
		if !ok || c.err() != nil {
			return
		}
		c.lines++
		c.line(ln)
	}
}

func (c *counter) line(ln line) {
	trimmed := strings.TrimSpace(ln.text)
	switch {
	case trimmed == "":
		return
	case strings.HasPrefix(trimmed, "{") && c.document([]byte(trimmed)):
		return
	case c.columns.header(ln):
		return
	}
	trimmed = clip(trimmed)
	if m := nearCount.FindStringSubmatch(trimmed); m != nil { // ParseInt cannot fail: at most 12 digits
		c.count, _ = strconv.ParseInt(m[1], 10, 64)
		return
	}
	s := message{count: c.columns.count(ln)}
	if m := nearMessage.FindStringSubmatch(trimmed); m != nil {
		if text, err := strconv.Unquote(m[2]); err == nil {
			trimmed, ln.tight = text, ""
			s.count, s.source = c.count, cmp.Or(m[1], "item")
		}
	} else if ln.key || key.MatchString(ln.text) || strings.HasPrefix(trimmed, "Failed to pull") {
		s.count = max(s.count, c.count)
	}
	if !relevant(trimmed) && !relevant(ln.tight) && (!ends.MatchString(trimmed) || !c.near.awaits()) {
		c.near.add(trimmed)
		return
	}
	r := peel(trimmed, deepestLine)
	if ln.tight != "" {
		if tight := peel(ln.tight, deepestLine); fitting(r.text, tight.text) == tight.text {
			r = tight
		}
	}
	if strings.HasPrefix(r.text, "{") && c.document([]byte(r.text)) { // a journal's prefix
		return
	}
	if ours.MatchString(trimmed) {
		c.own(trimmed)
		return
	}
	s.take(r)
	if s.at.IsZero() {
		s.at = ln.at
	}
	if s.add(c) {
		c.count = 0
	}
	c.near.add(trimmed)
}

// longest is the part of one message that is read, in bytes: its beginning names the image, and its end the cause.
const longest = 16 << 10

func clip(s string) string {
	if len(s) <= longest {
		return s
	}
	return strings.ToValidUTF8(s[:longest/2], "") + " ... " + strings.ToValidUTF8(s[len(s)-longest/2:], "")
}

// own reads a line of a mirror's log.
func (c *counter) own(line string) {
	v := pairs(line)
	at, _ := stamp(v["time"])
	c.addOwn(v["reason"], v["ref"], v["id"], v["summary"], v["remedy"], at)
}

// document reads JSON values, and reports whether the input has nothing else.
func (c *counter) document(b []byte) bool {
	b = bytes.TrimSpace(b)
	if len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return false
	}
	var values []any
	d := json.NewDecoder(bytes.NewReader(b))
	for {
		var v any
		err := d.Decode(&v)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false
		}
		values = append(values, v)
	}
	for _, v := range values {
		c.value(v)
	}
	return true
}

// Total is the number of failed pulls.
func (r *Report) Total() (n int64) {
	for _, f := range r.Failures {
		n += f.Count
	}
	return n
}

// Line is the report in one line: how many failures are authentication, and how many missing images?
func (r *Report) Line() string {
	auth, missing := r.Classes[string(diagnose.ClassAuth)], r.Classes[string(diagnose.ClassMissing)]
	undecided := r.Classes[string(diagnose.ClassUndecided)]
	total := r.Total()
	if total == 0 && r.Lines == 1 {
		return "0 failures: no failing pull found in 1 line"
	}
	if total == 0 && r.Lines > 0 {
		return fmt.Sprintf("0 failures: no failing pull found in %d lines", r.Lines)
	}
	if total == 0 {
		return "0 failures"
	}
	s := fmt.Sprintf("%d failures: %d authentication, %d missing images", total, auth, missing)
	if total == 1 {
		s = strings.Replace(s, "failures", "failure", 1)
	}
	if undecided > 0 {
		s += fmt.Sprintf(", %d either of the two", undecided)
	}
	return s + fmt.Sprintf(", %d other", total-auth-missing-undecided)
}
