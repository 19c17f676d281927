package app_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/origin"
)

// ruled is a mirror of an origin that goes by a rule, or with access: public where there is none.
func ruled(t *testing.T, dir string, o *origin.Origin, rule string) *config.Config {
	t.Helper()
	write(t, filepath.Join(dir, "pass"), secret)
	access, rules := "public", ""
	if rule != "" {
		access, rules = "rules", fmt.Sprintf("rules: [{who: [anonymous], pull: [%q]}]\n", nameOf(o)+"/"+rule)
	}
	return parse(t, dir, fmt.Sprintf("  %s: {endpoints: [%q], access: %s, credentials: [{name: hub, username: bot, "+
		"passwordFile: pass}]}\n%s", nameOf(o), o.URL(), access, rules))
}

// answered is what a client sees.
type answered struct {
	status, reason, challenge, body string
}

func (r *running) asks(t *testing.T, method, path string, header ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+r.Addr().String()+"/v2/"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, registry, ns := strings.Cut(path, "?ns=")
	req.Header.Set("Mirror-Node", fmt.Sprintf("node-%t%s", ns, registry)) // one kind of client each
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	tr := &http.Transport{DisableKeepAlives: true}
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Error(err)
	}
	reason, _, _ := strings.Cut(res.Header.Get("Mirror-Reason"), ";")
	return answered{res.Status, reason, res.Header.Get("Www-Authenticate"), string(b)}
}

// A rule lets every client pull a private image, by the mirror's login, and without a proof that it is public. All other images
// are refused alike, whether they exist or not, are cached or not, and no registry is asked.
func TestRules(t *testing.T) {
	t.Parallel()
	o := limited(t)
	o.AddImage("private/other", "1", origin.Image{})
	a, log := start(t, ruled(t, t.TempDir(), o, "private/app"))
	r := &running{App: a}
	if err := r.pull(t, o, "private/app:1"); err != nil {
		t.Fatal(err)
	}
	for _, q := range o.Requests() {
		if q.Kind == origin.KindToken && q.Header.Get("Authorization") == "" {
			t.Error("a token was requested anonymously")
		}
	}
	o.ClearRequests()
	seen := make(map[string]bool)
	for _, repo := range []string{"private/other", "private/missing", "public/app"} {
		for _, path := range []string{"manifests/1", "manifests/none", "tags/list", "blobs/sha256:" + strings.Repeat("0", 64)} {
			for _, ns := range []bool{true, false} {
				at := nameOf(o) + "/" + repo + "/" + path
				want := answered{status: "401 Unauthorized", challenge: `Basic realm="mirror"`}
				if ns {
					at = repo + "/" + path + "?ns=" + nameOf(o)
					want = answered{status: "403 Forbidden"}
				}
				for _, method := range []string{"GET", "HEAD"} {
					got := r.asks(t, method, at)
					// A login that is not for the mirror changes nothing, and does not fail: it may be for the registry.
					for _, login := range []string{"Basic Ym90OmNhbmFyeS01YjFkN2U5MA==", "Bearer x"} {
						if with := r.asks(t, method, at, "Authorization", login); with != got {
							t.Errorf("%s %s with %s: %+v, without %+v", method, at, login, with, got)
						}
					}
					if !strings.HasPrefix(got.status, want.status+" (mirror: has no rule that lets clients pull "+nameOf(o)+"/"+repo+
						"; add ") || got.challenge != want.challenge ||
						got.reason != "client-forbidden" || (got.body == "") != (method == "HEAD") {
						t.Errorf("%s %s: %+v", method, at, got)
					}
					body, _, _ := strings.Cut(got.body, ` [`) // the failure's id, and the detail which has it too
					seen[fmt.Sprint(ns)+strings.ReplaceAll(body, repo, "REPO")] = true
				}
			}
		}
	}
	if len(seen) != 4 { // with a body and without, with ns and without
		t.Errorf("what is there is told from what is not: %v", seen)
	}
	if n := len(o.Requests()); n != 0 {
		t.Errorf("%d requests to the upstream for what is forbidden", n)
	}
	// A client that names a registry can go on to it: that is declined. One that does not has failed.
	for query, want := range map[string]int{"": 3, "declined=true&": 6} {
		list := failures(t, r, query+"reason=client-forbidden")
		images := make(map[string]bool)
		for _, f := range list.Failures {
			images[string(f.Outcome)+" "+strings.TrimSuffix(strings.TrimSuffix(f.Image, ":1"), ":none")] = true
			if f.Upstream != nameOf(o) || f.Class != "mirror" {
				t.Errorf("%+v", f)
			}
		}
		if len(images) != want {
			t.Errorf("%q: %d of %v, want %d", query, len(images), images, want)
		}
	}
	if strings.Contains(log.Take(), secret) {
		t.Error("the password shows in the log")
	}
}

