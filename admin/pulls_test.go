package admin_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
)

func TestPulls(t *testing.T) {
	t.Parallel()
	var broken error
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Pulls: func(_ context.Context, active bool) ([]journal.Pull, error) {
		if !active || broken != nil {
			return nil, broken
		}
		return []journal.Pull{{
			Ref:    oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Tag: "v1", Digest: "sha256:ab"},
			Client: "node-1", Outcome: journal.Failed, Bytes: 7, FromCache: 3,
			Began: time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC), Took: 1500 * time.Millisecond, ID: "7f3a9c2e",
		}}, nil
	}})
	want := `{"pulls":[{"image":"docker.io/acme/app:v1","digest":"sha256:ab","client":"node-1","outcome":"failed","bytes":7,` +
		`"fromCache":3,"startedAt":"2026-05-01T12:00:00Z","took":"1.5s","failureId":"7f3a9c2e"}]}` + "\n"
	if status, body, _ := get(t, h, "GET", "/api/v1/pulls", ""); status != 200 || body != want {
		t.Errorf("%d %s", status, body)
	}
	if status, body, _ := get(t, h, "GET", "/api/v1/pulls?active=false", ""); status != 200 || body != `{"pulls":[]}`+"\n" {
		t.Errorf("over: %d %s", status, body)
	}
	for _, query := range []string{"active=maybe", "activ=true"} {
		if status, _, _ := get(t, h, "GET", "/api/v1/pulls?"+query, ""); status != 400 {
			t.Errorf("%s: %d", query, status)
		}
	}
	broken = errors.New("stopping")
	if status, _, _ := get(t, h, "GET", "/api/v1/pulls", ""); status != 503 {
		t.Errorf("broken: %d", status)
	}
}
