package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes. As text it is a plain number or one with a unit: 20GiB, 20Gi (1024s), 20GB, 20G (1000s).
type Size int64

// DiskShare is a part of a disk: Percent of it where that is above zero, else Bytes.
type DiskShare struct {
	Percent float64
	Bytes   Size
}

// Percent is a part of a whole, 0 to 100.
type Percent float64

var units = []struct {
	name, short string
	bytes       int64
}{
	{"TiB", "Ti", 1 << 40},
	{"GiB", "Gi", 1 << 30},
	{"MiB", "Mi", 1 << 20},
	{"KiB", "Ki", 1 << 10},
	{"TB", "T", 1e12}, // the short ones as Kubernetes has them
	{"GB", "G", 1e9},
	{"MB", "M", 1e6},
	{"KB", "K", 1e3},
	{"B", "", 1},
}

// valueError is what is wrong with a value, and what to write instead.
type valueError struct {
	message, hint string
	huge          bool // a size beyond all disks
}

func (e *valueError) Error() string {
	if e.hint == "" {
		return e.message
	}
	return e.message + " (" + e.hint + ")"
}

func badValue(text, what, hint string) error {
	return &valueError{message: quoted(text) + " is not " + what, hint: hint}
}

// UnmarshalText reads a size.
func (s *Size) UnmarshalText(text []byte) error {
	n, err := parseSize(string(text))
	if err == nil {
		*s = Size(n)
	}
	return err
}

func parseSize(text string) (int64, error) {
	digits := strings.TrimLeft(text, "0123456789.")
	number, unit := text[:len(text)-len(digits)], strings.TrimSpace(digits)
	factor := int64(1)
	if unit != "" {
		factor = 0
		for _, u := range units {
			if strings.EqualFold(unit, u.name) || strings.EqualFold(unit, u.short) {
				factor = u.bytes
			}
		}
	}
	value, err := strconv.ParseFloat(number, 64)
	if err != nil || factor == 0 {
		return 0, badValue(text, "a size", "write a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB, as in 20GiB")
	}
	if value*float64(factor) >= math.MaxInt64 {
		return 0, &valueError{message: quoted(text) + " is not a size that any disk has", hint: "write less, as in 20GiB", huge: true}
	}
	if whole, err := strconv.ParseInt(number, 10, 64); err == nil {
		return whole * factor, nil // exact, where a float isn't
	}
	return int64(value * float64(factor)), nil
}

// String is the size in the unit that needs the smallest whole number.
func (s Size) String() string {
	number, unit := int64(s), ""
	for _, u := range units {
		if n := int64(s) / u.bytes; int64(s)%u.bytes == 0 && n < number {
			number, unit = n, u.name
		}
	}
	return strconv.FormatInt(number, 10) + unit
}

// Of is how many bytes it is of a disk with so many.
func (m DiskShare) Of(total int64) int64 {
	if m.Percent > 0 {
		return int64(float64(total) * m.Percent / 100)
	}
	return int64(m.Bytes)
}

// UnmarshalText reads a percentage or a size.
func (m *DiskShare) UnmarshalText(text []byte) error {
	if strings.HasSuffix(string(text), "%") {
		p, err := parsePercent(string(text))
		if err == nil {
			*m = DiskShare{Percent: p}
		}
		return err
	}
	n, err := parseSize(string(text))
	if e, ok := errors.AsType[*valueError](err); ok && e.huge {
		return err
	}
	if err != nil {
		return badValue(string(text), "a size or a percentage of the disk",
			"write a number with KiB, MiB, GiB, TiB, KB, MB, GB or TB, or a percentage, as in 20GiB or 80%")
	}
	*m = DiskShare{Bytes: Size(n)}
	return nil
}

// String is the text that UnmarshalText reads.
func (m DiskShare) String() string {
	if m.Percent > 0 {
		return Percent(m.Percent).String()
	}
	return m.Bytes.String()
}

// UnmarshalText reads a percentage.
func (p *Percent) UnmarshalText(text []byte) error {
	f, err := parsePercent(string(text))
	if err == nil {
		*p = Percent(f)
	}
	return err
}

func parsePercent(text string) (float64, error) {
	number, ok := strings.CutSuffix(text, "%")
	f, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if err != nil || !ok || !(f >= 0 && f <= 100) {
		return 0, badValue(text, "a percentage from 0% to 100%", "write as in 5%")
	}
	return f, nil
}

// String is the text that UnmarshalText reads.
func (p Percent) String() string { return strconv.FormatFloat(float64(p), 'f', -1, 64) + "%" }

func parseDuration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	switch {
	case err == nil && d < 0:
		return 0, badValue(text, "zero or more", "write as in 60s")
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
	return 0, badValue(text, "a duration", hint)
}

// formatDuration is Go's text without the zeros at its end: 168h, not 168h0m0s.
func formatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = s[:len(s)-2]
	}
	if strings.HasSuffix(s, "h0m") {
		s = s[:len(s)-2]
	}
	return s
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
	return false, badValue(text, "true or false", hint)
}

// parseCount reads how many of something there may be.
func parseCount(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil || n == 0 || text[0] == '0' {
		return 0, badValue(text, "a number from 1 on", "write digits alone, as in 32")
	}
	return int(n), nil
}

// explain splits what is wrong with a value from what to write instead.
func explain(err error) (message, hint string) {
	if e, ok := errors.AsType[*valueError](err); ok {
		return e.message, e.hint
	}
	return err.Error(), ""
}

// quoted is text as it is shown in a message: short, on one line, without control characters and passwords.
func quoted(text string) string {
	text = withoutUser(text)
	const most = 80
	if len(text) > most {
		text = text[:most] + "..."
	}
	return strconv.Quote(text)
}
