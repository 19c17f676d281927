package auth_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/internal/testlog"
)

// cloud gives numbered credentials.
type cloud struct {
	life time.Duration // 0: they don't say
	hold time.Duration
	took time.Duration

	mu    sync.Mutex
	asked []time.Time
	err   error
	same  bool // always the first one
	most  int  // fetches at once
	now   int
}

func (c *cloud) fetch(ctx context.Context) (auth.Grant, error) {
	c.mu.Lock()
	c.asked = append(c.asked, time.Now())
	n, err, took := len(c.asked), c.err, c.took
	if c.same {
		n = 1
	}
	c.now++
	c.most = max(c.most, c.now)
	c.mu.Unlock()
	defer func() { c.mu.Lock(); c.now--; c.mu.Unlock() }()
	select {
	case <-time.After(took):
	case <-ctx.Done():
		return auth.Grant{}, context.Cause(ctx)
	}
	if err != nil {
		return auth.Grant{}, err
	}
	g := auth.Grant{Credential: auth.Credential{Username: "bot", Password: auth.NewSecret(fmt.Sprint(n))}, Hold: c.hold}
	if c.life > 0 {
		g.Expires = time.Now().Add(c.life)
	}
	return g, nil
}

func (c *cloud) fail(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.err = err
}

func (c *cloud) at() []time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.asked)
}

func (c *cloud) times() int { return len(c.at()) }

func (c *cloud) source(log *testlog.Log) *auth.Refreshed {
	o := auth.Refresh{Name: "aws", Kind: "ecr", For: "ecr.example", Fetch: c.fetch}
	if log != nil {
		o.Log = slog.New(slog.NewTextHandler(log, nil))
	}
	return auth.NewRefreshed(o)
}

// background runs a source until the returned function is called.
func background(t *testing.T, r *auth.Refreshed) func() {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	return func() {
		t.Helper()
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}
}

func TestRefreshAheadOfTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{life: 12 * time.Hour}
		r := c.source(nil)
		if st := r.Status(); st.State != auth.StateUnknown || st.Kind != "ecr" || st.For != "ecr.example" {
			t.Errorf("before anything: %+v", st)
		}
		stop := background(t, r)
		begun := time.Now()
		for range 48 * 60 { // two days
			time.Sleep(time.Minute)
			cred, err := r.Credential(t.Context())
			if err != nil || time.Until(cred.Expires) < 5*time.Hour {
				t.Fatalf("after %s: %v, expires in %s", time.Since(begun), err, time.Until(cred.Expires))
			}
		}
		stop()
		asked := c.at()
		for i, at := range asked[1:] {
			if gap := at.Sub(asked[i]); gap < 6*time.Hour*9/10 || gap > 6*time.Hour {
				t.Errorf("fetch %d came %s after the one before, want within a tenth before 6h", i+1, gap)
			}
		}
		if n := c.times(); n < 9 || n > 10 {
			t.Errorf("%d fetches in two days", n)
		}
		if st := r.Status(); st.State != auth.StateOK || st.LastError != "" || !st.LastRefresh.Equal(asked[len(asked)-1]) {
			t.Errorf("status %+v", st)
		}
	})
}

// Mirrors that started together must not come back together.
func TestRefreshIsJittered(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		seen := map[time.Duration]bool{}
		for range 8 {
			c := &cloud{life: time.Hour}
			stop := background(t, c.source(nil))
			time.Sleep(45 * time.Minute)
			stop()
			seen[c.at()[1].Sub(c.at()[0])] = true
		}
		if len(seen) < 7 {
			t.Errorf("8 sources have %d different times", len(seen))
		}
	})
}

func TestOneFetchForMany(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{life: time.Hour, took: 3 * time.Second}
		r := c.source(nil)
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if cred, err := r.Credential(t.Context()); err != nil || cred.Password.Reveal() != "1" || cred.Name != "aws" {
					t.Errorf("%s %s, %v", cred.Name, cred.Password.Reveal(), err)
				}
			})
		}
		wg.Wait()
		if n := c.times(); n != 1 {
			t.Errorf("%d fetches for 100 callers", n)
		}
		// The old one is given out at once while a new one comes.
		time.Sleep(31 * time.Minute)
		begun := time.Now()
		if cred, err := r.Credential(t.Context()); err != nil || cred.Password.Reveal() != "1" || time.Since(begun) > 0 {
			t.Errorf("%s, %v after %s", cred.Password.Reveal(), err, time.Since(begun))
		}
		synctest.Wait()
		time.Sleep(4 * time.Second)
		if cred, err := r.Credential(t.Context()); err != nil || cred.Password.Reveal() != "2" {
			t.Errorf("%s, %v", cred.Password.Reveal(), err)
		}
		if c.most != 1 {
			t.Errorf("%d fetches at once", c.most)
		}
	})
}

