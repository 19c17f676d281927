package app_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/internal/origin"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

// warmed runs a job for images of an origin to its end.
func (r *running) warmed(t *testing.T, o *origin.Origin, request warm.Request) warm.Job {
	t.Helper()
	for i, image := range request.Images {
		request.Images[i] = nameOf(o) + "/" + image
	}
	return r.finished(t, r.submitted(t, request).ID)
}

// submitted is a new job.
func (r *running) submitted(t *testing.T, request warm.Request) warm.Job {
	t.Helper()
	j, _, err := r.Warm().Submit(request)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// finished is a job at its end.
func (r *running) finished(t *testing.T, id string) (j warm.Job) {
	t.Helper()
	for state, err := range r.Warm().Watch(t.Context(), id) {
		if err != nil {
			t.Fatal(err)
		}
		j = state
	}
	return j
}

// Warmed images pull after a restart, with their registry down. Each manifest and blob of the chosen platform was requested once, and
// nothing of the other one.
func TestWarmedImagesPullWithoutTheirRegistry(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	image := origin.Image{Layers: []int64{100 << 10, 3 << 20}, Platforms: []string{"linux/amd64", "linux/arm64"}}
	built := o.AddImage("acme/app", "v1", image)
	o.AddImage("acme/again", "v1", image) // the same content in another repository
	c := parse(t, t.TempDir(), upstreamOf(o))
	r := run(t, c)
	j := r.warmed(t, o, warm.Request{Images: []string{"acme/app:v1", "acme/again:v1", "acme/none:v1"}, Platforms: []string{"linux/amd64"}})
	if j.State != warm.Failed || j.Images[0].State != warm.Done || j.Images[1].State != warm.Done || j.BytesDone != j.BytesTotal {
		t.Errorf("job %+v", j)
	}
	if f := j.Images[2].Failure; f == nil || f.Reason != diagnose.TagNotFound && f.Reason != diagnose.RepositoryNotFound {
		t.Errorf("the missing image: %+v", f)
	}
	want := map[oci.Digest]int{built.Configs[0].Digest: 1, built.Configs[1].Digest: 0}
	for i := range built.Layers {
		for _, l := range built.Layers[i] {
			want[l.Digest] = 1 - i
		}
	}
	got := make(map[oci.Digest]int)
	for d := range want {
		got[d] = o.CountRef(origin.KindBlob, string(d), http.MethodGet)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests for blobs (-want +got):\n%s", diff)
	}
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	o.Down()
	r = run(t, c)
	for _, image := range []string{"acme/app:v1", "acme/again:v1"} {
		if err := r.pull(t, o, image); err != nil {
			t.Errorf("pull of %s with the registry down: %v", image, err)
		}
	}
	list, err := r.Warm().Verify(t.Context(), warm.Request{Images: []string{nameOf(o) + "/acme/app:v1"}})
	if err != nil || !list[0].Complete {
		t.Errorf("verify: %+v, %v", list, err)
	}
	after, err := r.Warm().Job(j.ID)
	if err != nil || after.State != warm.Failed || after.Images[0].KeptUntil.IsZero() || r.Warm().Stats().Kept == 0 {
		t.Errorf("after the restart: %+v, %v, %d bytes kept", after, err, r.Warm().Stats().Kept)
	}
}

// A job goes on after a restart in its middle, and no byte comes twice.
func TestWarmGoesOnAfterARestart(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	built := o.AddImage("acme/app", "v1", origin.Image{Layers: []int64{1 << 20, 2 << 20, 3 << 20}})
	last := built.Layers[0][2]
	gate := origin.NewGate()
	defer gate.Open() // an answer that begins later than the stop would count bytes that no mirror reads
	remove := o.Script(origin.Rule{Kind: origin.KindBlob, Ref: string(last.Digest), Do: origin.Fault{Gate: gate}})
	c := parse(t, t.TempDir(), upstreamOf(o))
	r := run(t, c)
	j := r.submitted(t, warm.Request{Images: []string{nameOf(o) + "/acme/app:v1"}})
	eventually(t, "all but the last layer is here", func() bool {
		now, err := r.Warm().Job(j.ID)
		return err == nil && now.BytesTotal > 0 && now.BytesDone == now.BytesTotal-last.Size
	})
	if err := r.stop(); err != nil {
		t.Fatal(err)
	}
	remove()
	r = run(t, c)
	j = r.finished(t, j.ID)
	if j.State != warm.Done || j.BytesDone != j.BytesTotal || j.BytesCached != 0 {
		t.Errorf("job %+v", j)
	}
	for _, d := range built.Blobs() {
		if n := o.Bytes(d.Digest); n != d.Size {
			t.Errorf("%d of %d bytes of %s were sent", n, d.Size, d.Digest)
		}
	}
	if n := o.Count(origin.KindManifest, http.MethodHead) + o.Count(origin.KindManifest, http.MethodGet); n != 2 {
		t.Errorf("%d requests for manifests, want the tag's HEAD and one GET", n)
	}
}

// A job leaves the reserve of a limit to clients, and waits.
func TestWarmLeavesTheReserve(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{Limit: origin.Limit{Manifests: 10, Window: 6 * time.Hour}})
	request := warm.Request{}
	for i := range 12 {
		tag := string(rune('a' + i))
		o.AddImage("acme/app", tag, origin.Image{Seed: int64(i)})
		request.Images = append(request.Images, nameOf(o)+"/acme/app:"+tag)
	}
	c := parse(t, t.TempDir(), upstreamOf(o))
	c.Warm.Parallel = 1 // of several at once one may wait although one more would have been left
	r := run(t, c)
	j := r.submitted(t, request)
	eventually(t, "the job waits for the window", func() bool {
		now, err := r.Warm().Job(j.ID)
		j = now
		return err == nil && j.Waiting != nil && j.Waiting.Code == warm.WaitRateWindow
	})
	if n := o.Spent(); n != 8 {
		t.Errorf("%d of 10 manifests were spent, want 8: the reserve is 20 %%", n)
	}
	if until := time.Until(j.Waiting.Until); until < 5*time.Hour || until > 6*time.Hour {
		t.Errorf("it waits for %s", until)
	}
	plan, err := r.Warm().Plan(t.Context(), request)
	if err != nil || len(plan.Upstreams) != 1 || plan.Upstreams[0].Remaining != 0 || plan.Requests != 8 || plan.Upstreams[0].EnoughAt.IsZero() {
		t.Errorf("plan %+v, %v", plan, err)
	}
	if err := r.pull(t, o, "acme/app:l"); err != nil {
		t.Errorf("the pull of a client: %v", err)
	}
}

