package admin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

// The pages of a list have every element once and in order, also where elements go away meanwhile.
func TestPages(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	var pulls []journal.Pull
	var upstreams []admin.Upstream
	var failures []journal.Failure
	for i := range 7 {
		pulls = append(pulls, journal.Pull{
			Ref:   oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: fmt.Sprintf("acme/%d", i%4)}, Tag: "v1"},
			Began: at.Add(-time.Duration(i/2) * time.Second), Client: fmt.Sprint("node-", i%2),
		})
		upstreams = append(upstreams, admin.Upstream{Name: fmt.Sprintf("%d.example", i)})
		failures = append(failures, journal.Failure{ID: fmt.Sprint("aaaaaaa", i), Outcome: journal.Failed, LastSeen: at})
	}
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Pulls:     func(context.Context, bool) ([]journal.Pull, error) { return slices.Clone(pulls), nil },
		Upstreams: func() []admin.Upstream { return slices.Clone(upstreams) },
		Failures:  &kept{list: append(failures, journal.Failure{ID: "aaaaaaa0", Outcome: journal.Declined, LastSeen: at})},
	})
	all := func(path string, names func(text string) (list []string, next string)) (got []string, pages int) {
		t.Helper()
		for next := ""; pages == 0 || next != ""; pages++ {
			query := "?limit=3"
			if next != "" {
				query += "&continue=" + next
			}
			status, body, _ := get(t, h, "GET", path+query, "")
			if status != 200 || pages > 5 {
				t.Fatalf("%d %s", status, body)
			}
			var list []string
			list, next = names(body)
			got = append(got, list...)
			pulls = slices.DeleteFunc(pulls, func(p journal.Pull) bool { return pages == 0 && p.Ref.Name == "acme/0" && p.Began.Equal(at) })
		}
		return got, pages
	}
	got, pages := all("/api/v1/pulls", func(text string) (list []string, next string) {
		var body admin.PullList
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatal(err)
		}
		for _, p := range body.Pulls {
			list = append(list, fmt.Sprint(int(at.Sub(p.StartedAt).Seconds()), " ", p.Client, " ", p.Image))
		}
		return list, body.Continue
	})
	want := []string{
		"0 node-0 docker.io/acme/0:v1", "0 node-1 docker.io/acme/1:v1", "1 node-0 docker.io/acme/2:v1", "1 node-1 docker.io/acme/3:v1",
		"2 node-0 docker.io/acme/0:v1", "2 node-1 docker.io/acme/1:v1", "3 node-0 docker.io/acme/2:v1",
	}
	if diff := cmp.Diff(want, got); diff != "" || pages != 3 {
		t.Errorf("%d pages (-want +got):\n%s", pages, diff)
	}
	got, pages = all("/api/v1/upstreams", func(text string) (list []string, next string) {
		var body admin.UpstreamList
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatal(err)
		}
		for _, u := range body.Upstreams {
			list = append(list, u.Name[:1])
		}
		return list, body.Continue
	})
	if strings.Join(got, "") != "0123456" || pages != 3 {
		t.Errorf("%s in %d pages", got, pages)
	}
	got, pages = all("/api/v1/failures", func(text string) (list []string, next string) { // seen at the same moment
		var body admin.FailureList
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatal(err)
		}
		for _, f := range body.Failures {
			list = append(list, f.ID[7:]+string(f.Outcome[:1]))
		}
		return list, body.Continue
	})
	if strings.Join(got, " ") != "0d 0f 1f 2f 3f 4f 5f 6f" || pages != 3 {
		t.Errorf("%s in %d pages", got, pages)
	}
	for _, query := range []string{"limit=0", "limit=1001", "limit=", "limit=x", "continue=", "continue=%00", "continue=a===", "name=x"} {
		for _, path := range []string{"/api/v1/pulls", "/api/v1/upstreams", "/api/v1/failures"} {
			if status, body, _ := get(t, h, "GET", path+"?"+query, ""); status != 400 {
				t.Errorf("%s?%s: %d %s", path, query, status, body)
			}
		}
	}
}
