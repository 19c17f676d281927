package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
)

const (
	sum  = "sha256:8d3f30fecb15daccf30ce8cdb80a567420db3337d838eb2f9732b8f3fa6ffb1a"
	sum2 = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

// ledger is a ledger in memory, which notes what is done to it.
type ledger struct {
	tags    []catalog.Tag
	clients []catalog.Client
	pins    []catalog.Pin
	set     []catalog.Pin // by Pin
	err     error         // of all changes
	done    []string
}

func (l *ledger) Canonical(ref oci.Ref) (oci.Ref, error) {
	switch ref.Host {
	case "unknown.example":
		return ref, &route.UnknownError{Key: ref.Host}
	case "index.docker.io":
		ref.Host = "docker.io"
	}
	return ref, nil
}

func (l *ledger) Tag(ref oci.Ref) (catalog.Tag, error) {
	for _, t := range l.tags {
		if t.Ref == ref {
			return t, nil
		}
	}
	return catalog.Tag{}, catalog.ErrUnknown
}

func (l *ledger) Tags(string) iter.Seq2[catalog.Tag, error] {
	return func(yield func(catalog.Tag, error) bool) {
		for _, t := range l.tags {
			if !yield(t, nil) {
				return
			}
		}
	}
}
func (l *ledger) Clients(oci.Ref) ([]catalog.Client, error) { return slices.Clone(l.clients), nil }
func (l *ledger) Cached(ref oci.Ref) (int64, bool)          { return 34, ref.Digest == sum }
func (l *ledger) Choice(t catalog.Tag) catalog.Choice {
	return catalog.Choice{Digest: sum2, Latest: t.Digest, Hold: catalog.HeldByMinAge, Until: day}
}
func (l *ledger) Pins(time.Time) []catalog.Pin { return l.pins }
func (l *ledger) Pinned(ref oci.Ref, _ time.Time) (catalog.Pin, bool) {
	i := slices.IndexFunc(l.pins, func(p catalog.Pin) bool { return p.Ref == ref })
	if i < 0 {
		return catalog.Pin{}, false
	}
	return l.pins[i], true
}

func (l *ledger) note(format string, args ...any) error {
	l.done = append(l.done, fmt.Sprintf(format, args...))
	return l.err
}

func (l *ledger) Pin(_ context.Context, p catalog.Pin) error {
	l.set = append(l.set, p)
	return l.note("pin %s %s %s", p.Ref, p.Digest, p.Reason)
}
func (l *ledger) Unpin(ref oci.Ref) error                    { return l.note("unpin %s", ref) }
func (l *ledger) Purge(_ context.Context, ref oci.Ref) error { return l.note("purge %s", ref) }
func (l *ledger) PurgeContent(d oci.Digest) error            { return l.note("purge %s", d) }
func (l *ledger) Refresh(_ context.Context, ref oci.Ref) (before, after oci.Digest, err error) {
	return sum2, sum, l.note("refresh %s", ref)
}

var day = time.Date(2026, 7, 23, 12, 0, 0, 0, time.UTC)

func newLedger() *ledger {
	ref := oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Tag: "v1"}
	artifact := ref
	artifact.Tag = "sha256-" + strings.Repeat("a", 64) + ".sig"
	other := ref
	other.Tag = "v1.2.3"
	seen := []catalog.Seen{
		{Digest: sum, First: day, Last: day.Add(time.Hour), Source: catalog.ByCheck, Reversion: true, Size: 12, Platforms: []string{"linux/amd64"}},
		{Digest: sum2, First: day.Add(-48 * time.Hour), Last: day.Add(-time.Hour), Source: catalog.ByPull},
	}
	return &ledger{
		tags: []catalog.Tag{
			{Ref: artifact, Digest: sum, History: seen[:1]},
			{Ref: ref, Digest: sum, Checked: day.Add(time.Hour), History: seen},
			{Ref: other, Digest: sum2, Checked: day, History: seen[1:]},
		},
		clients: []catalog.Client{{Client: "n1", Digest: sum2, LastPull: time.Now().Add(-2 * time.Hour)}, {Client: "n2", Digest: sum, LastPull: time.Now().Add(-time.Hour)}},
		pins:    []catalog.Pin{{Ref: ref, Digest: sum, Since: day, Until: day.Add(100000 * time.Hour), Reason: "INC-1", By: catalog.PinnedByAPI}},
	}
}

