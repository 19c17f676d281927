package e2e_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// machine is this one with a file system of its own: what is written there goes away with the test.
type machine struct {
	holder *proc.Process
	root   string
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	dir := t.TempDir()
	m := &machine{root: filepath.Join(dir, "root")}
	m.holder = proc.Start(t, proc.Options{Name: "machine", Stop: 9}, tool.System(t, "unshare"), "--mount", "sh", "-ec", `
		mount -t tmpfs tmpfs "$0"; cd "$0"; mkdir upper work root
		mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
		mount --rbind /dev root/dev; mount -t proc proc root/proc; mount -t tmpfs tmpfs root/tmp
		echo ready; exec tail -f /dev/null`, dir)
	wait.For(t, time.Minute, "the file system", func() error {
		if strings.Contains(m.holder.Output(), "ready") {
			return nil
		}
		if err := m.holder.Exited(); err != nil {
			return err
		}
		return errors.New("it is not there")
	})
	return m
}

// line is the command line that runs a command on the machine.
func (m *machine) line(t *testing.T, command []string) []string {
	t.Helper()
	return append([]string{fmt.Sprintf("--mount=/proc/%d/ns/mnt", m.holder.Pid()), tool.System(t, "chroot"), m.root}, command...)
}

func (m *machine) try(t *testing.T, command ...string) proc.Result {
	t.Helper()
	return proc.Run(t, proc.Options{Env: []string{"HOME=/root", "LC_ALL=C.UTF-8"}}, tool.System(t, "nsenter"), m.line(t, command)...)
}

func (m *machine) run(t *testing.T, command ...string) string {
	t.Helper()
	r := m.try(t, command...)
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
	proc.Must(t, proc.Options{}, tool.System(t, "nsenter"), fmt.Sprintf("--mount=/proc/%d/ns/mnt", m.holder.Pid()), "cp", from, m.root+to)
}

// systemctl puts a program in the place of systemctl, which records the calls and calls the mirror active: no systemd runs here.
func (m *machine) systemctl(t *testing.T) {
	t.Helper()
	m.sh(t, `mkdir -p /run/systemd/system
		printf '#!/bin/sh\necho "$@" >>/run/calls\n' >/run/systemctl
		chmod +x /run/systemctl; mv /run/systemctl /usr/bin/systemctl`)
}

// calls are those of systemctl since the last time.
func (m *machine) calls(t *testing.T) string {
	t.Helper()
	return strings.Join(strings.Split(strings.TrimSpace(m.sh(t, "touch /run/calls; cat /run/calls; : >/run/calls")), "\n"), ", ")
}

// exists looks at files of the machine, and whether they are as they should be: there, or not.
func (m *machine) exists(t *testing.T, want bool, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if there := m.try(t, "test", "-e", p).Code == 0; there != want {
			t.Errorf("%s is there: %t", p, there)
		}
	}
}

// serves starts the mirror of the package as its unit does, and waits until it is ready.
func (m *machine) serves(t *testing.T) {
	t.Helper()
	unit := m.run(t, "cat", "/usr/lib/systemd/system/mirror.service")
	_, rest, _ := strings.Cut(unit, "\nExecStart=")
	start, _, _ := strings.Cut(rest, "\n")
	command := append([]string{
		"setpriv", "--reuid=mirror", "--regid=mirror", "--clear-groups", "--no-new-privs",
		"env", "MIRROR_LISTEN=127.0.0.1:0", "MIRROR_ADMIN_LISTEN=127.0.0.1:0", "MIRROR_CACHE_MIN_FREE=0", "MIRROR_CACHE_SIZE=1GiB",
	}, strings.Fields(start)...)
	p := proc.Start(t, proc.Options{Name: "mirror", Dir: "/"}, tool.System(t, "nsenter"), m.line(t, command)...)
	wait.For(t, time.Minute, "the mirror", func() error {
		if strings.Contains(p.Output(), "mirror is ready") {
			return nil
		}
		if err := p.Exited(); err != nil {
			return err
		}
		return errors.New("it is not ready")
	})
	p.Stop(t)
}

const confFile = "/etc/mirror/config.yaml"

// installed holds a new installation to what it should be.
func (m *machine) installed(t *testing.T) {
	t.Helper()
	equal(t, "owners and modes", m.sh(t, "stat -c '%U:%G %a %n' /usr/bin/mirror /etc/mirror "+confFile+" /var/lib/mirror /usr/lib/systemd/system/mirror.service"),
		"root:root 755 /usr/bin/mirror\nroot:mirror 750 /etc/mirror\nroot:mirror 640 "+confFile+"\nmirror:mirror 700 /var/lib/mirror\n"+
			"root:root 644 /usr/lib/systemd/system/mirror.service\n")
	m.exists(t, true, "/usr/share/doc/mirror/copyright", "/usr/share/doc/mirror/config.example.yaml", "/usr/share/doc/mirror/THIRD_PARTY/go/LICENSE")
	equal(t, "version", strings.Fields(m.run(t, "mirror", "version"))[1], "v1.2.3")
	m.run(t, "mirror", "config", "check", "--no-files", confFile)
	r := m.try(t, "systemd-analyze", "verify", "/usr/lib/systemd/system/mirror.service")
	for line := range strings.Lines(r.Text()) {
		if strings.Contains(line, "mirror.service") && !strings.Contains(line, "Unknown key 'RestartSteps'") && !strings.Contains(line, "Unknown key 'RestartMaxDelaySec'") {
			t.Errorf("systemd-analyze verify: %s", line) // those two are of systemd 254, Debian 12 has 252
		}
	}
	equal(t, "exit code of systemd-analyze verify", r.Code, 0)
	equal(t, "calls at the installation", m.calls(t), "daemon-reload")
	m.serves(t)
	m.exists(t, true, "/var/lib/mirror/state.db")
}

