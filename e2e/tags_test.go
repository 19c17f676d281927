package e2e_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// node is a real containerd that gives itself a name.
type node struct {
	name string
	*containerd.Containerd
}

func nodes(t *testing.T, m *mirrord.Mirror) []node {
	t.Helper()
	var list []node
	for i, line := range containerd.Lines {
		name := fmt.Sprintf("node-%d", i+1)
		list = append(list, node{name, containerd.Start(t, line, containerd.Certs{Mirror: m.URL(), Node: name})})
	}
	return list
}

// pulls pulls by the node and checks which image came.
func (n node) pulls(t *testing.T, ref string, want string) {
	t.Helper()
	p, err := n.Ctr(t, ref)
	if err != nil {
		t.Fatalf("%s: %v", n.name, err)
	}
	equal(t, n.name+" pulls "+ref, p.Digest, want)
}

// command runs the program under test against a running mirror.
func command(t *testing.T, m *mirrord.Mirror, args ...string) string {
	t.Helper()
	return proc.Must(t, proc.Options{}, mirrord.Binary, append(args, "--admin", m.Admin)...)
}

// announce sends a webhook that says that an image was pushed.
func announce(t *testing.T, m *mirrord.Mirror, secret, image string) {
	t.Helper()
	body := fmt.Sprintf(`{"image":%q,"timestamp":%q}`, image, time.Now().UTC().Format(time.RFC3339))
	sum := hmac.New(sha256.New, []byte(secret))
	sum.Write([]byte(body))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, m.URL()+"/webhooks/ci", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(sum.Sum(nil)))
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	equal(t, "answer to the webhook", resp.StatusCode, http.StatusAccepted)
}

// retag has a tag of the registry mean an index that is there.
func retag(t *testing.T, r *registry.Registry, tag, digest string) {
	t.Helper()
	const index = "application/vnd.oci.image.index.v1+json"
	send := func(method, reference string, body io.Reader, status int) []byte {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, r.URL()+"/v2/"+appRepository+"/manifests/"+reference, body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept", index)
		req.Header.Set("Content-Type", index)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		equal(t, method+" "+reference, resp.StatusCode, status)
		return b
	}
	send(http.MethodPut, tag, bytes.NewReader(send(http.MethodGet, digest, nil, http.StatusOK)), http.StatusCreated)
}

// TestZombieImages: a fix is pushed over a tag, and real nodes get it: after the webhook with the next pull, without one after
// maxAge. The mirror says which node still has the old image, and pins the tag back to it while the registry is down.
func TestZombieImages(t *testing.T) {
	t.Parallel()
	const ref = "docker.io/library/app:main"
	upstream := registry.Start(t, registry.Options{})
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("correct horse battery staple"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("docker.io: {endpoints: [%s], tags: {maxAge: 1h, patterns: [{match: \"library/app:soon\", maxAge: 1s}]}}", upstream.URL()),
		More:      fmt.Sprintf("platforms: [linux/amd64]\nwebhooks: {ci: {type: generic, secretFile: %q}}", secret),
	})
	two := nodes(t, m)
	push := func(tag string, seed int) string {
		return image.PushIndex(t, upstream.Host, appRepository, tag, image.Layers{1 << 20, seed}).Digest.String()
	}

	v1 := push("main", 1000)
	for _, n := range two {
		n.pulls(t, ref, v1)
	}
	v2 := push("main", 2000)
	two[1].pulls(t, ref, v1) // within maxAge: no registry is asked
	announce(t, m, "correct horse battery staple", ref)
	two[1].pulls(t, ref, v2)

	drift := command(t, m, "tags", "drift")
	for _, text := range []string{ref + "  clients got different images", v2[:19] + "  now  node-2", v1[:19] + "       node-1"} {
		if !strings.Contains(drift, text) {
			t.Errorf("no %q in:\n%s", text, drift)
		}
	}
	two[0].pulls(t, ref, v2)
	if drift := command(t, m, "tags", "drift"); strings.Contains(drift, ref) {
		t.Errorf("drift after both nodes have the new image:\n%s", drift)
	}

	// Without a webhook, after maxAge.
	old := push("soon", 3000)
	two[0].pulls(t, "docker.io/library/app:soon", old)
	fresh := push("soon", 4000)
	wait.For(t, 30*time.Second, "the moved tag to be served", func() error {
		p, err := two[0].Ctr(t, "docker.io/library/app:soon")
		if err == nil && p.Digest != fresh {
			err = fmt.Errorf("it is still %s", p.Digest)
		}
		return err
	})

	// A, B, A.
	retag(t, upstream, "main", v1)
	command(t, m, "tags", "refresh", ref)
	two[0].pulls(t, ref, v1)
	var shown struct {
		History []struct {
			Digest    string
			Reversion bool
			Source    string
		}
	}
	if err := json.Unmarshal([]byte(command(t, m, "tags", "show", ref, "-o", "json")), &shown); err != nil {
		t.Fatal(err)
	}
	if h := shown.History; len(h) != 3 || h[0].Digest != v1 || !h[0].Reversion || h[1].Digest != v2 || h[2].Digest != v1 || h[2].Reversion {
		t.Errorf("history: %+v", h)
	}
	retag(t, upstream, "main", v2)
	command(t, m, "tags", "refresh", ref)
	two[0].pulls(t, ref, v2)

	// The registry stops, and an operator goes back to the first image.
	upstream.End()
	command(t, m, "tags", "pin", ref+"@"+v1, "--reason", "INC-1", "--until", "24h")
	for _, n := range two {
		n.pulls(t, ref, v1)
	}
	if pins := command(t, m, "tags", "pins"); !strings.Contains(pins, "INC-1") {
		t.Errorf("pins:\n%s", pins)
	}
	command(t, m, "tags", "unpin", ref)
}