// request sends one to the API.
func request(t *testing.T, h http.Handler, method, path, body string) (status int, answer string) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, "/api/v1/"+path, nil)
	if body != "" {
		r = httptest.NewRequestWithContext(t.Context(), method, "/api/v1/"+path, strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

func TestTags(t *testing.T) {
	t.Parallel()
	l := newLedger()
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Tags: l})
	var list admin.TagList
	_, body := request(t, h, "GET", "tags?limit=1", "")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Tags) != 1 || list.Continue == "" {
		t.Fatalf("%s: %v", body, err)
	}
	if x := list.Tags[0]; x.Image != "docker.io/acme/app:v1" || x.Clients != 2 || x.Changes != 1 || !x.Floating || !x.Pinned {
		t.Errorf("%+v", x)
	}
	var next admin.TagList
	_, body = request(t, h, "GET", "tags?limit=1&continue="+list.Continue, "")
	if err := json.Unmarshal([]byte(body), &next); err != nil || len(next.Tags) != 1 || next.Continue != "" || next.Tags[0].Image != "docker.io/acme/app:v1.2.3" || next.Tags[0].Floating {
		t.Errorf("%s: %v", body, err)
	}
	if _, body = request(t, h, "GET", "tags?floating=true", ""); strings.Contains(body, "v1.2.3") {
		t.Errorf("floating: %s", body)
	}
	l.clients[0].LastPull, l.clients[1].LastPull = day, day // long ago
	l.pins = l.pins[:1]
	var pinned admin.TagList
	if _, body = request(t, h, "GET", "tags", ""); json.Unmarshal([]byte(body), &pinned) != nil || len(pinned.Tags) != 1 {
		t.Errorf("not pulled for a month: %s", body)
	}

	var tag admin.Tag
	_, body = request(t, h, "GET", "tags?image=acme/app:v1", "")
	if err := json.Unmarshal([]byte(body), &tag); err != nil {
		t.Fatalf("%s: %v", body, err)
	}
	want := admin.Tag{
		Image: "docker.io/acme/app:v1", Digest: sum, CheckedAt: day.Add(time.Hour), Served: sum2, HeldBy: "minAge", HeldUntil: day,
		History: []admin.TagPeriod{
			{Digest: sum, FirstSeen: day, LastSeen: day.Add(time.Hour), Source: "check", Size: 12, Platforms: []string{"linux/amd64"}, Complete: true, Reversion: true},
			{Digest: sum2, FirstSeen: day.Add(-48 * time.Hour), LastSeen: day.Add(-time.Hour), Source: "pull"},
		},
		Pin:     &admin.Pin{Image: "docker.io/acme/app:v1", Digest: sum, Since: day, Until: day.Add(100000 * time.Hour), Reason: "INC-1", By: "api"},
		Clients: []admin.TagClient{{Client: "n1", Digest: sum2, LastPull: day}, {Client: "n2", Digest: sum, LastPull: day}},
	}
	if diff := gocmp.Diff(want, tag); diff != "" {
		t.Error(diff)
	}
	var then admin.Tag
	_, body = request(t, h, "GET", "tags?image=index.docker.io/acme/app:v1&at="+day.Add(-time.Minute).Format(time.RFC3339), "")
	if err := json.Unmarshal([]byte(body), &then); err != nil || then.Digest != sum2 || len(then.History) != 1 || !then.At.Equal(day.Add(-time.Minute)) {
		t.Errorf("at: %s: %v", body, err)
	}
	if diff := gocmp.Diff(&admin.TagGap{From: day.Add(-time.Hour), To: day}, then.NotSeen); diff != "" {
		t.Errorf("between two periods: %s", diff)
	}
	for _, at := range []time.Time{day.Add(-2 * time.Hour), day, day.Add(2 * time.Hour)} {
		if _, body = request(t, h, "GET", "tags?image=acme/app:v1&at="+at.Format(time.RFC3339), ""); strings.Contains(body, "notSeen") {
			t.Errorf("at %s: %s", at, body)
		}
	}
	for query, want := range map[string]string{
		"image=acme/app:never":                      "404 never seen",
		"image=acme/app:v1&at=2020-01-01T00:00:00Z": "404 its history begins at 2026-07-21",
		"image=acme/app:v1&at=2999-01-01T00:00:00Z": "400 in the future",
		"image=unknown.example/x:1":                 "404 mirror upstreams",
		"image=acme/app:v1@" + sum:                  "400 without a digest",
		"image=":                                    "400 image is missing",
		"image=UPPER:1":                             "400 image=UPPER:1",
		"image=acme/app:v1&at=soon":                 "400 at=soon",
		"at=1h":                                     "400 needs an image",
		"nonsense=1":                                "400 nonsense",
	} {
		status, body := request(t, h, "GET", "tags?"+query, "")
		code, text, _ := strings.Cut(want, " ")
		if fmt.Sprint(status) != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s, want %s", query, status, body, want)
		}
	}
}