// TestPackages: what "make release" makes comes out the same twice; the deb and the rpm are installed, upgraded, removed and purged by
// dpkg and rpm, on a copy of this machine's file system; shells load the completions.
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
	m.systemctl(t)
	m.copy(t, filepath.Join(release, "mirror_1.2.3-1_"+runtime.GOARCH+".deb"), "/tmp/mirror.deb")
	m.copy(t, filepath.Join(later, "mirror_1.3.0-1_"+runtime.GOARCH+".deb"), "/tmp/later.deb")
	m.run(t, "dpkg", "-i", "/tmp/mirror.deb")
	m.installed(t)
	shells(t, m, "/usr/share/zsh/vendor-completions")

	m.sh(t, "echo '# mine' >>"+confFile)
	m.run(t, "dpkg", "--force-confdef", "--force-confold", "-i", "/tmp/later.deb")
	equal(t, "calls at the upgrade", m.calls(t), "daemon-reload, daemon-reload, --quiet is-active mirror.service, restart mirror.service")
	if text := m.run(t, "cat", confFile); !strings.HasSuffix(text, "# mine\n") || strings.Contains(text, "later default") {
		t.Errorf("after the upgrade the configuration is\n%s", text)
	}
	m.exists(t, true, confFile+".dpkg-dist", "/var/lib/mirror/state.db")
	m.sh(t, "echo 'nonsense: true' >>"+confFile)
	if r := m.try(t, "dpkg", "-i", "/tmp/later.deb"); r.Code != 0 || !strings.Contains(r.Stderr, "correct the file") {
		t.Errorf("an upgrade with a configuration that is not accepted: exit code %d\n%s", r.Code, r.Text())
	}
	equal(t, "calls at that upgrade", m.calls(t), "daemon-reload, daemon-reload, --quiet is-active mirror.service")

	m.run(t, "dpkg", "--remove", "mirror")
	equal(t, "calls at the removal", m.calls(t), "disable --now mirror.service, daemon-reload")
	m.exists(t, false, "/usr/bin/mirror", "/usr/lib/systemd/system/mirror.service", "/usr/share/doc/mirror")
	m.exists(t, true, confFile, "/var/lib/mirror/state.db")
	m.sh(t, "mkdir /etc/mirror/secrets && touch /etc/mirror/secrets/hub.pass")
	m.run(t, "dpkg", "--purge", "mirror")
	m.exists(t, false, confFile, confFile+".dpkg-dist", "/var/lib/mirror")
	m.exists(t, true, "/etc/mirror/secrets/hub.pass")
}

// rpm: rpm checks, installs, upgrades and removes.
func rpm(t *testing.T, release, later string) {
	t.Helper()
	m := newMachine(t)
	m.systemctl(t)
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	m.copy(t, filepath.Join(release, "mirror-1.2.3-1."+arch+".rpm"), "/tmp/mirror.rpm")
	m.copy(t, filepath.Join(later, "mirror-1.3.0-1."+arch+".rpm"), "/tmp/later.rpm")
	m.run(t, "rpm", "--checksig", "--verbose", "/tmp/mirror.rpm")
	list := m.run(t, "rpm", "-q", "--package", "--queryformat", "[%{FILENAMES} %{FILEFLAGS:fflags} %{FILEUSERNAME}:%{FILEGROUPNAME}\n]", "/tmp/mirror.rpm")
	if !strings.Contains(list, confFile+" cn root:mirror\n") {
		t.Errorf("the configuration is not one that an upgrade keeps, in\n%s", list)
	}
	// The database of rpm is empty on Debian: what the package depends on is there, but rpm does not know it.
	deb := []string{"rpm", "--force-debian", "--nodeps"}
	m.run(t, append(deb, "--install", "/tmp/mirror.rpm")...)
	m.run(t, "rpm", "--verify", "--nodeps", "mirror")
	m.installed(t)
	m.exists(t, true, "/usr/share/zsh/site-functions/_mirror")

	m.sh(t, "echo '# mine' >>"+confFile)
	m.run(t, append(deb, "--upgrade", "/tmp/later.rpm")...)
	equal(t, "calls at the upgrade", m.calls(t), "daemon-reload, --quiet is-active mirror.service, restart mirror.service, daemon-reload")
	if text := m.run(t, "cat", confFile); !strings.HasSuffix(text, "# mine\n") || strings.Contains(text, "later default") {
		t.Errorf("after the upgrade the configuration is\n%s", text)
	}
	m.exists(t, true, confFile+".rpmnew", "/var/lib/mirror/state.db")

	m.run(t, append(deb, "--erase", "mirror")...)
	equal(t, "calls at the removal", m.calls(t), "disable --now mirror.service, daemon-reload")
	m.exists(t, false, "/usr/bin/mirror", "/usr/lib/systemd/system/mirror.service", confFile)
	m.exists(t, true, confFile+".rpmsave", "/var/lib/mirror/state.db")
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
	if r := m.try(t, "timeout", "60", "zsh", "-fc", script); !strings.Contains(r.Stdout, "\n  mirror status [flags]") {
		t.Errorf("zsh: exit code %d\n%s", r.Code, r.Text())
	}
	equal(t, "fish", strings.Fields(m.run(t, "fish", "-c", "complete -C 'mirror sta'"))[0], "status")
}
