package schedule_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm/schedule"
)

const (
	nginx = "docker.io/library/nginx:1"
	redis = "docker.io/library/redis:7"
)

var (
	one   = oci.Digest("sha256:" + strings.Repeat("1", 64))
	two   = oci.Digest("sha256:" + strings.Repeat("2", 64))
	three = oci.Digest("sha256:" + strings.Repeat("3", 64))
)

func (w *world) images() (list []string) {
	for _, r := range w.Requests() {
		list = append(list, strings.Join(r.Images, " "))
	}
	return list
}

func (w *world) tag(name string, d oci.Digest) {
	w.Set(func() { w.tags[name] = d })
}

func at(image string, d oci.Digest) string { return image + "@" + string(d) }

// TestOnMove: what a tag means is brought at the start, and after each move: at once where the move was seen, else with the next
// look. What was brought is not brought again, after a restart neither.
func TestOnMove(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.tag(nginx, one)
		w.tag(redis, two)
		x := onMove(t, "main", nginx, redis, at("ghcr.io/acme/app:1", one))
		s, stop := w.start(t, x)
		want := []string{at(nginx, one) + " " + at(redis, two)}
		same(t, "at the start", want, w.images())
		pass(time.Hour)
		same(t, "an hour later", want, w.images())
		if w.asked < 110 || w.asked > 124 {
			t.Errorf("looked at tags %d times in an hour", w.asked)
		}

		pass(30 * time.Second)
		w.tag(nginx, two)
		s.Moved(ref(t, nginx))
		pass(time.Millisecond)
		want = append(want, at(nginx, two))
		same(t, "a move that was seen", want, w.images())
		pass(5 * time.Second)
		w.tag(redis, three)
		s.Moved(oci.Ref{Repo: ref(t, redis).Repo})
		pass(time.Millisecond)
		want = append(want, at(redis, three))
		same(t, "a move of a repository", want, w.images())
		s.Moved(ref(t, "docker.io/library/other:1"))
		pass(10 * time.Minute)
		same(t, "moves of others", want, w.images())

		w.tag(nginx, three)
		pass(time.Minute)
		want = append(want, at(nginx, three))
		same(t, "a move that was not seen", want, w.images())
		pass(2 * time.Minute)
		stop()
		_, stop = w.start(t, x)
		pass(time.Hour)
		same(t, "after a restart", want, w.images())
		stop()
		w.tag(redis, one)
		_, stop = w.start(t, x)
		defer stop()
		same(t, "a move while it was down", append(want, at(redis, one)), w.images())
		same(t, "results", map[schedule.Result]int{schedule.Started: 5}, w.seen())
	})
}

// TestOnMoveFails: an image that could not be brought is tried again after growing pauses, and so is a tag that can't be checked.
func TestOnMoveFails(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.tag(nginx, one)
		w.tag(redis, two)
		w.Fails = map[string]bool{at(nginx, one): true}
		_, stop := w.start(t, onMove(t, "main", nginx, redis))
		defer stop()
		pass(5 * time.Hour)
		tries := w.images()
		if len(tries) < 7 || len(tries) > 11 { // 1, 2, 4 ... 60 minutes
			t.Errorf("%d jobs in five hours", len(tries))
		}
		for _, images := range tries[1:] {
			same(t, "what is tried again", at(nginx, one), images)
		}
		w.Set(func() { w.Fails, w.down, w.asked = nil, errors.New("connection refused"), 0 })
		pass(10 * time.Hour)
		if w.asked > 40 {
			t.Errorf("a registry that is down was asked %d times in ten hours", w.asked)
		}
		if n := strings.Count(w.log.Take(), "cannot check tags"); n != 1 && n != 2 {
			t.Errorf("the log says it %d times", n)
		}
		w.Set(func() { w.down = nil })
		n := len(w.images())
		pass(2 * time.Hour)
		same(t, "after that", n+1, len(w.images()))
		// The next time it is down is a new one.
		w.Set(func() { w.down, w.asked = errors.New("connection refused"), 0 })
		pass(4 * time.Minute)
		if w.asked != 6 || strings.Count(w.log.String(), "cannot check tags") != 1 { // both tags, after 1, 2 and 4 minutes
			t.Errorf("asked %d times, and the log says\n%s", w.asked, &w.log)
		}
	})
}

// TestOnMoveLongJob: moves during a job are one job after it.
func TestOnMoveLongJob(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.Takes = 30 * time.Minute
		w.tag(nginx, one)
		s, stop := w.start(t, onMove(t, "main", nginx))
		pass(time.Minute)
		for _, d := range []oci.Digest{two, three} {
			w.tag(nginx, d)
			s.Moved(ref(t, nginx))
			pass(time.Minute)
		}
		same(t, "jobs", 1, len(w.images()))
		stop() // the job of before goes on after a restart
		_, stop = w.start(t, onMove(t, "main", nginx))
		defer stop()
		pass(20 * time.Minute)
		same(t, "jobs", 1, len(w.images()))
		pass(10 * time.Minute)
		same(t, "jobs", []string{at(nginx, one), at(nginx, three)}, w.images())
	})
}

// TestMovedNeverBlocks: there is a flood of moves, and no Run.
func TestMovedNeverBlocks(t *testing.T) {
	t.Parallel()
	s := schedule.New(schedule.Options{})
	for range 10_000 {
		s.Moved(oci.Ref{})
	}
}

// TestOnMoveClockBack: a clock that is set back during a pause does not make it longer.
func TestOnMoveClockBack(t *testing.T) {
	t.Parallel()
	in(t, func(t *testing.T, w *world) {
		w.tag(nginx, one)
		w.Fails = map[string]bool{at(nginx, one): true}
		_, stop := w.start(t, onMove(t, "main", nginx))
		defer stop()
		pass(8 * time.Minute) // the pause ends after ten
		n := len(w.images())
		w.Set(func() { w.Fails, w.jump = nil, -24*time.Hour })
		pass(time.Hour)
		same(t, "jobs", n+1, len(w.images()))
	})
}
