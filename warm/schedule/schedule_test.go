package schedule_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/internal/cron"
	"github.com/registrymirror/mirror/internal/state/statetest"
	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
	"github.com/registrymirror/mirror/warm/schedule"
	"github.com/registrymirror/mirror/warm/warmtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is what a Scheduler meets.
type world struct {
	*warmtest.Jobs
	table *statetest.Table
	log   testlog.Log
	jump  time.Duration // of the clock

	tags    map[string]oci.Digest
	asked   int
	down    error
	results map[schedule.Result]int
}

func newWorld() *world {
	return &world{Jobs: &warmtest.Jobs{Takes: time.Second}, table: statetest.NewTable(), tags: make(map[string]oci.Digest), results: make(map[schedule.Result]int)}
}

// seen are the results that were observed.
func (w *world) seen() (results map[schedule.Result]int) {
	w.Set(func() { results = maps.Clone(w.results) })
	return results
}

// times are when jobs were begun, in a zone.
func (w *world) times(zone *time.Location) (list []string) {
	for _, at := range w.Begun() {
		list = append(list, at.In(zone).Format("01-02 15:04 -0700"))
	}
	return list
}

// start runs a Scheduler until the result is called.
func (w *world) start(t *testing.T, list ...schedule.Schedule) (s *schedule.Scheduler, stop func()) {
	t.Helper()
	s = schedule.New(schedule.Options{
		Jobs: w.Jobs, Table: w.table, Log: slog.New(slog.NewTextHandler(&w.log, nil)),
		Observe: func(_ string, r schedule.Result) { w.Set(func() { w.results[r]++ }) },
		Latest: func(_ context.Context, ref oci.Ref) (d oci.Digest, err error) {
			w.Set(func() {
				w.asked++
				d, err = w.tags[ref.String()], w.down
			})
			return d, err
		},
	})
	s.SetNow(func() (now time.Time) {
		w.Set(func() { now = time.Now().Add(w.jump).Round(0) })
		return now
	})
	s.Use(list)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	synctest.Wait()
	return s, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run ended with %v", err)
		}
	}
}

func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func same(t *testing.T, what string, want, got any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func ref(t *testing.T, text string) oci.Ref {
	t.Helper()
	r, err := oci.ParseRef(text)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func onTime(t *testing.T, name, text, zone string) schedule.Schedule {
	t.Helper()
	spec, err := cron.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	loc, err := time.LoadLocation(zone)
	if err != nil {
		t.Fatal(err)
	}
	return schedule.Schedule{
		Name: name, Cron: &spec, Text: text + " " + zone, Zone: loc,
		Images: []oci.Ref{ref(t, "nginx:1"), ref(t, "redis:7")}, Platforms: []string{"linux/amd64"}, Keep: time.Hour, With: []string{warm.Signatures},
	}
}

func onMove(t *testing.T, name string, images ...string) schedule.Schedule {
	t.Helper()
	s := schedule.Schedule{Name: name, Text: "move"}
	for _, x := range images {
		s.Images = append(s.Images, ref(t, x))
	}
	return s
}

// in runs a test in a bubble of time, which begins on 2000-01-01 at midnight UTC.
func in(t *testing.T, test func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, newWorld()) })
}

func TestOnTime(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		_, stop := w.start(t, onTime(t, "night", "0 5 * * *", "UTC"))
		defer stop()
		pass(72 * time.Hour)
		same(t, "times", []string{"01-01 05:00 +0000", "01-02 05:00 +0000", "01-03 05:00 +0000"}, w.times(time.UTC))
		same(t, "request", warm.Request{
			Images: []string{"docker.io/library/nginx:1", "docker.io/library/redis:7"}, Platforms: []string{"linux/amd64"},
			Keep: time.Hour, With: []string{warm.Signatures}, By: catalog.BySchedule, Name: "night", Key: "schedule night 2000-01-02T05:00:00Z",
		}, w.Requests()[1])
		same(t, "results", map[schedule.Result]int{schedule.Started: 3}, w.seen())
		if n := w.table.Writes(); n > 4 {
			t.Errorf("%d writes", n)
		}
	})
}

