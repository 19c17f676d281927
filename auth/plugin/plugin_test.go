package plugin_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/auth/plugin"
)

const (
	host   = "reg.example:5000"
	canary = "canary-7f3a9c2e"
)

func (p provider) source(change ...func(*plugin.Options)) *plugin.Plugin {
	o := plugin.Options{Command: command, Args: []string{"get-credentials"}, Env: p.env(), Host: host}
	for _, f := range change {
		f(&o)
	}
	return plugin.New(o, auth.Refresh{Name: "node"})
}

// user is the user name for a repository; empty: none.
func user(t *testing.T, s auth.Source, repository string) string {
	t.Helper()
	c, err := auth.For(s, repository).Credential(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.Username
}

// The rules are those of matchImages in the kubelet's documentation.
func TestWhichEntryIsUsed(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, host, repository string
		entries                []string // the user is the entry
		want                   string
	}{
		{"the host", "reg.example", "app", []string{"reg.example"}, "reg.example"},
		{"another host", "reg.example", "app", []string{"example"}, ""},
		{"a longer host", "reg.example", "app", []string{"a.reg.example"}, ""},
		{"host as a suffix", "evilreg.example", "app", []string{"reg.example"}, ""},
		{"one label", "a.reg.example", "app", []string{"*.reg.example"}, "*.reg.example"},
		{"* is one label", "a.b.reg.example", "app", []string{"*.reg.example"}, ""},
		{"two labels", "a.b.reg.example", "app", []string{"*.*.reg.example"}, "*.*.reg.example"},
		{"part of a label", "app-1.reg.example", "app", []string{"app-*.reg.example"}, "app-*.reg.example"},
		{"letters of a label", "us1.reg.example", "app", []string{"us[0-9].reg.example"}, "us[0-9].reg.example"},
		{"a glob that is none", "us1.reg.example", "app", []string{"us[.reg.example"}, ""},
		{"the port", "reg.example:5000", "app", []string{"reg.example:5000"}, "reg.example:5000"},
		{"no port", "reg.example:5000", "app", []string{"reg.example"}, ""},
		{"another port", "reg.example:5000", "app", []string{"reg.example:5001"}, ""},
		{"a port too many", "reg.example", "app", []string{"reg.example:443"}, ""},
		{"the path", "reg.example", "acme/app", []string{"reg.example/acme"}, "reg.example/acme"},
		{"the beginning of the path", "reg.example", "acme/app", []string{"reg.example/acme/a"}, "reg.example/acme/a"},
		{"another path", "reg.example", "acme/app", []string{"reg.example/other"}, ""},
		{"a scheme", "reg.example", "app", []string{"https://reg.example"}, "https://reg.example"},
		{"upper case", "reg.example", "app", []string{"REG.example"}, "REG.example"},
		{"the longest path", "reg.example", "acme/app", []string{"reg.example", "reg.example/acme", "*.example/acme"}, "reg.example/acme"},
		{"the fewest globs", "reg.example", "app", []string{"*.example", "reg.example", "*.*"}, "reg.example"},
		{"none", "reg.example", "app", nil, ""},
		{"garbage", "reg.example", "app", []string{"", "/", ":", "a b", "://"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var entries []string
			for _, e := range tt.entries {
				entries = append(entries, login(e, e))
			}
			p := newProvider(t, say{Out: answer("Image", "1h", strings.Join(entries, ","))})
			s := p.source(func(o *plugin.Options) { o.Host = tt.host })
			if got := user(t, s, tt.repository); got != tt.want {
				t.Errorf("used %q, want %q", got, tt.want)
			}
		})
	}
}

// Some providers answer with an entry without a password where they have no login.
func TestEmptyEntryHidesNoOther(t *testing.T) {
	t.Parallel()
	p := newProvider(t, say{Out: answer("Image", "1h", `"reg.example:5000/acme":{"username":"AWS","password":""},`+
		login(host, "bot"))})
	if got := user(t, p.source(), "acme/app"); got != "bot" {
		t.Errorf("used %q, want bot", got)
	}
}

