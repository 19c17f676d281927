package admin_test

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
)

func TestReload(t *testing.T) {
	t.Parallel()
	var err error
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} }, Reload: func(context.Context) (admin.Reloaded, error) { return admin.Reloaded{}, err },
	})
	if status, _, _ := get(t, h, "POST", "/api/v1/reload", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	if status, _, _ := get(t, h, "GET", "/api/v1/reload", "s3cret"); status != 405 {
		t.Errorf("GET: %d", status)
	}
	if status, body, _ := get(t, h, "POST", "/api/v1/reload", "s3cret"); status != 200 || body != `{"changed":[],"restart":[]}`+"\n" {
		t.Errorf("taken: %d %s", status, body)
	}
	err = &admin.NotReloaded{Problems: []string{"c.yaml:1:1: a", "c.yaml:2:1: b"}}
	status, body, header := get(t, h, "POST", "/api/v1/reload", "s3cret")
	var p struct {
		Detail   string
		Problems []string
	}
	if e := json.Unmarshal([]byte(body), &p); e != nil || status != 422 || header.Get("Content-Type") != "application/problem+json" ||
		!slices.Equal(p.Problems, []string{"c.yaml:1:1: a", "c.yaml:2:1: b"}) || !strings.Contains(p.Detail, "the old one stays in use: the new one has 2 problems") {
		t.Errorf("refused: %d %s", status, body)
	}
	err = errors.New("busy")
	if status, body, _ := get(t, h, "POST", "/api/v1/reload", "s3cret"); status != 503 || !strings.Contains(body, "busy; ask again") {
		t.Errorf("busy: %d %s", status, body)
	}
}

// For an unknown class or reason the answer is an error, not an empty list.
func TestUnknownWordsAreRefused(t *testing.T) {
	t.Parallel()
	h := admin.New(admin.Options{Loopback: true, Hosts: asExample, Failures: &kept{}})
	for query, says := range map[string]string{
		"class=autth": "class=autth: must be one of auth, client,", "reason=foo": "tag-not-found",
	} {
		for _, path := range []string{"/api/v1/failures?", "/api/v1/failures/summary?"} {
			if status, body, _ := get(t, h, "GET", path+query, ""); status != 400 || !strings.Contains(body, says) {
				t.Errorf("%s%s: %d %s", path, query, status, body)
			}
		}
	}
	if status, _, _ := get(t, h, "GET", "/api/v1/failures?class=auth&reason=never-pull", ""); status != 200 {
		t.Errorf("known: %d", status)
	}
}
