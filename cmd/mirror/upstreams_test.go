package main

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
)

func upstreamsOf(t *testing.T, token string) string {
	t.Helper()
	now := time.Now()
	s := httptest.NewServer(admin.New(admin.Options{
		Loopback: true,
		Keys:     func() admin.Keys { return admin.Keys{Token: token} },
		Upstreams: func() []admin.Upstream {
			return []admin.Upstream{
				{
					Name: "docker.io", Access: "public",
					Endpoints: []admin.Endpoint{{URL: "https://registry-1.docker.io", State: "open", Since: now.Add(-time.Minute), LastError: strings.Repeat("x", 120), LastErrorAt: now.Add(-4 * time.Second)}},
					Credentials: []admin.Credential{
						{Name: "hub", Kind: "file", State: "ok"},
						{
							Name: "node", Kind: "plugin", For: "docker.io", Repositories: []string{"a/**"}, State: "expiring",
							ExpiresAt: now.Add(time.Hour + 200*time.Millisecond), LastRefresh: now.Add(-time.Hour), LastError: "exit status 1",
							Since: now.Add(-9 * time.Second), LastErrorAt: now.Add(-3 * time.Second),
						},
						{Name: "old", Kind: "ecr", State: "expired", ExpiresAt: now.Add(-time.Minute)},
					},
					Limits: []admin.Limit{
						{
							Source: "192.0.2.1", Limit: 100, WindowSeconds: 21600, SaidAt: now.Add(-time.Minute),
							Spent: &admin.Spent{Requests: 88, Elsewhere: new(int64(12)), Repositories: []admin.Use{
								{Repository: "library/nginx", Requests: 40},
								{Repository: "acme/app", Requests: 30},
								{Repository: "acme/base", Requests: 10},
								{Repository: "acme/job", Requests: 8},
							}},
						},
						{Credential: "hub", Remaining: 7, ResetAt: now.Add(time.Hour + 200*time.Millisecond), SaidAt: now},
					},
				},
				{Name: "*.azurecr.io", Access: "public"},
				{Name: "ghcr.io", Access: "public", Endpoints: []admin.Endpoint{{URL: "https://ghcr.io", State: "unknown"}}},
			}
		},
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func TestUpstreamsTable(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testUpstreamsTable)
}

// testUpstreamsTable reads ages, so its clock stands still while the machine works.
func testUpstreamsTable(t *testing.T) {
	where := upstreamsOf(t, "")
	want := `UPSTREAM      ENDPOINT                      STATE    SINCE     LAST ERROR
*.azurecr.io  each host that matches        -        -
docker.io     https://registry-1.docker.io  down     1m0s ago  4s ago: ` + strings.Repeat("x", 97) + `...
ghcr.io       https://ghcr.io               unknown  -

UPSTREAM   CREDENTIAL  KIND    STATE     SINCE   EXPIRES    REFRESHED   LAST ERROR
docker.io  hub         file    ok        -       -          -
docker.io  node        plugin  expiring  9s ago  in 1h0m0s  1h0m0s ago  3s ago: exit status 1
docker.io  old         ecr     expired   -       1m0s ago   -

UPSTREAM   LIMIT OF                LEFT      MORE           REPORTED  SPENT ON
docker.io  anonymous at 192.0.2.1  0 of 100  within 6h0m0s  1m0s ago  library/nginx 40, acme/app 30, acme/base 10, others 8, not by this mirror 12
docker.io  hub                     7         in 1h0m0s      0s ago
`
	code, out, errs := commandLine(t, "upstreams", "--admin", where)
	if diff := cmp.Diff(want, out); code != 0 || errs != "" || diff != "" {
		t.Errorf("%d %s\n%s", code, errs, diff)
	}
	_, out, _ = commandLine(t, "upstreams", "--admin", where, "-o", "wide")
	if !strings.Contains(out, strings.Repeat("x", 120)+"\n") || !strings.Contains(out, "docker.io  a/**") ||
		!strings.Contains(out, "acme/base 10, acme/job 8, not by this mirror 12\n") {
		t.Errorf("wide:\n%s", out)
	}
	code, out, _ = commandLine(t, "upstreams", "--admin", where, "-o", "json")
	if code != 0 || !strings.HasPrefix(out, `{"upstreams":[{"name":"*.azurecr.io",`) {
		t.Errorf("json: %d\n%s", code, out)
	}
}

func TestUpstreamsExitCodes(t *testing.T) {
	t.Parallel()
	where := upstreamsOf(t, "s3cret")
	token := configFile(t, "s3cret\n")
	for _, tt := range []struct {
		args string
		code int
		says string
	}{
		{"--admin " + where + " --admin-token-file " + token, exitOK, ""},
		{"--config " + configFile(t, fmt.Sprintf("admin: {listen: %q, tokenFile: %q}\n", strings.TrimPrefix(where, "http://"), token)), exitOK, ""},
		{"--config " + configFile(t, "admin: {listen: '0.0.0.0:1', tokenFile: "+token+"}\n"), exitUnreachable, "http://127.0.0.1:1:"},
		{"--config " + configFile(t, "nonsense: 1\n"), exitFailed, "nonsense"},
		{"--admin " + where + " --config /nowhere --admin-token-file " + token, exitOK, ""},
		{"--admin " + where, exitFailed, "--admin-token-file or MIRROR_ADMIN_TOKEN_FILE"},
		{"--admin " + where + " --admin-token-file /nowhere", exitFailed, "--admin-token-file: open /nowhere"},
		{"--admin " + where + " --admin-token-file " + configFile(t, "tokens:\n  - {name: ci}\n"), exitFailed, "is not one line of text, so no request can show it; write the token alone to it: that of admin.tokenFile, or the one that mirror token new printed"},
		{"--admin " + where + " --admin-token-file " + configFile(t, "\n"), exitFailed, "is empty; write the token alone to it: that of admin.tokenFile"},
		{"--admin " + where + " -o xml", exitUsage, "-o xml: must be json, yaml or wide"},
		{"--admin 127.0.0.1:1", exitUnreachable, "no mirror answers at http://127.0.0.1:1"},
		{"--admin 127.0.0.1", exitUsage, "must be a URL or HOST:PORT"},
		{"--admin http://127.0.0.1:1", exitUnreachable, "no mirror answers at http://127.0.0.1:1"},
		{"--admin " + where + " --admin-token-file " + token + " --admin-ca /nowhere", exitFailed, "--admin-ca: open /nowhere"},
		{"--admin " + where + " --admin-token-file " + token + " --admin-ca " + token, exitUsage, "--admin-ca " + token + ": it has no PEM"},
		{"--config " + configFile(t, "admin: {listen: '127.0.0.1:1', tls: {cert: '/nowhere', key: x}}\n"), exitFailed, "admin.tls.cert: open /nowhere"},
		{"docker.io", exitUsage, "docker.io"},
	} {
		code, _, errs := commandLine(t, append([]string{"upstreams"}, strings.Fields(tt.args)...)...)
		if code != tt.code || !strings.Contains(errs, tt.says) || tt.code == 0 && errs != "" {
			t.Errorf("%s: %d, want %d; %s", tt.args, code, tt.code, errs)
		}
	}
}

func TestUpstreamsReset(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(admin.New(admin.Options{Loopback: true, Reset: func(name string) []string {
		if name != "*.azurecr.io" {
			return nil
		}
		return []string{"a.azurecr.io", "b.azurecr.io"}
	}}))
	t.Cleanup(s.Close)
	code, out, text := commandLine(t, "upstreams", "reset", "*.azurecr.io", "--admin", s.URL)
	if code != 0 || out != "reset: a.azurecr.io, b.azurecr.io\n" {
		t.Errorf("%d %q %q", code, out, text)
	}
	if code, out, text = commandLine(t, "upstreams", "reset", "quay.io", "--admin", s.URL); code != 1 || out != "" ||
		!strings.Contains(text, "mirror upstreams lists") {
		t.Errorf("unknown: %d %q %q", code, out, text)
	}
	if code, _, text = commandLine(t, "upstreams", "reset", "--admin", s.URL); code != 2 {
		t.Errorf("no name: %d %q", code, text)
	}
}