// Each change does what it says, and leaves one line in the log. Bad input changes nothing.
func TestTagChanges(t *testing.T) {
	t.Parallel()
	future := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for _, tt := range []struct {
		name, method, path, body string
		err                      error
		want                     string // status and a part of the answer
		done, logged             string
	}{
		{"refresh", "POST", "tags/refresh", `{"image":"acme/app:v1"}`, nil, `200 "changed":true,"served":"` + sum2 + `","heldBy":"minAge"`, "refresh docker.io/acme/app:v1", "tag refreshed"},
		{"refresh fails", "POST", "tags/refresh", `{"image":"acme/app:v1"}`, errors.New("x"), "502 ", "refresh docker.io/acme/app:v1", ""},
		{"refresh a digest", "POST", "tags/refresh", `{"image":"acme/app@` + sum + `"}`, nil, "400 with its tag", "", ""},
		{"pin", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum2 + `","until":"` + future + `","reason":"INC-2"}`, nil, `200 "by":"api"`, "pin docker.io/acme/app:v1 " + sum2 + " INC-2", "tag pinned"},
		{"pin by time", "PUT", "pins", `{"image":"acme/app:v1","at":"2026-07-22T12:00:00Z"}`, nil, `200 ` + sum2, "pin docker.io/acme/app:v1 " + sum2 + " ", "tag pinned"},
		{"pin by a time in a gap", "PUT", "pins", `{"image":"acme/app:v1","at":"2026-07-23T11:30:00Z"}`, nil, `200 "notSeen":{"from":"2026-07-23T11:00:00Z"`, "pin docker.io/acme/app:v1 " + sum2 + " ", "tag pinned"},
		{"pin by a time before", "PUT", "pins", `{"image":"acme/app:v1","at":"2020-07-22T12:00:00Z"}`, nil, `404 not known`, "", ""},
		{"pin by a time to come", "PUT", "pins", `{"image":"acme/app:v1","at":"2999-07-22T12:00:00Z"}`, nil, `400 in the future`, "", ""},
		{"pin of nothing", "PUT", "pins", `{"image":"acme/app:v1"}`, nil, `400 either digest, or at`, "", ""},
		{"pin of both", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `","at":"2026-07-22T12:00:00Z"}`, nil, `400 either digest, or at`, "", ""},
		{"pin to no digest", "PUT", "pins", `{"image":"acme/app:v1","digest":"latest"}`, nil, `400 digest=latest`, "", ""},
		{"pin that is over", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `","until":"2020-01-01T00:00:00Z"}`, nil, `400 is over`, "", ""},
		{"pin that is long over", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `","until":"0001-01-01T00:00:00Z"}`, nil, `400 is over`, "", ""},
		{"pin and more", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `"} {}`, nil, `400 more behind the JSON`, "", ""},
		{"purge of two", "POST", "purge", `{"image":"acme/app:v1","IMAGE":"acme/app:v2"}`, nil, `400 is there twice`, "", ""},
		{"refresh and more", "POST", "tags/refresh", `{"image":"acme/app:v1"}]`, nil, `400 more behind the JSON`, "", ""},
		{"purge and more", "POST", "purge", `{"image":"acme/app:v1"}{"image":"acme/app:v2"}`, nil, `400 more behind the JSON`, "", ""},
		{"pin with white space behind it", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum2 + `"}` + "\r\n ", nil, `200 "by":"api"`, "pin docker.io/acme/app:v1 " + sum2 + " ", "tag pinned"},
		{"pin with a bad reason", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `","reason":"a\nb"}`, nil, `400 one line`, "", ""},
		{
			"pin of what is missing", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `"}`,
			&pull.MissingError{Digests: []oci.Digest{sum2}, Err: errors.New("gone")}, `409 ` + sum2, "pin docker.io/acme/app:v1 " + sum + " ", "",
		},
		{
			"pin of what can't be fetched", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `"}`,
			&pull.MissingError{Digests: []oci.Digest{sum2}, Err: &net.DNSError{Name: "ghcr.io", Err: "no such host", IsNotFound: true}}, `409 check the name of the endpoint`, "pin docker.io/acme/app:v1 " + sum + " ", "",
		},
		{"unpin", "DELETE", "pins?image=acme/app:v1", "", nil, "204 ", "unpin docker.io/acme/app:v1", "tag unpinned"},
		{"unpin of no pin", "DELETE", "pins?image=acme/app:v1", "", catalog.ErrUnknown, "404 is not pinned", "unpin docker.io/acme/app:v1", ""},
		{"unpin of the configuration's", "DELETE", "pins?image=acme/app:v1", "", catalog.ErrPinnedByConfig, "409 reload", "unpin docker.io/acme/app:v1", ""},
		{"purge an image", "POST", "purge", `{"image":"acme/app:v1"}`, nil, "204 ", "purge docker.io/acme/app:v1", "image purged"},
		{"purge a digest", "POST", "purge", `{"digest":"` + sum + `"}`, nil, "204 ", "purge " + sum, "content purged"},
		{"purge what is pinned", "POST", "purge", `{"image":"acme/app:v1"}`, &pull.PinnedError{}, "409 remove the pin", "purge docker.io/acme/app:v1", ""},
		{"purge both", "POST", "purge", `{"image":"a:1","digest":"` + sum + `"}`, nil, "400 either image or digest", "", ""},
		{"pin without a tag", "PUT", "pins", `{"image":"acme/app","digest":"` + sum + `"}`, nil, "400 write its tag", "", ""},
		{"pin to a part", "PUT", "pins", `{"image":"acme/app:v1","digest":"` + sum + `"}`, &pull.PartError{Platform: "linux/amd64", Index: sum2}, "409 linux/amd64 alone", "pin docker.io/acme/app:v1 " + sum + " ", ""},
		{"purge without a tag", "POST", "purge", `{"image":"acme/app"}`, nil, "400 write its tag", "", ""},
		{"purge a repository", "POST", "purge", `{"image":"acme/app@` + sum + `x"}`, nil, "400 ", "", ""},
		{"purge of another field", "POST", "purge", `{"images":["a"]}`, nil, "400 the body must be", "", ""},
	} {
		var log bytes.Buffer
		l := newLedger()
		l.err = tt.err
		h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Tags: l, Log: slog.New(slog.NewTextHandler(&log, nil))})
		status, body := request(t, h, tt.method, tt.path, tt.body)
		code, text, _ := strings.Cut(tt.want, " ")
		if fmt.Sprint(status) != code || !strings.Contains(body, text) {
			t.Errorf("%s: %d %s, want %s", tt.name, status, body, tt.want)
		}
		if got := strings.Join(l.done, "; "); got != tt.done {
			t.Errorf("%s: did %q, want %q", tt.name, got, tt.done)
		}
		lines := strings.Count(log.String(), "\n")
		if tt.logged == "" && lines != 0 || tt.logged != "" && (lines != 1 || !strings.Contains(log.String(), tt.logged) || !strings.Contains(log.String(), "client=")) {
			t.Errorf("%s: logged %q", tt.name, log.String())
		}
	}
}