// A caller that leaves does not end the fetch that others wait for.
func TestWhoLeavesLeavesAlone(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{life: time.Hour, took: 3 * time.Second}
		r := c.source(nil)
		ctx, leave := context.WithCancelCause(t.Context())
		gone := errors.New("client is gone")
		first := make(chan error)
		go func() {
			_, err := r.Credential(ctx)
			first <- err
		}()
		synctest.Wait()
		second := make(chan error)
		go func() {
			_, err := r.Credential(t.Context())
			second <- err
		}()
		time.Sleep(time.Second)
		leave(gone)
		if err := <-first; !errors.Is(err, gone) {
			t.Errorf("the caller that left: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("the caller that stayed: %v", err)
		}
	})
}

func TestOldOneStaysUntilItExpires(t *testing.T) {
	t.Parallel()
	var log testlog.Log
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{life: 12 * time.Hour}
		r := c.source(&log)
		stop := background(t, r)
		time.Sleep(time.Minute)
		begun := c.at()[0]
		c.fail(errors.New("sts is down"))
		var states []string
		lines := func() int { return strings.Count(log.String(), "\n") }
		for time.Since(begun) < 13*time.Hour {
			cred, err := r.Credential(t.Context())
			st := r.Status()
			if s := string(st.State); len(states) == 0 || states[len(states)-1] != s {
				states = append(states, s)
			}
			if left := 12*time.Hour - time.Since(begun); (err == nil) != (left > 0) {
				t.Fatalf("%s before its end: %q, %v", left, cred.Password.Reveal(), err)
			}
			if err != nil && !strings.Contains(err.Error(), "credential aws expired at") {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Second)
		}
		if got := strings.Join(states, " "); got != "ok expiring expired" {
			t.Errorf("states %s", got)
		}
		// A warning when the first attempt failed, an error before it expires, one when it has; not one per attempt.
		if n := lines(); n != 3 || !strings.Contains(log.String(), "credential expires soon") {
			t.Errorf("log:\n%s", &log)
		}
		if n := c.times(); n > 600 {
			t.Errorf("%d attempts in 7 h", n)
		}
		c.fail(nil)
		time.Sleep(3 * time.Minute)
		if cred, err := r.Credential(t.Context()); err != nil || r.Status().State != auth.StateOK {
			t.Errorf("after it came back: %q, %v, %+v", cred.Password.Reveal(), err, r.Status())
		}
		if !strings.Contains(log.String(), "credential is renewed again") {
			t.Errorf("log:\n%s", &log)
		}
		stop()
	})
}

// The line before it expires comes with time left to act, also where the pauses between attempts are long.
func TestWarningBeforeItHurts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Log
		c := &cloud{life: time.Hour}
		r := c.source(&log)
		stop := background(t, r)
		time.Sleep(time.Minute)
		c.fail(errors.New("down"))
		at := func(d time.Duration) { time.Sleep(time.Until(c.at()[0].Add(d))) }
		at(45*time.Minute - time.Second)
		if strings.Contains(log.String(), "level=ERROR") {
			t.Errorf("an error too early:\n%s", &log)
		}
		at(45*time.Minute + time.Second)
		if !strings.Contains(log.String(), "expires soon") {
			t.Errorf("no error 15 min before the end:\n%s", &log)
		}
		at(time.Hour + time.Second)
		if !strings.Contains(log.String(), "has expired and can't be renewed") {
			t.Errorf("no error at the end:\n%s", &log)
		}
		stop()
	})
}

// A cloud that hangs delays the first caller; others get the error at once, or the old credential.
func TestSourceThatHangs(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{took: time.Hour}
		r := auth.NewRefreshed(auth.Refresh{Name: "aws", Fetch: c.fetch, Timeout: 10 * time.Second})
		took := func() (time.Duration, error) {
			begun := time.Now()
			_, err := r.Credential(t.Context())
			return time.Since(begun), err
		}
		if d, err := took(); d != 10*time.Second || err == nil || !strings.Contains(err.Error(), "no answer within 10s") {
			t.Errorf("the first waited %s: %v", d, err)
		}
		if d, err := took(); d != 0 || err == nil {
			t.Errorf("the second waited %s: %v", d, err)
		}
		time.Sleep(2 * time.Second)
		if d, err := took(); d != 2*time.Second || err == nil {
			t.Errorf("a caller that came when another attempt was due waited %s: %v", d, err)
		}
		time.Sleep(10 * time.Second)
	})
}

