package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func runSetupTLS(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	cmd := newSetupTLSCmd()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetOut(&out)
	cmd.SetErr(&out)
	cmd.SetArgs(args)
	err := cmd.ExecuteContext(t.Context())
	return out.String(), err
}

// pki is the content of the files of a folder.
func pki(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := make(map[string]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// changed are the files that differ.
func changed(before, after map[string]string) (list []string) {
	for name, text := range after {
		if before[name] != text {
			list = append(list, name)
		}
	}
	slices.Sort(list)
	return list
}

// Files are made with the right modes, are never overwritten without a flag that says so, and an authority that is there is used.
func TestSetupTLSFiles(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "pki")
	step := func(want string, args ...string) {
		t.Helper()
		before := map[string]string{}
		if _, err := os.Stat(dir); err == nil {
			before = pki(t, dir)
		}
		out, err := runSetupTLS(t, append([]string{"--dir", dir}, args...)...)
		if message, fails := strings.CutPrefix(want, "error: "); fails {
			if err == nil || !strings.Contains(err.Error(), message) {
				t.Errorf("%q: %v, want %q", args, err, message)
			}
			want = ""
		} else if err != nil || !strings.Contains(out, "Next:") {
			t.Errorf("%q: %v\n%s", args, err, out)
		}
		after := before
		if _, err := os.Stat(dir); err == nil {
			after = pki(t, dir)
		}
		if got := strings.Join(changed(before, after), " "); got != want {
			t.Errorf("%q: has written %q, want %q", args, got, want)
		}
	}
	step("error: there is no authority", "--renew")
	step("ca.crt ca.key nodes/a.crt nodes/a.key tls.crt tls.key", "--host", "mirror.example", "--host", "10.0.0.7", "--node", "a")
	step("error: would be overwritten", "--host", "mirror.example")
	step("error: would be overwritten", "--node", "b", "--node", "a")
	step("error: there is nothing to make")
	step("nodes/b.crt nodes/b.key", "--node", "b")
	step("nodes/a.crt nodes/a.key nodes/b.crt nodes/b.key tls.crt tls.key", "--renew")
	step("nodes/b.crt nodes/b.key tls.crt tls.key", "--renew", "--node", "b")
	for name := range pki(t, dir) {
		info, err := os.Stat(filepath.Join(dir, name))
		want := fs.FileMode(0o644)
		if strings.HasSuffix(name, ".key") {
			want = 0o600
		}
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(pki(t, dir)["ca.crt"]))
	for _, host := range []string{"mirror.example", "10.0.0.7"} { // a renewal keeps the names
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: host}); err != nil {
			t.Error(err)
		}
	}
	key := pki(t, dir)["ca.key"]
	if err := os.Remove(filepath.Join(dir, "ca.key")); err != nil {
		t.Fatal(err)
	}
	step("error: bring it back", "--node", "c")
	if err := os.WriteFile(filepath.Join(dir, "ca.key"), []byte(key), 0o600); err != nil {
		t.Fatal(err)
	}
	step("ca.crt ca.key tls.crt tls.key", "--force", "--host", "mirror.example")
	for _, args := range [][]string{
		{"--host", "https://mirror.example"},
		{"--host", "mirror.example:5000"},
		{"--node", "A"},
		{"--node", "../a"},
		{"--valid", "1m", "--host", "a"},
		{"--renew", "--force"},
	} {
		if _, err := runSetupTLS(t, append([]string{"--dir", dir}, args...)...); err == nil {
			t.Errorf("%q is taken", args)
		}
	}
}

// The steps are those of what was made, and no other: each file that they name is there.
func TestSetupTLSSteps(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		args       []string
		with, sans []string
	}{
		{nil, []string{"ca.key", "--host NAME"}, []string{"tls.crt", "client.cert", "operators", "--renew"}},
		{[]string{"--host", "mirror.example"}, []string{"tls: {cert: tls.crt", `"https://mirror.example:5000"`, "restart", "--renew"}, []string{"client.cert", "node:*", "operators"}},
		{[]string{"--node", "a"}, []string{"clients: {ca: ca.crt}", "upstreams: {docker.io: {access: rules}}", "client.cert"}, []string{"tls.crt", "operators"}},
		{[]string{"--operator", "alice"}, []string{"who: [alice], may: operate", "--admin-cert alice.crt"}, []string{"tls.crt", "client.cert", "node:*", "hosts.toml"}},
	} {
		out, err := runSetupTLS(t, append([]string{"--dir", filepath.Join(t.TempDir(), "pki")}, tt.args...)...)
		if err != nil {
			t.Fatalf("%q: %v", tt.args, err)
		}
		_, steps, _ := strings.Cut(out, "Next:")
		for _, text := range tt.with {
			if !strings.Contains(steps, text) {
				t.Errorf("%q: no %q in %s", tt.args, text, steps)
			}
		}
		for _, text := range tt.sans {
			if strings.Contains(steps, text) {
				t.Errorf("%q: %q in %s", tt.args, text, steps)
			}
		}
	}
}
