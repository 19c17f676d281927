package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/journal"
)

// A mistake on the command line is reported with a way out, for the command that was found.
func TestUsage(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, says, help string }{
		{"serve config.yaml", `serve takes no argument, but got "config.yaml"; write --config config.yaml`, "mirror serve --help"},
		{"setup containerd https://mirror.example:5000", "; write --mirror https://mirror.example:5000", "mirror setup containerd --help"},
		{"status http://127.0.0.1:5001", "; write --admin http://127.0.0.1:5001", "mirror status --help"},
		{"serve extra", `serve takes no argument, but got "extra"`, "mirror serve --help"},
		{"serve --listen :5000", "it is the setting listen: set MIRROR_LISTEN, or listen in the file of --config", "mirror serve --help"},
		{"serve --cache-dir /x", "set MIRROR_CACHE_DIR", "mirror serve --help"},
		{"serve --log-level debug", "set MIRROR_LOG_LEVEL", "mirror serve --help"},
		{"serve --confg x", "did you mean --config?", "mirror serve --help"},
		{"failures --sinc 1h", "did you mean --since?", "mirror failures --help"},
		{"serve -c x.yaml", "did you mean --config?", "mirror serve --help"},
		{"config check -f x.yaml", "did you mean --config?", "mirror config check --help"},
		{"failures --json", "did you mean --output?", "mirror failures --help"},
		{"failures -w", "did you mean --watch?", "mirror failures --help"},
		{"status --url x", "did you mean --admin?", "mirror status --help"},
		{"serve --port 80", "it is the setting listen: set MIRROR_LISTEN", "mirror serve --help"},
		{"serve -p 80", "set MIRROR_LISTEN", "mirror serve --help"},
		{"serve --verbose", "set MIRROR_LOG_LEVEL", "mirror serve --help"},
		{"serve --data-dir /x", "set MIRROR_CACHE_DIR", "mirror serve --help"},
		{"failures --class", "flag needs an argument: --class\n", "mirror failures --help"},
		{"config schema x.yaml", "config schema takes no argument", "mirror config schema --help"},
		{"config check a b", "config check takes one file, but got 2 arguments: a b", "mirror config check --help"},
		{"upstreams docker.io", `upstreams takes no argument, but got "docker.io"`, "mirror upstreams --help"},
		{"doctor image", "doctor image needs an image, as in nginx:1.27", "mirror doctor image --help"},
		{"help nope", `unknown command "nope" for "mirror"`, "mirror help --help"},
		{"help config nope", `unknown command "nope" for "mirror config"`, "mirror help --help"},
		{"start", `did you mean "serve"?`, "mirror --help"},
		{"check config.yaml", `did you mean "config"?`, "mirror --help"},
		{"ps", `did you mean "pulls"?`, "mirror --help"},
		{"doctor nginx:1.27", "to check an image, run mirror doctor image nginx:1.27", "mirror doctor --help"},
		{"nope", `unknown command "nope" for "mirror"`, "mirror --help"},
		{"cache stats -o xml", "-o xml: must be json or yaml", "mirror cache stats --help"},
		{"pulls --limit 0", "--limit 0: must be a number from 1 to 1000", "mirror pulls --help"},
	} {
		code, out, errs := commandLine(t, strings.Fields(tt.args)...)
		if code != exitUsage || out != "" || !strings.Contains(errs, tt.says) || !strings.Contains(errs, "Run '"+tt.help+"'") {
			t.Errorf("%s: %d %s%s", tt.args, code, out, errs)
		}
	}
	_, _, errs := commandLine(t, "doctor", "image")
	want := "mirror: doctor image needs an image, as in nginx:1.27\nFor example: mirror doctor image nginx:1.27\n" +
		"Run 'mirror doctor image --help' for the flags and examples.\n"
	if diff := cmp.Diff(want, errs); diff != "" {
		t.Error(diff)
	}
}

