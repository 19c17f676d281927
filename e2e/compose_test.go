package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/podman"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// composed reads a file of Compose by the specification's own schema, strictly.
func composed(t *testing.T, file string) (*types.Project, error) {
	t.Helper()
	o, err := cli.NewProjectOptions([]string{file}, cli.WithInterpolation(true), cli.WithResolvedPaths(true), cli.WithConsistency(true))
	if err != nil {
		return nil, err
	}
	return o.LoadProject(t.Context())
}

// TestCompose: deploy/compose is valid by the specification of Compose, and a container with what it says runs: the image that "make
// image" makes, in Podman, not as root, read-only, without capabilities. Its health check works, it serves, it takes up a change of
// the configuration, and a stop ends it well. The system calls are those of the units in deploy/systemd: no service manager runs here
// that could start these.
func TestCompose(t *testing.T) {
	t.Parallel()
	const file = "../deploy/compose/compose.yaml"
	project, err := composed(t, file)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	wrong := filepath.Join(t.TempDir(), "compose.yaml")
	if err := os.WriteFile(wrong, []byte(strings.Replace(string(b), "cap_drop:", "cap_drops:", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := composed(t, wrong); err == nil || !strings.Contains(err.Error(), "cap_drops") {
		t.Errorf("a file with a mistake is valid: %v", err)
	}
	s := project.Services["mirror"]
	if !s.ReadOnly || len(s.CapDrop) != 1 || s.CapDrop[0] != "ALL" || s.User != "65532:65532" || s.HealthCheck == nil || s.Privileged ||
		len(s.CapAdd) > 0 || time.Duration(*s.StopGracePeriod) <= time.Minute || s.NetworkMode == "host" || len(s.Ports) != 1 || s.Ports[0].HostIP != "127.0.0.1" {
		t.Errorf("the container is not closed, or ends before its pulls: %+v", s)
	}

	dir := t.TempDir()
	binary, err := build(dir, "mirror", false, "-ldflags=-s -w")
	if err != nil {
		t.Fatal(err)
	}
	layout := filepath.Join(proc.Dir(t), "layout") // in lower case: Podman makes a name of it
	proc.Must(t, proc.Options{Dir: ".."}, "go", "run", "./internal/image", "-version", "v0.0.1", "-o", layout, "linux/amd64="+binary)
	upstream := registry.Start(t, registry.Options{})
	x := image.PushIndex(t, upstream.Host, appRepository, "v1", image.Layers{1 << 10})

	// The configuration of deploy, with another upstream and a smaller cache; the folder is the one that is mounted.
	config := filepath.Join(dir, "config")
	configure := func(more string) {
		t.Helper()
		text, err := os.ReadFile(filepath.Join(s.Volumes[0].Source, "config.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		changed := strings.NewReplacer("size: 50GiB", "size: 1GiB\n  minFree: 0", "docker.io: {}", "docker.io: {endpoints: ["+upstream.URL()+"]}").Replace(string(text)) + more
		if err := os.MkdirAll(config, 0o755); err != nil { //nolint:gosec // another user reads it
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(config, "config.yaml"), []byte(changed), 0o644); err != nil { //nolint:gosec // another user reads it
			t.Fatal(err)
		}
	}
	configure("")

	p := podman.New(t, podman.Options{Registry: "docker.io"})
	id := strings.TrimSpace(p.Must(t, "pull", "--quiet", "--signature-policy", policy(t), "oci:"+layout))
	var files unix.Rlimit // the machine of the test may allow fewer than the file asks for
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	nofile := min(uint64(s.Ulimits["nofile"].Single), files.Max) //nolint:gosec // it is positive
	// Addresses of this test alone, since the network is the machine's: there is no network of containers to set up.
	const listen, admin = "127.5.3.1:5000", "127.5.3.1:5001"
	args := []string{
		"run", "--detach", "--name", "mirror", "--network", "host", "--read-only=" + strconv.FormatBool(s.ReadOnly), "--user", s.User,
		"--pids-limit", strconv.FormatInt(s.PidsLimit, 10),
		"--ulimit", fmt.Sprintf("nofile=%d:%d", nofile, nofile), "--ulimit", "nproc=1024:1024",
		"--volume", config + ":" + s.Volumes[0].Target + ":ro", "--volume", s.Volumes[1].Source + ":" + s.Volumes[1].Target,
		"--health-cmd", healthCommand(t, s.HealthCheck.Test), "--health-interval", "disable", // Podman leaves the times to systemd
		"--security-opt", "seccomp=" + seccomp(t),
		"--env", "MIRROR_LISTEN=" + listen, "--env", "MIRROR_ADMIN_LISTEN=" + admin, "--env", "MIRROR_ADMIN=" + admin,
	}
	for _, c := range s.CapDrop {
		args = append(args, "--cap-drop", c)
	}
	for _, o := range s.SecurityOpt {
		args = append(args, "--security-opt", strings.TrimSuffix(o, ":true"))
	}
	p.Must(t, append(append(args, id), s.Command...)...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(p.End("logs", "mirror"))
		}
		p.End("rm", "--force", "--time", "5", "mirror")
	})
	wait.For(t, time.Minute, "the container to be healthy", func() error {
		if r := p.Run(t, "healthcheck", "run", "mirror"); r.Code != 0 {
			return fmt.Errorf("%d %s", r.Code, r.Text())
		}
		return nil
	})
	resp, err := http.Get("http://" + listen + "/v2/docker.io/" + appRepository + "/manifests/" + x.Digest.String())
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	equal(t, "status of a pull", resp.StatusCode, http.StatusOK)
	status, err := os.ReadFile("/proc/" + strings.TrimSpace(p.Must(t, "inspect", "--format", "{{.State.Pid}}", "mirror")) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "CapEff:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	configure("  more.example: {}\n")
	wait.For(t, time.Minute, "the change to be taken up", func() error {
		if out := p.Must(t, "exec", "mirror", "/usr/local/bin/mirror", "upstreams"); !strings.Contains(out, "more.example") {
			return fmt.Errorf("the upstreams are\n%s", out)
		}
		return nil
	})
	p.Must(t, "stop", "--time", strconv.Itoa(int(time.Duration(*s.StopGracePeriod).Seconds())), "mirror")
	equal(t, "exit code", strings.TrimSpace(p.Must(t, "inspect", "--format", "{{.State.ExitCode}}", "mirror")), "0")
	if r := p.Run(t, "healthcheck", "run", "mirror"); r.Code == 0 {
		t.Error("a container that was stopped is healthy")
	}
}

// policy is a file by which Podman takes images without a signature.
func policy(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "policy.json")
	if err := os.WriteFile(file, []byte(`{"default": [{"type": "insecureAcceptAnything"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// healthCommand is the test of a health check, as Podman takes it.
func healthCommand(t *testing.T, test []string) string {
	t.Helper()
	if len(test) < 2 || test[0] != "CMD" {
		t.Fatalf("the health check %q needs a shell, which the image does not have", test)
	}
	b, err := json.Marshal(test[1:])
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// seccomp is a file with the system calls that the units in deploy/systemd allow, for a container.
func seccomp(t *testing.T) string {
	t.Helper()
	unit, err := os.ReadFile("../deploy/systemd/mirror.service")
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string]bool{}
	for line := range strings.Lines(string(unit)) {
		sets, ok := strings.CutPrefix(strings.TrimSpace(line), "SystemCallFilter=")
		without, drop := strings.CutPrefix(sets, "~")
		if !ok {
			continue
		}
		for set := range strings.FieldsSeq(without) {
			for _, call := range callsOf(t, set) {
				allowed[call] = !drop
			}
		}
	}
	for _, call := range callsOf(t, "@default") { // always allowed
		allowed[call] = true
	}
	var names []string
	for call, ok := range allowed {
		if ok {
			names = append(names, call)
		}
	}
	if len(names) < 200 || allowed["chown"] || allowed["mount"] {
		t.Fatalf("%d calls, want those of the unit: %q", len(names), names)
	}
	b, err := json.Marshal(map[string]any{
		"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": int(unix.EPERM), "architectures": []string{"SCMP_ARCH_X86_64", "SCMP_ARCH_AARCH64"},
		"syscalls": []any{map[string]any{"names": names, "action": "SCMP_ACT_ALLOW"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "seccomp.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// callsOf are the calls of a set of systemd's, with those of the sets in it.
func callsOf(t *testing.T, set string) (calls []string) {
	t.Helper()
	for line := range strings.Lines(proc.Must(t, proc.Options{}, tool.System(t, "systemd-analyze"), "syscall-filter", "--no-pager", set)) {
		switch name := strings.TrimSpace(line); {
		case name == set || name == "" || strings.HasPrefix(name, "#"):
		case strings.HasPrefix(name, "@"):
			calls = append(calls, callsOf(t, name)...)
		default:
			calls = append(calls, name)
		}
	}
	return calls
}
