// Package cron reads the times of a schedule as crontab has them, and says when the next one is.
//
//	minute hour day-of-month month day-of-week       0 5 * * 1-5: on weekdays at five
//
// A field is *, a number, a range (1-5), either with a step (*/15, 8-18/2), or a list of these. Months and weekdays may be named
// (jan, mon); Sunday is 0 or 7. Where both days are restricted, either is enough. The names are @hourly, @daily, @weekly, @monthly
// and @yearly.
//
// When the clocks change: a time that the clocks skip is the moment at which they do, and of a time that they repeat the first one
// counts. A schedule of each hour goes on in steps of real time.
//
// It does not wait: its caller has the clock.
package cron

import (
	"errors"
	"fmt"
	"math/bits"
	"strconv"
	"strings"
	"time"
	_ "time/tzdata" // the zones, for a machine that has no files of them
)

// Spec is the times of a schedule. The zero value is never due.
type Spec struct {
	minutes, hours, days, months, weekdays uint64 // a bit for each value
	eitherDay                              bool   // both days are restricted
}

// field is a part of the text.
type field struct {
	name        string
	least, most int
	words       string // names of the values, from least on
}

var fields = [...]field{
	{"minute", 0, 59, ""},
	{"hour", 0, 23, ""},
	{"day of month", 1, 31, ""},
	{"month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec"},
	{"day of week", 0, 7, "sun mon tue wed thu fri sat"},
}

var names = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *",
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// Parse reads the times of a schedule.
func Parse(text string) (Spec, error) {
	if full, ok := names[strings.ToLower(text)]; ok {
		text = full
	}
	parts := strings.Fields(text)
	if len(parts) != len(fields) {
		return Spec{}, fmt.Errorf("it needs five fields and has %d", len(parts))
	}
	var sets [len(fields)]uint64
	for i, f := range fields {
		for item := range strings.SplitSeq(parts[i], ",") {
			set, err := f.parse(item)
			if err != nil {
				return Spec{}, fmt.Errorf("%s %q: %w", f.name, parts[i], err)
			}
			sets[i] |= set
		}
	}
	s := Spec{minutes: sets[0], hours: sets[1], days: sets[2], months: sets[3], weekdays: sets[4]}
	s.weekdays |= s.weekdays >> 7 & 1
	s.eitherDay = !isStar(parts[2]) && !isStar(parts[4])
	if s.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return Spec{}, errors.New("no month that it names has such a day")
	}
	return s, nil
}

func isStar(text string) bool { return text == "*" || text == "?" }

// parse reads one item of a list.
func (f field) parse(item string) (set uint64, err error) {
	values, stepText, stepped := strings.Cut(item, "/")
	step := 1
	if stepped {
		if step, err = strconv.Atoi(stepText); err != nil || step < 1 || step > f.most {
			return 0, fmt.Errorf("%q is not a step from 1 to %d", stepText, f.most)
		}
	}
	from, to := f.least, f.most
	if first, last, ranged := strings.Cut(values, "-"); !isStar(values) {
		if from, err = f.value(first); err != nil {
			return 0, err
		}
		switch {
		case ranged:
			if to, err = f.value(last); err != nil {
				return 0, err
			}
		case !stepped:
			to = from
		}
	}
	if from > to {
		return 0, fmt.Errorf("%q ends before it begins", item)
	}
	for v := from; v <= to; v += step {
		set |= 1 << v
	}
	return set, nil
}

func (f field) value(text string) (int, error) {
	for i, word := range strings.Fields(f.words) {
		if strings.EqualFold(word, text) {
			return f.least + i, nil
		}
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < f.least || n > f.most || text[0] == '+' {
		return 0, fmt.Errorf("%q is not a number from %d to %d", text, f.least, f.most)
	}
	return n, nil
}

// Next is the first time after the given one, in its location. Zero: there is none, as for the 30th of February.
func (s Spec) Next(after time.Time) time.Time {
	t := after.Truncate(time.Minute).Add(time.Minute)
	for last := t.AddDate(9, 0, 0); t.Before(last); { // the 29th of February may be eight years away
		switch {
		case s.at(t):
			return t
		case s.day(t):
			t = t.Add(time.Minute)
		default:
			t = nextDay(t)
		}
	}
	return time.Time{}
}

// eachHour reports whether the schedule is for each hour of a day.
func (s Spec) eachHour() bool { return bits.OnesCount64(s.hours) == 24 }

// at reports whether a minute is one of the schedule's.
func (s Spec) at(t time.Time) bool {
	start, _ := t.ZoneBounds()
	if s.eachHour() || start.IsZero() || t.Sub(start) >= 24*time.Hour {
		return s.wall(t)
	}
	_, before := start.Add(-time.Second).Zone()
	_, now := t.Zone()
	moved := time.Duration(now-before) * time.Second
	if t.Sub(start) < -moved { // the clocks were set back, and show these times again
		return false
	}
	if t.Equal(start) { // or forward: the times that they skip
		for skipped := wallClock(t).Add(-moved); skipped.Before(wallClock(t)); skipped = skipped.Add(time.Minute) {
			if s.wall(skipped) {
				return true
			}
		}
	}
	return s.wall(t)
}

// wallClock is the time that the clocks on the wall show, as a time that never changes.
func wallClock(t time.Time) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC)
}

// wall reports whether the schedule has the time that the clocks show.
func (s Spec) wall(t time.Time) bool {
	return s.day(t) && s.hours>>t.Hour()&1 == 1 && s.minutes>>t.Minute()&1 == 1
}

func (s Spec) day(t time.Time) bool {
	day, weekday := s.days>>t.Day()&1 == 1, s.weekdays>>int(t.Weekday())&1 == 1
	if s.eitherDay {
		return s.months>>int(t.Month())&1 == 1 && (day || weekday)
	}
	return s.months>>int(t.Month())&1 == 1 && day && weekday
}

// nextDay is the first minute of the day after. There are places where the clocks skip midnight.
func nextDay(t time.Time) time.Time {
	next := time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, t.Location())
	if !next.After(t) { // it was made a time before the skipped ones
		return t.Add(time.Minute)
	}
	return next
}