// Pods and workloads that name a tag keep it in use. Where they can't be read the list says so.
func TestTagsInUse(t *testing.T) {
	t.Parallel()
	l := newLedger()
	l.clients, l.pins = nil, nil
	other := l.tags[2].Ref
	var reads int
	var fails error
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Tags: l, Uses: func(context.Context) (map[oci.Ref][]string, []string, error) {
		reads++
		by := []string{"prod/web-1", "prod/Deployment/web", "prod/web-1"}
		for i := range 30 {
			by = append(by, fmt.Sprintf("prod/x-%02d", i))
		}
		return map[oci.Ref][]string{other: by, l.tags[1].Ref: {"a/b"}}, []string{"no CronJobs"}, fails
	}})
	var list admin.TagList
	_, body := request(t, h, "GET", "tags", "")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Tags) != 2 || !slices.Equal(list.Notes, []string{"no CronJobs"}) {
		t.Fatalf("%s: %v", body, err)
	}
	if x := list.Tags[1]; x.Image != other.String() || x.Uses != 32 || len(x.UsedBy) != 20 || !slices.Equal(x.UsedBy[:3], []string{"prod/Deployment/web", "prod/web-1", "prod/x-00"}) {
		t.Errorf("%+v", x)
	}
	_, body = request(t, h, "GET", "tags?limit=1", "")
	if err := json.Unmarshal([]byte(body), &list); err != nil || list.Continue == "" {
		t.Fatal(body)
	}
	before := reads
	if _, body = request(t, h, "GET", "tags?limit=1&continue="+list.Continue, ""); !strings.Contains(body, other.String()) || reads != before {
		t.Errorf("the next page: %s, %d reads of the cluster", body, reads-before)
	}
	fails = errors.New("read the pods of the cluster: forbidden")
	if status, body := request(t, h, "GET", "tags", ""); status != 200 || !strings.Contains(body, `"notes":["read the pods of the cluster: forbidden"]`) || strings.Contains(body, "image") {
		t.Errorf("pods can't be read: %d %s", status, body)
	}
}

