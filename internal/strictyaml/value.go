package strictyaml

import (
	"encoding"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/text"
)

// ValueError says what is wrong with the text of a value, and what to write instead. An UnmarshalText that returns one has
// the two shown apart.
type ValueError struct{ Message, Hint string }

func (e *ValueError) Error() string {
	if e.Hint == "" {
		return e.Message
	}
	return e.Message + " (" + e.Hint + ")"
}

// BadValue is a *ValueError: text is not what the setting takes, as in "a size".
func BadValue(text, what, hint string) error {
	return &ValueError{Message: Quoted(text) + " is not " + what, Hint: hint}
}

// explain splits what is wrong with a value from what to write instead.
func explain(err error) (message, hint string) {
	if e, ok := errors.AsType[*ValueError](err); ok {
		return e.Message, e.Hint
	}
	return err.Error(), ""
}

// Quoted is text as a message shows it: short, on one line, without control characters and passwords.
func Quoted(text string) string {
	text = withoutUser(text)
	const most = 80
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strconv.Quote(text)
}

// IsText reports whether v, which is addressable, is read from one plain value.
func IsText(v reflect.Value) bool {
	switch v.Addr().Interface().(type) {
	case encoding.TextUnmarshaler, *string, *bool, *int, *time.Duration:
		return true
	}
	return false
}

// setText parses text into v.
func setText(v reflect.Value, text string) (err error) {
	switch p := v.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	case *string:
		*p = text
	case *bool:
		*p, err = parseBool(text)
	case *int:
		*p, err = parseCount(text)
	case *time.Duration:
		*p, err = parseDuration(text)
	default:
		panic("strictyaml: no text for " + v.Type().String())
	}
	return err
}

// Text is the text of a single value, which is addressable, as Decode reads it.
func Text(v reflect.Value) string {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		return text.Duration(*p)
	case fmt.Stringer:
		return p.String()
	}
	return fmt.Sprint(v)
}

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err == nil && d < 0:
		return 0, BadValue(text, "zero or more", "write as in 60s")
	case err == nil:
		return d, nil
	}
	hint := "write a number with ms, s, m or h, as in 60s or 1h30m"
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			hint = "a day is 24h: write " + strconv.FormatUint(n*24, 10) + "h"
		}
	} else if _, err := strconv.ParseUint(text, 10, 32); err == nil {
		hint = "it has no unit: write " + text + "s for seconds"
	}
	return 0, BadValue(text, "a duration", hint)
}

func parseBool(text string) (bool, error) {
	switch text {
	case "true", "True", "TRUE":
		return true, nil
	case "false", "False", "FALSE":
		return false, nil
	}
	hint := "write one of the two"
	switch strings.ToLower(text) {
	case "yes", "y", "on", "1":
		hint = "write true"
	case "no", "n", "off", "0":
		hint = "write false"
	}
	return false, BadValue(text, "true or false", hint)
}

// parseCount reads a number of things, at least one.
func parseCount(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 || text[0] == '0' {
		return 0, BadValue(text, "a number from 1 on", "write digits alone, as in 32")
	}
	return int(n), nil
}
