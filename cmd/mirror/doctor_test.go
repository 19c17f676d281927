package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/internal/origin"
)

// examinedBy is the admin listener of a mirror that gives a report for any image.
func examinedBy(t *testing.T, report func(image, platform string) *doctor.Report) string {
	t.Helper()
	s := httptest.NewServer(admin.New(admin.Options{
		Loopback: true,
		Doctor:   func(_ context.Context, image, platform string) *doctor.Report { return report(image, platform) },
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestDoctorTable(t *testing.T) {
	t.Parallel()
	const ms = doctor.Duration(time.Millisecond)
	const here, there = "https://cache.corp", "https://registry-1.docker.io"
	at := doctor.At(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC))
	where := examinedBy(t, func(image, platform string) *doctor.Report {
		r := &doctor.Report{Image: "docker.io/library/" + image, Platform: platform, At: "mirror", Took: 80 * ms, Steps: []doctor.Step{
			{Stage: "parse", State: doctor.OK, Detail: "docker.io/library/" + image},
			{
				Stage: "dial", State: doctor.Broken, Endpoint: here, Host: "cache.corp", Took: 2 * ms, Reason: "connect-refused",
				Detail: "cache.corp refused the connection", Remedy: "check that cache.corp runs",
			},
			{Stage: "ping", State: doctor.NotTried, Endpoint: here},
			{Stage: "dial", State: doctor.OK, Endpoint: there, Host: "registry-1.docker.io", Addr: "192.0.2.1:443", Took: 12 * ms},
			{Stage: "ping", State: doctor.OK, Endpoint: there, Host: "registry-1.docker.io", Status: 401, Took: 30 * ms},
			{
				Stage: "clock", State: doctor.Warning, Endpoint: there, Host: "registry-1.docker.io", Reason: "clock-skew",
				Detail: "our clock is 5m0s behind", Remedy: "set the clock",
			},
		}}
		if image == "nginx:1" {
			r.OK, r.Digest = true, "sha256:ab"
			r.Cache = &doctor.Cache{Digest: "sha256:aa", CheckedAt: at, Manifest: true, Blobs: 2, Of: 5}
			return r
		}
		r.Failure = &doctor.Failure{
			Reason: "connect-refused", Class: "network", Summary: "cache.corp refused the connection",
			Remedy: "check that cache.corp runs", Evidence: []string{"dial cache.corp: connection refused"},
		}
		return r
	})
	const table = `
STEP   STATE      TOOK  HOST                  RESULT
parse  ok                                     docker.io/library/%[1]s
at https://cache.corp
dial   BROKEN     2ms   cache.corp            %[2]s
ping   not tried
at https://registry-1.docker.io
dial   ok         12ms  registry-1.docker.io  192.0.2.1:443
ping   ok         30ms  registry-1.docker.io
clock  warning          registry-1.docker.io  our clock is 5m0s behind
`
	const clock = "\nclock-skew  our clock is 5m0s behind\n  > set the clock\n"
	const refused = "cache.corp refused the connection\n  > check that cache.corp runs\n"
	code, out, errs := commandLine(t, "doctor", "image", "--admin", where, "--platform", "linux/arm64", "nginx:1")
	want := "docker.io/library/nginx:1 for linux/arm64 from the mirror\n" +
		fmt.Sprintf(table, "nginx:1", "cache.corp refused the connection") + "\nconnect-refused  " + refused + clock +
		"\ncached: the manifest, 2 of 5 other parts; the tag was sha256:aa at 2026-05-01 12:00:00 UTC\n" +
		"\nIt can be pulled, sha256:ab, 80ms.\n"
	if diff := cmp.Diff(want, out); code != exitOK || errs != "" || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	code, out, errs = commandLine(t, "doctor", "image", "--admin", where, "nginx:2")
	want = "docker.io/library/nginx:2 from the mirror\n" + fmt.Sprintf(table, "nginx:2", "connect-refused") + clock +
		"\nconnect-refused (network)  " + refused + "  dial cache.corp: connection refused\n"
	if diff := cmp.Diff(want, out); code != exitFailed || errs != "" || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	code, out, _ = commandLine(t, "doctor", "image", "--admin", where, "-o", "json", "nginx:2")
	if code != exitFailed || !strings.HasPrefix(out, `{"image":"docker.io/library/nginx:2","ok":false,"at":"mirror",`) {
		t.Errorf("json: %d\n%s", code, out)
	}
	_, out, _ = commandLine(t, "doctor", "image", "--admin", where, "-o", "wide", "nginx:2")
	if !strings.Contains(out, "registry-1.docker.io  status 401,") {
		t.Errorf("wide:\n%s", out)
	}
	if text := reportText(&doctor.Report{Steps: []doctor.Step{{Stage: "dns", State: doctor.Broken}}}, false, true); !strings.Contains(
		text, "dns   \x1b[31mBROKEN\x1b[0m\n") {
		t.Errorf("in colour: %q", text)
	}
}

// TestDoctorFromHere runs the checks without a mirror: with a configuration, and without one.
func TestDoctorFromHere(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}, Redirect: true})
	o.AddImage("acme/app", "1", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []int64{4 << 10, 8 << 10}})
	_, port, _ := strings.Cut(o.Host(), ":")
	image := "port" + port + ".test/acme/app"
	file := configFile(t, fmt.Sprintf("upstreams:\n  port%s.test: {endpoints: [%q]}\n", port, o.URL()))
	look := func(args ...string) (int, doctor.Report, string) {
		t.Helper()
		code, out, errs := commandLine(t, append([]string{"doctor", "image", "--straight", "-o", "json", "--config", file}, args...)...)
		var r doctor.Report
		if err := json.Unmarshal([]byte(out), &r); err != nil {
			t.Fatalf("%v: %s %s", err, out, errs)
		}
		var stages []string
		for _, s := range r.Steps {
			stages = append(stages, s.Stage+" "+string(s.State))
		}
		return code, r, strings.Join(stages, ", ")
	}
	code, r, stages := look("--platform", "linux/arm64", image+":1")
	want := "parse ok, dial ok, ping ok, clock ok, token ok, manifest ok, platform ok, blob-registry ok, dial ok, blob-host ok"
	if code != exitOK || !r.OK || stages != want || r.At != "here" || r.Platform != "linux/arm64" || r.Cache != nil ||
		r.Image != image+":1" || !strings.HasPrefix(r.Digest, "sha256:") {
		t.Errorf("%d %+v\n%s\nwant\n%s", code, r, stages, want)
	}
	if n := o.Count(origin.KindCDN); n != 1 {
		t.Errorf("the blob host was asked %d times, want 1", n)
	}
	code, r, stages = look(image + ":2")
	if code != exitFailed || r.Failure == nil || r.Failure.Reason != "tag-not-found" || r.Failure.Stage != "manifest" {
		t.Errorf("no such tag: %d %+v, %s", code, r.Failure, stages)
	}
	code, r, _ = look("nowhere.test/acme/app:1")
	if code != exitFailed || r.Failure == nil || r.Failure.Reason != "unknown-upstream" {
		t.Errorf("not in the configuration: %d %+v", code, r.Failure)
	}
	code, r, _ = look("Acme/App")
	if code != exitFailed || r.Failure == nil || r.Failure.Stage != "parse" {
		t.Errorf("no name: %d %+v", code, r.Failure)
	}
	// Without a configuration any registry is asked, at https://HOST. This one does not speak TLS.
	code, out, errs := commandLine(t, "doctor", "image", "--straight", "--config", "", "localhost:"+port+"/acme/app:1")
	if code != exitFailed || errs != "" || !strings.Contains(out, "http-not-https (tls)") {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
}

