package e2e_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"github.com/registrymirror/mirror/e2e/internal/containerd"
	"github.com/registrymirror/mirror/e2e/internal/image"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/registry"
	"github.com/registrymirror/mirror/e2e/internal/tool"
	"github.com/registrymirror/mirror/e2e/internal/wait"
	"github.com/registrymirror/mirror/internal/origin"
)

// counted is a registry whose requests are counted on their way.
type counted struct {
	*registry.Registry
	url string

	mu       sync.Mutex
	requests map[string]int // by method and path
}

func startCounted(t *testing.T) *counted {
	t.Helper()
	c := &counted{Registry: registry.Start(t, registry.Options{}), requests: make(map[string]int)}
	to, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	forward := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.requests[r.Method+" "+r.URL.Path]++
		c.mu.Unlock()
		forward.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	c.url = front.URL
	return c
}

// gets are the requests that brought content, and how often each was made.
func (c *counted) gets() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make(map[string]int)
	for request, n := range c.requests {
		if strings.HasPrefix(request, "GET /v2/") && strings.Contains(request, "sha256:") {
			all[request] = n
		}
	}
	return all
}

// pushOn pushes an image of two platforms that stands on a base, and returns the content that a node of these needs: as paths.
func (c *counted) pushOn(t *testing.T, ref string, base map[string]v1.Layer, size int) (digest string, paths []string) {
	t.Helper()
	repository, tag, _ := strings.Cut(ref[strings.IndexByte(ref, '/')+1:], ":")
	x := image.PushBuilt(t, c.Host, repository, tag, func(platform string) v1.Image {
		img, err := mutate.AppendLayers(image.New(t, platform, image.Layers{size}), base[platform])
		if err != nil {
			t.Fatal(err)
		}
		return img
	})
	add := func(kind, digest string) { paths = append(paths, "GET /v2/"+repository+"/"+kind+"/"+digest) }
	add("manifests", x.Digest.String())
	for _, img := range x.Images {
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		add("manifests", d.String())
		m, err := img.Manifest()
		if err != nil {
			t.Fatal(err)
		}
		add("blobs", m.Config.Digest.String())
		for _, l := range m.Layers {
			add("blobs", l.Digest.String())
		}
	}
	return x.Digest.String(), paths
}