type throttled time.Duration

func (throttled) Error() string               { return "throttled" }
func (e throttled) RetryAfter() time.Duration { return time.Duration(e) }

func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{err: fmt.Errorf("ask: %w", throttled(90*time.Second))}
		stop := background(t, c.source(nil))
		time.Sleep(5 * time.Minute)
		stop()
		asked := c.at()
		for i, at := range asked[1:] {
			if gap := at.Sub(asked[i]); gap < 90*time.Second {
				t.Errorf("asked again after %s", gap)
			}
		}
		if c.times() < 3 {
			t.Errorf("%d attempts in 5 min", c.times())
		}
	})
}

func TestRenewAfterARefusal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{life: time.Hour, took: time.Second}
		r := c.source(nil)
		first, err := r.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if cred, err := r.Renew(t.Context(), first); err != nil || cred.Password.Reveal() != "2" {
					t.Errorf("%q, %v", cred.Password.Reveal(), err)
				}
			})
		}
		wg.Wait()
		if n := c.times(); n != 2 {
			t.Errorf("%d fetches, want one more for 50 refusals", n)
		}
		// A slow pull comes with the old one.
		if cred, err := r.Renew(t.Context(), first); err != nil || cred.Password.Reveal() != "2" || c.times() != 2 {
			t.Errorf("%q, %v, %d fetches", cred.Password.Reveal(), err, c.times())
		}
	})
}

// A password that is wrong is asked for once, and not again with every pull.
func TestRenewThatBringsTheSame(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{same: true}
		r := c.source(nil)
		cred, err := r.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 60 { // a minute of pulls
			time.Sleep(time.Second)
			again, err := r.Renew(t.Context(), cred)
			if err != nil || again != cred {
				t.Fatalf("%v, %v", again, err)
			}
		}
		if n := c.times(); n > 4 {
			t.Errorf("%d fetches in a minute", n)
		}
	})
}

// At most one fetch a second, for any number of callers: refusals must not hammer a service that counts requests.
func TestOnceASecond(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{life: 2 * time.Second}
		r := c.source(nil)
		begun := time.Now()
		for time.Since(begun) < 20*time.Second {
			cred, err := r.Credential(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := r.Renew(t.Context(), cred); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
		}
		asked := c.at()
		for i, at := range asked[1:] {
			if gap := at.Sub(asked[i]); gap < time.Second {
				t.Errorf("fetched again after %s", gap)
			}
		}
	})
}

// A source that fails may repeat the secret that it gave before, as a script that prints its commands.
func TestSourceThatRepeatsItsSecret(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const secret = "canary/+7d21="
		login := base64.StdEncoding.EncodeToString([]byte("bot:" + secret))
		var log testlog.Log
		good := true
		cause := fmt.Errorf("ran with %s, %s and %s", secret, url.QueryEscape(secret), login)
		r := auth.NewRefreshed(auth.Refresh{
			Name: "pass", Lifetime: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil)),
			Fetch: func(context.Context) (auth.Grant, error) {
				if !good {
					return auth.Grant{}, cause
				}
				good = false
				return auth.Grant{Credential: auth.Credential{Username: "bot", Password: auth.NewSecret(secret)}}, nil
			},
		})
		stop := background(t, r)
		time.Sleep(31 * time.Minute)
		st := r.Status()
		if st.LastError != "ran with ***, *** and ***" {
			t.Errorf("last error: %q", st.LastError)
		}
		text := log.String()
		if !strings.Contains(text, "ran with ***") || strings.Contains(text, "canary") || strings.Contains(text, login) {
			t.Errorf("log: %s", text)
		}
		stop()
	})
}