// What the doctor says is what a pull gets: the mirror's own rules refuse, an image for another platform does not run here,
// and a manifest whose login is refused is a failure.
func TestDoctorIsRight(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Username: "bot", Password: "s3cret"}})
	foreign := "linux/s390x"
	o.AddImage("acme/app", "1", origin.Image{Platforms: []string{foreign}})
	o.AddImage("acme/here", "1", origin.Image{Platforms: []string{"linux/" + runtime.GOARCH, foreign}})
	_, port, _ := strings.Cut(o.Host(), ":")
	name := "port" + port + ".test"
	file := func(password, rule, more string) string {
		return configFile(t, fmt.Sprintf("upstreams:\n  %s: {endpoints: [%q], access: rules, credentials: [{name: hub, username: bot, "+
			"passwordFile: %q}]}\nrules: [{who: [anonymous], pull: ['%s/%s']}]\n%s", name, o.URL(), configFile(t, password), name, rule, more))
	}
	for _, tt := range []struct {
		name, file string
		args       []string
		code       int
		says       []string
		not        string
	}{
		{
			"no rule", file("s3cret", "other/**", ""), nil, exitFailed,
			[]string{"parse          ok", "route          ok", "access         BROKEN", "client-forbidden (mirror)", "dns            not tried"},
			"It can be pulled",
		},
		{
			"a rule", file("s3cret", "acme/**", ""),
			[]string{"--platform", foreign},
			exitOK,
			[]string{"access         ok", "a rule of the mirror lets clients pull it", "It can be pulled, sha256:"},
			"but not run",
		},
		{
			"another platform", file("s3cret", "acme/**", ""), nil, exitFailed,
			[]string{"It can be pulled, but not run on linux/" + runtime.GOARCH + ", which this machine is, sha256:", "platform-missing"},
			"",
		},
		{
			"another platform than all nodes", file("s3cret", "acme/**", "platforms: [linux/ppc64le, linux/riscv64]\n"), nil, exitFailed,
			[]string{"It can be pulled, but not run on linux/ppc64le, linux/riscv64, "},
			"",
		},
		{
			"another platform than some nodes", file("s3cret", "acme/**", "platforms: ["+foreign+", linux/riscv64]\n"), nil, exitOK,
			[]string{"It can be pulled, sha256:", "platform-missing", "nothing for linux/riscv64"},
			"but not run",
		},
		{
			"a wrong password", file("wrong", "acme/**", ""), nil, exitFailed,
			[]string{"token          BROKEN", "credentials-rejected"},
			"manifest       ok",
		},
	} {
		code, out, errs := commandLine(t, append([]string{"doctor", "image", "--straight", "--config", tt.file, name + "/acme/app:1"}, tt.args...)...)
		missing := slices.DeleteFunc(slices.Clone(tt.says), func(s string) bool { return strings.Contains(out, s) })
		if code != tt.code || len(missing) > 0 || tt.not != "" && strings.Contains(out, tt.not) {
			t.Errorf("%s: %d, lacks %q or has %q\n%s%s", tt.name, code, missing, tt.not, out, errs)
		}
	}
	o.ClearRequests()
	commandLine(t, "doctor", "image", "--straight", "--config", file("s3cret", "other/**", ""), name+"/acme/app:1")
	if n := len(o.Requests()); n != 0 {
		t.Errorf("the registry was asked %d times for what the rules refuse", n)
	}
	if code, out, _ := commandLine(t, "doctor", "image", "--straight", "--config", file("s3cret", "acme/**", ""), name+"/acme/here:1"); code != exitOK {
		t.Errorf("an image for here: %d\n%s", code, out)
	}
}

