package limit_test

import (
	"errors"
	"net/http"
	"strconv"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/upstream/limit"
)

var get = limit.Class{Method: http.MethodGet, Target: limit.TargetManifest}

// says is the answer of a registry with some of 100 requests left in a window of an hour.
func says(left int) http.Header {
	return http.Header{"Ratelimit-Limit": {"100;w=3600"}, "Ratelimit-Remaining": {strconv.Itoa(left)}}
}

// TestAdmit has requests under way taken off what is left, and the reserve left alone.
func TestAdmit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(nil)
		admitted := func(reserve float64) bool {
			_, ok, _ := l.Admit(get, reserve)
			return ok
		}
		if !admitted(0.5) {
			t.Error("a limit is obeyed that was never said")
		}
		_, _, done := l.Admit(get, 0)
		done()
		if b, crossed := l.Learn(says(9), "", "app", time.Now()); !crossed || b.Remaining != 9 {
			t.Errorf("%+v, %t, want that little is left", b, crossed)
		}
		if _, crossed := l.Learn(says(8), "", "app", time.Now()); crossed {
			t.Error("that little is left is said twice")
		}
		// One request is under way since the first line.
		if admitted(0.08) || !admitted(0.05) || !l.Exhausted(get, 0.06) || l.Exhausted(get, 0) {
			t.Error("7 of 100 are left: 8 % is more, 5 % is less")
		}
		for admitted(0) {
		}
		p, ok, _ := l.Admit(get, 0)
		if ok || time.Until(p.Until) != time.Hour || p.Cause != nil {
			t.Errorf("%+v, want a pause until the window is over", p)
		}
		head := get
		head.Method = http.MethodHead
		if _, ok, _ := l.Admit(head, 0); !ok {
			t.Error("a HEAD is not counted")
		}
		b, _ := l.Of("")
		want := limit.Spent{
			Since: b.At, Requests: 2, By: []limit.Use{{Repository: "app", Requests: 2}}, Elsewhere: -1,
		}
		if diff := cmp.Diff(want, b.Spent); diff != "" {
			t.Errorf("spent (-want +got):\n%s", diff)
		}
		time.Sleep(time.Hour)
		if l.Exhausted(get, 0) {
			t.Error("the window is over")
		}
	})
}

// TestRefused has a class pause after a 429, for as long as the registry says, else longer each time; other classes do not.
func TestRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(nil)
		cause := errors.New("429")
		var waits []time.Duration
		for range 8 {
			wait, stated := l.Refused(get, 0, cause)
			if stated {
				t.Error("no end was named")
			}
			waits = append(waits, wait/time.Second)
			time.Sleep(wait)
		}
		if diff := cmp.Diff([]time.Duration{1, 2, 4, 8, 16, 32, 60, 60}, waits); diff != "" {
			t.Errorf("seconds of pause (-want +got):\n%s", diff)
		}
		l.Accepted(get, time.Now())
		if wait, stated := l.Refused(get, 10*time.Minute, cause); wait != 10*time.Minute || !stated {
			t.Errorf("%s, %t", wait, stated)
		}
		if p, ok, _ := l.Admit(get, 0); ok || !errors.Is(p.Cause, cause) {
			t.Errorf("%+v, %t", p, ok)
		}
		other := get
		other.Credential = "bot"
		if _, ok, _ := l.Admit(other, 0); !ok {
			t.Error("another credential pauses, too")
		}
		l.Reset()
		if _, ok, _ := l.Admit(get, 0); !ok {
			t.Error("it pauses after a reset")
		}
	})
}

// TestRecheckDue has one caller in five minutes check an exhausted limit, and one request made in spite of a long pause.
func TestRecheckDue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(nil)
		l.Learn(says(0), "", "", time.Now())
		due := 0
		for range 60 {
			if l.RecheckDue(get) {
				due++
			}
			time.Sleep(30 * time.Second)
		}
		if due != 5 {
			t.Errorf("%d checks in 30 minutes, want 5", due)
		}
		l.Refused(get, 24*time.Hour, errors.New("429"))
		time.Sleep(limit.LongestTrust)
		if _, ok, _ := l.Admit(get, 0); !ok {
			t.Error("a refusal is believed for more than an hour")
		}
		if _, ok, _ := l.Admit(get, 0); ok {
			t.Error("a second request is made at once")
		}
	})
}
