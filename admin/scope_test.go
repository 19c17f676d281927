package admin_test

import (
	"context"
	"encoding/json"
	"iter"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/warm"
)

// acmeRights let two operators see and change the images of one team.
var acmeRights = []access.OperatorRule{
	{Who: []string{"acme-*"}, May: access.Read, Images: []string{"docker.io/acme/**"}},
	{Who: []string{"acme-operator"}, May: access.Operate, Images: []string{"docker.io/acme/app"}},
	{Who: []string{"reader"}, May: access.Read},
	{Who: []string{"operator"}, May: access.Operate},
}

// records are failures of a record, which are chosen as the real one does.
type records struct{ list []journal.Failure }

func (r records) Failures(f journal.Filter) []journal.Failure {
	return slices.DeleteFunc(slices.Clone(r.list), func(x journal.Failure) bool {
		return f.Sees != nil && !f.Sees(x.Image) || f.ID != "" && f.ID != x.ID
	})
}

func (r records) Summary(f journal.Filter) journal.Summary {
	s := journal.Summary{Classes: map[string]int64{}, Reasons: map[string]int64{}, Images: map[string]int64{}, Clients: map[string]int64{}}
	for _, x := range r.Failures(f) {
		s.Images[x.Image]++
	}
	return s
}

// jobs are several jobs of warm-up.
type jobs struct {
	*warmer
	list []warm.Job
}

func (j jobs) Jobs() []warm.Job { return j.list }
func (j jobs) Job(id string) (warm.Job, error) {
	for _, x := range j.list {
		if x.ID == id {
			return x, nil
		}
	}
	return warm.Job{}, warm.ErrUnknown
}

func (j jobs) Cancel(id string) error {
	_, err := j.Job(id)
	return err
}

func (j jobs) Watch(_ context.Context, id string) iter.Seq2[warm.Job, error] {
	return func(yield func(warm.Job, error) bool) { yield(j.Job(id)) }
}

func (j jobs) Submit(r warm.Request) (warm.Job, bool, error) {
	j.asked = append(j.asked, r)
	return j.list[0], true, nil
}

// teams is a mirror with images of three owners, and with a failure of no image. The ids of jobs and failures begin with the name
// of the owner.
func teams(t *testing.T, k keyring) (http.Handler, *jobs, *ledger) {
	t.Helper()
	l, w := &ledger{clients: newLedger().clients}, &jobs{warmer: newWarmer()}
	var failures []journal.Failure
	var pulls []journal.Pull
	var drifts []drift.Tag
	var images []coverage.ImageReport
	for _, name := range []string{"acme", "acme-evil", "rival"} {
		ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: name + "/app"}, Tag: "v1"}
		image := ref.String()
		l.tags = append(l.tags, catalog.Tag{Ref: ref, Digest: sum, History: []catalog.Seen{{Digest: sum, First: day, Last: day}}})
		l.pins = append(l.pins, catalog.Pin{Ref: ref, Digest: sum})
		failures = append(failures, journal.Failure{
			ID: name + "-1", Image: image, Outcome: journal.Failed, LastSeen: day,
			Finding: diagnose.Finding{Reason: diagnose.TagNotFound, Class: diagnose.ClassMissing, Summary: "s of " + name, Remedy: "r"},
		})
		pulls = append(pulls, journal.Pull{Ref: ref, Client: "c", Began: day})
		drifts = append(drifts, drift.Tag{Image: image, Kind: drift.Pulled})
		images = append(images, coverage.ImageReport{Image: image, State: coverage.Missed, Pods: []string{name + "/pod"}})
		w.list = append(w.list, warm.Job{ID: name + "-1", State: warm.Done, Images: []warm.Image{{Image: image}}})
	}
	w.list = append(w.list, warm.Job{ID: "both-1", State: warm.Done, Images: []warm.Image{{Image: "docker.io/acme/app:v1"}, {Image: "docker.io/rival/app:v1"}}})
	failures = append(failures, journal.Failure{ID: "unknown-upstream-of-rival", Outcome: journal.Failed, LastSeen: day})
	o := everythingOptions()
	o.Keys = func() admin.Keys { return k.Keys }
	o.Failures, o.Tags, o.Warm = records{failures}, l, w
	o.Pulls = func(context.Context, bool) ([]journal.Pull, error) { return pulls, nil }
	o.Drift = func(context.Context) (drift.Report, error) { return drift.Report{Drift: drifts}, nil }
	o.Coverage = func(context.Context) (coverage.Report, error) {
		return coverage.Report{
			Nodes: []coverage.NodeReport{
				{Node: "n1", Images: 3, Details: images, Reason: "3 images came past the mirror"},
				{Node: "node-of-rival", Images: 1, Details: images[2:]},
			},
			Summary: coverage.Summary{Nodes: 2, Images: 4, Missed: 4}, Notes: []string{"a note on rival"},
		}, nil
	}
	o.Uses = func(context.Context) (map[oci.Ref][]string, []string, error) { return nil, nil, nil }
	o.Doctor = func(_ context.Context, image, _ string) *doctor.Report { return &doctor.Report{Image: image, OK: true} }
	return admin.New(o), w, l
}

