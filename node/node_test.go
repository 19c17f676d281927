package node

import (
	gocmp "cmp"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write the golden files")

func options() Options {
	return Options{Mirror: "http://10.0.0.7:5000", Registries: []Registry{
		{Name: "docker.io"}, {Name: "ghcr.io"}, {Name: "registry.example.com:5000", Server: "http://registry.example.com:5000"},
	}}
}

// printed is an output as a person reads it.
func printed(o Output) string {
	var b strings.Builder
	for _, f := range o.Files {
		b.WriteString("==> " + f.Path)
		if f.Part {
			b.WriteString(" (merge)")
		}
		b.WriteString("\n" + f.Content)
	}
	for _, n := range o.Notes {
		b.WriteString("- " + n + "\n")
	}
	return b.String()
}

func targets() map[string]func(Options) (Output, error) {
	return map[string]func(Options) (Output, error){
		"containerd": func(o Options) (Output, error) { return Containerd(o, "") },
		"microk8s":   MicroK8s, "eks": EKS, "bottlerocket": Bottlerocket, "gke": GKE, "soci": SOCI, "stargz": Stargz, "podman": Podman,
		"docker": Docker, "buildkit": BuildKit, "kaniko": Kaniko, "kind": Kind, "k3s": K3s, "rke2": RKE2, "talos": Talos, "openshift": OpenShift,
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, target := range targets() {
		for variant, change := range map[string]func(*Options){
			"plain": func(*Options) {},
			"full": func(o *Options) {
				o.Mirror, o.CA, o.Default, o.NoFallback = "https://mirror.example:5443", "/etc/mirror/ca.crt", true, true
				o.Node, o.Authorization = "node-7", "Bearer s3cret"
				o.ClientCert, o.ClientKey = "/etc/mirror/client.cert", "/etc/mirror/client.key"
			},
		} {
			t.Run(name+"/"+variant, func(t *testing.T) {
				t.Parallel()
				o := options()
				change(&o)
				out, err := target(o)
				got := printed(out)
				if err != nil {
					// What the client has no setting for is left out, in a second try.
					got = "refused:\n" + err.Error() + "\n"
					for _, without := range []func(*Options){
						func(o *Options) { o.Node, o.Authorization = "", "" }, func(o *Options) { o.NoFallback = false },
						func(o *Options) { o.CA = "" },
					} {
						if without(&o); err == nil {
							break
						}
						if out, err = target(o); err != nil {
							only := o
							only.ClientCert, only.ClientKey = "", ""
							out, err = target(only)
						}
					}
					if err != nil {
						t.Fatal(err)
					}
					got += "otherwise:\n" + printed(out)
				}
				golden(t, filepath.Join("testdata", name+"."+variant+".golden"), got)
			})
		}
	}
}

// golden compares a text with that of a file, which -update writes.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(string(want), got); d != "" {
		t.Errorf("%s (-want +got):\n%s", file, d)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*Options)
		says   string
	}{
		{"no mirror", func(o *Options) { o.Mirror = "" }, "is not a URL"},
		{"no scheme", func(o *Options) { o.Mirror = "10.0.0.7:5000" }, "is not a URL"},
		{"a path", func(o *Options) { o.Mirror += "/v2" }, "more than a scheme, a host and a valid port"},
		{"a password", func(o *Options) { o.Mirror = "http://a:b@10.0.0.7:5000" }, "more than a scheme, a host and a valid port"},
		{"a quote", func(o *Options) { o.Mirror = `http://10.0.0.7"x` }, "more than"},
		{"a port that does not exist", func(o *Options) { o.Mirror = "http://10.0.0.7:99999" }, "more than"},
		{"no registry", func(o *Options) { o.Registries = nil }, "no registry"},
		{"a registry with a path", func(o *Options) { o.Registries[0].Name = "ghcr.io/acme" }, "not the name of a registry"},
		{"a registry that leaves the folder", func(o *Options) { o.Registries[0].Name = ".." }, "not the name of a registry"},
		{"a pattern", func(o *Options) { o.Registries[0].Name = "*.dkr.ecr.eu-west-1.amazonaws.com" }, "not the name of a registry"},
		{"a server with a path", func(o *Options) { o.Registries[0].Server = "https://a.example/v2" }, "is not a URL"},
		{"a node of two lines", func(o *Options) { o.Node = "a\nb" }, "printable"},
		{"a header of two lines", func(o *Options) { o.Authorization = "a\r\nb: c" }, "not one of a header"},
		{"a token without its scheme", func(o *Options) { o.Authorization = "mirror_abc" }, "write Bearer and a space"},
		{"a scheme without a token", func(o *Options) { o.Authorization = "Bearer " }, "write Bearer and a space"},
		{"another scheme", func(o *Options) { o.Authorization = "Token abc" }, "write Bearer and a space"},
		{"a certificate without its key", func(o *Options) { o.Mirror, o.ClientCert = "https://10.0.0.7", "/etc/c" }, "belong together"},
		{"a key that is relative", func(o *Options) { o.Mirror, o.ClientCert, o.ClientKey = "https://10.0.0.7", "/etc/c", "k" }, "absolute path"},
		{"a certificate at http", func(o *Options) { o.ClientCert, o.ClientKey = "/etc/c", "/etc/k" }, "of no use"},
		{"a CA that is relative", func(o *Options) { o.Mirror, o.CA = "https://10.0.0.7", "ca.crt" }, "absolute path"},
		{"a CA at http", func(o *Options) { o.CA = "/etc/ca.crt" }, "of no use"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := options()
			tt.change(&o)
			for name, target := range targets() {
				out, err := target(o)
				if err == nil || !strings.Contains(err.Error(), tt.says) || len(out.Files) > 0 {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
}

// tree is what is below a folder, by path.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, p)
		if d.IsDir() {
			all[name+"/"] = ""
			return err
		}
		b, err := os.ReadFile(p)
		all[name] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Files of others stay, ours are replaced, and Uninstall leaves the folder as it was.
func TestInstall(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	put(t, dir, "ghcr.io/hosts.toml", "server = \"https://ghcr.io\" # by hand\n")
	put(t, dir, "ghcr.io/ca.crt", "a certificate")
	put(t, dir, "quay.io/hosts.toml", "# another tool\n")
	put(t, dir, "notes.txt", "")
	at := tree(t, dir)

	install := func(o Options) []Change {
		t.Helper()
		out, err := Containerd(o, dir)
		if err != nil {
			t.Fatal(err)
		}
		changes, err := Install(dir, out.Files)
		if err != nil {
			t.Fatal(err)
		}
		return changes
	}
	want := []Change{
		{"docker.io/hosts.toml", "written"}, {"ghcr.io/hosts.toml", "replaced"}, {"registry.example.com:5000/hosts.toml", "written"},
	}
	if d := cmp.Diff(want, install(options())); d != "" {
		t.Error(d)
	}
	after := tree(t, dir)
	if !strings.Contains(after["ghcr.io/hosts.toml"], "10.0.0.7") || after["ghcr.io/ca.crt"] != "a certificate" ||
		after["quay.io/hosts.toml"] != at["quay.io/hosts.toml"] {
		t.Errorf("after: %q", after)
	}
	for _, c := range install(options()) {
		if c.Done != "unchanged" {
			t.Errorf("again: %+v", c)
		}
	}
	if d := cmp.Diff(after, tree(t, dir)); d != "" {
		t.Errorf("the second time changes something: %s", d)
	}
	other := options()
	other.Mirror = "http://10.0.0.8:5000"
	install(other)
	changes, err := Uninstall(dir)
	if err != nil {
		t.Fatal(err)
	}
	want = []Change{
		{"docker.io/hosts.toml", "removed"}, {"ghcr.io/hosts.toml", "restored"}, {"registry.example.com:5000/hosts.toml", "removed"},
	}
	if d := cmp.Diff(want, changes); d != "" {
		t.Error(d)
	}
	if d := cmp.Diff(at, tree(t, dir)); d != "" {
		t.Errorf("Uninstall leaves a difference: %s", d)
	}
	if changes, err := Uninstall(dir); err != nil || len(changes) > 0 {
		t.Errorf("once more: %v %v", changes, err)
	}
	if changes, err := Uninstall(filepath.Join(dir, "not", "there")); err != nil || len(changes) > 0 {
		t.Errorf("of nothing: %v %v", changes, err)
	}
}

// A crash between any two steps leaves each registry with a file that works, and both calls go on from there.
func TestInstallAfterACrash(t *testing.T) {
	t.Parallel()
	o := options()
	o.Registries = o.Registries[1:2]
	const mine = "# by hand\n"
	for name, left := range map[string]map[string]string{
		"the folder alone":    {"ghcr.io/": ""},
		"a part of the copy":  {"ghcr.io/hosts.toml": mine, "ghcr.io/hosts.toml.mirror-new": "# by"},
		"the copy":            {"ghcr.io/hosts.toml": mine, "ghcr.io/hosts.toml.before-mirror": mine},
		"a part of the file":  {"ghcr.io/hosts.toml": mine, "ghcr.io/hosts.toml.before-mirror": mine, "ghcr.io/hosts.toml.mirror-new": Mark[:9]},
		"an older copy":       {"ghcr.io/hosts.toml": mine, "ghcr.io/hosts.toml.before-mirror": "# older\n"},
		"a part of our first": {"ghcr.io/hosts.toml.mirror-new": Mark[:9]},
		"ours was removed":    {"ghcr.io/hosts.toml.before-mirror": mine},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := func() (dir string) {
				dir = t.TempDir()
				for name, content := range left {
					if strings.HasSuffix(name, "/") {
						if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
							t.Fatal(err)
						}
						continue
					}
					put(t, dir, name, content)
				}
				return dir
			}
			dir := start()
			out, err := Containerd(o, dir)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Install(dir, out.Files); err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir)["ghcr.io/hosts.toml"]; got != out.Files[0].Content {
				t.Errorf("after Install: %q", got)
			}
			for _, dir := range []string{dir, start()} {
				if _, err := Uninstall(dir); err != nil {
					t.Fatal(err)
				}
				got := tree(t, dir)
				had := gocmp.Or(left["ghcr.io/hosts.toml"], left["ghcr.io/hosts.toml.before-mirror"])
				if got["ghcr.io/hosts.toml"] != had || got["ghcr.io/hosts.toml.mirror-new"] != "" {
					t.Errorf("after Uninstall: %q", got)
				}
			}
		})
	}
}

