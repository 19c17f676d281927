package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
)

// examined is what doctor says, as far as it is looked at here.
type examined struct {
	OK      bool   `json:"ok"`
	At      string `json:"at"`
	Digest  string `json:"digest"`
	Failure *struct{ Reason, Stage, Host string }
	Cache   *struct {
		Manifest  bool
		Blobs, Of int
	}
}

// TestDoctor has the binary look at an image: from here, and through a running mirror, while all is well, once it is
// cached, and when only the host of the blobs is gone.
func TestDoctor(t *testing.T) {
	t.Parallel()
	upstream := origin.Start(t, origin.Options{Auth: origin.Auth{Kind: "bearer", Anonymous: true}, Redirect: true})
	built := upstream.AddImage("acme/app", "v1", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}, Layers: []int64{8 << 10}})
	m := mirrord.Start(t, mirrord.Options{Upstreams: fmt.Sprintf("docker.io: {endpoints: [%q]}", upstream.URL())})
	look := func(want int, args ...string) (e examined) {
		t.Helper()
		args = append([]string{"doctor", "image", "-o", "json", "--platform", "linux/amd64", "acme/app:v1"}, args...)
		cmd := exec.CommandContext(t.Context(), mirrord.Binary, args...)
		cmd.Env = proc.Env()
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		err, code := cmd.Run(), 0
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out.Bytes(), &e); err != nil || code != want {
			t.Fatalf("%s: exit code %d, want %d: %v\n%s%s", strings.Join(args, " "), code, want, err, &out, &errs)
		}
		return e
	}
	here, there := []string{"--straight", "--config", m.File}, []string{"--admin", m.Admin}

	if e := look(0, here...); !e.OK || e.At != "here" || e.Digest != built.Root.Digest.String() || e.Cache != nil {
		t.Errorf("from here: %+v", e)
	}
	e := look(0, there...)
	if !e.OK || e.At != "mirror" || e.Cache == nil || e.Cache.Manifest || e.Cache.Blobs != 0 || e.Cache.Of != 3 {
		t.Errorf("from the mirror: %+v, cached %+v", e, e.Cache)
	}
	for _, path := range []string{
		"manifests/v1", "manifests/" + built.Manifests[0].Digest.String(), "blobs/" + built.Configs[0].Digest.String(),
	} {
		if code, body := mirrord.Get(t, m.URL()+"/v2/docker.io/acme/app/"+path); code != 200 {
			t.Fatalf("%s: %d %s", path, code, body)
		}
	}
	if e = look(0, there...); e.Cache == nil || !e.Cache.Manifest || e.Cache.Blobs != 2 {
		t.Errorf("once pulled but for a layer: cached %+v", e.Cache)
	}
	upstream.DownCDN()
	for _, from := range [][]string{here, there} {
		e = look(1, from...)
		if e.OK || e.Failure == nil || e.Failure.Reason != "connect-refused" || e.Failure.Stage != "dial" ||
			e.Failure.Host != upstream.CDNHost() {
			t.Errorf("%s: %+v", from[0], e.Failure)
		}
	}
}