// An operator with a right for some images sees these in each list, and nothing of others: not their names, not their number.
func TestListsShowWhatTheOperatorMaySee(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, acmeRights...)
	h, _, _ := teams(t, k)
	text := `{"apiVersion":"v1","kind":"Event","message":"Failed to pull image \"docker.io/rival/app:v1\": not found [rival-1]","lastTimestamp":"2026-07-23T12:00:00Z"}`
	lists := map[string]struct{ path, body string }{
		"GET /api/v1/failures": {}, "GET /api/v1/failures/summary": {}, "GET /api/v1/pulls": {}, "GET /api/v1/tags": {}, "GET /api/v1/pins": {},
		"GET /api/v1/tags/drift": {}, "GET /api/v1/coverage": {path: "/api/v1/coverage?details=true"}, "GET /api/v1/warm": {},
		// Of one image, or none.
		"GET /api/v1/warm/{id}": {path: "/api/v1/warm/acme-1"}, "GET /api/v1/warm/{id}/events": {path: "/api/v1/warm/acme-1/events"},
		"POST /api/v1/warm/verify": {body: `{"images":["docker.io/acme/app:v1"]}`}, "POST /api/v1/doctor": {body: `{"image":"acme/app:v1"}`},
		"POST /api/v1/explain": {body: text}, "GET /api/v1/openapi.yaml": {},
	}
	for route, right := range rightOf(t, h) {
		method, path, _ := strings.Cut(route, " ")
		if right == admin.ReadAll || right == admin.OperateAll {
			for _, operator := range []string{"acme-reader", "acme-operator"} {
				if w := k.as(t, gone(h), operator, method, strings.ReplaceAll(path, "*", "goroutine"), "{}"); w.Code != 403 {
					t.Errorf("%s is about all images, as %s: %d", route, operator, w.Code)
				}
			}
		}
		if right != admin.Read {
			continue
		}
		ask, ok := lists[route]
		if !ok {
			t.Errorf("%s shows what is recorded of images: add it to this test", route)
			continue
		}
		if ask.path != "" {
			path = ask.path
		}
		one := ask.body != "" || strings.Contains(path, "acme-1") || strings.HasSuffix(path, ".yaml")
		for _, operator := range []string{"acme-reader", "acme-operator"} {
			w := k.as(t, h, operator, method, path, ask.body)
			got := strings.ReplaceAll(w.Body.String(), "acme-evil/app", "evil")
			if route == "POST /api/v1/explain" {
				got = strings.ReplaceAll(got, "s of rival", "evil") // the rest is from the text itself
				got = strings.ReplaceAll(got, "rival", "")
			}
			if w.Code != 200 || !strings.HasSuffix(path, ".yaml") && (strings.Contains(got, "rival") || strings.Contains(got, "evil")) {
				t.Errorf("%s as %s: %d %s", route, operator, w.Code, got)
			}
			if !one && !strings.Contains(got, "docker.io/acme/app") && !strings.Contains(got, `"acme-1"`) {
				t.Errorf("%s as %s lacks its own: %s", route, operator, got)
			}
		}
		for _, operator := range []string{"reader", "operator", "shared"} {
			got := k.as(t, h, operator, method, path, ask.body).Body.String()
			if !one && (!strings.Contains(got, "rival") || !strings.Contains(got, "evil")) || route == "POST /api/v1/explain" && !strings.Contains(got, "s of rival") {
				t.Errorf("%s as %s: %s", route, operator, got)
			}
		}
	}
	var c admin.CoverageList
	if err := json.Unmarshal(k.as(t, h, "acme-reader", "GET", "/api/v1/coverage", "").Body.Bytes(), &c); err != nil || len(c.Nodes) != 1 ||
		c.Summary != (coverage.Summary{Nodes: 1, Images: 1, Missed: 1}) || c.Nodes[0].Images != 1 || c.Nodes[0].Details != nil || len(c.Notes) > 0 ||
		strings.Contains(c.Nodes[0].Reason, "3") {
		t.Errorf("coverage: %+v, %v", c, err)
	}
}

