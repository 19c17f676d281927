// Package text makes text that others send fit to be shown: in a log, an error, a header or a terminal.
//
// Promise: what Line and FirstLine give is valid UTF-8, printable, on one line and no longer than asked for. What Hide gives
// has none of the secrets that it was told, in any form in which a secret is commonly sent or repeated.
//
// It knows secrets by their text alone: a caller that knows the author of a text looks for words that may be secrets.
package text

import (
	"encoding/base64"
	"html"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// mark stands for what was cut off.
const mark = "..."

// Hidden stands for a secret.
const Hidden = "***"

// minSecret is the shortest text that is taken for a secret, in bytes: a shorter one would blank out parts of words.
const minSecret = 4

// Line is a text on one line, cut to a number of bytes: white space, and bytes that are not UTF-8, become one space, and
// what is not printable is left out. So a word that was taken apart by invisible characters is whole again, and found by
// what looks for secrets.
func Line(s string, limit int) string {
	var b strings.Builder
	space := false
	for _, r := range s {
		switch {
		case unicode.IsSpace(r) || r == utf8.RuneError:
			space = true
			continue
		case !unicode.IsPrint(r):
			continue
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		b.WriteRune(r)
		if b.Len() > limit {
			break
		}
	}
	return Cut(b.String(), limit)
}

// FirstLine is the first line of a text that has something to show, without secrets. See Line and Hide.
func FirstLine(s string, limit int, secrets ...string) string {
	// A secret may have several lines, or be taken apart by what Line leaves out.
	s = Hide(s, secrets...)
	for line := range strings.Lines(s) {
		if line = Line(line, len(line)); line != "" {
			return Cut(Hide(line, secrets...), limit)
		}
	}
	return ""
}

// Cut shortens a text to a number of bytes, and marks that with "...": at the last space, if there is one near, and never
// within a letter.
func Cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	if limit <= len(mark) {
		return mark[:max(limit, 0)]
	}
	limit -= len(mark)
	if i := strings.LastIndexByte(s[:limit+1], ' '); i > (limit+len(mark))/2 {
		return strings.TrimRight(s[:i], " ,;:") + mark
	}
	for limit > 0 && !utf8.RuneStart(s[limit]) {
		limit--
	}
	return s[:limit] + mark
}

// Hide puts "***" in the place of secrets: as they are, in base64, and as each is written in a URL, a form or a page. A
// secret of less than four bytes is not looked for.
func Hide(s string, secrets ...string) string {
	var forms []string
	for _, secret := range secrets {
		if len(secret) < minSecret {
			continue
		}
		for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), html.EscapeString(secret)} {
			forms = append(forms, form, url.QueryEscape(form), url.PathEscape(form))
		}
	}
	// Longer ones first, since one may be a part of another.
	slices.SortFunc(forms, func(a, b string) int { return len(b) - len(a) })
	for _, form := range forms {
		s = strings.ReplaceAll(s, form, Hidden)
	}
	return s
}

// Duration writes a duration without the zeros at its end: 168h, not 168h0m0s.
func Duration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"0s", "0m"} {
		if rest := strings.TrimSuffix(s, zero); strings.HasSuffix(rest, "m") || strings.HasSuffix(rest, "h") {
			s = rest
		}
	}
	return s
}

// Size writes a number of bytes for people: 1.2 MiB.
func Size(n int64) string {
	if n < 1<<10 {
		return strconv.FormatInt(n, 10) + " B"
	}
	f, unit := float64(n), -1
	for f >= 1<<10 && unit < 4 {
		f, unit = f/(1<<10), unit+1
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + "KMGTP"[unit:unit+1] + "iB"
}