// A helper's login is fetched again at half of the configured life, and stays in use where the helper fails.
func TestLifetimeWithoutAnEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Log
		c := new(cloud)
		r := auth.NewRefreshed(auth.Refresh{
			Name: "pass", Fetch: c.fetch, Lifetime: time.Hour, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		stop := background(t, r)
		time.Sleep(31 * time.Minute)
		if n := c.times(); n != 2 {
			t.Errorf("%d fetches in 31 min, want 2", n)
		}
		c.fail(errors.New("vault is sealed"))
		time.Sleep(24 * time.Hour)
		begun := time.Now()
		cred, err := r.Credential(t.Context())
		if err != nil || cred.Password.Reveal() != "2" || time.Since(begun) > 0 {
			t.Errorf("%q, %v after %s", cred.Password.Reveal(), err, time.Since(begun))
		}
		if st := r.Status(); st.State != auth.StateFailing || st.LastError != "vault is sealed" {
			t.Errorf("status %+v", st)
		}
		if n := strings.Count(log.String(), "\n"); n != 1 {
			t.Errorf("log:\n%s", &log)
		}
		stop()
	})
}

// Without Run, a credential that was not used for longer than it counts as fresh is fetched before it is used.
func TestStaleOneIsFetchedFirst(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{hold: time.Minute}
		r := c.source(nil)
		for i, pause := range []time.Duration{0, 50 * time.Second, 3 * time.Minute} {
			time.Sleep(pause)
			want := []string{"1", "1", "2"}[i]
			if cred, err := r.Credential(t.Context()); err != nil || cred.Password.Reveal() != want {
				t.Errorf("after %s: %q, %v, want %s", pause, cred.Password.Reveal(), err, want)
			}
		}
		c.fail(errors.New("down"))
		time.Sleep(time.Hour)
		if cred, err := r.Credential(t.Context()); err != nil || cred.Password.Reveal() != "2" {
			t.Errorf("where it can't be fetched: %q, %v, want the old one", cred.Password.Reveal(), err)
		}
	})
}

func TestWhatComesExpired(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := auth.NewRefreshed(auth.Refresh{Name: "x", Fetch: func(context.Context) (auth.Grant, error) {
			return auth.Grant{Credential: auth.Credential{Username: "u", Expires: time.Now().Add(-time.Minute)}}, nil
		}})
		if _, err := r.Credential(t.Context()); err == nil || !strings.Contains(err.Error(), "is the clock right?") {
			t.Errorf("error %v", err)
		}
	})
}

func TestRunEndsAFetchWithoutWaiters(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log testlog.Log
		c := &cloud{took: time.Hour}
		r := c.source(&log)
		stop := background(t, r)
		time.Sleep(time.Second)
		begun := time.Now()
		stop()
		if d := time.Since(begun); d > 0 {
			t.Errorf("the end took %s", d)
		}
		if log.String() != "" {
			t.Errorf("log:\n%s", &log)
		}
		// A pull that still runs may fetch.
		c.mu.Lock()
		c.took = 0
		c.mu.Unlock()
		time.Sleep(time.Second)
		if _, err := r.Credential(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestEveryFetchIsObserved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := &cloud{took: time.Second}
		var seen []string
		r := auth.NewRefreshed(auth.Refresh{
			Name: "aws", Kind: "ecr", Fetch: c.fetch, Observe: func(name string, err error) { seen = append(seen, fmt.Sprint(name, " ", err)) },
		})
		_, err := r.Credential(t.Context())
		synctest.Wait()
		if err != nil || !slices.Equal(seen, []string{"aws <nil>"}) {
			t.Errorf("%v, %q", err, seen)
		}
	})
}

func TestRefreshedNeverShowsItsSecret(t *testing.T) {
	t.Parallel()
	r := auth.NewRefreshed(auth.Refresh{Name: "x", Fetch: func(context.Context) (auth.Grant, error) {
		return auth.Grant{Credential: auth.Credential{Username: "u", Password: auth.NewSecret(canary)}}, nil
	}})
	if _, err := r.Credential(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		check(t, verb, fmt.Sprintf(verb, r.Status()))
	}
}

// A type that is only a Source has the plain result.
func TestPlainSources(t *testing.T) {
	t.Parallel()
	s := auth.Credential{Name: "hub", Username: "bot", Password: auth.NewSecret("x")}
	if c, err := auth.Renew(t.Context(), s, s); err != nil || c != s {
		t.Errorf("Renew: %v, %v", c, err)
	}
	if auth.For(s, "acme/app") != auth.Source(s) {
		t.Error("For is another source")
	}
	if err := auth.Run(t.Context(), s); err != nil {
		t.Errorf("Run: %v", err)
	}
}