// podsList is what "kubectl get pods -A -o json" prints of pods that run some images, each of them twice.
func podsList(t *testing.T, images []string) []byte {
	t.Helper()
	type object = map[string]any
	var items []object
	for i, ref := range images {
		for replica := range 2 {
			items = append(items, object{
				"apiVersion": "v1", "kind": "Pod",
				"metadata": object{"name": fmt.Sprintf("app-%d-%d", i, replica), "namespace": "default"},
				"spec":     object{"containers": []object{{"name": "app", "image": ref}}},
				"status": object{
					"phase":             "Running",
					"containerStatuses": []object{{"name": "app", "image": ref, "imageID": "", "ready": true}},
				},
			})
		}
	}
	b, err := json.Marshal(object{"apiVersion": "v1", "kind": "List", "items": items, "metadata": object{"resourceVersion": ""}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestWarmUp warms 30 images in two platforms, by the output of a real chart and a list of pods. The registry is asked for each
// manifest and blob once. Then it is stopped, and real containerds pull every image.
func TestWarmUp(t *testing.T) {
	t.Parallel()
	charts, err := filepath.Glob(filepath.Join(filepath.Dir(tool.Bin()), "chart-cert-manager-*"))
	if err != nil || len(charts) == 0 {
		t.Fatalf("install.sh has brought no chart: %v", err)
	}
	rendered := proc.Must(t, proc.Options{}, tool.Built(t, "helm"), "template", "cm", charts[len(charts)-1])
	var images []string
	// One of them is the value of a flag.
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:image: "|- --acme-http01-solver-image=)(\S*?)"?$`).FindAllStringSubmatch(rendered, -1) {
		images = append(images, m[1])
	}
	if len(images) != 5 {
		t.Fatalf("the chart has the images %v", images)
	}
	var pods []string
	for i := len(images); i < 30; i++ {
		pods = append(pods, fmt.Sprintf("docker.io/acme/app-%d:v%d", i, i))
	}
	images = append(images, pods...)

	upstream := startCounted(t)
	base := map[string]v1.Layer{}
	for _, platform := range []string{"linux/amd64", "linux/arm64"} {
		layers, err := image.New(t, platform, image.Layers{300 << 10}).Layers()
		if err != nil {
			t.Fatal(err)
		}
		base[platform] = layers[0]
	}
	digests, want := make(map[string]string), make(map[string]bool)
	blobs := make(map[string]bool)
	for i, ref := range images {
		d, paths := upstream.pushOn(t, ref, base, 20<<10+i)
		digests[ref] = d
		for _, p := range paths {
			// A blob is fetched once, through whichever repository.
			if _, digest, ok := strings.Cut(p, "/blobs/"); ok {
				blobs[digest] = true
				continue
			}
			want[p] = true
		}
	}
	m := mirrord.Start(t, mirrord.Options{
		Upstreams: fmt.Sprintf("docker.io: {endpoints: [%s]}\nquay.io: {endpoints: [%s]}", upstream.url, upstream.url),
		More:      "platforms: [linux/amd64]",
	})
	dir := t.TempDir()
	chart, list := filepath.Join(dir, "chart.yaml"), filepath.Join(dir, "pods.json")
	for file, b := range map[string][]byte{chart: []byte(rendered), list: podsList(t, pods)} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	warm := []string{"warm", "-f", chart, "-f", list, "--platform", "linux/amd64", "--platform", "linux/arm64"}
	out := command(t, m, warm...)
	for _, ref := range images {
		if !strings.Contains(out, ref) {
			t.Errorf("no word of %s in:\n%s", ref, out)
		}
	}
	got := upstream.gets()
	fetched := make(map[string]int)
	for request, n := range got {
		if _, digest, ok := strings.Cut(request, "/blobs/"); ok {
			fetched[digest] += n
			continue
		}
		if n != 1 || !want[request] {
			t.Errorf("%d times %s", n, request)
		}
		delete(want, request)
	}
	for request := range want {
		t.Errorf("never asked: %s", request)
	}
	for digest := range blobs {
		equal(t, "requests for blob "+digest, fetched[digest], 1)
		delete(fetched, digest)
	}
	if len(fetched) > 0 {
		t.Errorf("blobs that belong to none of the images: %v", fetched)
	}

	upstream.End()
	verify := append([]string{"warm", "verify"}, images...)
	command(t, m, append(verify, "--platform", "linux/amd64", "--platform", "linux/arm64")...)
	for _, line := range containerd.Lines {
		c := containerd.Start(t, line, containerd.Certs{Mirror: m.URL()})
		for _, ref := range images {
			p, err := c.Ctr(t, ref)
			if err != nil {
				t.Errorf("containerd %s: %v", line, err)
				continue
			}
			equal(t, ref, p.Digest, digests[ref])
		}
	}
	// Another run costs nothing, with the registry gone.
	command(t, m, warm...)
}

// warmJob is a job as the API shows it.
type warmJob struct {
	ID, State                          string
	BytesDone, BytesTotal, BytesCached int64
	WaitingFor                         *struct{ Code, Text string }
	Images                             []struct {
		Image, State string
		Complete     bool
		Failure      *struct{ ID, Reason, Summary, Remedy string }
	}
}

func jobOf(t *testing.T, out string) (j warmJob) {
	t.Helper()
	if err := json.Unmarshal([]byte(out), &j); err != nil {
		t.Fatalf("%v:\n%s", err, out)
	}
	return j
}

// TestWarmUpIsKilled kills the mirror in the middle of a job. The next process goes on with it, and asks for no blob again that
// was whole.
func TestWarmUpIsKilled(t *testing.T) {
	t.Parallel()
	up := origin.Start(t, origin.Options{})
	const small, large = 256 << 10, 8 << 20
	built := up.AddImage("acme/app", "v1", origin.Image{Layers: slices.Repeat([]int64{small, large}, 6), Seed: 77})
	up.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Rate: 2 << 20}})
	o := mirrord.Options{Dir: t.TempDir(), Upstreams: "docker.io: {endpoints: [" + up.URL() + "]}"}
	m := mirrord.Start(t, o)
	const ref = "docker.io/acme/app:v1"
	job := jobOf(t, command(t, m, "warm", ref, "--detach", "-o", "json"))
	show := func(m *mirrord.Mirror) warmJob {
		return jobOf(t, command(t, m, "warm", "show", job.ID, "-o", "json"))
	}
	wait.For(t, time.Minute, "a part of the job to be done", func() error {
		j := show(m)
		if j.BytesDone < 6*small+large || j.BytesDone > 5*large {
			return fmt.Errorf("%d of %d bytes", j.BytesDone, j.BytesTotal)
		}
		return nil
	})
	m.Signal(t, syscall.SIGKILL)
	m.WaitExit(t, time.Minute)
	up.ClearRequests()

	next := mirrord.Start(t, o)
	wait.For(t, 2*time.Minute, "the job to end", func() error {
		if j := show(next); j.State != "done" {
			return fmt.Errorf("%s, %d of %d bytes, waiting for %+v", j.State, j.BytesDone, j.BytesTotal, j.WaitingFor)
		}
		return nil
	})
	// What the spool had of the blobs on their way is lost with the process; those that were whole are not asked for again.
	for _, d := range built.Layers[0] {
		if sent := up.Bytes(d.Digest); d.Size < large && sent > 0 || d.Size >= large && sent > d.Size {
			t.Errorf("a layer of %d bytes cost %d after the kill", d.Size, sent)
		}
	}
	command(t, next, "warm", "verify", ref)
}
