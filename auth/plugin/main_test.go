package plugin_test

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

// program is the name by which the test binary is a credential provider.
const program = "test-credential-provider"

var command string

// TestMain makes the test binary a kubelet credential provider where it is called by the name of one.
func TestMain(m *testing.M) {
	if filepath.Base(os.Args[0]) == program {
		os.Exit(provide())
	}
	dir, err := os.MkdirTemp("", "plugins")
	if err != nil {
		panic(err)
	}
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	command = filepath.Join(dir, program)
	if err := os.Symlink(self, command); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		os.RemoveAll(dir)
		os.Exit(code)
	}))
}

// say is the behaviour of the provider: Out is printed, with IMAGE for the image of the request.
type say struct {
	Out, Err string
	Code     int
}

// provide speaks the protocol as the kubelet's documentation has it: a request on standard input, an answer on standard
// output. Its requests are noted in the folder SAY.
func provide() int {
	in, err := io.ReadAll(os.Stdin)
	if err != nil {
		return 2
	}
	dir := os.Getenv("SAY")
	f, err := os.OpenFile(filepath.Join(dir, "asked"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return 2
	}
	fmt.Fprintf(f, "%s %s\n", strings.Join(os.Args[1:], " "), in)
	f.Close()
	var req struct{ Kind, APIVersion, Image string }
	if json.Unmarshal(in, &req) != nil || req.Kind != "CredentialProviderRequest" ||
		req.APIVersion != "credentialprovider.kubelet.k8s.io/v1" {
		fmt.Fprintln(os.Stderr, "unknown request")
		return 2
	}
	var s say
	b, err := os.ReadFile(filepath.Join(dir, "say"))
	if err != nil || json.Unmarshal(b, &s) != nil {
		return 2
	}
	fmt.Print(strings.ReplaceAll(s.Out, "IMAGE", req.Image))
	fmt.Fprint(os.Stderr, s.Err)
	return s.Code
}

// provider is a provider of a test's own.
type provider struct{ dir string }

func newProvider(t *testing.T, s say) provider {
	t.Helper()
	p := provider{t.TempDir()}
	p.teach(t, s)
	return p
}

// teach sets its behaviour.
func (p provider) teach(t *testing.T, s say) {
	t.Helper()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(p.dir, "next")
	if err := os.WriteFile(next, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(next, filepath.Join(p.dir, "say")); err != nil {
		t.Fatal(err)
	}
}

// env is the environment of the program. The race detector would have each of its runs last a second longer.
func (p provider) env() map[string]string {
	return map[string]string{"SAY": p.dir, "GORACE": "atexit_sleep_ms=0"}
}

// asked are the requests so far, each after the program's arguments.
func (p provider) asked(t *testing.T) []string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, "asked"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(b)), "\n")
}

// images are those that it was asked about so far.
func (p provider) images(t *testing.T) []string {
	t.Helper()
	var list []string
	for _, line := range p.asked(t) {
		_, doc, _ := strings.Cut(line, "{")
		var req struct{ Image string }
		if err := json.Unmarshal([]byte("{"+doc), &req); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		list = append(list, req.Image)
	}
	return list
}

// answer is the output of a provider.
func answer(keys, duration, auth string) string {
	doc := `{"kind":"CredentialProviderResponse","apiVersion":"credentialprovider.kubelet.k8s.io/v1","cacheKeyType":"` +
		keys + `"`
	if duration != "" {
		doc += `,"cacheDuration":"` + duration + `"`
	}
	return doc + `,"auth":{` + auth + `}}`
}

func login(name, user string) string {
	return fmt.Sprintf(`%q:{"username":%q,"password":"pw"}`, name, user)
}
