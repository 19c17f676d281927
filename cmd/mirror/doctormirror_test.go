package main

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose/doctor"
)

func TestDoctorOfTheMirror(t *testing.T) {
	t.Parallel()
	report := &doctor.MirrorReport{OK: true, At: "mirror", Version: "v1", Checks: []doctor.Check{
		{Area: doctor.AreaVersion, State: doctor.OK, Detail: "v1"},
		{Area: doctor.AreaData, Name: "room", State: doctor.Warning, Detail: "it is full before the cache is", Remedy: "make cache.size smaller"},
		{Area: doctor.AreaUpstream, Name: "ghcr.io", State: doctor.OK, Detail: "answers", Steps: []doctor.Step{{Stage: "ping", State: doctor.OK, Host: "ghcr.io", Detail: "it is a registry"}}},
	}}
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Self: func(context.Context) *doctor.MirrorReport { return report }}))
	t.Cleanup(s.Close)
	code, out, errs := commandLine(t, "doctor", "--admin", s.URL, "-o", "wide")
	for _, want := range []string{"upstream  ok       ghcr.io  answers", "  ping    ok       ghcr.io  it is a registry", "warning  data room\n  it is full before the cache is\n  > make cache.size smaller", "Nothing is broken, 1 warning; checked from the mirror"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if code != exitOK || errs != "" {
		t.Errorf("exit code %d: %s", code, errs)
	}

	broken := *report
	broken.Checks = append(broken.Checks, doctor.Check{Area: doctor.AreaListener, State: doctor.Broken, Detail: "does not answer", Remedy: "restart it"})
	b := httptest.NewServer(admin.New(admin.Options{Loopback: true, Self: func(context.Context) *doctor.MirrorReport { return &broken }}))
	t.Cleanup(b.Close)
	if code, out, _ := commandLine(t, "doctor", "--admin", b.URL); code != exitFailed || !strings.Contains(out, "1 check is broken, 1 warning") {
		t.Errorf("exit code %d\n%s", code, out)
	}
}

// Without a mirror the command says what it has seen from here, and what it has not.
func TestDoctorWithoutAMirror(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "config.yaml")
	put := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put("admin: {listen: 127.0.0.1:1}\ncache: {dir: .}\nupstreams: {ghcr.io: {}}\n")
	states := func(want int, args ...string) map[string]doctor.Check {
		t.Helper()
		code, out, errs := commandLine(t, append([]string{"doctor", "-o", "json"}, args...)...)
		var r doctor.MirrorReport
		if err := json.Unmarshal([]byte(out), &r); err != nil || code != want || r.OK || r.At != "here" {
			t.Fatalf("exit code %d, want %d: %v\n%s%s", code, want, err, out, errs)
		}
		list := make(map[string]doctor.Check)
		for _, c := range r.Checks {
			if _, had := list[c.Area]; !had {
				list[c.Area] = c
			}
		}
		return list
	}
	list := states(exitUnreachable, "--config", file)
	for area, want := range map[string]doctor.State{
		doctor.AreaConfig: doctor.OK, doctor.AreaAdmin: doctor.Broken, doctor.AreaData: doctor.OK, doctor.AreaUpstream: doctor.NotTried, doctor.AreaState: doctor.NotTried,
	} {
		if list[area].State != want {
			t.Errorf("%s: %+v, want %s", area, list[area], want)
		}
	}
	put("listen: 127.0.0.1:0\nupstreams: {ghcr.io: {acces: public}}\n")
	if c := states(exitFailed, "--config", file)[doctor.AreaConfig]; c.State != doctor.Broken || !strings.Contains(c.Detail, "acces") {
		t.Errorf("a mistake: %+v", c)
	}
}