// The status has the pins with those that end soon, and the newest of the tags that are held back.
func TestStatusOfTags(t *testing.T) {
	t.Parallel()
	l := newLedger()
	now := time.Now()
	l.pins = nil
	for i := range 8 {
		ref := l.tags[1].Ref
		ref.Tag = fmt.Sprint("v", i)
		pin := catalog.Pin{Ref: ref, Digest: sum}
		if i > 0 {
			pin.Until = now.Add(time.Duration(10-i) * 3 * time.Hour)
		}
		l.pins = append(l.pins, pin)
	}
	var held []admin.HeldTag
	for i := range 7 {
		held = append(held, admin.HeldTag{Image: fmt.Sprint("a:", i), Since: now.Add(time.Duration(i) * time.Minute)})
	}
	held = append(held, admin.HeldTag{Image: "b:1", Immutable: true})
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Tags: l, About: func() admin.About { return admin.About{} }, Held: func() []admin.HeldTag { return held },
	})
	var s admin.Status
	_, body := request(t, h, "GET", "status", "")
	if err := json.Unmarshal([]byte(body), &s); err != nil || s.Pins == nil {
		t.Fatalf("%s: %v", body, err)
	}
	var ending []string
	for _, p := range s.Pins.Ending {
		ending = append(ending, p.Image[strings.LastIndex(p.Image, ":")+1:])
	}
	if s.Pins.Count != 8 || strings.Join(ending, " ") != "v7 v6 v5 v4 v3" {
		t.Errorf("%d pins, soon %v", s.Pins.Count, ending)
	}
	if diff := gocmp.Diff(&admin.StatusHeld{Count: 7, Newest: []string{"a:6", "a:5", "a:4", "a:3", "a:2"}}, s.Held); diff != "" {
		t.Error(diff)
	}
	if diff := gocmp.Diff(&admin.StatusHeld{Count: 1, Newest: []string{"b:1"}}, s.Immutable); diff != "" {
		t.Error(diff)
	}
	l.pins, held = nil, nil
	if _, body := request(t, h, "GET", "status", ""); strings.Contains(body, "pins") || strings.Contains(body, "held") {
		t.Errorf("none: %s", body)
	}
}

