package node

import (
	"context"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
)

// applied is a node after the change that an Output has for it.
func applied(t *testing.T, root fstest.MapFS, f File) fstest.MapFS {
	t.Helper()
	after := maps.Clone(root)
	name := strings.TrimPrefix(f.Path, "/")
	if !f.Part {
		after[name] = &fstest.MapFile{Data: []byte(f.Content)}
		return after
	}
	after[name] = &fstest.MapFile{Data: f.Apply(root[name].Data)}
	return after
}

// The change is exact: after it containerd reads the folder, and nothing else is another.
func TestConfigPath(t *testing.T) {
	t.Parallel()
	const dir = "/etc/containerd/certs.d"
	for _, tt := range []struct {
		name    string
		node    string
		release string
		path    string // of the change; empty: there is none
		line    int
		content string
		says    string
	}{
		{
			"1.6's own default", "-- etc/containerd/config.toml --\nversion = 2\n[plugins]\n  [plugins.\"io.containerd.grpc.v1.cri\"]\n" +
				"    sandbox_image = \"a\"\n    [plugins.\"io.containerd.grpc.v1.cri\".registry]\n      config_path = \"\"\n\n" +
				"      [plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors]\n", "1.6.20", "/etc/containerd/config.toml", 6,
			"      config_path = \"/etc/containerd/certs.d\"\n", "config_path is not set",
		},
		{
			"2.4's own default", "-- etc/containerd/config.toml --\nversion = 4\nimports = ['/etc/containerd/conf.d/*.toml']\n[plugins]\n" +
				"  [plugins.'io.containerd.cri.v1.images']\n    [plugins.'io.containerd.cri.v1.images'.registry]\n      config_path = ''\n", "2.4.2",
			"/etc/containerd/conf.d/99-mirror.toml", 0, "version = 4\n\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
			"config_path is not set",
		},
		{
			"2.x without imports", "-- etc/containerd/config.toml --\nversion = 3\n[debug]\n  level = \"info\"", "2.3.7", "/etc/containerd/config.toml", AtEnd,
			"\n[plugins.\"io.containerd.cri.v1.images\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "containerd 2.3.7 (a test)",
		},
		{
			"2.x, a file of 1.x", "-- etc/containerd/config.toml --\nversion = 2\nimports = [\"conf.d/*.toml\"]\n", "2.0.1",
			"/etc/containerd/conf.d/99-mirror.toml", 0, "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n",
			"",
		},
		{
			"1.7 with a file beside it", "-- etc/containerd/config.toml --\nversion = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" +
				"[plugins.\"io.containerd.grpc.v1.cri\"]\n  sandbox_image = \"a\"\n", "1.7.35", "/etc/containerd/config.toml", AtEnd,
			"\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "",
		},
		{
			"1.7, the last file has the table", "-- etc/containerd/config.toml --\nversion = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" +
				"[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n-- etc/containerd/conf.d/99-nvidia.toml --\n" +
				"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"nvidia\"\n", "1.7.35",
			"/etc/containerd/conf.d/99-nvidia.toml", AtEnd, "\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "",
		},
		{
			"2.x, the same", "-- etc/containerd/config.toml --\nversion = 2\nimports = [\"/etc/containerd/conf.d/*.toml\"]\n" +
				"[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n-- etc/containerd/conf.d/99-nvidia.toml --\n" +
				"version = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd]\n  default_runtime_name = \"nvidia\"\n", "2.1.0",
			"", 0, "", "reads this folder: /etc/containerd/config.toml:4.",
		},
		{
			"a table without config_path", "-- etc/containerd/config.toml --\nversion = 2\n  [plugins.\"io.containerd.grpc.v1.cri\".registry] # here\n" +
				"    [plugins.\"io.containerd.grpc.v1.cri\".registry.headers]\n      A = [\"b\"]\n", "1.6.20", "/etc/containerd/config.toml", 2,
			"  [plugins.\"io.containerd.grpc.v1.cri\".registry] # here\n    config_path = \"/etc/containerd/certs.d\"\n", "",
		},
		{
			"a table below it alone", "-- etc/containerd/config.toml --\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"a.example\".auth]\n" +
				"  username = \"a\"\n", "1.6.20", "/etc/containerd/config.toml", AtEnd,
			"\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "",
		},
		{
			"version 1", "-- etc/containerd/config.toml --\n[plugins.cri]\n  sandbox_image = \"a\"\n", "1.6.20", "/etc/containerd/config.toml", AtEnd,
			"\n[plugins.cri.registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "",
		},
		{
			"a list", "-- etc/containerd/config.toml --\nversion = 3\n[plugins.\"io.containerd.cri.v1.images\".registry]\n" +
				"config_path = \"/etc/containerd/certs.d:/etc/docker/certs.d\" # EKS\n", "2.1.5", "/etc/containerd/config.toml", 3,
			"config_path = \"/etc/containerd/certs.d\"\n", "is a list",
		},
		{
			"the last drop-in has a list", "-- etc/containerd/config.toml --\nversion = 3\nimports = [\"conf.d/*.toml\"]\n-- etc/containerd/conf.d/zz.toml --\nversion = 3\n" +
				"[plugins.\"io.containerd.cri.v1.images\".registry]\nconfig_path = \"/a:/b\"\n", "2.3.7", "/etc/containerd/conf.d/zz.toml", 3,
			"config_path = \"/etc/containerd/certs.d\"\n", "is a list",
		},
		{
			"an inline table", "-- etc/containerd/config.toml --\nversion = 2\nplugins = {\"io.containerd.grpc.v1.cri\" = {sandbox_image = \"a\"}}\n", "1.6.20",
			"/etc/containerd/config.toml", 0, "[plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"/etc/containerd/certs.d\"\n", "by hand",
		},
		{"no file, 1.x", "-- etc/containerd/x --\n", "1.7.0", "/etc/containerd/config.toml", 0, "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
			"  config_path = \"/etc/containerd/certs.d\"\n", "there is no /etc/containerd/config.toml"},
		{"no file, 2.x", "-- etc/containerd/x --\n", "2.2.0", "/etc/containerd/config.toml", 0, "version = 3\n\n[plugins.\"io.containerd.cri.v1.images\".registry]\n" +
			"  config_path = \"/etc/containerd/certs.d\"\n", "there is no"},
		{"no file, no version", "-- etc/containerd/x --\n", "", "/etc/containerd/config.toml", 0, "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
			"  config_path = \"/etc/containerd/certs.d\"\n", "whose version is not known (a test)"},
		{
			"another folder", "-- etc/containerd/config.toml --\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/etc/other\"\n", "1.6.20",
			"", 0, "", "--install=/etc/other",
		},
		{
			"k3s", "-- var/lib/rancher/k3s/agent/etc/containerd/config.toml --\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\nconfig_path = \"/var/lib/x\"\n",
			"1.7.0", "", 0, "", "see mirror setup k3s",
		},
		{"k3s without registries", "-- var/lib/rancher/k3s/agent/etc/containerd/config.toml --\nversion = 3\n", "2.0.0", "", 0, "", "see mirror setup k3s"},
		{"Docker's package", "-- etc/containerd/config.toml --\ndisabled_plugins = [\"cri\"]\n", "1.6.20", "", 0, "", "has the CRI plugin disabled"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			root := nodeFiles(tt.node)
			r, err := OpenRuntime(root, "")
			if err != nil {
				t.Fatal(err)
			}
			release := Release{tt.release, "a test"}
			out, err := r.ConfigPath(dir, release)
			if err != nil || !strings.Contains(strings.Join(out.Notes, "\n"), tt.says) {
				t.Fatalf("%q, %v", out.Notes, err)
			}
			if tt.path == "" {
				if len(out.Files) > 0 {
					t.Errorf("a change: %+v", out.Files)
				}
				return
			}
			if len(out.Files) != 1 {
				t.Fatalf("changes: %+v", out.Files)
			}
			f := out.Files[0]
			if f.Path != tt.path || f.Line != tt.line || f.Content != tt.content {
				t.Errorf("%s:%d\n%s", f.Path, f.Line, f.Content)
			}
			if f.Part && f.Line == 0 {
				return // for a person
			}
			if r, err = OpenRuntime(applied(t, root, f), ""); err != nil {
				t.Fatal(err)
			}
			if out, err = r.ConfigPath(dir, release); err != nil || len(out.Files) > 0 || !strings.Contains(out.Notes[0], "reads this folder") {
				t.Errorf("after the change: %+v, %v", out, err)
			}
		})
	}
}

