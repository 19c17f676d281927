package admin_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/journal"
)

// kept is a record that remembers the last filter.
type kept struct {
	asked journal.Filter
	list  []journal.Failure
}

func (k *kept) Failures(f journal.Filter) []journal.Failure {
	k.asked = f
	return k.list
}

func (k *kept) Summary(f journal.Filter) journal.Summary {
	k.asked = f
	return journal.Summary{
		Classes: map[string]int64{"auth": 3}, Reasons: map[string]int64{"credentials-expired": 3}, Images: map[string]int64{},
		Clients: map[string]int64{},
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	k := &kept{}
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} }, Failures: k})
	if status, _, _ := get(t, h, "GET", "/api/v1/failures", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	if status, body, _ := get(t, h, "GET", "/api/v1/failures", "s3cret"); status != 200 || body != `{"failures":[]}`+"\n" {
		t.Errorf("none: %d %s", status, body)
	}
	if diff := cmp.Diff(journal.Filter{}, k.asked); diff != "" {
		t.Error(diff)
	}
	k.list = []journal.Failure{{
		Finding: diagnose.Finding{
			Reason: "credentials-expired", Class: "auth", Summary: "s", Remedy: "r", Evidence: []string{"e"}, Short: "not in the answer",
			Alone: "not in the answer", Upstream: "docker.io", Host: "auth.docker.io", Stage: "token", Status: 401, RetryAfter: time.Hour,
		},
		ID: "7f3a9c2e", Image: "docker.io/acme/app:v1", Outcome: journal.Failed, Client: "node-1", UserAgent: "containerd/2.1",
		Clients: map[string]int64{"node-1": 2}, Count: 2, FirstSeen: at, LastSeen: at.Add(time.Hour),
	}}
	_, body, header := get(t, h, "GET", "/api/v1/failures?reason=credentials-expired&class=auth&image=docker.io/acme/*&"+
		"client=node-1&since=2026-05-01T11:00:00Z&declined=true&limit=7&id=7f3a9c2e", "s3cret")
	want := `{"failures":[{"id":"7f3a9c2e","reason":"credentials-expired","class":"auth","summary":"s","remedy":"r",` +
		`"evidence":["e"],"image":"docker.io/acme/app:v1","upstream":"docker.io","host":"auth.docker.io","stage":"token",` +
		`"status":401,"outcome":"failed","client":"node-1","userAgent":"containerd/2.1","clients":{"node-1":2},"count":2,` +
		`"firstSeen":"2026-05-01T12:00:00Z","lastSeen":"2026-05-01T13:00:00Z"}]}` + "\n"
	if body != want || header.Get("Content-Type") != "application/json" {
		t.Errorf("%s\nwant\n%s", body, want)
	}
	if diff := cmp.Diff(journal.Filter{
		ID: "7f3a9c2e", Reason: "credentials-expired", Class: "auth", Image: "docker.io/acme/*", Client: "node-1",
		Since: at.Add(-time.Hour), Declined: true,
	}, k.asked); diff != "" {
		t.Error(diff)
	}
	_, body, _ = get(t, h, "GET", "/api/v1/failures/summary?since=1d1h", "s3cret")
	if !strings.HasPrefix(body, `{"classes":{"auth":3},"reasons":{"credentials-expired":3},`) {
		t.Errorf("summary: %s", body)
	}
	if ago := time.Since(k.asked.Since); ago < 25*time.Hour || ago > 25*time.Hour+time.Minute {
		t.Errorf("a day and an hour ago was %s ago", ago)
	}
}

func TestFailuresRefuses(t *testing.T) {
	t.Parallel()
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Failures: &kept{}})
	for query, says := range map[string]string{
		"since=yesterday": "a duration, as in 1h30m",
		"since=-1h":       "a duration",
		"declined=maybe":  "declined=maybe: must be true or false",
		"limit=0":         "from 1 to 1000",
		"limit=1001":      "from 1 to 1000",
		"limit=x":         "from 1 to 1000",
		"continue=wrong":  "ask without it",
		"reasn=x":         "the parameters are id, reason",
	} {
		status, body, _ := get(t, h, "GET", "/api/v1/failures?"+query, "")
		var problem struct{ Detail string }
		if err := json.Unmarshal([]byte(body), &problem); err != nil || status != 400 || !strings.Contains(problem.Detail, says) {
			t.Errorf("%s: %d %s", query, status, body)
		}
		if status, _, _ := get(t, h, "GET", "/api/v1/failures/summary?"+query, ""); status != 400 {
			t.Errorf("summary?%s: %d", query, status)
		}
	}
}