func TestPinList(t *testing.T) {
	t.Parallel()
	var list admin.PinList
	_, body := request(t, admin.New(admin.Options{Loopback: true, Hosts: asExample, Tags: newLedger()}), "GET", "pins", "")
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.Pins) != 1 || list.Pins[0].Reason != "INC-1" {
		t.Errorf("%s: %v", body, err)
	}
}

func TestDrift(t *testing.T) {
	t.Parallel()
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Drift: func(context.Context) (drift.Report, error) { return drifting, nil }})
	for query, want := range map[string]string{
		"": "pulled restart", "?kind=restart": "restart", "?kind=running": "", "?limit=1": "pulled",
	} {
		var got admin.DriftList
		_, body := request(t, h, "GET", "tags/drift"+query, "")
		if err := json.Unmarshal([]byte(body), &got); err != nil || got.Drift == nil {
			t.Fatalf("%s: %s: %v", query, body, err)
		}
		var kinds []string
		for _, x := range got.Drift {
			kinds = append(kinds, string(x.Kind))
		}
		if strings.Join(kinds, " ") != want || (got.Continue != "") != (query == "?limit=1") {
			t.Errorf("%s: %s", query, body)
		}
	}
	reads := 0
	h = admin.New(admin.Options{Loopback: true, Hosts: asExample, Drift: func(context.Context) (drift.Report, error) { reads++; return drifting, nil }})
	var page admin.DriftList
	if _, body := request(t, h, "GET", "tags/drift?limit=1", ""); json.Unmarshal([]byte(body), &page) != nil {
		t.Error(body)
	}
	if _, body := request(t, h, "GET", "tags/drift?limit=1&continue="+page.Continue, ""); reads != 1 || !strings.Contains(body, "restart") {
		t.Errorf("a further page: %d looks at all tags, %s", reads, body)
	}
	if request(t, h, "GET", "tags/drift", ""); reads != 2 {
		t.Errorf("the first page again: %d looks at all tags, want 2", reads)
	}
	if status, body := request(t, h, "GET", "tags/drift?kind=other", ""); status != 400 || !strings.Contains(body, "restart") {
		t.Errorf("%d %s", status, body)
	}
}

// drifting is a report with every field.
var drifting = drift.Report{Drift: []drift.Tag{
	{Image: "docker.io/acme/app:v1", Kind: drift.Pulled, Digests: []drift.Digest{{Digest: sum, Current: true, Clients: []string{"n1"}}, {Digest: sum2, Clients: []string{"n2"}}}},
	{
		Image: "docker.io/acme/app:v1", Kind: drift.Restart, Digests: []drift.Digest{{Digest: sum, Current: true}, {Digest: sum2, Pods: []string{"prod/web"}}},
		Change: &drift.Change{From: sum2, To: sum, FromCreated: day, ToCreated: day, FromSize: 1, ToSize: 2, Layers: 3, LayersCommon: 2},
	},
}, Notes: []string{"n"}}
