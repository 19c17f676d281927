package pull_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
)

// appRef is acme/app on docker.io, by tag or digest.
func appRef(tag string, d oci.Digest) oci.Ref {
	return oci.Ref{Repo: oci.Repo{Host: hub, Name: app}, Tag: tag, Digest: d}
}

// An image is brought in with one request for each of its parts, and a second time with none; then it is complete.
func TestFetchBringsEachPartOnce(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		var mu sync.Mutex
		arrived := make(map[oci.Digest]int64)
		m, err := w.Fetch(context.Background(), appRef("v1", ""), pull.FetchOptions{
			Progress: func(part pull.Part, done int64) {
				mu.Lock()
				defer mu.Unlock()
				arrived[part.Digest] = done
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"HEAD acme/app:v1", "GET acme/app@" + im.index.Digest.String()}
		for _, c := range im.children {
			want = append(want, "GET acme/app@"+c.Digest.String())
		}
		for d, b := range im.blobs {
			want = append(want, "BLOB acme/app@"+d.String())
			if arrived[d] != int64(len(b)) {
				t.Errorf("progress of %s ended at %d of %d bytes", d, arrived[d], len(b))
			}
		}
		w.hub.wants(t, want...)
		if got := m.Missing(); len(got) != 0 {
			t.Errorf("missing after the fetch: %v", got)
		}
		if !slices.Equal(m.Platforms, []string{"linux/amd64", "linux/arm64"}) || len(m.Parts) != 7 {
			t.Errorf("platforms %v, %d parts", m.Platforms, len(m.Parts))
		}
		all, here := m.Size()
		if all == 0 || all != here {
			t.Errorf("%d of %d bytes are here", here, all)
		}
		if _, err := w.Fetch(context.Background(), appRef("v1", m.Ref.Digest), pull.FetchOptions{}); err != nil {
			t.Fatal(err)
		}
		w.hub.wants(t)
	})
}

// A survey asks no registry. What nodes of the platforms do not pull does not count.
func TestSurveyIsOfPlatforms(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		w.get(ask(app, "v1"))
		w.hub.asked()
		whole, err := w.Survey(appRef("v1", im.index.Digest), nil)
		if err != nil {
			t.Fatal(err)
		}
		// The children are named by the index; what they name is not known yet.
		if got := len(whole.Missing()); got != 2 || len(whole.Parts) != 3 {
			t.Errorf("%d of %d parts are missing, want 2 of 3", got, len(whole.Parts))
		}
		for _, c := range []struct {
			platforms []string
			parts     int
		}{
			{[]string{"linux/arm64"}, 4},
			{[]string{"linux/amd64"}, 4},
			{[]string{"linux/amd64", "linux/arm64/v8"}, 7},
			{[]string{"windows/amd64"}, 7}, // none of the index is for these nodes, so all of it is
		} {
			m, err := w.Fetch(context.Background(), appRef("v1", ""), pull.FetchOptions{Platforms: c.platforms})
			if err != nil {
				t.Fatal(err)
			}
			if len(m.Parts) != c.parts || len(m.Missing()) != 0 {
				t.Errorf("%v: %d parts, %d missing, want %d and none", c.platforms, len(m.Parts), len(m.Missing()), c.parts)
			}
		}
		w.hub.asked()
		layer := im.children[0].Children[1].Digest
		w.shelf.evict(layer)
		m, err := w.Survey(appRef("v1", im.index.Digest), []string{"linux/amd64"})
		if err != nil || !slices.Equal(m.Missing(), []oci.Digest{layer}) {
			t.Errorf("missing %v, %v, want the evicted layer", m.Missing(), err)
		}
		if m, err := w.Survey(appRef("v1", im.index.Digest), []string{"linux/arm64"}); err != nil || len(m.Missing()) != 0 {
			t.Errorf("the other platform: missing %v, %v", m.Missing(), err)
		}
		w.hub.wants(t)
	})
}

// A part that the registry lacks is an error, and the rest stays.
func TestFetchOfAnIncompleteImage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		layer := im.children[0].Children[1].Digest
		delete(w.hub.blobs, app+"@"+layer.String())
		m, err := w.Fetch(context.Background(), appRef("v1", ""), pull.FetchOptions{})
		if err == nil {
			t.Fatal("a fetch without a layer succeeds")
		}
		if got := m.Missing(); !slices.Contains(got, layer) {
			t.Errorf("missing: %v, want %s", got, layer)
		}
		if _, err := w.Fetch(context.Background(), oci.Ref{Repo: oci.Repo{Host: "unknown.example", Name: app}, Tag: "v1"}, pull.FetchOptions{}); err == nil {
			t.Error("an image of an unknown registry is fetched")
		}
	})
}

