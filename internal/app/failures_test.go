package app_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/internal/origin"
)

// node is a client that speaks as a runtime or a tool does.
type node struct {
	http  *http.Client
	base  string
	name  string
	agent string
}

// ask sends a request and reads its answer to the end.
func (n node) ask(t *testing.T, method, path, upstream string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, n.base+path+"?ns="+upstream, nil)
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("User-Agent", n.agent)
	req.Header.Set("Mirror-Node", n.name)
	req.Header.Set("Accept", "*/*")
	res, err := n.http.Do(req)
	if err != nil {
		t.Error(err)
		return 0
	}
	defer res.Body.Close()
	if _, err := io.Copy(io.Discard, res.Body); err != nil {
		t.Error(err)
	}
	return res.StatusCode
}

func failures(t *testing.T, r *running, query string) (list admin.FailureList) {
	t.Helper()
	status, body := get(t, "http://"+r.AdminAddr().String()+"/api/v1/failures?limit=1000&"+query)
	if err := json.Unmarshal([]byte(body), &list); err != nil || status != 200 {
		t.Fatalf("%d %s %v", status, body, err)
	}
	return list
}

// A healthy cluster: 1,000 pulls, one in ten of which the node takes on to the registry by itself, and all that looks
// about besides. None of it is a failure.
func TestHealthyClusterHasNoFailures(t *testing.T) {
	t.Parallel()
	o := limited(t)
	im := o.AddImage("public/multi", "1", origin.Image{Platforms: []string{"linux/amd64", "linux/arm64"}})
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)))
	tr := &http.Transport{MaxIdleConnsPerHost: 20}
	defer tr.CloseIdleConnections()
	client := &http.Client{Transport: tr}
	at, base := nameOf(o), "http://"+r.Addr().String()
	expect := func(got, want int, what string) {
		if got != want {
			t.Errorf("%s: %d, want %d", what, got, want)
		}
	}

	const nodes, pulls = 20, 50
	var all sync.WaitGroup
	for i := range nodes {
		all.Go(func() {
			n := node{client, base, fmt.Sprintf("node-%d", i), "containerd/v1.7.20"}
			child := im.Manifests[i%2]
			for k := range pulls {
				switch k % 10 {
				case 0: // private, and the node has a secret of its own
					if k%20 == 0 {
						expect(n.ask(t, "HEAD", "/v2/private/app/manifests/1", at), 403, "private")
					} else {
						expect(n.ask(t, "HEAD", "/v2/acme/app/manifests/1", "elsewhere.example"), 404, "no upstream of ours")
					}
					continue
				}
				expect(n.ask(t, "HEAD", "/v2/public/multi/manifests/1", at), 200, "tag")
				expect(n.ask(t, "GET", "/v2/public/multi/manifests/"+im.Root.Digest.String(), at), 200, "index")
				if k > 30 && k%2 == 0 {
					continue // it has the rest
				}
				expect(n.ask(t, "GET", "/v2/public/multi/manifests/"+child.Digest.String(), at), 200, "manifest")
				expect(n.ask(t, "GET", "/v2/public/multi/blobs/"+im.Configs[i%2].Digest.String(), at), 200, "config")
				for _, l := range im.Layers[i%2] {
					expect(n.ask(t, "GET", "/v2/public/multi/blobs/"+l.Digest.String(), at), 200, "layer")
				}
			}
		})
	}
	all.Go(func() { // crane digest, cosign, and what looks for drift
		crane := node{client, base, "ci", "crane/v0.20 go-containerregistry/v0.20"}
		probe := strings.Replace(im.Root.Digest.String(), ":", "-", 1)
		for range 50 {
			expect(crane.ask(t, "HEAD", "/v2/public/multi/manifests/1", at), 200, "crane digest")
			expect(crane.ask(t, "HEAD", "/v2/public/multi/manifests/none", at), 404, "crane digest of what is not there")
			expect(crane.ask(t, "GET", "/v2/public/multi/manifests/"+probe+".sig", at), 404, "signature")
			expect(crane.ask(t, "GET", "/v2/public/multi/tags/list", at), 200, "tags")
			expect(crane.ask(t, "GET", "/v2/public/multi/manifests/1", at), 200, "an index that is looked at")
		}
	})
	all.Wait()

	if got := failures(t, r, ""); len(got.Failures) > 0 {
		t.Errorf("failures of a healthy cluster: %+v", got.Failures)
	}
	declined := int64(0)
	for _, f := range failures(t, r, "declined=true").Failures {
		declined += f.Count
	}
	if declined == 0 || declined > nodes*pulls/10 {
		t.Errorf("%d pulls were declined", declined)
	}
}

// A client that was told of a failure finds it in the record at once, by its id, and after a restart.
func TestFailureIsThereBeforeItsAnswerEnds(t *testing.T) {
	t.Parallel()
	o := limited(t)
	dir := t.TempDir()
	r := run(t, parse(t, dir, upstreamOf(o)))
	req, err := http.NewRequestWithContext(t.Context(), "GET",
		"http://"+r.Addr().String()+"/v2/public/app/manifests/none?ns="+nameOf(o), nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	res, err := tr.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	_, id, _ := strings.Cut(res.Header.Get("Mirror-Reason"), "id=")
	check := func(r *running) {
		t.Helper()
		got := failures(t, r, "id="+id).Failures
		if len(got) != 1 || got[0].Reason != "tag-not-found" || got[0].Image != nameOf(o)+"/public/app:none" || got[0].Count != 1 {
			t.Errorf("%+v", got)
		}
	}
	check(r)
	if status, body := get(t, "http://"+r.AdminAddr().String()+"/api/v1/failures/summary"); status != 200 ||
		!strings.Contains(body, `"classes":{"missing":1}`) {
		t.Errorf("summary: %d %s", status, body)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	check(run(t, parse(t, dir, upstreamOf(o))))
}