// Where config_path would keep the CRI plugin from loading, or the files can't be read, there is an error with file, line and remedy.
func TestConfigPathIsRefused(t *testing.T) {
	t.Parallel()
	const (
		mirrors = "-- etc/containerd/config.toml --\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry]\n" +
			"[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"docker.io\"]\nendpoint = [\"http://10.0.0.7:5000\"]\n"
		tls = "-- etc/containerd/config.toml --\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".registry.configs.\"a.example\".tls]\nca_file = \"a\"\n"
	)
	for _, tt := range []struct{ name, node, release, says string }{
		{"mirrors, 1.6", mirrors, "1.6.20", "/etc/containerd/config.toml:3: registry.mirrors is set: "},
		{"mirrors, 2.4", mirrors, "2.4.2", "Remove the tables of registry.mirrors (docker.io)"},
		{"mirrors, version unknown", mirrors, "", "registry.mirrors is set"},
		{"mirrors and config_path", mirrors + "[plugins.\"io.containerd.grpc.v1.cri\".registry.mirrors.\"quay.io\"]\n", "1.7.3", "(docker.io, quay.io)"},
		{"mirrors in a drop-in", "-- etc/containerd/config.toml --\nversion = 3\nimports = [\"conf.d/*.toml\"]\n-- etc/containerd/conf.d/a.toml --\nversion = 3\n" +
			"[plugins.\"io.containerd.cri.v1.images\".registry.mirrors.\"docker.io\"]\n", "2.4.2", "/etc/containerd/conf.d/a.toml:2: registry.mirrors"},
		{"tls, 1.7", tls, "1.7.3", "/etc/containerd/config.toml:2: registry.configs.\"a.example\".tls is set"},
		{"not TOML", "-- etc/containerd/config.toml --\nversion = \n", "2.4.2", "/etc/containerd/config.toml:1: "},
		{"an import that is not there", "-- etc/containerd/config.toml --\nimports = [\"/a.toml\"]\n", "2.4.2", "remove it from imports"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, err := OpenRuntime(nodeFiles(tt.node), "")
			if err == nil {
				var out Output
				if out, err = r.ConfigPath(CertsDir, Release{tt.release, "a test"}); len(out.Files) > 0 {
					t.Errorf("a change: %+v", out)
				}
			}
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Error(err)
			}
		})
	}
	r, err := OpenRuntime(nodeFiles(tls), "")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.ConfigPath(CertsDir, Release{"2.4.2", "a test"}); err != nil {
		t.Errorf("2.x ignores it: %v", err)
	}
	if _, err := OpenRuntime(nodeFiles(tls), "/etc/absent.toml"); err == nil || !strings.Contains(err.Error(), "is not there") {
		t.Errorf("a file that is not there: %v", err)
	}
}