// A rule that is taken away counts from the next request on; back from rules to public nothing is published that is
// private, after a restart neither; and what is public needs one question.
func TestRulesThatGo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	r := run(t, ruled(t, dir, o, "**"))
	for _, image := range []string{"private/app:1", "public/app:1"} {
		if err := r.pull(t, o, image); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Reload(ruled(t, dir, o, "public/**")); err != nil {
		t.Fatal(err)
	}
	if got := r.asks(t, "GET", nameOf(o)+"/private/app/manifests/1"); got.reason != "client-forbidden" {
		t.Errorf("without its rule: %+v", got)
	}
	private := r.digests(t, o, "private/app")
	check := func(when string) {
		t.Helper()
		for _, path := range append(private, "manifests/1", "tags/list") {
			for _, method := range []string{"HEAD", "GET"} {
				if got := r.asks(t, method, nameOf(o)+"/private/app/"+path); got.reason != "not-found-or-no-access" {
					t.Errorf("%s: %s %s: %+v", when, method, path, got)
				}
			}
		}
		if err := r.pull(t, o, "public/app:1"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
		for _, q := range o.Requests() {
			if q.Kind == origin.KindBlob && q.Repo == "public/app" {
				t.Errorf("%s: %s of a blob that is here", when, q.Method)
			}
		}
	}
	o.ClearRequests()
	if err := r.Reload(ruled(t, dir, o, "")); err != nil {
		t.Fatal(err)
	}
	check("after a reload")
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	r = run(t, ruled(t, dir, o, ""))
	check("after a restart")
}

// digests are the paths of all content of a repository of an origin.
func (r *running) digests(t *testing.T, o *origin.Origin, repo string) []string {
	t.Helper()
	var paths []string
	seen := make(map[string]bool)
	for _, q := range o.Requests() {
		if kind := map[origin.Kind]string{origin.KindBlob: "blobs/", origin.KindManifest: "manifests/"}[q.Kind]; q.Repo == repo &&
			kind != "" && strings.Contains(q.Ref, ":") && !seen[q.Ref] {
			seen[q.Ref] = true
			paths = append(paths, kind+q.Ref)
		}
	}
	if len(paths) < 3 {
		t.Fatalf("%v is not all of %s", paths, repo)
	}
	return paths
}

// An expired password stops nothing that is cached: the client's right comes from the rules. The error of other
// content says whose login is refused.
func TestRulesWhenOurLoginIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	o := limited(t)
	o.AddImage("private/app", "2", origin.Image{Seed: 2})
	c := ruled(t, dir, o, "private/**")
	c.Upstreams[0].Tags.MaxAge = 0 // the tag is checked with each pull
	r := run(t, c)
	if err := r.pull(t, o, "private/app:1"); err != nil {
		t.Fatal(err)
	}
	o.SetCredentials("bot", "another")
	o.RevokeTokens()
	if err := r.pull(t, o, "private/app:1"); err != nil {
		t.Errorf("what is cached: %v", err)
	}
	if got := r.asks(t, "GET", nameOf(o)+"/private/app/manifests/2"); got.reason != "credentials-rejected" ||
		!strings.HasPrefix(got.status, "403 ") || got.challenge != "" {
		t.Errorf("what is not: %+v", got)
	}
}