func TestWhatIsAsked(t *testing.T) {
	t.Parallel()
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte(canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := newProvider(t, say{Out: answer("Image", "1h", login("IMAGE", "bot"))})
	s := p.source(func(o *plugin.Options) {
		o.TokenFile, o.Annotations = token, map[string]string{"role": "arn:x"}
	})
	if got := user(t, s, "acme/app"); got != "bot" {
		t.Errorf("used %q", got)
	}
	const head = `get-credentials {"apiVersion":"credentialprovider.kubelet.k8s.io/v1","kind":"CredentialProviderRequest","image":"`
	const tail = `","serviceAccountToken":"` + canary + `","serviceAccountAnnotations":{"role":"arn:x"}}`
	want := []string{head + host + tail, head + host + "/acme/app" + tail}
	if diff := cmp.Diff(want, p.asked(t)); diff != "" {
		t.Error(diff)
	}
}

// An answer holds for the image, the registry, or everything; the program runs once for each.
func TestCacheKeys(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		keys string
		want []string
	}{
		{"Image", []string{host, host + "/a", host + "/b"}},
		{"Registry", []string{host}},
		{"Global", []string{host}},
	} {
		t.Run(tt.keys, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, say{Out: answer(tt.keys, "1h", login("IMAGE", "bot"))})
			s := p.source()
			for _, repository := range []string{"a", "b", "a", "b", "a"} {
				if got := user(t, s, repository); got != "bot" {
					t.Errorf("%s: used %q", repository, got)
				}
			}
			if diff := cmp.Diff(tt.want, p.images(t)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// cacheDuration is honoured, with a floor: 0 would run the program for every request.
func TestCacheDuration(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, duration string
		lives          time.Duration // how long nothing is asked, at least; twice that is when it is asked first
	}{
		{"zero", "0s", 50 * time.Second},
		{"a second", "1s", 50 * time.Second},
		{"six minutes", "6m", 5 * time.Minute},
		{"not said", "", 9 * time.Minute},
		{"years", "100000h", 10 * time.Hour},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, say{Out: answer("Registry", tt.duration, login(host, "bot"))})
			synctest.Test(t, func(t *testing.T) {
				s := p.source()
				for range 100 {
					user(t, s, "app")
					time.Sleep(tt.lives / 100)
				}
				synctest.Wait()
				if got := len(p.asked(t)); got != 1 {
					t.Errorf("ran %d times within %s", got, tt.lives)
				}
				time.Sleep(tt.lives * 3) // beyond it, at the latest
				user(t, s, "app")
				synctest.Wait()
				if got := len(p.asked(t)); got != 2 {
					t.Errorf("ran %d times, want a second time after %s", got, tt.lives*4)
				}
			})
		})
	}
}

// The error about a wrong answer, or none, has nothing of a secret.
func TestFailures(t *testing.T) {
	t.Parallel()
	const kind = `"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1"`
	secret := `{` + kind + `,"cacheKeyType":"Registry","auth":{"` + host + `":{"username":"bot","password":"` + canary + `"}}`
	for _, tt := range []struct {
		name string
		say  say
		want string
	}{
		{"fails", say{Err: "\nno instance role\nmore", Code: 3}, "exit status 3: no instance role"},
		{"fails after an answer", say{Out: secret + "}", Err: "boom", Code: 1}, "exit status 1: boom"},
		{"says our token", say{Err: "bad token " + canary, Code: 1}, "bad token ***"},
		{"nothing", say{}, "not JSON"},
		{"garbage", say{Out: canary}, "not JSON"},
		{"cut", say{Out: secret}, "not JSON"},
		{"wrong types", say{Out: `{` + kind + `,"auth":{"a":{"password":["` + canary + `"]}}}`}, "wrong type of value"},
		{"v1beta1", say{Out: strings.Replace(secret+"}", "k8s.io/v1", "k8s.io/v1beta1", 1)}, "is not a CredentialProviderResponse"},
		{"another kind", say{Out: strings.Replace(secret+"}", "ProviderResponse", "ProviderRequest", 1)}, "is not a Cred"},
		{"no cacheKeyType", say{Out: strings.Replace(secret+"}", `"Registry"`, `""`, 1)}, "none of the cacheKeyTypes"},
		{"bad cacheDuration", say{Out: answer("Registry", canary, login(host, "x"))}, "cacheDuration"},
		{"cacheDuration below zero", say{Out: answer("Registry", "-1s", login(host, "x"))}, "cacheDuration"},
		{"endless", say{Out: strings.Repeat("a", 3<<20)}, "printed more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			token := filepath.Join(t.TempDir(), "token")
			if err := os.WriteFile(token, []byte(canary), 0o600); err != nil {
				t.Fatal(err)
			}
			p := newProvider(t, tt.say)
			s := p.source(func(o *plugin.Options) { o.TokenFile = token })
			_, err := s.For("app").Credential(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), program) {
				t.Fatalf("error %v, want one with %q", err, tt.want)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error shows a secret: %v", err)
			}
			st := s.Status()
			want := auth.Status{
				Name: "node", Kind: "plugin", For: host, State: auth.StateFailing, LastError: st.LastError,
				Since: st.Since, LastErrorAt: st.LastErrorAt,
			}
			if diff := cmp.Diff(want, st); diff != "" || st.LastError == "" || st.Since.IsZero() || st.LastErrorAt.IsZero() {
				t.Errorf("status %+v\n%s", st, diff)
			}
		})
	}
}