// The containerd that runs is believed before the program that is found.
func TestFindRelease(t *testing.T) {
	dir, err := os.MkdirTemp("", "c") // the name of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	program := func(script string) {
		t.Helper()
		//nolint:gosec // it is to be run
		if err := os.WriteFile(filepath.Join(dir, "containerd"), []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir)
	socket := filepath.Join(dir, "c.sock")
	if r := FindRelease(t.Context(), socket); r.Version != "" || !strings.Contains(r.String(), "whose version is not known (none answers at ") {
		t.Errorf("none: %s", r)
	}
	program("echo containerd github.com/containerd/containerd 1.6.20~ds1 1.6.20~ds1-1+deb12u3\n")
	if r := FindRelease(t.Context(), socket); r.Version != "1.6.20~ds1" || !strings.Contains(r.Source, "none answers") {
		t.Errorf("the program: %s", r)
	}
	program("exit 1\n")
	if r := FindRelease(t.Context(), socket); r.Version != "" || !strings.Contains(r.Source, "does not say it") {
		t.Errorf("a program that fails: %s", r)
	}
	for answer, want := range map[string]string{
		"\x00\x00\x00\x00\x0b\x0a\x06v2.4.2\x12\x01a": "2.4.2", "\x00\x00\x00\x00\x02\x0a\x7f": "", "": "", "\x00\x00\x00\x00\x07\x0a\x05other": "",
	} {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Protocols: new(http.Protocols), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/containerd.services.version.v1.Version/Version" {
				_, _ = w.Write([]byte(answer))
			}
		})}
		s.Protocols.SetUnencryptedHTTP2(true)
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Serve(l) })
		if got, err := askSocket(context.Background(), socket); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", answer, got, err)
		}
		_ = s.Close()
		serving.Wait()
	}
}
