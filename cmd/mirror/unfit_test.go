package main

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// placed puts something other than a file into the place of one.
var placed = map[string]func(path string) error{
	"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
	"folder": func(path string) error { return os.Mkdir(path, 0o700) },
	"device": func(path string) error { return os.Symlink("/dev/zero", path) },
	"huge": func(path string) error {
		f, err := os.Create(path)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(400<<20), f.Close())
	},
}

// Every command that reads files ends, whatever stands in the place of one, and names the path, without another program that opens the
// pipe, and without memory for what is huge.
func TestCommandsDoNotWaitForFiles(t *testing.T) {
	t.Parallel()
	ready := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ready\n")) }))
	t.Cleanup(ready.Close)
	cert, key := certificate(t, time.Now().Add(time.Hour))
	const containerd = "version = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n"
	setup := []string{"setup", "containerd", "--mirror", ready.URL, "--registry", "ghcr.io"}
	named := func(setting string) map[string]string {
		return map[string]string{"c.yaml": "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: data}\n" + setting, "cert": cert, "key": key}
	}
	type scene struct {
		name  string
		files map[string]string // by name in a folder of its own, which is DIR in args
		at    string            // where the odd file stands
		args  []string
		ends  int // the exit code; -1: any
	}
	scenes := []scene{
		{"the configuration: serve", nil, "c.yaml", []string{"serve", "--config", "DIR/c.yaml"}, exitFailed},
		{"the configuration: check", nil, "c.yaml", []string{"config", "check", "--config", "DIR/c.yaml"}, exitFailed},
		{"the configuration: print", nil, "c.yaml", []string{"config", "print", "--config", "DIR/c.yaml"}, exitFailed},
		{"the configuration: status", nil, "c.yaml", []string{"status", "--config", "DIR/c.yaml"}, exitFailed},
		{"the configuration: setup", nil, "c.yaml", []string{"setup", "k3s", "--mirror", ready.URL, "--config", "DIR/c.yaml"}, exitFailed},
		{"the configuration: cache", nil, "c.yaml", []string{"cache", "verify", "--config", "DIR/c.yaml"}, exitFailed},
		{"the configuration: doctor", nil, "c.yaml", []string{"doctor", "image", "ghcr.io/acme/app:1", "--config", "DIR/c.yaml"}, exitFailed},
		{"a token of the admin listener", nil, "token", []string{"status", "--admin", ready.URL, "--admin-token-file", "DIR/token"}, exitFailed},
		{"a CA of the admin listener", nil, "ca", []string{"reload", "--admin", "https://127.0.0.1:1", "--admin-ca", "DIR/ca"}, exitFailed},
		{
			"the certificate of the admin listener",
			map[string]string{"c.yaml": "admin: {listen: '127.0.0.1:1', tls: {cert: odd, key: key}}\n"},
			"odd",
			[]string{"status", "--config", "DIR/c.yaml"},
			exitFailed,
		},
		{"tokens", nil, "tokens", []string{"token", "new", "ci", "--file", "DIR/tokens"}, exitFailed},
		{"a value of Authorization", nil, "value", append(setup, "--authorization-file", "DIR/value"), exitFailed},
		{"hosts.toml: install", map[string]string{"certs.d/ghcr.io/": ""}, "certs.d/ghcr.io/hosts.toml", append(setup, "--install=DIR/certs.d"), exitFailed},
		{"the folder: install", nil, "certs.d", append(setup, "--install=DIR/certs.d"), -1},
		{"containerd's config.toml", nil, "config.toml", append(setup, "--install=DIR/certs.d", "--containerd-config", "DIR/config.toml"), exitFailed},
		{"hosts.toml: uninstall", map[string]string{"certs.d/ghcr.io/": ""}, "certs.d/ghcr.io/hosts.toml", []string{"setup", "containerd", "--uninstall=DIR/certs.d"}, exitOK},
		{
			"the file of before: uninstall",
			map[string]string{"certs.d/ghcr.io/": ""},
			"certs.d/ghcr.io/hosts.toml.before-mirror",
			[]string{"setup", "containerd", "--uninstall=DIR/certs.d"},
			-1,
		},
		{"the folder: uninstall", nil, "certs.d", []string{"setup", "containerd", "--uninstall=DIR/certs.d"}, -1},
		{"hosts.toml: clean", map[string]string{"certs.d/other/": ""}, "certs.d/other/hosts.toml", []string{"node", "clean", "--dir", "DIR/certs.d"}, exitOK},
		{
			"hosts.toml: the agent",
			map[string]string{"certs.d/ghcr.io/": ""},
			"certs.d/ghcr.io/hosts.toml",
			[]string{"node", "run", "--mirror", ready.URL, "--registry", "ghcr.io", "--dir", "DIR/certs.d", "--listen="},
			exitFailed,
		},
		{"an authority", nil, "pki/ca.crt", []string{"setup", "tls", "--dir", "DIR/pki", "--node", "n"}, exitFailed},
		{"its key", map[string]string{"pki/ca.crt": cert}, "pki/ca.key", []string{"setup", "tls", "--dir", "DIR/pki", "--node", "n"}, exitFailed},
		{"the root of a node", nil, "root", []string{"doctor", "node", "--root", "DIR/root"}, exitFailed},
		{"a reason", nil, "log", []string{"explain", "DIR/log"}, -1},
		{"images", nil, "list", []string{"warm", "--dry-run", "--admin", "http://127.0.0.1:1", "-f", "DIR/list"}, exitFailed},
		{"images in a folder", map[string]string{"lists/": ""}, "lists/a.yaml", []string{"warm", "--dry-run", "--admin", "http://127.0.0.1:1", "-f", "DIR/lists"}, exitFailed},
	}
	for _, setting := range []string{
		"tls: {cert: odd, key: key}", "tls: {cert: cert, key: odd}", "admin: {tls: {cert: odd, key: key}}", "admin: {tokenFile: odd}",
		"clients: {htpasswd: odd}", "clients: {tokens: odd}", "tls: {cert: cert, key: key}\nclients: {ca: odd}",
		"tls: {cert: cert, key: key}\nclients: {ca: cert, crl: odd}", "clients: {kubernetes: {audience: a, issuer: 'https://i.example', jwksFile: odd}}",
		"clients: {kubernetes: {audience: a, issuer: 'https://i.example', jwks: 'https://i.example/keys', ca: odd}}",
		"webhooks: {hub: {type: dockerhub, secretFile: odd}}", "upstreams: {a.example: {endpoints: [{url: 'https://a.example', ca: odd}]}}",
		"upstreams: {a.example: {endpoints: [{url: 'https://a.example', clientCert: odd, clientKey: key}]}}",
		"upstreams: {a.example: {endpoints: [{url: 'https://a.example', clientCert: cert, clientKey: odd}]}}",
	} {
		files := named(setting + "\n")
		if strings.HasPrefix(setting, "admin: {") {
			files["c.yaml"] = "listen: 127.0.0.1:0\ncache: {dir: data}\n" + strings.Replace(setting, "admin: {", "admin: {listen: '127.0.0.1:0', ", 1) + "\n"
		}
		scenes = append(
			scenes, scene{setting + ": serve", files, "odd", []string{"serve", "--config", "DIR/c.yaml"}, exitFailed},
			scene{setting + ": check", files, "odd", []string{"config", "check", "--config", "DIR/c.yaml"}, exitFailed},
		)
	}
	for _, setting := range []string{
		"passwordFile: odd, username: u", "dockerConfig: odd", "gar: {keyFile: odd}",
	} {
		scenes = append(scenes, scene{
			setting, named("upstreams: {a.example: {endpoints: [{url: 'http://127.0.0.1:1'}], credentials: [{name: c, " + setting + "}]}}\n"), "odd",
			[]string{"config", "check", "--config", "DIR/c.yaml"},
			-1,
		}, scene{
			setting + ": doctor", named("upstreams: {a.example: {endpoints: [{url: 'http://127.0.0.1:1'}], credentials: [{name: c, " + setting + "}]}}\n"), "odd",
			[]string{"doctor", "image", "a.example/app:1", "--config", "DIR/c.yaml"},
			-1,
		})
	}
	for _, at := range []string{
		"etc/containerd/config.toml", "etc/containerd/conf.d/a.toml", "etc/containerd/certs.d", "etc/containerd/certs.d/ghcr.io", "etc/containerd/certs.d/ghcr.io/hosts.toml",
		"etc/containerd/certs.d/ghcr.io/ca.crt", "etc/docker/daemon.json", "etc/containers/registries.conf", "etc/containers/registries.conf.d/a.conf",
		"etc/systemd/system/containerd.service.d/proxy.conf", "etc/rancher/k3s/registries.yaml", "etc/soci-snapshotter-grpc/config.toml",
	} {
		files := map[string]string{
			"root/etc/containerd/config.toml":                  containerd + "[proxy_plugins.soci]\naddress = \"/run/soci\"\n[plugins.\"io.containerd.cri.v1.images\"]\nsnapshotter = \"soci\"\n",
			"root/etc/containerd/certs.d/ghcr.io/hosts.toml":   "server = \"https://ghcr.io\"\n[host.\"" + ready.URL + "\"]\nca = \"ca.crt\"\n",
			"root/usr/lib/systemd/system/containerd.service":   "[Service]\n",
			"root/var/lib/rancher/k3s/agent/etc/containerd/x/": "",
		}
		if strings.Contains(at, "rancher") {
			files["root/var/lib/rancher/k3s/agent/etc/containerd/config.toml"] = containerd
		}
		for name := range files {
			if name == "root/"+at || strings.HasPrefix(name, "root/"+at+"/") {
				delete(files, name)
			}
		}
		scenes = append(scenes, scene{"a node's " + at, files, "root/" + at, []string{"doctor", "node", "--root", "DIR/root"}, -1})
	}
	for _, s := range scenes {
		for kind, place := range placed {
			t.Run(s.name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				for name, text := range s.files {
					at := filepath.Join(dir, name)
					folder := filepath.Dir(at)
					if strings.HasSuffix(name, "/") {
						folder = at
					}
					if err := os.MkdirAll(folder, 0o755); err != nil {
						t.Fatal(err)
					}
					if folder != at {
						if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
							t.Fatal(err)
						}
					}
				}
				at := filepath.Join(dir, s.at)
				if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), place(at)); err != nil {
					t.Fatal(err)
				}
				args := make([]string, len(s.args))
				for i, a := range s.args {
					args[i] = strings.ReplaceAll(a, "DIR", dir)
				}
				var out, errs bytes.Buffer
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				code := run(ctx, &out, &errs, args...)
				text := out.String() + errs.String()
				switch {
				case ctx.Err() != nil:
					t.Fatalf("it does not end by itself: %s", text)
				case kind == "folder" && (s.at == "certs.d" || s.at == "root" || s.at == "lists/a.yaml" || strings.HasPrefix(s.name, "a node's")), strings.Contains(s.name, "dockerConfig"):
					return // a folder belongs there, or is not looked into
				case s.ends >= 0 && code != s.ends:
					t.Errorf("exit code %d, want %d: %s", code, s.ends, text)
				case s.ends == exitFailed && !strings.Contains(text, filepath.Base(s.at)):
					t.Errorf("it does not name %s: %s", s.at, text)
				}
			})
		}
	}
}

// A reload that reads from a mount that does not answer does not keep the process from stopping.
func TestStopDoesNotWaitForAReload(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		if ended(make(chan struct{})) || time.Since(began) != reloadEnd {
			t.Errorf("a reload that hangs: %s", time.Since(began))
		}
		done := make(chan struct{})
		close(done)
		if !ended(done) {
			t.Error("a reload that has ended")
		}
	})
}
