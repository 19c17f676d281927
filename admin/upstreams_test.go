package admin_test

import (
	"testing"
	"time"

	"github.com/registrymirror/mirror/admin"
)

func TestUpstreams(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	list := []admin.Upstream{{
		Name: "docker.io", Access: "public",
		Endpoints: []admin.Endpoint{{URL: "https://registry-1.docker.io", State: "up"}},
		Credentials: []admin.Credential{
			{Name: "hub", Kind: "file", State: "unknown"},
			{
				Name: "node", Kind: "plugin", For: "docker.io", Repositories: []string{"a/**"}, State: "expiring", ExpiresAt: at,
				LastRefresh: at.Add(-time.Hour), LastError: "exit status 1",
			},
		},
		Limits: []admin.Limit{
			{Endpoint: "https://registry-1.docker.io", Source: "192.0.2.1", Limit: 100, WindowSeconds: 21600, SaidAt: at},
			{Endpoint: "https://registry-1.docker.io", Credential: "hub", Remaining: 7, ResetAt: at.Add(time.Hour), SaidAt: at},
		},
	}}
	h := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Keys: func() admin.Keys { return admin.Keys{Token: "s3cret"} }, Upstreams: func() []admin.Upstream { return list },
	})
	if status, _, _ := get(t, h, "GET", "/api/v1/upstreams", ""); status != 401 {
		t.Errorf("without a token: %d", status)
	}
	status, body, header := get(t, h, "GET", "/api/v1/upstreams", "s3cret")
	want := `{"upstreams":[{"name":"docker.io","access":"public","endpoints":[{"url":"https://registry-1.docker.io",` +
		`"state":"up"}],"credentials":[{"name":"hub","kind":"file","state":"unknown"},{"name":"node","kind":"plugin",` +
		`"for":"docker.io","repositories":["a/**"],"state":"expiring","expiresAt":"2026-05-01T12:00:00Z",` +
		`"lastRefresh":"2026-05-01T11:00:00Z","lastError":"exit status 1"}],` +
		`"limits":[{"source":"192.0.2.1","endpoint":"https://registry-1.docker.io","limit":100,"remaining":0,` +
		`"windowSeconds":21600,"saidAt":"2026-05-01T12:00:00Z"},{"credential":"hub","endpoint":"https://registry-1.docker.io",` +
		`"remaining":7,"resetAt":"2026-05-01T13:00:00Z","saidAt":"2026-05-01T12:00:00Z"}]}]}` + "\n"
	if status != 200 || body != want || header.Get("Content-Type") != "application/json" {
		t.Errorf("%d %s\n%s\nwant\n%s", status, header.Get("Content-Type"), body, want)
	}
	list = nil
	if _, body, _ := get(t, h, "GET", "/api/v1/upstreams", "s3cret"); body != `{"upstreams":[]}`+"\n" {
		t.Errorf("none: %s", body)
	}
}