func TestVersionFlag(t *testing.T) {
	t.Parallel()
	_, want, _ := commandLine(t, "version")
	for _, flag := range []string{"--version", "-v"} {
		if code, out, errs := commandLine(t, flag); code != 0 || out != want || !strings.HasPrefix(out, "mirror ") || errs != "" {
			t.Errorf("%s: %d %q %q, want %q", flag, code, out, errs, want)
		}
	}
	for _, args := range [][]string{{"help", "config", "check"}, {"config", "check", "--help"}} {
		if code, out, _ := commandLine(t, args...); code != 0 || !strings.Contains(out, "mirror config check [FILE|-]") {
			t.Errorf("%q: %d %s", args, code, out)
		}
	}
}

// Flags name the variables that set them, in each command that has them.
func TestFlagsNameTheirVariables(t *testing.T) {
	t.Parallel()
	found := 0
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		for name, variable := range map[string]string{
			"admin": "MIRROR_ADMIN", "config": "MIRROR_CONFIG", "admin-token-file": "MIRROR_ADMIN_TOKEN_FILE",
		} {
			f := c.Flag(name)
			if f == nil {
				continue
			}
			found++
			if !regexp.MustCompile(`variable ` + variable + `( |;|$)`).MatchString(f.Usage) {
				t.Errorf("%s --%s does not name %s: %s", c.CommandPath(), name, variable, f.Usage)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
	if found < 20 {
		t.Errorf("only %d flags were found", found)
	}
}

func TestCompletions(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"failures --class ":           "undecided",
		"failures --reason tag-":      "tag-not-found",
		"failures --by ":              "client",
		"failures -o ":                "yaml",
		"help config ":                "check",
		"upstreams --output ":         "wide",
		"cache stats --output ":       "json",
		"serve --config ":             "yaml",
		"config check --config ":      "yml",
		"failures --since ":           "7d",
		"doctor image --platform lin": "linux/amd64",
	} {
		_, out, _ := commandLine(t, append([]string{"__complete"}, strings.Split(args, " ")...)...)
		if !strings.Contains(out, want) {
			t.Errorf("%s: %q", args, out)
		}
	}
}

// -o yaml is -o json as YAML, in the same order, wherever there is -o json.
func TestOutputAsYAML(t *testing.T) {
	t.Parallel()
	_, where := failuresOf(t)
	up := upstreamsOf(t, "")
	for _, args := range [][]string{
		{"failures", "--admin", where},
		{"failures", "--admin", where, "7f3a9c2e"},
		{"failures", "--admin", where, "--by", "class"},
		{"upstreams", "--admin", up},
	} {
		_, asJSON, _ := commandLine(t, append(args, "-o", "json")...)
		code, text, errs := commandLine(t, append(args, "-o", "yaml")...)
		var want, got any
		if err := json.Unmarshal([]byte(asJSON), &want); err != nil {
			t.Fatal(err)
		}
		if err := yaml.Unmarshal([]byte(text), &got); err != nil || code != 0 || errs != "" {
			t.Errorf("%q: %d %s %v", args, code, errs, err)
		}
		again, err := json.Marshal(got)
		var back any
		if err == nil {
			err = json.Unmarshal(again, &back)
		}
		if err != nil || !reflect.DeepEqual(want, back) || strings.Contains(text, "{\"") {
			t.Errorf("%q: %v\n%s\n%s", args, err, asJSON, text)
		}
	}
	text, err := asYAML([]byte(`{"id":"00000123","b":"true","c":"1e3","d":"","e":[],"f":{},"g":"a: b","h":"2026-01-02T03:04:05Z","i":1,"j":null}`))
	var back map[string]any
	if err != nil || yaml.Unmarshal(text, &back) != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	for k, want := range map[string]string{"id": "00000123", "b": "true", "c": "1e3", "d": "", "g": "a: b"} {
		if back[k] != want {
			t.Errorf("%s is %#v, want %q\n%s", k, back[k], want, text)
		}
	}
	if !strings.HasPrefix(string(text), `id: "00000123"`) && !strings.HasPrefix(string(text), `id: '00000123'`) {
		t.Errorf("not in the order of the answer:\n%s", text)
	}
}

func TestMoments(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 5, 10, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"": "", "1h": "2026-05-10T11:00:00Z", "1d": "2026-05-09T12:00:00Z", "1d12h": "2026-05-09T00:00:00Z", "0s": "2026-05-10T12:00:00Z",
		"7d": "2026-05-03T12:00:00Z", "0d": "2026-05-10T12:00:00Z", "2026-05-01T00:00:00+02:00": "2026-05-01T00:00:00+02:00",
	} {
		if got, err := moment(text, now); got != want || err != nil {
			t.Errorf("%q: %q %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"d", "1", "-1d", "yesterday", "1d-1h", "999999999d"} {
		if got, err := moment(text, now); err == nil {
			t.Errorf("%q is %q", text, got)
		}
	}
}

// Pulls that were left to the nodes are announced: where nodes have nowhere else to go, that is why they fail.
func TestDeclinedIsAnnounced(t *testing.T) {
	t.Parallel()
	f, where := failuresOf(t)
	now := time.Now()
	f.mu.Lock()
	for _, image := range []string{"ghcr.io/acme/app:1", "ghcr.io/acme/app:2", "ghcr.io/acme/app:2"} {
		f.list = append(f.list, journal.Failure{ID: "5c0ffee5", Image: image, Outcome: journal.Declined, Count: 1, FirstSeen: now, LastSeen: now})
	}
	f.mu.Unlock()
	const note = "Pulls of 2 images were left to the nodes in the last hour; --declined shows them.\n"
	if code, out, _ := commandLine(t, "failures", "--admin", where); code != 0 || !strings.HasSuffix(out, "\n\n"+note) {
		t.Errorf("%d\n%s", code, out)
	}
	f.mu.Lock()
	got := f.asked
	f.mu.Unlock()
	if !got.Declined || now.Sub(got.Since) < 59*time.Minute || now.Sub(got.Since) > 61*time.Minute {
		t.Errorf("asked %+v", got)
	}
	if _, out, _ := commandLine(t, "failures", "--admin", where, "--declined"); strings.Contains(out, note) {
		t.Errorf("with --declined:\n%s", out)
	}
}

// --limit holds under --watch for what was there before.
func TestWatchHonoursTheLimit(t *testing.T) {
	t.Parallel()
	_, where := failuresOf(t)
	next, stop := following(t, "failures", "--admin", where, "--watch", "--limit", "1")
	if got := next(); strings.Contains(got, "1b2c3d4e") || !strings.Contains(got, "7f3a9c2e") { // the older one would be the first
		t.Error(got)
	}
	if code := stop(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

// The file that config init writes is valid with each of its examples turned on.
func TestConfigInit(t *testing.T) {
	t.Parallel()
	code, out, _ := commandLine(t, "config", "init", "-")
	if code != 0 || out != string(startingConfig) {
		t.Errorf("%d\n%s", code, out)
	}
	var all strings.Builder
	for line := range strings.Lines(out) {
		bare := strings.TrimLeft(line, " ")
		if rest, ok := strings.CutPrefix(bare, "#"); ok && !strings.HasPrefix(rest, " ") && rest != "\n" || strings.HasPrefix(bare, "#  ") &&
			!strings.HasPrefix(bare, "#   ") {
			line = line[:len(line)-len(bare)] + rest
		}
		all.WriteString(strings.Replace(line, "docker.io: {}", "docker.io:", 1))
	}
	if code, out, errs := commandLine(t, "config", "check", "--no-files", configFile(t, all.String())); code != 0 {
		t.Errorf("with all that it shows: %d %s%s\n%s", code, out, errs, &all)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testStatus)
}

// testStatus reads ages, so its clock stands still while the machine works.
func testStatus(t *testing.T) {
	now := time.Now()
	f, _ := failuresOf(t)
	f.list = append(f.list, journal.Failure{Image: "ghcr.io/a/b:1", Outcome: journal.Declined, LastSeen: now})
	about := admin.About{Version: "v1.2.3", StartedAt: now.Add(-time.Hour - 100*time.Millisecond), Config: admin.Config{
		File: "/etc/mirror/config.yaml", TakenAt: now.Add(-time.Minute), LastError: "config.yaml:3:1: x: unknown key", Restart: []string{"listen", "drain"},
	}}
	well := httptest.NewServer(admin.New(admin.Options{Loopback: true, About: func() admin.About { return admin.About{Version: "v1", StartedAt: now} }}))
	t.Cleanup(well.Close)
	s := httptest.NewServer(admin.New(admin.Options{
		Loopback: true,
		About:    func() admin.About { return about }, Failures: f, Cache: func() admin.Cache { return admin.Cache{Bytes: 3 << 30, Size: 20 << 30} },
		Upstreams: func() []admin.Upstream {
			return []admin.Upstream{{
				Name: "docker.io", Endpoints: []admin.Endpoint{
					{URL: "https://registry-1.docker.io", State: "open", Since: now.Add(-time.Minute), LastError: "connection refused"},
					{URL: "https://mirror.gcr.io", State: "up", LastError: "old"},
				},
				Credentials: []admin.Credential{{Name: "hub", Kind: "file", State: "failing", Since: now.Add(-2 * time.Minute), LastError: "it is empty"}, {Name: "b", State: "ok"}},
			}}
		},
	}))
	t.Cleanup(s.Close)
	want := `mirror       v1.2.3, up for 1h0m0s, ready
config       /etc/mirror/config.yaml, read 1m0s ago
             the last reload was refused: config.yaml:3:1: x: unknown key
             needs a restart: listen, drain
upstreams    1, 1 endpoint is not well:
             docker.io https://registry-1.docker.io is down for 1m0s: connection refused
credentials  1 is not well:
             docker.io hub is failing for 2m0s: it is empty
cache        3 GiB of 20 GiB (15%)
failures     2 in the last hour: auth 1, mirror 1; see mirror failures --since 1h; pulls of 1 image were left to the nodes (mirror failures --declined)
`
	code, out, errs := commandLine(t, "status", "--admin", s.URL)
	if diff := cmp.Diff(want, out); code != 0 || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	if code, out, _ := commandLine(t, "status", "--admin", well.URL); code != 0 || !strings.Contains(out, "none is known to be down") || !strings.Contains(out, "none fails") {
		t.Errorf("%d\n%s", code, out)
	}
	if code, out, _ := commandLine(t, "status", "--admin", s.URL, "-o", "json"); code != 0 || !strings.HasPrefix(out, `{"version":"v1.2.3"`) {
		t.Errorf("%d\n%s", code, out)
	}
}

func TestPulls(t *testing.T) {
	t.Parallel()
	now := time.Now()
	list := admin.PullList{Pulls: []admin.Pull{{
		Image: "docker.io/library/nginx:1.27", Client: "node-1", Outcome: journal.Served, Bytes: 3 << 20, FromCache: 1 << 20,
		StartedAt: now.Add(-4 * time.Second), Took: "48ms",
	}, {Image: "ghcr.io/a/b:1", Client: "10.0.0.7", Outcome: journal.Failed, StartedAt: now.Add(-time.Minute), Took: "1s", FailureID: "7f3a9c2e"}}}
	want := `IMAGE                         CLIENT    OUTCOME  BYTES  FROM CACHE  BEGAN     TOOK  FAILURE
docker.io/library/nginx:1.27  node-1    served   3 MiB  1 MiB       4s ago    48ms  -
ghcr.io/a/b:1                 10.0.0.7  failed   0 B    0 B         1m0s ago  1s    7f3a9c2e
`
	if diff := cmp.Diff(want, pullsText(list, true, now)); diff != "" {
		t.Error(diff)
	}
}

// following runs a command line that goes on until it is interrupted. next is what it writes next, stop interrupts it.
func following(t *testing.T, args ...string) (next func() string, stop func() (code int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, w, io.Discard, args...)
		_ = w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		_ = r.Close()
	})
	line := make([]byte, 4096)
	next = func() string {
		n, _ := r.Read(line)
		return string(bytes.TrimSpace(line[:n]))
	}
	return next, func() int {
		cancel()
		_ = r.Close()
		return <-code
	}
}
