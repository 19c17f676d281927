package app_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/origin"
)

// examine has the running mirror look at an image.
func (r *running) examine(t *testing.T, image, platform string) doctor.Report {
	t.Helper()
	q, err := json.Marshal(map[string]string{"image": image, "platform": platform})
	if err != nil {
		t.Fatal(err)
	}
	url := "http://" + r.AdminAddr().String() + "/api/v1/doctor"
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, bytes.NewReader(q))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v", resp.Status, b, err)
	}
	if strings.Contains(string(b), "s3cret") {
		t.Errorf("a password shows in %s", b)
	}
	var report doctor.Report
	if err := json.Unmarshal(b, &report); err != nil {
		t.Fatal(err)
	}
	return report
}

// TestDoctor has a running mirror look: at the registry whatever it has cached, and at what it has cached.
func TestDoctor(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	built := o.AddImage("acme/app", "v1", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []int64{4 << 10, 8 << 10}})
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)))
	image := nameOf(o) + "/acme/app:v1"

	got := r.examine(t, image, "linux/amd64")
	if !got.OK || got.At != "mirror" || got.Digest != built.Root.Digest.String() || got.Image != image {
		t.Errorf("%+v", got)
	}
	if c := got.Cache; c == nil || c.Manifest || c.Blobs != 0 || c.Of != 4 || c.Digest != "" {
		t.Errorf("cached before a pull: %+v", c)
	}
	if err := r.pull(t, o, "acme/app:v1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the index, the manifest and its three parts are kept", func() bool { // a moment after their last byte
		_, body := get(t, "http://"+r.AdminAddr().String()+"/api/v1/cache")
		return strings.Contains(body, `"objects":5,`)
	})
	got = r.examine(t, image, "linux/amd64")
	if c := got.Cache; c == nil || !c.Manifest || c.Blobs != 4 || c.Of != 4 || c.Digest != got.Digest || c.CheckedAt.IsZero() {
		t.Errorf("cached after a pull: %+v", c)
	}
	o.Down()
	got = r.examine(t, image, "")
	if got.OK || got.Failure == nil || got.Failure.Reason != "connect-refused" || got.Failure.Stage != "dial" {
		t.Errorf("upstream down: %+v", got.Failure)
	}
	if c := got.Cache; c == nil || !c.Manifest || c.Of != 0 {
		t.Errorf("cached, upstream down: %+v", c)
	}
	if got = r.examine(t, "unknown.test/app", ""); got.Failure == nil || got.Failure.Reason != "unknown-upstream" {
		t.Errorf("unknown: %+v", got.Failure)
	}
	if got = r.examine(t, "not an image", ""); got.Failure == nil || got.Failure.Stage != "parse" {
		t.Errorf("no name: %+v", got.Failure)
	}
}

// A running mirror is asked about its rules as a client's pull is: what they refuse can't be pulled, and the registry is
// not asked.
func TestDoctorAsksTheRules(t *testing.T) {
	t.Parallel()
	o := limited(t)
	dir := t.TempDir()
	a, _ := start(t, ruled(t, dir, o, "private/app"))
	r := &running{App: a}
	o.ClearRequests()
	got := r.examine(t, nameOf(o)+"/public/app:1", "linux/amd64")
	if got.OK || got.Failure == nil || got.Failure.Reason != "client-forbidden" || got.Failure.Stage != "access" || len(o.Requests()) != 0 {
		t.Errorf("no rule: %+v, %d requests", got.Failure, len(o.Requests()))
	}
	if got = r.examine(t, nameOf(o)+"/private/app:1", "linux/amd64"); !got.OK || got.Failure != nil {
		t.Errorf("a rule: %+v", got.Failure)
	}
	if err := a.Reload(ruled(t, dir, o, "public/app")); err != nil {
		t.Fatal(err)
	}
	if got = r.examine(t, nameOf(o)+"/private/app:1", "linux/amd64"); got.OK || got.Failure == nil || got.Failure.Stage != "access" {
		t.Errorf("after a reload: %+v", got.Failure)
	}
}

// Under access: client the mirror has no login. What a registry shows to clients' logins alone is not a fault of the upstream, and no
// check advises credentials, which the configuration would refuse.
func TestDoctorOfClientsOwnLogins(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"basic", "bearer"} {
		o := origin.Start(t, origin.Options{Auth: origin.Auth{
			Kind: kind, Username: "bob", Password: "s3cret", Anonymous: true, Private: func(repo string) bool { return repo == "acme/app" },
		}})
		for _, name := range []string{"acme/app", "acme/open"} {
			o.AddImage(name, "v1", origin.Image{Platforms: []string{"linux/amd64"}, Layers: []int64{4 << 10}})
		}
		r := run(t, parse(t, t.TempDir(), strings.Replace(upstreamOf(o), "{", "{access: client, ", 1)))
		bob := "Basic " + base64.StdEncoding.EncodeToString([]byte("bob:s3cret"))
		if a := r.asks(t, http.MethodGet, "acme/app/manifests/v1?ns="+nameOf(o), "Authorization", bob); !strings.HasPrefix(a.status, "200") {
			t.Fatalf("%s: %+v", kind, a)
		}
		got := r.examine(t, nameOf(o)+"/acme/app:v1", "linux/amd64")
		if f := got.Failure; got.OK || f == nil || f.Reason != "client-login-missing" || !strings.Contains(f.Summary, "under access: client the mirror has none") {
			t.Errorf("%s: a private image: %+v", kind, f)
		}
		if got = r.examine(t, nameOf(o)+"/acme/open:v1", "linux/amd64"); !got.OK || got.Failure != nil {
			t.Errorf("%s: a public image: %+v", kind, got.Failure)
		}
		if c := r.checks(t)["upstream "+nameOf(o)]; c.State != doctor.OK || c.Detail != "answers" {
			t.Errorf("%s: the upstream: %+v", kind, c)
		}
	}
}
