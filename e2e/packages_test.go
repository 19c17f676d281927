package e2e_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// machine is this one with a systemd, processes, a network and a file system of its own: what is written there goes away with the
// test, and nothing else of this machine runs there.
type machine struct{ root string } // pid of its first process

// boot starts systemd: on a copy of the file system that is made as it is written to, and without the units that set up the kernel.
const boot = `
mount -t tmpfs tmpfs "$0"; cd "$0"; mkdir upper work root cgroup
mount -t cgroup2 cgroup2 cgroup; mkdir -p "cgroup/$1"; echo 0 >"cgroup/$1/cgroup.procs"
exec unshare --cgroup sh -ec '
	mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root; cd root
	mount -t tmpfs tmpfs dev; cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty dev/; mkdir dev/pts dev/shm
	mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts; ln -s pts/ptmx dev/ptmx
	mount -t proc proc proc; mount --bind proc/sys proc/sys; mount -o remount,ro,bind proc/sys
	mount -t sysfs -o ro sysfs sys; mount -t cgroup2 cgroup2 sys/fs/cgroup
	for folder in run tmp; do mount -t tmpfs tmpfs $folder; done
	for unit in sysctl modules-load remount-fs udevd udev-trigger update-utmp; do ln -sf /dev/null etc/systemd/system/systemd-$unit.service; done
	printf "[Unit]\nDefaultDependencies=no\n" >etc/systemd/system/quiet.target
	ip link set lo up
	mkdir old; pivot_root . old; umount -l /old
	container=docker exec /lib/systemd/systemd --system --unit=quiet.target'`

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir, group := t.TempDir(), "mirror-e2e-"+strings.ReplaceAll(t.Name(), "/", "-")
	t.Cleanup(func() { // registered before the process, and so run after its end; those below it end a moment later
		ctx := context.Background()
		if err := wait.Until(ctx, time.Minute, func() error {
			r, err := proc.Exec(ctx, proc.Options{}, tool.System(t, "unshare"), "--mount", "sh", "-c",
				`mount -t cgroup2 cgroup2 "$0" && find "$0/$1" -depth -type d -exec rmdir {} +`, dir, group)
			if err == nil && r.Code != 0 {
				err = errors.New(r.Text())
			}
			return err
		}); err != nil {
			t.Errorf("remove the control group: %v", err)
		}
	})
	holder := proc.Start(t, proc.Options{Name: "systemd", Stop: syscall.SIGKILL}, tool.System(t, "unshare"),
		"--mount", "--pid", "--fork", "--kill-child", "--net", "--uts", "--ipc", "sh", "-ec", boot, dir, group)
	m := &machine{}
	wait.For(t, time.Minute, "systemd", func() error {
		if err := holder.Exited(); err != nil {
			return err
		}
		child, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", holder.Pid()))
		m.root = strings.TrimSpace(string(child))
		if err != nil || m.root == "" {
			return errors.Join(err, errors.New("no process yet"))
		}
		if name, err := os.ReadFile("/proc/" + m.root + "/comm"); err != nil || string(name) != "systemd\n" {
			return fmt.Errorf("%s is not systemd yet: %w", name, err)
		}
		if r := m.try(t, nil, "systemctl", "is-system-running"); r.Stdout != "running\n" {
			return fmt.Errorf("it is %s", r.Text())
		}
		return nil
	})
	return m
}

func (m *machine) try(t *testing.T, stdin []byte, command ...string) proc.Result {
	t.Helper()
	return proc.Run(t, proc.Options{Env: []string{"HOME=/root", "LC_ALL=C.UTF-8"}, Stdin: stdin}, tool.System(t, "nsenter"),
		append([]string{"--target", m.root, "--all", "--root", "--wd"}, command...)...)
}

func (m *machine) run(t *testing.T, command ...string) string {
	t.Helper()
	r := m.try(t, nil, command...)
	if r.Code != 0 {
		t.Fatalf("%s: exit code %d\n%s", strings.Join(command, " "), r.Code, r.Text())
	}
	return r.Stdout
}

func (m *machine) sh(t *testing.T, script string) string {
	t.Helper()
	return m.run(t, "sh", "-ec", script)
}

// copy puts a file of ours on the machine.
func (m *machine) copy(t *testing.T, from, to string) {
	t.Helper()
	content, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if r := m.try(t, content, "sh", "-c", `cat >"$0"`, to); r.Code != 0 {
		t.Fatal(r.Text())
	}
}

