package upstream_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/upstream/fault"
	"github.com/registrymirror/mirror/upstream/limit"
)

// metered is a registry that limits how many manifests each login may get, and does not count HEADs, as Docker Hub.
type metered struct {
	limit  map[string]int    // by user, "" for anonymous requests; a user without an entry is not limited
	window string            // as in ";w=60"
	silent bool              // answers do not say what is left
	denied map[string]string // USER REPOSITORY: a word
	header http.Header       // of a 429

	mu    sync.Mutex
	used  map[string]int
	asked []string
}

func (m *metered) serve(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r.URL.Path == "/token" {
		login := "anonymous:"
		if text, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Basic "); ok {
			b, _ := base64.StdEncoding.DecodeString(text)
			login = string(b)
		}
		user, _, _ := strings.Cut(login, ":")
		_, _ = fmt.Fprintf(w, `{"token":%q,"expires_in":86400}`, user)
		return
	}
	user, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		w.Header().Set("WWW-Authenticate", `Bearer realm="/token",service="reg"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	repo, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/")
	m.asked = append(m.asked, r.Method+" "+repo+" as "+user)
	if m.denied[user+" "+repo] != "" {
		http.Error(w, `{"errors":[{"code":"DENIED","message":"no"}]}`, http.StatusForbidden)
		return
	}
	limit, limited := m.limit[user]
	if m.used == nil {
		m.used = map[string]int{}
	}
	if limited && r.Method == http.MethodGet {
		if m.used[user] >= limit {
			maps.Copy(w.Header(), m.header)
			http.Error(w, `{"errors":[{"code":"TOOMANYREQUESTS","message":"you have reached your limit"}]}`,
				http.StatusTooManyRequests)
			return
		}
		m.used[user]++
	}
	if limited && !m.silent {
		w.Header().Set("RateLimit-Limit", fmt.Sprint(limit)+m.window)
		w.Header().Set("RateLimit-Remaining", fmt.Sprint(limit-m.used[user])+m.window)
	}
	w.Header().Set("Docker-Content-Digest", string(digestOf(manifest)))
	w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
	w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
	if r.Method == http.MethodGet {
		_, _ = w.Write(manifest)
	}
}

// again gives each user the whole limit.
func (m *metered) again() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.used = nil
}

// requests are those for manifests since the last call, each with how often in a row.
func (m *metered) requests() (list []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for i, line := range m.asked {
		if n++; i+1 == len(m.asked) || m.asked[i+1] != line {
			list, n = append(list, fmt.Sprintf("%d %s", n, line)), 0
		}
	}
	m.asked = nil
	return list
}

// want fails unless those were the requests.
func (m *metered) want(t *testing.T, when string, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, m.requests()); diff != "" {
		t.Errorf("%s, requests (-want +got):\n%s", when, diff)
	}
}

// pool is a source of several logins, each USER or USER=GLOB.
func pool(members ...string) auth.Pool {
	var p auth.Pool
	for _, text := range members {
		user, glob, narrow := strings.Cut(text, "=")
		m := auth.Member{Source: auth.Credential{Name: user, Username: user, Password: auth.NewSecret("pw-" + user)}}
		if narrow {
			m.Repositories = []string{glob}
		}
		p = append(p, m)
	}
	return p
}

// gets asks for a manifest n times and returns how often it came, and the last error.
func gets(ctx context.Context, r *upstream.Registry, repo string, n int) (came int, last error) {
	for range n {
		if _, err := r.Manifest(ctx, repo, string(digestOf(manifest))); err != nil {
			last = err
		} else {
			came++
		}
	}
	return came, last
}

// meter runs a test with a registry that counts, in a bubble.
func meter(t *testing.T, m *metered, s auth.Source, f func(t *testing.T, r *upstream.Registry),
	change ...func(*upstream.Options),
) {
	t.Helper()
	bubble(t, m.serve, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		f(t, r)
		synctest.Wait()
	}, append(change, as(s))...)
}

// TestNothingLeftIsNotAskedFor has a registry say what is left. Once nothing is, no counted request is made until the window is
// over.
func TestNothingLeftIsNotAskedFor(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	m := &metered{limit: map[string]int{"anonymous": 20}, window: ";w=240"}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		if came, err := gets(t.Context(), r, "app", 20); came != 20 {
			t.Fatal(err)
		}
		m.want(t, "within the limit", "20 GET app as anonymous")
		said := time.Now()
		time.Sleep(time.Minute)
		came, err := gets(t.Context(), r, "app", 50)
		if came != 0 {
			t.Errorf("%d came", came)
		}
		e := upstreamError(t, err)
		want := limit.Budget{Limit: 20, Window: 4 * time.Minute, At: said, Spent: limit.Spent{
			Since: said, Requests: 20, By: []limit.Use{{Repository: "app", Requests: 20}}, Elsewhere: -1,
		}}
		if e.Status != 429 || e.RetryAfter != 3*time.Minute || e.Budget == nil || !cmp.Equal(*e.Budget, want) ||
			!strings.Contains(e.Error(), "the request was not made") {
			t.Errorf("%v, after %s, of %+v", e, e.RetryAfter, e.Budget)
		}
		if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
			t.Errorf("HEAD, which is not counted: %v", err)
		}
		m.want(t, "when nothing is left", "1 HEAD app as anonymous")
		time.Sleep(4 * time.Minute)
		m.again()
		if came, err := gets(t.Context(), r, "app", 1); came != 1 {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "level=WARN"); n != 2 || !strings.Contains(log.String(), "rate limit nearly exhausted") ||
			!strings.Contains(log.String(), "rate limit exhausted; serving cached content until it resets") {
			t.Errorf("log:\n%s", log.String())
		}
	}, func(o *upstream.Options) { o.Log = textLog(&log) })
}

// TestSpentByRepository has a limit spent by several repositories, and by others with the same account or address.
func TestSpentByRepository(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 5000, "bot": 200}, window: ";w=2400"}
	spent := func(r *upstream.Registry, credential string) limit.Spent {
		list := r.State()[0].Budgets
		i := slices.IndexFunc(list, func(b limit.Budget) bool { return b.Credential == credential })
		return list[i].Spent
	}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		spend := func(r *upstream.Registry, repo string, n int) {
			t.Helper()
			if came, err := gets(t.Context(), r, repo, n); came != n {
				t.Fatal(err)
			}
		}
		check := func(when string, got limit.Spent, want limit.Spent) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", when, diff)
			}
		}
		start := time.Now()
		spend(r, "old", 2)
		_, _ = r.Resolve(t.Context(), "app", "1") // is not counted
		time.Sleep(30 * time.Minute)
		spend(r, "app", 3)
		spend(r, "base", 3)
		spend(r.As(auth.Credential{Name: "bot", Username: "bot", Password: auth.NewSecret("x")}), "team", 4)
		m.used["anonymous"] += 60
		spend(r, "base", 1)
		check("before the mirror has seen a whole window", spent(r, ""), limit.Spent{
			Since: start, Requests: 9, By: []limit.Use{{Repository: "base", Requests: 4}, {Repository: "app", Requests: 3}, {Repository: "old", Requests: 2}}, Elsewhere: -1,
		})
		time.Sleep(20 * time.Minute)
		m.used["anonymous"] -= 2 // those are given back
		spend(r, "new", 1)
		check("when the first has left the window", spent(r, ""), limit.Spent{
			Since:    time.Now().Add(-40 * time.Minute),
			Requests: 8, By: []limit.Use{{Repository: "base", Requests: 4}, {Repository: "app", Requests: 3}, {Repository: "new", Requests: 1}}, Elsewhere: 60,
		})
		check("another credential, which said something before that", spent(r, "bot"), limit.Spent{
			Since: start, Requests: 4, By: []limit.Use{{Repository: "team", Requests: 4}}, Elsewhere: -1,
		})
		for i := range 300 {
			spend(r, fmt.Sprintf("many/%d", i), 1)
		}
		if s := spent(r, ""); s.Requests != 308 || len(s.By) != 10 || s.By[0] != (limit.Use{Repository: "base", Requests: 4}) || s.Elsewhere != 60 {
			t.Errorf("of many repositories: %+v", s)
		}
		said, then := time.Now(), spent(r, "")
		time.Sleep(time.Hour)
		check("long after, of what was said then", spent(r, ""), then)
		if want := said.Add(-40 * time.Minute); !then.Since.Equal(want) {
			t.Errorf("since %s, want %s", then.Since, want)
		}
	})
}

// TestMoreIsNoticedBeforeTheWindowIsOver has a window slide: one of the waiting requests checks by HEAD, now and then, whether
// there is more.
func TestMoreIsNoticedBeforeTheWindowIsOver(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 3}, window: ";w=21600"}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		_, _ = gets(t.Context(), r, "app", 3)
		m.requests()
		for range 20 { // minutes
			time.Sleep(time.Minute)
			_, _ = gets(t.Context(), r, "app", 10)
		}
		m.want(t, "for twenty minutes", "4 HEAD app as anonymous")
		m.silent = true
		for range 20 {
			time.Sleep(time.Minute)
			_, _ = gets(t.Context(), r, "app", 10)
		}
		m.want(t, "of a registry that says no more", "4 HEAD app as anonymous")
		m.again()
		m.silent = false
		time.Sleep(5 * time.Minute)
		if came, err := gets(t.Context(), r, "app", 2); came != 2 {
			t.Error(err)
		}
		m.want(t, "when there is more", "1 HEAD app as anonymous", "2 GET app as anonymous")
	})
}

// TestRefusedIsNotAskedAgain has a 429 obeyed for as long as it says; else for a moment, and longer each time. It concerns the
// kind of request that was refused, and no other.
func TestRefusedIsNotAskedAgain(t *testing.T) {
	t.Parallel()
	t.Run("said", func(t *testing.T) {
		t.Parallel()
		m := &metered{limit: map[string]int{"anonymous": 0}, silent: true, header: http.Header{"Retry-After": {"60"}}}
		meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
			for range 12 {
				_, err := gets(t.Context(), r, "app", 5)
				if e := upstreamError(t, err); e.Status != 429 || e.Code != "TOOMANYREQUESTS" || e.RetryAfter > time.Minute {
					t.Errorf("%+v", e)
				}
				time.Sleep(10 * time.Second)
			}
			if _, err := r.Resolve(t.Context(), "app", "1"); err != nil {
				t.Errorf("HEAD: %v", err)
			}
			m.want(t, "in two minutes", "2 GET app as anonymous", "1 HEAD app as anonymous")
		})
	})
	t.Run("not said", func(t *testing.T) {
		t.Parallel()
		m := &metered{limit: map[string]int{"anonymous": 0}, silent: true}
		meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
			for range 300 {
				_, err := gets(t.Context(), r, "app", 2)
				if e := upstreamError(t, err); e.Status != 429 || e.Code != "TOOMANYREQUESTS" {
					t.Errorf("%+v", e)
				}
				time.Sleep(time.Second)
			}
			// After 1, 2, 4, 8, 16, 32 s, then each minute.
			m.want(t, "in five minutes", "11 GET app as anonymous")
			m.limit = nil
			time.Sleep(time.Minute)
			if came, err := gets(t.Context(), r, "app", 2); came != 2 {
				t.Error(err)
			}
		})
	})
}

// TestShortPauseIsWaitedFor has a registry with a limit a second: all requests pause for a moment, and none of those that come
// in it fails.
func TestShortPauseIsWaitedFor(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 10}, silent: true}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		_, _ = gets(t.Context(), r, "app", 10)
		if _, err := gets(t.Context(), r, "app", 1); upstreamError(t, err).Status != 429 {
			t.Error(err)
		}
		m.again()
		var came atomic.Int32
		var herd sync.WaitGroup
		begin := time.Now()
		for range 10 {
			herd.Go(func() {
				n, _ := gets(t.Context(), r, "app", 1)
				came.Add(int32(n))
			})
		}
		herd.Wait()
		if took := time.Since(begin); came.Load() != 10 || took != time.Second {
			t.Errorf("%d came after %s", came.Load(), took)
		}
		m.want(t, "all", "21 GET app as anonymous")
	})
}

// TestPoolSpendsWhatIsMost has several credentials for a repository: the one with most left is used, the anonymous limit last,
// and the error names the credential that had nothing left.
func TestPoolSpendsWhatIsMost(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"a": 10, "b": 20, "anonymous": 4}, window: ";w=240"}
	meter(t, m, pool("a", "b"), func(t *testing.T, r *upstream.Registry) {
		if came, err := gets(t.Context(), r, "app", 12); came != 12 {
			t.Error(err)
		}
		m.want(t, "at first", "1 GET app as a", "11 GET app as b")
		came, err := gets(t.Context(), r, "app", 50)
		if came != 22 {
			t.Errorf("%d came, want 22", came)
		}
		m.mu.Lock()
		if diff := cmp.Diff(map[string]int{"a": 10, "b": 20, "anonymous": 4}, m.used); diff != "" {
			t.Errorf("spent (-want +got):\n%s", diff)
		}
		refused := len(m.asked) - 22
		m.mu.Unlock()
		if refused != 0 {
			t.Errorf("%d requests were refused, though the registry had said what was left", refused)
		}
		e := upstreamError(t, err)
		if e.Credential.Name == "" || e.Budget == nil || e.Budget.Credential != e.Credential.Name || e.Budget.Remaining != 0 {
			t.Errorf("%+v of %+v", e.Budget, e.Credential)
		}
	})
}

// TestHerdStaysWithinTheLimit has more requests at once than are left: those under way are counted, so none is refused by the
// registry.
func TestHerdStaysWithinTheLimit(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 21}, window: ";w=240"}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		_, _ = gets(t.Context(), r, "app", 1)
		var came atomic.Int32
		var herd sync.WaitGroup
		for range 50 {
			herd.Go(func() {
				n, _ := gets(t.Context(), r, "app", 1)
				came.Add(int32(n))
			})
		}
		herd.Wait()
		// An answer that is overtaken on its way is taken off twice until it is there: the last ones left are for later requests.
		rest, _ := gets(t.Context(), r, "app", 50)
		if n := int(came.Load()); n < 10 || n+rest != 20 {
			t.Errorf("%d and then %d came, want 20", n, rest)
		}
		m.want(t, "all", "21 GET app as anonymous")
	})
}

// TestPoolPrefersWhatFits has a credential whose glob names more of a repository go before one with more left.
func TestPoolPrefersWhatFits(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"all": 100, "team": 3, "anonymous": 100}, window: ";w=240"}
	meter(t, m, pool("all", "team=team/*"), func(t *testing.T, r *upstream.Registry) {
		if came, err := gets(t.Context(), r, "team/app", 5); came != 5 {
			t.Error(err)
		}
		m.want(t, "pulls of the team's", "3 GET team/app as team", "2 GET team/app as all")
		if came, err := gets(t.Context(), r, "app", 2); came != 2 {
			t.Error(err)
		}
		m.want(t, "others", "2 GET app as all")
	})
}

// TestPoolMovesOnOnce has a repository refuse a credential: the next one follows, once, and that is remembered.
func TestPoolMovesOnOnce(t *testing.T) {
	t.Parallel()
	m := &metered{denied: map[string]string{"a app": "no", "a x": "no", "b x": "no", "c x": "no"}}
	meter(t, m, pool("a", "b", "c"), func(t *testing.T, r *upstream.Registry) {
		if came, err := gets(t.Context(), r, "app", 3); came != 3 {
			t.Error(err)
		}
		m.want(t, "refused to one", "1 GET app as a", "3 GET app as b")
		if came, err := gets(t.Context(), r, "other", 2); came != 2 {
			t.Error(err)
		}
		m.want(t, "another repository", "2 GET other as a")
		if came, err := gets(t.Context(), r, "x", 1); came != 1 {
			t.Error(err)
		}
		m.want(t, "refused to all of ours", "1 GET x as a", "1 GET x as b", "1 GET x as anonymous")
		time.Sleep(11 * time.Minute)
		if came, err := gets(t.Context(), r, "app", 1); came != 1 {
			t.Error(err)
		}
		m.want(t, "when it is forgotten", "1 GET app as a", "1 GET app as b")
	})
}

// TestPoolGoesOnAfterASourceThatFails has a source without a credential followed by the next; the error is that of the first
// where none has one.
func TestPoolGoesOnAfterASourceThatFails(t *testing.T) {
	t.Parallel()
	missing := func(name string) auth.Member {
		return auth.Member{Source: &auth.File{Name: name, Username: name, Path: "/nowhere/" + name}}
	}
	m := &metered{}
	meter(t, m, append(auth.Pool{missing("x")}, pool("a")...), func(t *testing.T, r *upstream.Registry) {
		if came, err := gets(t.Context(), r, "app", 2); came != 2 {
			t.Error(err)
		}
		m.want(t, "a source that fails", "2 GET app as a")
	})
	m = &metered{denied: map[string]string{"anonymous app": "no"}}
	meter(t, m, auth.Pool{missing("x"), missing("y")}, func(t *testing.T, r *upstream.Registry) {
		_, err := gets(t.Context(), r, "app", 1)
		if e := upstreamError(t, err); e.Credential.Name != "x" || !strings.Contains(e.Credential.LastError, "/nowhere/x") {
			t.Errorf("%+v", e.Credential)
		}
		m.want(t, "two that fail", "1 GET app as anonymous")
	})
}

// TestSpareLeavesTheReserve has requests that no client waits for leave a part of a limit to the others.
func TestSpareLeavesTheReserve(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 10}, window: ";w=240"}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		came, err := gets(upstream.Spare(t.Context()), r, "app", 20)
		if came != 7 {
			t.Errorf("%d came, want 7 of 10", came)
		}
		if e := upstreamError(t, err); e.Status != 429 || e.Budget.Remaining != 3 {
			t.Errorf("%v of %+v", e, e.Budget)
		}
		said := time.Now()
		want := &fault.ReserveError{Upstream: "up.example", Until: said.Add(4 * time.Minute)}
		if e, _ := errors.AsType[*fault.ReserveError](err); cmp.Diff(want, e) != "" || !errors.Is(err, fault.ErrNotAsked) {
			t.Errorf("%+v, want %+v", e, want)
		}
		if s := r.State()[0]; s.State != endpoint.StateUp || s.LastError != "" {
			t.Errorf("the reserve makes the endpoint %+v", s)
		}
		if most, left, at, known := r.Budget(); most != 10 || left != 0 || !at.Equal(want.Until) || !known {
			t.Errorf("a budget of %d of %d until %s, %t", left, most, at, known)
		}
		if came, err := gets(t.Context(), r, "app", 3); came != 3 {
			t.Error(err)
		}
		m.want(t, "all", "10 GET app as anonymous")
	}, func(o *upstream.Options) { o.Reserve = .3 })
}

// TestReserveOfSeveralCredentials has work that can wait use each credential down to its reserve, then anonymous requests. What a
// credential met before says nothing then: a client may do better.
func TestReserveOfSeveralCredentials(t *testing.T) {
	t.Parallel()
	reserve := func(o *upstream.Options) { o.Reserve = .5 }
	m := &metered{limit: map[string]int{"a": 4, "b": 4, "anonymous": 4}, window: ";w=240"}
	meter(t, m, pool("a", "b"), func(t *testing.T, r *upstream.Registry) {
		came, err := gets(upstream.Spare(t.Context()), r, "app", 10)
		e, _ := errors.AsType[*fault.ReserveError](err)
		if came != 6 || e == nil || e.Credential == "" {
			t.Errorf("%d came, then %+v", came, e)
		}
		if most, left, _, known := r.Budget(); most != 12 || left != 0 || !known {
			t.Errorf("a budget of %d of %d, %t", left, most, known)
		}
		time.Sleep(4 * time.Minute)
		if most, left, at, _ := r.Budget(); most != 12 || left != 6 || !at.IsZero() {
			t.Errorf("after the window a budget of %d of %d until %s", left, most, at)
		}
	}, reserve)
	m = &metered{limit: map[string]int{"anonymous": 4}, window: ";w=240", denied: map[string]string{"a app": "no"}}
	meter(t, m, pool("a"), func(t *testing.T, r *upstream.Registry) {
		came, err := gets(upstream.Spare(t.Context()), r, "app", 10)
		if !fault.Is[*fault.ReserveError](err) || came != 2 {
			t.Errorf("%d came, then %v", came, err)
		}
		if came, err := gets(t.Context(), r, "app", 2); came != 2 {
			t.Error(err)
		}
	}, reserve)
}

// TestReserveIsNotWaitedFor has the window end in a moment: a client that joined the request may have something left now.
func TestReserveIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 4}, window: ";w=1"}
	meter(t, m, auth.Anonymous, func(t *testing.T, r *upstream.Registry) {
		begin := time.Now()
		if came, err := gets(upstream.Spare(t.Context()), r, "app", 3); came != 2 || !fault.Is[*fault.ReserveError](err) {
			t.Errorf("%d came, then %v", came, err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("took %s", took)
		}
	}, func(o *upstream.Options) { o.Reserve = .5 })
}

// TestReserveWhereTagsAreCheckedByGet has a registry without HEAD count the checks of tags: they leave the reserve alone, too, and the
// credential is used for them where there is one.
func TestReserveWhereTagsAreCheckedByGet(t *testing.T) {
	t.Parallel()
	m := &metered{limit: map[string]int{"anonymous": 4, "a": 4}, window: ";w=240"}
	noHead := func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodHead {
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		m.serve(w, r)
	}
	bubble(t, noHead, func(t *testing.T, r *upstream.Registry, _ *pipes) {
		came := 0
		var err error
		for range 10 {
			if _, rerr := r.Resolve(upstream.Spare(t.Context()), "app", "v1"); rerr != nil {
				err = rerr
			} else {
				came++
			}
		}
		if came != 4 || !fault.Is[*fault.ReserveError](err) {
			t.Errorf("%d came, then %v", came, err)
		}
		if _, err := r.Resolve(t.Context(), "app", "v1"); err != nil {
			t.Errorf("a client: %v", err)
		}
	}, as(pool("a")), func(o *upstream.Options) { o.Reserve, o.Public = .5, true })
}