// An artifact that is larger than the cache is refused, and not a byte of it is requested.
func TestWarmRefusesWhatIsTooLarge(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/model", "v1", origin.Image{Layers: []int64{100 << 20}})
	c := parse(t, t.TempDir(), upstreamOf(o))
	c.Cache.Size.Bytes = 20 << 20
	r := run(t, c)
	j := r.warmed(t, o, warm.Request{Images: []string{"acme/model:v1"}})
	if f := j.Images[0].Failure; j.State != warm.Failed || f.Reason != diagnose.NoRoom || f.Summary != "100 MiB are needed, and cache.size is 20 MiB" {
		t.Errorf("%s: %+v", j.State, f)
	}
	if n := o.Count(origin.KindBlob); n != 0 {
		t.Errorf("%d requests for blobs", n)
	}
}

// Images below the mirror's own address are those of their registry, in jobs, plans and verifications.
func TestImagesBelowTheMirrorAreWarmed(t *testing.T) {
	t.Parallel()
	o := origin.Start(t, origin.Options{})
	o.AddImage("acme/app", "v1", origin.Image{Layers: []int64{10 << 10}})
	r := run(t, parse(t, t.TempDir(), upstreamOf(o)))
	name := nameOf(o) + "/acme/app:v1"
	request := warm.Request{Images: []string{r.Addr().String() + "/" + name}}
	if p, err := r.Warm().Plan(t.Context(), request); err != nil || p.Images[0].Image != name || p.Images[0].Failure != nil {
		t.Errorf("plan %+v, %v", p, err)
	}
	j := r.finished(t, r.submitted(t, request).ID)
	if j.State != warm.Done || j.Images[0].Image != name {
		t.Errorf("job %+v", j)
	}
	if list, err := r.Warm().Verify(t.Context(), request); err != nil || !list[0].Complete || list[0].Image != name {
		t.Errorf("verify: %+v, %v", list, err)
	}
}