// exists looks at files of the machine, and whether they are as they should be: there, or not.
func (m *machine) exists(t *testing.T, want bool, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if there := m.try(t, nil, "test", "-e", p).Code == 0; there != want {
			t.Errorf("%s is there: %t", p, there)
		}
	}
}

// serves waits until the mirror that systemd runs is ready and has a version, and returns its process.
func (m *machine) serves(t *testing.T, version string) string {
	t.Helper()
	wait.For(t, time.Minute, "the mirror", func() error {
		r := m.try(t, nil, "mirror", "status", "-o", "json")
		if r.Code != 0 || !strings.Contains(r.Stdout, `"`+version+`"`) {
			return fmt.Errorf("%s%s", r.Text(), m.try(t, nil, "journalctl", "--unit=mirror", "--no-pager", "--lines=5").Stdout)
		}
		return nil
	})
	return m.show(t, "MainPID")
}

func (m *machine) show(t *testing.T, property string) string {
	t.Helper()
	return strings.TrimSpace(m.run(t, "systemctl", "show", "mirror", "--value", "--property="+property))
}

const confFile = "/etc/mirror/config.yaml"

// installed holds a new installation to what it should be.
func (m *machine) installed(t *testing.T) {
	t.Helper()
	equal(t, "owners and modes", m.sh(t, "stat -c '%U:%G %a %n' /usr/bin/mirror /etc/mirror "+confFile+" /var/lib/mirror /usr/lib/systemd/system/mirror.service"),
		"root:root 755 /usr/bin/mirror\nroot:mirror 750 /etc/mirror\nroot:mirror 640 "+confFile+"\nmirror:mirror 700 /var/lib/mirror\n"+
			"root:root 644 /usr/lib/systemd/system/mirror.service\n")
	m.exists(t, true, "/usr/lib/systemd/system/mirror-node.service", "/etc/mirror/node.env", "/usr/share/man/man1/mirror.1")
	m.exists(t, true, "/usr/share/doc/mirror/copyright", "/usr/share/doc/mirror/config.example.yaml", "/usr/share/doc/mirror/THIRD_PARTY/go/LICENSE")
	equal(t, "version", strings.Fields(m.run(t, "mirror", "version"))[1], "v1.2.3")
	m.run(t, "mirror", "config", "check", "--no-files", confFile)
	r := m.try(t, nil, "systemd-analyze", "verify", "/usr/lib/systemd/system/mirror.service")
	for line := range strings.Lines(r.Text()) {
		if strings.Contains(line, "mirror.service") && !strings.Contains(line, "Unknown key 'RestartSteps'") && !strings.Contains(line, "Unknown key 'RestartMaxDelaySec'") {
			t.Errorf("systemd-analyze verify: %s", line) // those two are of systemd 254, Debian 12 has 252
		}
	}
	equal(t, "exit code of systemd-analyze verify", r.Code, 0)
	equal(t, "state after the installation", m.show(t, "ActiveState"), "inactive")
	m.run(t, "systemctl", "enable", "--now", "mirror")
	pid := m.serves(t, "v1.2.3")
	status := m.run(t, "cat", "/proc/"+pid+"/status")
	if owner := strings.TrimSpace(m.run(t, "id", "--user", "mirror")); !strings.Contains(status, "\nUid:\t"+owner+"\t") {
		t.Errorf("it does not run as user %s:\n%s", owner, status)
	}
	for _, want := range []string{"\nCapEff:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	m.run(t, "systemctl", "reload", "mirror")
	equal(t, "process after a reload", m.serves(t, "v1.2.3"), pid)
	m.exists(t, true, "/var/lib/mirror/state.db")
}

// upgraded holds an upgrade to what it should be: the operator's configuration is kept, and the new version runs.
func (m *machine) upgraded(t *testing.T, upgrade ...string) {
	t.Helper()
	m.sh(t, "echo '# mine' >>"+confFile)
	before := m.show(t, "MainPID")
	m.run(t, upgrade...)
	if text := m.run(t, "cat", confFile); !strings.HasSuffix(text, "# mine\n") || strings.Contains(text, "later default") {
		t.Errorf("after the upgrade the configuration is\n%s", text)
	}
	if after := m.serves(t, "v1.3.0"); after == before {
		t.Error("the upgrade did not restart the mirror")
	}
	m.exists(t, true, "/var/lib/mirror/state.db")
}

// removed holds a removal to what it should be: the service is gone, the data is there.
func (m *machine) removed(t *testing.T, remove ...string) {
	t.Helper()
	pid := m.show(t, "MainPID")
	m.run(t, remove...)
	m.exists(t, false, "/usr/bin/mirror", "/usr/lib/systemd/system/mirror.service", "/usr/lib/systemd/system/mirror-node.service", "/usr/share/man/man1/mirror.1",
		"/usr/share/doc/mirror", "/proc/"+pid,
		"/etc/systemd/system/multi-user.target.wants/mirror.service")
	m.exists(t, true, "/var/lib/mirror/state.db")
}

// TestPackages: what "make release" makes comes out the same twice; the deb and the rpm are installed, upgraded, removed and purged by
// dpkg and rpm, on a machine with a systemd of its own, which runs the mirror; shells complete.
func TestPackages(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	make := func(version, folder, conf string) string {
		t.Helper()
		binary, err := build(dir, version, false, "-trimpath", "-buildvcs=false", "-ldflags=-s -w -X main.version="+version)
		if err != nil {
			t.Fatal(err)
		}
		out := filepath.Join(dir, folder)
		proc.Must(t, proc.Options{Dir: "..", Env: []string{"SOURCE_DATE_EPOCH=1700000000"}}, "go", "run", "./internal/release",
			"-version", version, "-o", out, "-conf", conf, "linux/"+runtime.GOARCH+"="+binary)
		return out
	}
	const conf = "deploy/systemd/config.yaml"
	one := make("v1.2.3", "one", conf)
	same(t, one, make("v1.2.3", "two", conf))
	text, err := os.ReadFile("../" + conf)
	if err != nil {
		t.Fatal(err)
	}
	newer := filepath.Join(dir, "newer.yaml")
	if err := os.WriteFile(newer, append(text, "# A later default.\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	later := make("v1.3.0", "later", newer)

	t.Run("archive", func(t *testing.T) { archive(t, one) })
	t.Run("deb", func(t *testing.T) {
		t.Parallel()
		deb(t, one, later)
	})
	t.Run("rpm", func(t *testing.T) {
		t.Parallel()
		rpm(t, one, later)
	})
}

// same compares two folders, byte for byte.
func same(t *testing.T, a, b string) {
	t.Helper()
	names := proc.Must(t, proc.Options{Dir: a}, "ls")
	equal(t, "files", proc.Must(t, proc.Options{Dir: b}, "ls"), names)
	if len(strings.Fields(names)) != 5 { // archive, SBOM, deb, rpm, SHA256SUMS
		t.Errorf("the release has %s", names)
	}
	for name := range strings.FieldsSeq(names) {
		x, err := os.ReadFile(filepath.Join(a, name))
		y, err2 := os.ReadFile(filepath.Join(b, name))
		if err := errors.Join(err, err2); err != nil || !bytes.Equal(x, y) {
			t.Errorf("%s is another one the second time: %v", name, err)
		}
	}
	proc.Must(t, proc.Options{Dir: a}, "sha256sum", "--check", "--strict", "SHA256SUMS")
}

// archive looks into the tar.gz.
func archive(t *testing.T, release string) {
	t.Helper()
	folder := "mirror-v1.2.3-linux-" + runtime.GOARCH
	f, err := os.Open(filepath.Join(release, folder+".tar.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	have := make(map[string][]byte)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if have[strings.TrimPrefix(h.Name, folder+"/")], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"mirror", "LICENSE", "NOTICE", "README.md", "config.example.yaml", "systemd/mirror.service", "systemd/config.yaml", "completions/mirror.bash",
		"systemd/mirror-node.service", "systemd/node.env", "man/mirror.1",
		"completions/_mirror", "completions/mirror.fish", "completions/mirror.ps1", "THIRD_PARTY/go/LICENSE", "THIRD_PARTY/github.com/spf13/cobra/LICENSE.txt",
	} {
		if len(have[name]) == 0 {
			t.Errorf("the archive has no %s", name)
		}
	}
	bom, err := os.ReadFile(filepath.Join(release, folder+".spdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	if sum := fmt.Sprintf("sha256:%x", sha256.Sum256(have["mirror"])); !strings.Contains(string(bom), sum) {
		t.Errorf("the SBOM is not of the binary with %s", sum)
	}
}

// deb: dpkg installs, upgrades, removes and purges.
func deb(t *testing.T, release, later string) {
	t.Helper()
	m := newMachine(t)
	m.copy(t, filepath.Join(release, "mirror_1.2.3-1_"+runtime.GOARCH+".deb"), "/root/mirror.deb")
	m.copy(t, filepath.Join(later, "mirror_1.3.0-1_"+runtime.GOARCH+".deb"), "/root/later.deb")
	m.run(t, "dpkg", "--install", "/root/mirror.deb")
	m.installed(t)
	shells(t, m, "/usr/share/zsh/vendor-completions")
	m.upgraded(t, "dpkg", "--force-confdef", "--force-confold", "--install", "/root/later.deb")
	m.exists(t, true, confFile+".dpkg-dist")

	pid := m.show(t, "MainPID")
	m.sh(t, "echo 'nonsense: true' >>"+confFile)
	if r := m.try(t, nil, "dpkg", "--install", "/root/later.deb"); r.Code != 0 || !strings.Contains(r.Stderr, "correct the file") {
		t.Errorf("an upgrade with a configuration that is not accepted: exit code %d\n%s", r.Code, r.Text())
	}
	equal(t, "process after that upgrade", m.serves(t, "v1.3.0"), pid)

	m.removed(t, "dpkg", "--remove", "mirror")
	m.exists(t, true, confFile)
	m.sh(t, "mkdir /etc/mirror/secrets && touch /etc/mirror/secrets/hub.pass")
	m.run(t, "dpkg", "--purge", "mirror")
	m.exists(t, false, confFile, confFile+".dpkg-dist", "/var/lib/mirror")
	m.exists(t, true, "/etc/mirror/secrets/hub.pass")
}

// rpm: rpm checks, installs, upgrades and removes.
func rpm(t *testing.T, release, later string) {
	t.Helper()
	m := newMachine(t)
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	m.copy(t, filepath.Join(release, "mirror-1.2.3-1."+arch+".rpm"), "/root/mirror.rpm")
	m.copy(t, filepath.Join(later, "mirror-1.3.0-1."+arch+".rpm"), "/root/later.rpm")
	m.run(t, "rpm", "--checksig", "--verbose", "/root/mirror.rpm")
	list := m.run(t, "rpm", "-q", "--package", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags} %{FILEUSERNAME}:%{FILEGROUPNAME}\n]", "/root/mirror.rpm")
	if !strings.Contains(list, confFile+" cn root:mirror\n") {
		t.Errorf("the configuration is not one that an upgrade keeps, in\n%s", list)
	}
	// The database of rpm is empty on Debian: what the package depends on is there, but rpm does not know it.
	deb := []string{"rpm", "--force-debian", "--nodeps"}
	m.run(t, append(deb, "--install", "/root/mirror.rpm")...)
	m.run(t, "rpm", "--verify", "--nodeps", "mirror")
	m.installed(t)
	m.exists(t, true, "/usr/share/zsh/site-functions/_mirror")
	m.upgraded(t, append(deb, "--upgrade", "/root/later.rpm")...)
	m.exists(t, true, confFile+".rpmnew")
	m.removed(t, append(deb, "--erase", "mirror")...)
	m.exists(t, false, confFile)
	m.exists(t, true, confFile+".rpmsave")
}

// shells: bash, zsh and fish complete "mirror sta" and a flag, each from the file that the package has installed for it.
func shells(t *testing.T, m *machine, zsh string) {
	t.Helper()
	const bash = `. /usr/share/bash-completion/bash_completion
_completion_loader mirror
COMP_WORDS=(mirror sta) COMP_CWORD=1 COMP_LINE="mirror sta" COMP_POINT=10
__start_mirror
echo "${COMPREPLY[@]}"`
	equal(t, "bash", m.run(t, "bash", "-c", bash), "status\n")
	// zsh completes only at a terminal: zpty is one.
	script := `zmodload zsh/zpty
zpty -b z zsh -f
zpty -w z 'PS1= ; fpath=(` + zsh + ` $fpath); autoload -Uz compinit && compinit -D -u && print lo""aded'
zpty -r -m z out '*loaded*'
zpty -w -n z $'mirror statu\t-h; print do""ne\n'
zpty -r -m z out '*done*'
print -r -- $out
zpty -d z`
	if r := m.try(t, nil, "timeout", "60", "zsh", "-fc", script); !strings.Contains(r.Stdout, "\n  mirror status [flags]") {
		t.Errorf("zsh: exit code %d\n%s", r.Code, r.Text())
	}
	equal(t, "fish", strings.Fields(m.run(t, "fish", "-c", "complete -C 'mirror sta'"))[0], "status")
}