// A refresh is one HEAD whatever the age, forgets failures, and its report counts for the next pull.
func TestRefresh(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "v1", "one")
		w.get(ask(app, "v1"))
		w.hub.asked()
		time.Sleep(time.Second) // a report of this very moment would do
		before, after, err := w.Refresh(context.Background(), appRef("v1", ""))
		if err != nil || before != one.index.Digest || after != before {
			t.Fatalf("unchanged: %s, %s, %v", before, after, err)
		}
		w.hub.wants(t, "HEAD acme/app:v1")
		two := w.hub.push(t, app, "v1", "two")
		time.Sleep(time.Second)
		if before, after, err = w.Refresh(context.Background(), appRef("v1", "")); err != nil || before != one.index.Digest || after != two.index.Digest {
			t.Fatalf("moved: %s, %s, %v", before, after, err)
		}
		w.hub.wants(t, "HEAD acme/app:v1")
		if got := w.get(ask(app, "v1")).Digest; got != two.index.Digest {
			t.Errorf("the next pull gets %s", got)
		}
		w.hub.wants(t, "GET acme/app@"+two.index.Digest.String())

		// A 404 is remembered for seconds; a refresh asks all the same.
		_ = w.fails(ask(app, "new"))
		three := w.hub.push(t, app, "new", "three")
		w.hub.asked()
		if before, after, err = w.Refresh(context.Background(), appRef("new", "")); err != nil || before != "" || after != three.index.Digest {
			t.Fatalf("new: %q, %s, %v", before, after, err)
		}
		w.get(ask(app, "new"))
		w.hub.wants(t, "HEAD acme/app:new", "GET acme/app@"+three.index.Digest.String())

		w.hub.behave(status(503), nil)
		time.Sleep(time.Second)
		if _, _, err := w.Refresh(context.Background(), appRef("v1", "")); err == nil {
			t.Error("a registry that fails: no error")
		}
		if _, _, err := w.Refresh(context.Background(), appRef("", two.index.Digest)); err == nil {
			t.Error("a digest is refreshed")
		}
	})
}

// A purged image is asked for anew, tag and content; others stay.
func TestPurge(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		other := w.hub.push(t, app, "v2", "other")
		for _, tag := range []string{"v1", "v2"} {
			if _, err := w.Fetch(context.Background(), appRef(tag, ""), pull.FetchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		w.hub.asked()
		time.Sleep(time.Second)
		if err := w.Purge(context.Background(), appRef("v1", "")); err != nil {
			t.Fatal(err)
		}
		for d := range im.blobs {
			if _, here := w.shelf.Stat(d); here {
				t.Errorf("blob %s is still here", d)
			}
		}
		m, err := w.Survey(appRef("v2", other.index.Digest), nil)
		if err != nil || len(m.Missing()) != 0 {
			t.Errorf("the other image lacks %v, %v", m.Missing(), err)
		}
		w.hub.wants(t)
		w.get(ask(app, "v1"))
		w.hub.wants(t, "HEAD acme/app:v1", "GET acme/app@"+im.index.Digest.String())
		layer := other.children[0].Children[1].Digest
		if err := w.PurgeContent(layer); err != nil {
			t.Fatal(err)
		}
		if _, here := w.shelf.Stat(layer); here {
			t.Error("the purged layer is still here")
		}
		if err := w.Purge(context.Background(), appRef("never-seen", "")); err != nil {
			t.Errorf("purge of an unknown tag: %v", err)
		}
		if err := w.Purge(context.Background(), oci.Ref{Repo: oci.Repo{Host: "unknown.example", Name: app}}); err == nil {
			t.Error("purge of an unknown registry succeeds")
		}
		if err := w.Purge(context.Background(), appRef("", other.index.Digest)); err != nil {
			t.Errorf("purge by digest: %v", err)
		}
		if m, err := w.Survey(appRef("", other.index.Digest), nil); err != nil || len(m.Missing()) != 1 {
			t.Errorf("after the purge by digest: missing %v, %v, want the index", m.Missing(), err)
		}
	})
}

// A purge keeps what the policy of the tag holds back: the digest that the registry has now does not pass for the first one.
func TestPurgeLiftsNoHold(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		held := policy
		held.MinAge, held.MaxAge = 24*time.Hour, 0
		w.use(w.hub, held)
		good := w.hub.push(t, app, "latest", "good")
		w.get(ask(app, "latest"))
		time.Sleep(25 * time.Hour)
		w.hub.push(t, app, "latest", "bad")
		if got := w.get(ask(app, "latest")).Digest; got != good.index.Digest {
			t.Fatalf("before the purge: %s", got)
		}
		time.Sleep(time.Second)
		if err := w.Purge(context.Background(), appRef("latest", "")); err != nil {
			t.Fatal(err)
		}
		if _, here := w.shelf.Stat(good.index.Digest); here {
			t.Error("the image that was served is still here")
		}
		if got := w.get(ask(app, "latest")).Digest; got != good.index.Digest {
			t.Errorf("after the purge: %s", got)
		}
	})
}