// A link in the folder does not lead out of it.
func TestInstallStaysInItsFolder(t *testing.T) {
	t.Parallel()
	dir, out := t.TempDir(), t.TempDir()
	if err := os.Symlink(out, filepath.Join(dir, "ghcr.io")); err != nil {
		t.Fatal(err)
	}
	o, err := Containerd(options(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Install(dir, o.Files); err == nil || !strings.Contains(err.Error(), "no link is followed") {
		t.Errorf("it was written: %v", err)
	}
	mistyped := filepath.Join(dir, "not", "there")
	if o, err = Containerd(options(), mistyped); err != nil {
		t.Fatal(err)
	}
	if _, err := Install(mistyped, o.Files); err == nil || !strings.Contains(err.Error(), "check its path") {
		t.Errorf("below a folder that is not there: %v", err)
	}
	if got := tree(t, out); len(got) != 1 {
		t.Errorf("outside: %v", got)
	}
}

// What is not a regular file, or is larger than a hosts.toml can be, is of another program: no call waits for it or reads all of it, it stays, and
// does not keep the files of other registries from being taken back.
func TestWhatIsNotAHostsTOMLStays(t *testing.T) {
	t.Parallel()
	for kind, place := range map[string]func(path string) error{
		"a pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a folder": func(path string) error { return os.Mkdir(path, 0o700) },
		"a device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"huge": func(path string) error {
			f, err := os.Create(path)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(300<<20), f.Close())
		},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			o := options()
			out, err := Containerd(o, dir)
			if err != nil {
				t.Fatal(err)
			}
			at := filepath.Join(dir, "ghcr.io", "hosts.toml")
			if err := errors.Join(os.Mkdir(filepath.Dir(at), 0o755), place(at)); err != nil {
				t.Fatal(err)
			}
			was, err := os.Lstat(at)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Install(dir, out.Files)
			link := kind == "a device" // which leads out of the folder
			if err == nil || !link && !strings.Contains(err.Error(), "ghcr.io/hosts.toml: it ") || strings.Contains(err.Error(), "no link is followed") != link {
				t.Errorf("Install: %v", err)
			}
			if link {
				if err := os.WriteFile(filepath.Join(dir, "docker.io", "hosts.toml"), []byte(out.Files[0].Content), 0o600); err != nil {
					t.Fatal(err)
				}
				out.Files = slices.Delete(out.Files, 1, 2)
			}
			changes, err := Repair(dir, out.Files)
			want := []Change{
				{"docker.io/hosts.toml", "unchanged"}, {"ghcr.io/hosts.toml", "foreign"}, {"registry.example.com:5000/hosts.toml", "written"},
			}
			if link {
				want = slices.Delete(want, 1, 2)
			}
			if d := cmp.Diff(want, changes); d != "" || err != nil {
				t.Errorf("Repair: %v %s", err, d)
			}
			changes, err = Uninstall(dir)
			want = []Change{{"docker.io/hosts.toml", "removed"}, {"registry.example.com:5000/hosts.toml", "removed"}}
			if d := cmp.Diff(want, changes); d != "" || err != nil {
				t.Errorf("Uninstall: %v %s", err, d)
			}
			if now, err := os.Lstat(at); err != nil || !os.SameFile(was, now) {
				t.Errorf("it is another one: %v", err)
			}

			// In the place of the file that was kept.
			if err := errors.Join(os.RemoveAll(at), os.WriteFile(at, []byte(Mark+"\n"), 0o600), place(filepath.Join(filepath.Dir(at), before))); err != nil {
				t.Fatal(err)
			}
			done := map[bool]string{true: "restored", false: "removed"}[kind == "huge"] // earlier versions kept files of any size
			changes, err = Uninstall(dir)
			if d := cmp.Diff([]Change{{"ghcr.io/hosts.toml", done}}, changes); d != "" || err != nil {
				t.Errorf("Uninstall with it as the file of before: %v %s", err, d)
			}
		})
	}
}

// A login that the network can read is named; one that stays on the machine, or goes over TLS, is not.
func TestLoginInClear(t *testing.T) {
	t.Parallel()
	for mirror, clear := range map[string]bool{
		"http://10.0.0.7:5000": true, "http://mirror.example:5000": true, "https://mirror.example:5000": false,
		"http://127.0.0.1:5000": false, "http://[::1]:5000": false, "http://localhost:5000": false,
	} {
		out, err := Containerd(Options{Mirror: mirror, Registries: []Registry{{Name: "ghcr.io"}}, Authorization: "Bearer s3cret"}, "")
		if err != nil || strings.Contains(strings.Join(out.Notes, " "), "clear text") != clear {
			t.Errorf("%s: %v %q", mirror, err, out.Notes)
		}
	}
}