func TestDoctorExitCodes(t *testing.T) {
	t.Parallel()
	odd := httptest.NewServer(admin.New(admin.Options{Loopback: true}))
	t.Cleanup(odd.Close)
	bad := configFile(t, "listne: x\n")
	for _, tt := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no image", nil, exitUsage, "doctor image needs an image, as in nginx:1.27"},
		{"not a platform", []string{"--platform", "arm64", "nginx"}, exitUsage, "as in linux/arm64"},
		{"an unknown output", []string{"-o", "xml", "nginx"}, exitUsage, "json, yaml or wide"},
		{"from here and from the mirror", []string{"--straight", "--admin", odd.URL, "nginx"}, exitUsage, "--straight can't be combined with --admin"},
		{"a mirror without a doctor", []string{"--admin", odd.URL, "nginx"}, exitFailed, "404"},
		{"no mirror", []string{"--admin", "http://127.0.0.1:1", "nginx"}, exitUnreachable, "no mirror answers"},
		{"a configuration with a mistake", []string{"--straight", "--config", bad, "nginx"}, exitFailed, "then run it again"},
	} {
		code, out, errs := commandLine(t, append([]string{"doctor", "image"}, tt.args...)...)
		if code != tt.code || out != "" || !strings.Contains(errs, tt.says) {
			t.Errorf("%s: %d %q %q, want %d and %q", tt.name, code, out, errs, tt.code, tt.says)
		}
	}
}

// TestAdminListenVariable finds the mirror by the variable that sets its address. It changes the environment, and so is not
// parallel.
func TestAdminListenVariable(t *testing.T) {
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Upstreams: func() []admin.Upstream { return nil }}))
	defer s.Close()
	t.Setenv("MIRROR_ADMIN_LISTEN", strings.TrimPrefix(s.URL, "http://"))
	if code, out, errs := commandLine(t, "upstreams", "-o", "json"); code != exitOK || out != `{"upstreams":[]}`+"\n" {
		t.Errorf("%d %s %s", code, out, errs)
	}
	t.Setenv("MIRROR_ADMIN_LISTEN", "nonsense")
	if code, _, errs := commandLine(t, "upstreams"); code != exitFailed || !strings.Contains(errs, "MIRROR_ADMIN_LISTEN") {
		t.Errorf("nonsense: %d %s", code, errs)
	}
}
