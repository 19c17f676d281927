package docker_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// folder holds the helpers' answers, a file for each host.
const folder = "MIRROR_TEST_HELPERS"

// vaultToken is a secret in the environment of the tests, VAULT_TOKEN, which helpers have as well.
const vaultToken = "hvs.CAESIHq3"

// say is the behaviour of the helper for a host.
type say struct {
	Out, Err string
	Code     int
	Hang     bool // and leaves a child behind that holds its pipes
}

// TestMain makes the test binary a credential helper where it is called by the name of one.
func TestMain(m *testing.M) {
	if strings.HasPrefix(filepath.Base(os.Args[0]), "docker-credential-") {
		os.Exit(help())
	}
	dir, err := os.MkdirTemp("", "helpers")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "docker-credential-test"))
	}
	if err == nil {
		err = os.Symlink(self, filepath.Join(dir, "docker-credential-other"))
	}
	if err != nil {
		panic(err)
	}
	os.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	os.Setenv(folder, dir)
	os.Setenv("VAULT_TOKEN", vaultToken)
	os.Setenv("REGION", "eu-west-1")
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

func help() int {
	if len(os.Args) != 2 || os.Args[1] != "get" {
		fmt.Fprintln(os.Stderr, "usage: get")
		return 2
	}
	in, err := io.ReadAll(os.Stdin)
	if err != nil || !strings.HasSuffix(string(in), "\n") {
		return 2
	}
	path := fileOf(strings.TrimSpace(string(in)))
	if f, err := os.OpenFile(path+".asked", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600); err == nil {
		fmt.Fprintln(f, filepath.Base(os.Args[0]))
		f.Close()
	}
	b, err := os.ReadFile(path)
	if err != nil { // as the real ones do, on standard output
		fmt.Println("credentials not found in native keychain")
		return 1
	}
	var s say
	if err := json.Unmarshal(b, &s); err != nil {
		return 2
	}
	if s.Hang {
		child := exec.Command("sleep", "60")
		child.Stdout, child.Stderr = os.Stdout, os.Stderr
		if child.Start() == nil {
			_ = os.WriteFile(path+".child", fmt.Append(nil, child.Process.Pid), 0o600)
		}
		time.Sleep(time.Minute)
	}
	fmt.Print(s.Out)
	fmt.Fprint(os.Stderr, s.Err)
	return s.Code
}

func fileOf(host string) string {
	return filepath.Join(os.Getenv(folder), strings.NewReplacer("/", "_", ":", "_").Replace(host)+".say")
}

// teach sets the behaviour of the helper for a host.
func teach(t *testing.T, host string, s say) {
	t.Helper()
	forgets(t, host)
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	next := fileOf(host) + ".next"
	if err := os.WriteFile(next, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, fileOf(host)); err != nil {
		t.Fatal(err)
	}
}

// asked are the names of the helpers that were asked about a host so far.
func asked(t *testing.T, host string) []string {
	t.Helper()
	forgets(t, host)
	b, err := os.ReadFile(fileOf(host) + ".asked")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// forgets removes what there is about a host at the end of the test, for one that is run again.
func forgets(t *testing.T, host string) {
	t.Helper()
	t.Cleanup(func() {
		for _, suffix := range []string{"", ".asked", ".child"} {
			_ = os.Remove(fileOf(host) + suffix)
		}
	})
}