// TestClocksChange: over both changes of a year, a schedule of a skipped and repeated hour has one job each day.
func TestClocksChange(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		month time.Month
		day   int
		want  []string
	}{
		{time.March, 25, []string{"03-25 02:30 +0100", "03-26 03:00 +0200", "03-27 02:30 +0200"}},
		{time.October, 28, []string{"10-28 02:30 +0200", "10-29 02:30 +0200", "10-30 02:30 +0100"}},
	} {
		in(t, func(t *testing.T, w *world) {
			pass(time.Until(time.Date(2000, tt.month, tt.day, 0, 0, 0, 0, time.UTC)))
			x := onTime(t, "night", "30 2 * * *", "Europe/Berlin")
			_, stop := w.start(t, x)
			defer stop()
			pass(72 * time.Hour)
			same(t, tt.month.String(), tt.want, w.times(x.Zone))
		})
	}
}

// TestMissed: times that passed while the mirror was down are one job, and one alone.
func TestMissed(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		x := onTime(t, "night", "0 5 * * *", "UTC")
		_, stop := w.start(t, x)
		pass(6 * time.Hour)
		stop()
		pass(22 * time.Hour) // to 04:00
		_, stop = w.start(t, x)
		pass(time.Minute)
		same(t, "jobs where none was missed", 1, len(w.Requests()))
		stop()
		pass(80 * time.Hour) // to noon of the 5th
		_, stop = w.start(t, x)
		pass(time.Minute)
		same(t, "times", []string{"01-01 05:00 +0000", "01-05 12:01 +0000"}, w.times(time.UTC))
		same(t, "key", "schedule night 2000-01-02T05:00:00Z", w.Requests()[1].Key)
		stop()
		_, stop = w.start(t, x)
		defer stop()
		pass(24 * time.Hour)
		same(t, "times", []string{"01-01 05:00 +0000", "01-05 12:01 +0000", "01-06 05:00 +0000"}, w.times(time.UTC))
	})
}

// TestNew: a schedule that is new, or has other times, waits for the next one. What is removed is forgotten.
func TestNew(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		pass(6 * time.Hour)
		s, stop := w.start(t, onTime(t, "a", "0 5 * * *", "UTC"), onTime(t, "b", "0 4 * * *", "UTC"))
		defer stop()
		pass(6 * time.Hour)
		s.Use([]schedule.Schedule{onTime(t, "a", "0 11 * * *", "UTC")})
		pass(time.Hour)
		same(t, "jobs", 0, len(w.Requests()))
		pass(24 * time.Hour)
		same(t, "times", []string{"01-02 11:00 +0000"}, w.times(time.UTC))
		records := 0
		for it, err := range w.table.Scan("") {
			if records++; err != nil || it.Key != "a" {
				t.Errorf("%v, %v", it, err)
			}
		}
		same(t, "records", 1, records)
	})
}

// TestReload: a schedule that stays, with other images, keeps its times.
func TestReload(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		x := onTime(t, "a", "0 5 * * *", "UTC")
		s, stop := w.start(t, x)
		defer stop()
		for range 60 {
			pass(50 * time.Minute)
			x.Images = append(x.Images, ref(t, fmt.Sprint("app:", len(x.Images))))
			s.Use([]schedule.Schedule{x})
		}
		same(t, "times", []string{"01-01 05:00 +0000", "01-02 05:00 +0000"}, w.times(time.UTC))
	})
}

// TestLongJob: a time that comes while the last job runs is left out.
func TestLongJob(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.Takes = 25 * time.Minute
		x := onTime(t, "often", "*/10 * * * *", "UTC")
		_, stop := w.start(t, x)
		pass(time.Hour + time.Second)
		same(t, "times", []string{"01-01 00:10 +0000", "01-01 00:40 +0000"}, w.times(time.UTC))
		same(t, "results", map[schedule.Result]int{schedule.Started: 2, schedule.Skipped: 4}, w.seen())
		// So it is after a restart.
		stop()
		_, stop = w.start(t, x)
		defer stop()
		pass(10 * time.Minute)
		same(t, "times", []string{"01-01 00:10 +0000", "01-01 00:40 +0000", "01-01 01:10 +0000"}, w.times(time.UTC))
	})
}

