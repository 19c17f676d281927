package cron_test

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/internal/cron"
)

const layout = "2006-01-02 15:04 -0700"

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

func parse(t *testing.T, text string) cron.Spec {
	t.Helper()
	s, err := cron.Parse(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return s
}

// TestNext has a schedule, the moment after which it is looked at, and the next ones.
func TestNext(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, zone, spec, after, want string }{
		{"each minute", "UTC", "* * * * *", "2026-11-30 06:20 +0000", "2026-11-30 06:21 +0000"},
		{"not the moment itself", "UTC", "20 6 * * *", "2026-11-30 06:20 +0000", "2026-12-01 06:20 +0000"},
		{"a step", "UTC", "*/15 * * * *", "2026-11-30 06:20 +0000", "2026-11-30 06:30 +0000, 2026-11-30 06:45 +0000, 2026-11-30 07:00 +0000"},
		{"a step from a number on", "UTC", "50/5 6 * * *", "2026-11-30 06:20 +0000", "2026-11-30 06:50 +0000, 2026-11-30 06:55 +0000, 2026-12-01 06:50 +0000"},
		{"a range with a step", "UTC", "0 8-18/5 * * *", "2026-11-30 06:20 +0000", "2026-11-30 08:00 +0000, 2026-11-30 13:00 +0000, 2026-11-30 18:00 +0000, 2026-12-01 08:00 +0000"},
		{"a list", "UTC", "5,10 1,2 * * *", "2026-11-30 06:20 +0000", "2026-12-01 01:05 +0000, 2026-12-01 01:10 +0000, 2026-12-01 02:05 +0000"},
		{"weekdays by name", "UTC", "0 5 * * MON-fri", "2026-12-04 06:00 +0000", "2026-12-07 05:00 +0000"},
		{"Sunday is 7", "UTC", "0 5 * * 7", "2026-12-04 06:00 +0000", "2026-12-06 05:00 +0000"},
		{"from Friday to Sunday", "UTC", "0 5 * * 5-7", "2026-12-04 06:00 +0000", "2026-12-05 05:00 +0000, 2026-12-06 05:00 +0000, 2026-12-11 05:00 +0000"},
		{"a month by name", "UTC", "0 0 1 mar *", "2026-12-04 06:00 +0000", "2027-03-01 00:00 +0000"},
		{"either day", "UTC", "0 0 13 * 5", "2026-11-12 00:00 +0000", "2026-11-13 00:00 +0000, 2026-11-20 00:00 +0000, 2026-11-27 00:00 +0000, 2026-12-04 00:00 +0000"},
		{"a day that some months lack", "UTC", "0 0 31 * *", "2027-01-31 00:00 +0000", "2027-03-31 00:00 +0000"},
		{"a leap day", "UTC", "0 0 29 2 *", "2026-11-30 00:00 +0000", "2028-02-29 00:00 +0000, 2032-02-29 00:00 +0000"},
		{"a leap day eight years away", "UTC", "0 0 29 2 *", "2096-03-01 00:00 +0000", "2104-02-29 00:00 +0000"},
		{"@daily", "UTC", "@daily", "2026-11-30 06:20 +0000", "2026-12-01 00:00 +0000"},
		{"@weekly", "UTC", "@Weekly", "2026-11-30 06:20 +0000", "2026-12-06 00:00 +0000"},
		{"with a question mark", "UTC", "0 5 ? * 1", "2026-11-30 06:20 +0000", "2026-12-07 05:00 +0000"},
		{"in a zone", "Asia/Kolkata", "0 5 * * *", "2026-11-30 06:20 +0530", "2026-12-01 05:00 +0530"},

		{"a time that is skipped", "America/New_York", "30 2 * * *", "2012-03-10 12:00 -0500", "2012-03-11 03:00 -0400, 2012-03-12 02:30 -0400"},
		{"several that are skipped are one", "America/New_York", "*/20 2 * * *", "2012-03-11 00:00 -0500", "2012-03-11 03:00 -0400, 2012-03-12 02:00 -0400"},
		{"one that is skipped beside one that is not", "America/New_York", "0 2,3 * * *", "2012-03-11 00:00 -0500", "2012-03-11 03:00 -0400, 2012-03-12 02:00 -0400"},
		{"each hour over a skipped one", "America/New_York", "30 * * * *", "2012-03-11 00:45 -0500", "2012-03-11 01:30 -0500, 2012-03-11 03:30 -0400, 2012-03-11 04:30 -0400"},
		{"a time that is repeated", "America/New_York", "30 1 * * *", "2012-11-04 00:00 -0400", "2012-11-04 01:30 -0400, 2012-11-05 01:30 -0500"},
		{"looked at while it is repeated", "America/New_York", "30 1 * * *", "2012-11-04 01:10 -0500", "2012-11-05 01:30 -0500"},
		{"each hour over a repeated one", "America/New_York", "30 * * * *", "2012-11-04 00:45 -0400", "2012-11-04 01:30 -0400, 2012-11-04 01:30 -0500, 2012-11-04 02:30 -0500"},
		{"midnight that is skipped", "America/Sao_Paulo", "0 0 * * *", "2018-11-03 12:00 -0300", "2018-11-04 01:00 -0200, 2018-11-05 00:00 -0200"},
		{"a day whose midnight is skipped", "America/Sao_Paulo", "0 1 4 11 *", "2018-11-03 23:00 -0300", "2018-11-04 01:00 -0200, 2019-11-04 01:00 -0300"},
		{"a weekday whose midnight is skipped", "America/Sao_Paulo", "30 0 * * 0", "2018-11-02 23:00 -0300", "2018-11-04 01:00 -0200, 2018-11-11 00:30 -0200"},
		{"midnight that is repeated", "America/Sao_Paulo", "30 23 * * *", "2018-02-17 12:00 -0200", "2018-02-17 23:30 -0200, 2018-02-18 23:30 -0300"},
		{"half an hour is skipped", "Australia/Lord_Howe", "15 2 * * *", "2026-10-03 12:00 +1030", "2026-10-04 02:30 +1100, 2026-10-05 02:15 +1100"},
		{"a whole day is skipped", "Pacific/Apia", "0 12 * * *", "2011-12-28 13:00 -1000", "2011-12-29 12:00 -1000, 2011-12-31 00:00 +1400, 2011-12-31 12:00 +1400"},
		{"Berlin in spring", "Europe/Berlin", "0 5 * * *", "2026-03-28 05:00 +0100", "2026-03-29 05:00 +0200"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			loc := zone(t, tt.zone)
			at, err := time.ParseInLocation(layout, tt.after, loc)
			if err != nil {
				t.Fatal(err)
			}
			at = at.In(loc)
			s := parse(t, tt.spec)
			var got []string
			for range strings.SplitSeq(tt.want, ", ") {
				at = s.Next(at)
				got = append(got, at.Format(layout))
			}
			if strings.Join(got, ", ") != tt.want {
				t.Errorf("%s after %s:\n%s, want\n%s", tt.spec, tt.after, strings.Join(got, ", "), tt.want)
			}
		})
	}
}

