package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/internal/origin"
)

// A folder is filled without a mirror, and what is in it is verified with the registry gone. No port is opened.
func TestStandalone(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "1", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64", "linux/s390x"}, Layers: []int64{4 << 10, 8 << 10}})
	o.AddImage("acme/tool", "1", origin.Image{Platforms: []string{"linux/amd64"}, Layers: []int64{4 << 10}})
	file := configFile(t, fmt.Sprintf("listen: 192.0.2.1:1\nadmin: {listen: '192.0.2.1:2', tokenFile: none}\ncache: {dir: data, minFree: 0}\nplatforms: [linux/amd64]\n"+
		"upstreams:\n  registry.example:\n    endpoints: [%q]\n", o.URL()))
	warm := func(args string) (code int, stdout, stderr string) {
		return commandLine(t, append(strings.Fields("warm "+args), "--standalone", "--config", file)...)
	}
	if code, stdout, stderr := warm("verify registry.example/acme/app:1"); code != exitFailed || !strings.Contains(stdout, "not all") || len(o.Requests()) != 0 {
		t.Errorf("before: %d %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := warm("registry.example/acme/app:1 registry.example/acme/tool:1 --dry-run"); code != exitOK || !strings.Contains(stdout, "would be fetched") || o.Count(origin.KindBlob) != 0 {
		t.Errorf("the plan: %d %s%s", code, stdout, stderr)
	}
	code, stdout, stderr := warm("registry.example/acme/app:1 registry.example/acme/tool:1 --platform linux/amd64 --platform linux/ppc64le -o json")
	var job admin.WarmJob
	if err := json.Unmarshal([]byte(stdout), &job); err != nil || code != exitFailed || job.Counts["done"] != 1 || job.Images[0].Failure == nil || job.Images[0].Failure.Reason != "platform-missing" {
		t.Errorf("an image without a platform: %d %s%s", code, stdout, stderr)
	}
	if code, stdout, stderr := warm("registry.example/acme/app:1 registry.example/acme/tool:1 registry.example/acme/app:2"); code != exitFailed || strings.Count(stdout, "done ") != 2 || !strings.Contains(stdout, "tag-not-found") {
		t.Errorf("an image that is missing: %d %s%s", code, stdout, stderr)
	}
	o.Close()
	if code, stdout, stderr := warm("verify registry.example/acme/app:1 registry.example/acme/tool:1 --platform linux/amd64"); code != exitOK || stderr != "" {
		t.Errorf("after: %d %s%s", code, stdout, stderr)
	}
	if code, stdout, _ := warm("verify registry.example/acme/app:1 --platform linux/s390x"); code != exitFailed {
		t.Errorf("a platform that was not fetched: %d %s", code, stdout)
	}
}

// Where a mirror runs on the folder, the command waits as long as it says, and then says what to do instead.
func TestStandaloneBesideAMirror(t *testing.T) {
	t.Parallel()
	file := configFile(t, "cache: {dir: data, minFree: 0}\nupstreams: {docker.io: {}}\n")
	dir := filepath.Join(filepath.Dir(file), "data")
	mirror, err := disk.Open(dir, disk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer mirror.Close()
	began := time.Now()
	code, stdout, stderr := commandLine(t, "warm", "nginx:1.27", "--standalone", "--config", file)
	took := time.Since(began)
	said := regexp.MustCompile(`"wait":"(.+?)"`).FindStringSubmatch(stderr)
	if len(said) != 2 {
		t.Fatalf("%s: want how long it waits", stderr)
	}
	if wait, err := time.ParseDuration(said[1]); err != nil || took < wait {
		t.Errorf("it waited %s and says %s (%v)", took, said[1], err)
	}
	want := fmt.Sprintf("cache folder %s is in use by another mirror: process %d on ", dir, os.Getpid())
	instead := "; run the command without --standalone, and that mirror does the work through its admin API\n"
	if code != exitLocked || stdout != "" || !strings.Contains(stderr, want) || !strings.HasSuffix(stderr, instead) {
		t.Errorf("%d %s%s: want %d, %s..%s", code, stdout, stderr, exitLocked, want, instead)
	}
}