func TestProgramThatIsNotThere(t *testing.T) {
	t.Parallel()
	s := provider{}.source(func(o *plugin.Options) { o.Command = "no-such-provider" })
	_, err := s.Credential(t.Context())
	if err == nil || !strings.Contains(err.Error(), "no-such-provider: executable file not found") {
		t.Errorf("error %v", err)
	}
	gone := provider{}.source(func(o *plugin.Options) { o.TokenFile = filepath.Join(t.TempDir(), "token") })
	if _, err := gone.Credential(t.Context()); err == nil || !strings.Contains(err.Error(), "service account's token") {
		t.Errorf("error %v", err)
	}
}

// A program that begins to fail is logged, and its last answer stays in use. Once it works again, its new answer is used.
func TestLastAnswerStaysInUse(t *testing.T) {
	t.Parallel()
	p := newProvider(t, say{Out: answer("Registry", "10m", login(host, "old"))})
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		s := plugin.New(plugin.Options{Command: command, Env: p.env(), Host: host}, auth.Refresh{
			Name: "node", Log: slog.New(slog.NewTextHandler(&out, nil)),
		})
		if got := user(t, s, "app"); got != "old" {
			t.Fatalf("used %q", got)
		}
		p.teach(t, say{Err: "broken", Code: 1})
		for range 60 { // an hour
			time.Sleep(time.Minute)
			if got := user(t, s, "app"); got != "old" {
				t.Fatalf("used %q while the program fails", got)
			}
		}
		synctest.Wait()
		if st := s.Status(); st.State != auth.StateFailing || !strings.Contains(st.LastError, "broken") {
			t.Errorf("status %+v", st)
		}
		if !strings.Contains(out.String(), "credential was not renewed") {
			t.Errorf("log: %s", &out)
		}
		p.teach(t, say{Out: answer("Registry", "10m", login(host, "new"))})
		time.Sleep(3 * time.Minute)
		user(t, s, "app")
		synctest.Wait()
		if got := user(t, s, "app"); got != "new" {
			t.Errorf("used %q once the program works again", got)
		}
		if st := s.Status(); st.State != auth.StateOK || st.LastError != "" {
			t.Errorf("status %+v", st)
		}
	})
}

// A refusal runs the program again at once; one that brings the same is not asked for again with every pull.
func TestRenew(t *testing.T) {
	t.Parallel()
	for _, keys := range []string{"Registry", "Image"} {
		t.Run(keys, func(t *testing.T) {
			t.Parallel()
			p := newProvider(t, say{Out: answer(keys, "1h", login("IMAGE", "old"))})
			synctest.Test(t, func(t *testing.T) {
				s := p.source().For("app")
				old, err := s.Credential(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				before := len(p.asked(t))
				p.teach(t, say{Out: answer(keys, "1h", login("IMAGE", "new"))})
				next, err := auth.Renew(t.Context(), s, old)
				if err != nil || next.Username != "new" {
					t.Errorf("renewed to %q, %v", next.Username, err)
				}
				for range 5 {
					if again, err := auth.Renew(t.Context(), s, next); err != nil || again != next {
						t.Errorf("renewed to %v, %v", again, err)
					}
				}
				if got := len(p.asked(t)) - before; got != 2 {
					t.Errorf("ran %d times, want 2: for the old one, and once for the new one that is refused too", got)
				}
			})
		})
	}
}

// Run asks ahead of time, so that no request waits.
func TestRunAsksAheadOfTime(t *testing.T) {
	t.Parallel()
	p := newProvider(t, say{Out: answer("Registry", "10m", login(host, "bot"))})
	synctest.Test(t, func(t *testing.T) {
		s := p.source()
		done := make(chan error)
		ctx, stop := context.WithCancel(t.Context())
		go func() { done <- auth.Run(ctx, s) }()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := len(p.asked(t)); n < 6 || n > 8 {
			t.Errorf("ran %d times in an hour with answers of 10 min", n)
		}
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// The sources of single images have a bound.
func TestManyImages(t *testing.T) {
	t.Parallel()
	p := newProvider(t, say{Out: answer("Image", "1h", login("IMAGE", "bot"))})
	synctest.Test(t, func(t *testing.T) {
		s := p.source()
		user(t, s, "first")
		time.Sleep(time.Second)
		for i := range 256 {
			// The status alone makes none.
			if st := auth.Describe(s.For("first")); st.For != host+"/first" {
				t.Fatalf("%d: %+v", i, st)
			}
			plugin.Touch(s, "r"+string(rune('a'+i%26))+string(rune('a'+i/26)))
			if i < 254 {
				user(t, s, "first") // in use, so it stays
			}
			time.Sleep(time.Millisecond)
		}
		if n := plugin.Images(s); n != 256 {
			t.Errorf("%d images are remembered", n)
		}
		if got := p.images(t); !slices.Equal(got, []string{host, host + "/first"}) {
			t.Errorf("asked about %q", got)
		}
	})
}