// TestClockJumps: a clock that was wrong costs one job at most, and stops no schedule.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		jump time.Duration
		want []string // by the real clock
	}{
		{"three days ahead", 72 * time.Hour, []string{"01-01 05:00 +0000", "01-01 06:01 +0000", "01-02 05:00 +0000"}},
		{"a year back", -365 * 24 * time.Hour, []string{"01-01 05:00 +0000", "01-02 05:00 +0000"}},
		{"two hours back", -2 * time.Hour, []string{"01-01 05:00 +0000", "01-02 07:00 +0000"}}, // a time has one job
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			in(t, func(t *testing.T, w *world) {
				_, stop := w.start(t, onTime(t, "night", "0 5 * * *", "UTC"))
				defer stop()
				pass(6*time.Hour + 30*time.Second)
				w.Set(func() { w.jump = tt.jump })
				pass(26 * time.Hour)
				same(t, "times", tt.want, w.times(time.UTC))
			})
		})
	}
}

// TestClockStepsBack: a clock that is corrected by seconds just after a job begins no second one.
func TestClockStepsBack(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		_, stop := w.start(t, onTime(t, "night", "0 5 * * *", "UTC"))
		defer stop()
		pass(5 * time.Hour)
		w.Set(func() { w.jump = -3 * time.Second })
		pass(time.Hour)
		same(t, "times", []string{"01-01 05:00 +0000"}, w.times(time.UTC))
		w.Set(func() { w.jump = 0 })
		pass(24 * time.Hour)
		same(t, "jobs", 2, len(w.Requests()))
	})
}

// TestQuota: a job that the quotas refuse is tried again, and logged once.
func TestQuota(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.Refuse = &warm.QuotaError{Setting: "warm.maxJobs", Limit: 1, Have: 1, Asked: 1}
		s, stop := w.start(t, onTime(t, "night", "0 5 * * *", "UTC"), onMove(t, "main"))
		defer stop()
		same(t, "next", []schedule.Upcoming{{Name: "night", Next: time.Date(2000, 1, 1, 5, 0, 0, 0, time.UTC)}, {Name: "main"}}, s.Upcoming())
		pass(7 * time.Hour)
		if next := s.Upcoming()[0].Next; next.Before(time.Now()) || next.After(time.Now().Add(time.Hour)) {
			t.Errorf("after it was refused the next one is at %s, at %s", next, time.Now())
		}
		if w.Refused() < 5 || w.Refused() > 8 {
			t.Errorf("%d requests in two hours", w.Refused())
		}
		if n := strings.Count(w.log.String(), "was refused"); n != 1 || w.seen()[schedule.Refused] != 1 {
			t.Errorf("%v, and the log says it %d times", w.seen(), n)
		}
		w.Set(func() { w.Refuse = nil })
		pass(time.Hour)
		same(t, "key", "schedule night 2000-01-01T05:00:00Z", w.Requests()[0].Key)
		pass(24 * time.Hour)
		same(t, "jobs", 2, len(w.Requests()))
	})
}

// TestInvalid: a job that is refused for good waits for the next time.
func TestInvalid(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.Refuse = &warm.KeyUsedError{Key: "k", ID: "1"}
		_, stop := w.start(t, onTime(t, "night", "0 5 * * *", "UTC"))
		defer stop()
		pass(48 * time.Hour)
		same(t, "requests", 2, w.Refused())
		same(t, "results", map[schedule.Result]int{schedule.Refused: 2}, w.seen())
	})
}

// TestTableFails: without a record, schedules go on, and the log says what a restart may do.
func TestTableFails(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.table.SetFail(func() error { return errors.New("disk full") })
		_, stop := w.start(t, onTime(t, "night", "0 5 * * *", "UTC"))
		defer stop()
		pass(48 * time.Hour)
		same(t, "jobs", 2, len(w.Requests()))
		if !strings.Contains(w.log.String(), "after a restart it may be run once more") {
			t.Errorf("the log:\n%s", &w.log)
		}
	})
}