// TestNextByMinutes compares schedules made at random with a look at each minute.
func TestNextByMinutes(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		minute, hour, day, weekday := r.IntN(60), r.IntN(24), 1+r.IntN(28), r.IntN(7)
		fields := []string{strconv.Itoa(minute), strconv.Itoa(hour), "*", "*", "*"}
		switch r.IntN(3) {
		case 0:
			fields[2] = strconv.Itoa(day)
		case 1:
			fields[4] = strconv.Itoa(weekday)
		}
		text := strings.Join(fields, " ")
		after := time.Date(2026, time.Month(1+r.IntN(12)), 1+r.IntN(28), r.IntN(24), r.IntN(60), r.IntN(60), 0, time.UTC)
		want := after.Truncate(time.Minute).Add(time.Minute)
		for want.Minute() != minute || want.Hour() != hour || fields[2] != "*" && want.Day() != day ||
			fields[4] != "*" && int(want.Weekday()) != weekday {
			want = want.Add(time.Minute)
		}
		if got := parse(t, text).Next(after); !got.Equal(want) {
			t.Errorf("%s after %s: %s, want %s", text, after, got, want)
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"":                    "it needs five fields and has 0",
		"0 0 5 * * *":         "it needs five fields and has 6",
		"TZ=Europe/Berlin":    "it needs five fields and has 1",
		"@every 5m":           "it needs five fields and has 2",
		"@reboot":             "it needs five fields and has 1",
		"60 * * * *":          `minute "60": "60" is not a number from 0 to 59`,
		"-1 * * * *":          "is not a number",
		"+1 * * * *":          "is not a number",
		"1-5-7 * * * *":       `"5-7" is not a number`,
		"* 24 * * *":          "hour",
		"* * 0 * *":           "from 1 to 31",
		"* * * foo *":         `month "foo"`,
		"* * * * 8":           "day of week",
		"5,, * * * *":         `"" is not a number`,
		"*/0 * * * *":         `"0" is not a step`,
		"*/99 * * * *":        `"99" is not a step`,
		"*/x * * * *":         `"x" is not a step`,
		"30-10 * * * *":       `"30-10" ends before it begins`,
		"* * * * sat-sun":     "ends before it begins",
		"0 0 30 2 *":          "no month that it names has such a day",
		"0 0 31 4,6,9,11 *":   "no month that it names has such a day",
		"99999999999 * * * *": "is not a number",
	} {
		if _, err := cron.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if !(cron.Spec{}).Next(time.Now()).IsZero() {
		t.Error("a schedule without times is due")
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"0 5 * * *", "*/15 1-5/2 1,2 jan-feb sun", "@daily", "TZ=TZ=TZ=", "? ? ? ? ?", "0 0 29 2 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := cron.Parse(text)
		if err != nil {
			return
		}
		after := time.Date(2026, 11, 30, 6, 20, 0, 0, time.UTC)
		if next := s.Next(after); !next.After(after) {
			t.Errorf("%q after %s is %s", text, after, next)
		}
	})
}