// What an operator may not see looks like what there is not, and what it may not change is refused alike whether it is there or not.
func TestAbsentAndForbiddenAnswerAlike(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, acmeRights...)
	h, w, l := teams(t, k)
	later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, tt := range []struct {
		name, method, there, absent, body string
		status                            int
	}{
		{"job", "GET", "warm/rival-1", "warm/absent-1", "", 404},
		{"job with one image of others", "GET", "warm/both-1", "warm/none-1", "", 404},
		{"events", "GET", "warm/rival-1/events", "warm/absent-1/events", "", 404},
		{"cancel", "DELETE", "warm/rival-1", "warm/absent-1", "", 404},
		{"failure", "GET", "failures?id=rival-1", "failures?id=absent-1", "", 200},
		{"counts of a failure", "GET", "failures/summary?id=rival-1", "failures/summary?id=absent-1", "", 200},
		{"tag", "GET", "tags?image=rival/app:v1", "tags?image=absent/app:v1", "", 404},
		{"tag at a time", "GET", "tags?image=rival/app:v1&at=1h", "tags?image=absent/app:v1&at=1h", "", 404},
		{"tag of another registry", "GET", "tags?image=unknown.example/rival/app:v1", "tags?image=unknown.example/absent/app:v1", "", 404},
		{"node", "GET", "coverage?node=node-of-rival", "coverage?node=node-of-absent", "", 200},
		{"refresh", "POST", "tags/refresh", "", `{"image":"rival/app:v1"}`, 403},
		{"pin", "PUT", "pins", "", `{"image":"rival/app:v1","digest":"` + sum2 + `","until":"` + later + `"}`, 403},
		{"pin by time", "PUT", "pins", "", `{"image":"rival/app:v1","at":"2026-07-23T12:00:00Z"}`, 403},
		{"unpin", "DELETE", "pins?image=rival/app:v1", "pins?image=absent/app:v1", "", 403},
		{"purge", "POST", "purge", "", `{"image":"rival/app:v1"}`, 403},
		{"purge of another registry", "POST", "purge", "", `{"image":"unknown.example/rival/app:v1"}`, 403},
		{"purge of content", "POST", "purge", "", `{"digest":"` + sum + `"}`, 403},
		{"warm-up", "POST", "warm", "", `{"images":["acme/app:v1","rival/app:v1"]}`, 403},
		{"plan", "POST", "warm?dryRun=true", "", `{"images":["rival/app:v1"]}`, 403},
		{"verify", "POST", "warm/verify", "", `{"images":["rival/app:v1"]}`, 403},
		{"examination", "POST", "doctor", "", `{"image":"rival/app:v1"}`, 403},
		{"one whose name cannot be read", "POST", "warm", "", `{"images":["acme/app:v1","RIVAL//app"]}`, 403},
		{"one that it may only see", "POST", "purge", "", `{"image":"acme/other:v1"}`, 403},
	} {
		other := tt.absent
		if other == "" {
			other = tt.there
		}
		there := k.as(t, h, "acme-operator", tt.method, "/api/v1/"+tt.there, tt.body)
		absent := k.as(t, h, "acme-operator", tt.method, "/api/v1/"+other, strings.ReplaceAll(tt.body, "rival", "absent"))
		a, b := there.Body.String(), strings.NewReplacer("absent", "rival", "none-1", "both-1").Replace(absent.Body.String())
		if there.Code != tt.status || absent.Code != tt.status || a != b {
			t.Errorf("%s: %d %s, and one that is not there %d %s", tt.name, there.Code, a, absent.Code, b)
		}
	}
	if len(l.done) > 0 || len(w.asked) > 0 {
		t.Errorf("done without a right: %q, %v", l.done, w.asked)
	}
	for _, own := range []struct{ method, path, body string }{
		{"POST", "tags/refresh", `{"image":"acme/app:v1"}`},
		{"PUT", "pins", `{"image":"index.docker.io/acme/app:v1","digest":"` + sum2 + `"}`},
		{"DELETE", "pins?image=acme/app:v1", ""},
		{"POST", "purge", `{"image":"acme/app:v1"}`},
		{"POST", "warm", `{"images":["acme/app:v1"]}`},
		{"POST", "warm?dryRun=true", `{"images":["acme/app:v1"]}`},
		{"DELETE", "warm/acme-1", ""},
		{"POST", "doctor", `{"image":"acme/app:v1"}`},
	} {
		if got := k.as(t, h, "acme-operator", own.method, "/api/v1/"+own.path, own.body); got.Code/100 != 2 {
			t.Errorf("its own: %s %s: %d %s", own.method, own.path, got.Code, got.Body)
		}
	}
	// A reader of the same images changes none.
	if got := k.as(t, h, "acme-reader", "POST", "/api/v1/purge", `{"image":"acme/app:v1"}`); got.Code != 403 {
		t.Errorf("a reader: %d", got.Code)
	}
}

// The keys of one operator's requests are not those of another's: else a key would show a job that is not its own.
func TestKeysOfJobsAreTheOperators(t *testing.T) {
	t.Parallel()
	k := newKeyring(t, acmeRights...)
	h, w, _ := teams(t, k)
	for operator, want := range map[string]string{"acme-operator": "acme-operator: deploy-1", "operator": "deploy-1"} {
		got := asks(t, h, "POST", "/api/v1/warm", "localhost", `{"images":["acme/app:v1"]}`, "Content-Type", "application/json",
			"Idempotency-Key", "deploy-1", "Authorization", "Bearer "+k.tokens[operator])
		if got.Code != http.StatusAccepted {
			t.Fatalf("%d %s", got.Code, got.Body)
		}
		if key := w.asked[len(w.asked)-1].Key; key != want {
			t.Errorf("%s: the key is %q, want %q", operator, key, want)
		}
	}
}