// A purge leaves the parts that a pinned image shares, and takes the rest.
func TestPurgeLeavesWhatAPinNeeds(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		one := w.hub.push(t, app, "v1", "one")
		if err := w.pinTo("stable", one.children[0].Digest, time.Time{}); err != nil {
			t.Fatal(err)
		}
		other := w.hub.push(t, app, "v2", "other")
		for _, tag := range []string{"v1", "v2"} {
			if _, err := w.Fetch(context.Background(), appRef(tag, ""), pull.FetchOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Purge(context.Background(), appRef("v1", "")); err != nil {
			t.Fatal(err)
		}
		for d, want := range map[oci.Digest]bool{
			one.index.Digest: false, one.children[0].Digest: true, one.children[0].Children[1].Digest: true, one.children[1].Digest: false,
			one.children[1].Children[1].Digest: false, other.index.Digest: true,
		} {
			if _, here := w.shelf.Stat(d); here != want {
				t.Errorf("%s is here: %t, want %t", d, here, want)
			}
		}
	})
}

// publish makes documents known, and tags the last one.
func (r *registry) publish(repo, tag string, docs ...*oci.Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, m := range docs {
		r.manifests[repo+"@"+m.Digest.String()] = m
		r.tags[repo+":"+tag] = m.Digest
	}
}

// An image can't be pulled whose documents are each well-formed, and together are not an image: the error says so. An index that is an artifact, as
// of referrers, needs no manifests.
func TestDocumentsThatAreNotAnImage(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		im := w.hub.push(t, app, "v1", "one")
		deep := []*oci.Manifest{im.index}
		for range 6 {
			last := deep[len(deep)-1]
			deep = append(deep, document(t, oci.MediaTypeOCIIndex, map[string]any{"manifests": []oci.Descriptor{descriptor(last.MediaType, last.Bytes)}}))
		}
		w.hub.publish(app, "deep", deep...)
		w.hub.publish(app, "empty", document(t, oci.MediaTypeOCIIndex, map[string]any{"manifests": []oci.Descriptor{}}))
		w.hub.publish(app, "artifact", document(t, oci.MediaTypeOCIIndex, map[string]any{
			"manifests": []oci.Descriptor{}, "artifactType": "application/example",
		}))
		for tag, says := range map[string]string{
			"deep": "it has more than 100000 parts, or its indexes are nested deeper than 4", "empty": "its index has no manifests", "artifact": "",
		} {
			m, err := w.Manifests(context.Background(), appRef(tag, ""), inBackground)
			e, ok := errors.AsType[*pull.ImageError](err)
			if ok != (says != "") || ok && e.Detail != says {
				t.Errorf("%s: %v", tag, err)
			}
			if _, again := w.Survey(m.Ref, nil); (again != nil) != (err != nil) {
				t.Errorf("survey of %s: %v", tag, again)
			}
		}
	})
}

// The manifests that have just been fetched are told from those that were here; and the config of an image without an index says what it
// was built for, once it is here.
func TestManifestsSayWhatIsNew(t *testing.T) {
	inBubble(t, func(t *testing.T, w *world) {
		w.hub.push(t, app, "v1", "one")
		for _, want := range []int{3, 0} {
			m := w.ahead(t, "v1")
			n := 0
			for _, part := range m.Parts {
				if part.Fetched {
					n++
				}
			}
			if n != want || w.Built(m) != "" {
				t.Errorf("%d manifests are new, want %d; built for %q", n, want, w.Built(m))
			}
		}
		im := w.hub.push(t, app, "v2", "two")
		w.hub.publish(app, "single", im.children[1])
		m, err := w.Manifests(context.Background(), appRef("single", ""), inBackground)
		if err != nil || !m.Parts[0].Fetched || w.Built(m) != "" {
			t.Fatalf("%+v, %v; built for %q before its config is here", m, err, w.Built(m))
		}
		config, ok := m.Config()
		if err := w.Part(context.Background(), m.Ref.Repo, config, inBackground); !ok || err != nil {
			t.Fatal(err)
		}
		if got := w.Built(m); got != "linux/arm64" {
			t.Errorf("built for %q", got)
		}
	})
}
