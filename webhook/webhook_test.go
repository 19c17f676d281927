package webhook_test

import (
	"bytes"
	"cmp"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/registrymirror/mirror/internal/testlog"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/webhook"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "5b1d7e9042c64f3a8d0e1f2a3b4c5d6e"

// marks is an Expirer that remembers.
type marks struct {
	mu   sync.Mutex
	list []string
	err  error
}

func (m *marks) Expire(repo oci.Repo, tag string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.list = append(m.list, repo.String()+":"+tag)
	return nil
}

func (m *marks) take() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.list
	m.list = nil
	return list
}

// harness is a handler with one hook of each type, named for it.
type harness struct {
	*webhook.Handler
	marks *marks
	log   *testlog.Log

	mu      sync.Mutex
	results []string
}

// names are upstreams as people have them: a Harbor under its own name, which is an endpoint of docker.io too.
func names(t *testing.T) webhook.Names {
	t.Helper()
	routes, err := route.New([]route.Upstream{
		{Name: "docker.io", Library: true, Aliases: []string{"index.docker.io", "registry-1.docker.io"}},
		{Name: "ghcr.io"},
		{Name: "quay.io"},
		{Name: "harbor.corp.example"},
		{Name: "registry.corp:5000", Aliases: []string{"corp"}},
		{Name: "images.gitlab", Aliases: []string{"gitlab"}},
		{Name: "git.corp.example"},
		{Name: "*.azurecr.io", Fits: func(host string) bool { return strings.HasSuffix(host, ".azurecr.io") }},
	}, "")
	if err != nil {
		t.Fatal(err)
	}
	return webhook.Names{Routes: routes, Endpoints: []webhook.Endpoint{
		{Upstream: "docker.io", Host: "harbor.corp.example:443", Prefix: "hub-proxy"},
		{Upstream: "docker.io", Host: "registry-1.docker.io"},
		{Upstream: "harbor.corp.example", Host: "harbor.corp.example"},
		{Upstream: "registry.corp:5000", Host: "registry.corp:5000"},
		{Upstream: "images.gitlab", Host: "gitlab-registry.internal:5000"},
	}}
}

func start(t *testing.T, hooks ...webhook.Hook) *harness {
	t.Helper()
	h := &harness{marks: &marks{}, log: &testlog.Log{}}
	h.Handler = webhook.New(webhook.Options{
		Expirer: h.marks, Log: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Observe: func(name string, r webhook.Result) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.results = append(h.results, name+" "+string(r))
		},
	})
	if hooks == nil {
		for _, kind := range webhook.Types() {
			hooks = append(hooks, webhook.Hook{Name: kind, Type: kind, Secrets: []string{secret}})
		}
	}
	h.Use(webhook.Setup{Hooks: hooks, Names: names(t)})
	return h
}

func (h *harness) take() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.results
	h.results = nil
	return list
}

// send sends a report, with headers in pairs.
func (h *harness) send(t *testing.T, path string, body []byte, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// prove are path and headers with which a sender of a type shows that it knows a secret.
func prove(kind, name, key string, body []byte) (path string, header []string) {
	path = "/webhooks/" + name
	sign := func() string {
		m := hmac.New(sha256.New, []byte(key))
		m.Write(body)
		return hex.EncodeToString(m.Sum(nil))
	}
	switch kind {
	case "dockerhub", "quay":
		return path + "/" + key, nil
	case "github":
		return path, []string{"X-Hub-Signature-256", "sha256=" + sign(), "X-GitHub-Event", "registry_package"}
	case "gitea":
		return path, []string{"X-Gitea-Signature", sign(), "X-Hub-Signature-256", "sha256=" + sign(), "X-Gitea-Event", "package"}
	case "gitlab":
		return path, []string{"X-Gitlab-Token", key}
	case "generic":
		return path, []string{"X-Hub-Signature-256", "sha256=" + sign()}
	default:
		return path, []string{"Authorization", "Bearer " + key}
	}
}

// standard are the headers of the Standard Webhooks scheme.
func standard(key []byte, id string, at time.Time, body []byte) []string {
	seconds := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s.%s.%s", id, seconds, body)
	return []string{
		"Webhook-Id", id, "Webhook-Timestamp", seconds, "Webhook-Signature", "v1,bm90IHRoaXMgb25l v1," +
			base64.StdEncoding.EncodeToString(m.Sum(nil)),
	}
}

func recorded(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Each sender's reports, in the form in which it sends them, mark the tags that they are about, and nothing else.
func TestSenders(t *testing.T) {
	t.Parallel()
	tests := []struct {
		kind, body string
		want       []string
		says       string // in the answer
	}{
		{"dockerhub", "dockerhub", []string{"docker.io/acme/app:1.4"}, "checked at the next pull: docker.io/acme/app:1.4"},
		{"dockerhub", "dockerhub-2014", []string{"docker.io/acme/app:latest"}, ""},
		{"github", "github", []string{"ghcr.io/acme/team/app:v1.4"}, ""},
		{"github", "github-package", []string{"ghcr.io/acme/app:3.2.1"}, ""},
		{"github", "github-untagged", nil, "has no tag"},
		{"github", "github-npm", nil, "is not an image"},
		{"github", "github-ping", nil, "choose Registry packages"},
		{"quay", "quay", []string{"quay.io/acme/app:latest", "quay.io/acme/app:1.4"}, ""},
		{"quay", "quay-2013", []string{"quay.io/acme/app:latest"}, ""},
		{"quay", "quay-build", nil, "not a push"},
		{"harbor", "harbor", []string{"harbor.corp.example/team/app:1.4"}, ""},
		{"harbor", "harbor-1.10", []string{"harbor.corp.example/team/app:1.4"}, ""},
		{"harbor", "harbor-cloudevents", []string{"harbor.corp.example/team/app:1.4"}, ""},
		{"harbor", "harbor-delete", []string{"harbor.corp.example/team/app:"}, ""}, // it names one of the tags that are gone
		{"harbor", "harbor-pull", nil, "choose Artifact pushed"},
		{"harbor", "harbor-digest", nil, "has no tag"},
		{"harbor", "harbor-proxy", []string{"harbor.corp.example/hub-proxy/library/nginx:1.27", "docker.io/library/nginx:1.27"}, ""},
		{"distribution", "distribution", []string{"registry.corp:5000/team/app:1.4"}, ""},
		{"distribution", "distribution-pull", nil, "no push"},
		{"distribution", "distribution-delete", []string{"registry.corp:5000/team/app:"}, "checked at the next pull: registry.corp:5000/team/app"},
		{"distribution", "acr", []string{"acme.azurecr.io/hello-world:v1"}, ""},
		{"gitlab", "gitlab-pipeline", nil, "report no images"},
		{"gitlab", "gitlab", nil, "is not at an upstream"},
		{"gitea", "gitea", []string{"git.corp.example/acme/app:1.4"}, ""},
		{"gitea", "gitea-digest", nil, "not a tag"},
		{"generic", "generic", []string{"ghcr.io/acme/app:1.4"}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.body, func(t *testing.T) {
			t.Parallel()
			h := start(t)
			body := recorded(t, tt.body)
			path, header := prove(tt.kind, tt.kind, secret, body)
			w := h.send(t, path, body, header...)
			if diff := gocmp.Diff(tt.want, h.marks.take()); diff != "" {
				t.Errorf("marked (-want +got):\n%s", diff)
			}
			result := "accepted"
			if tt.want == nil {
				result = "ignored"
			}
			if w.Code != http.StatusAccepted || !strings.Contains(w.Body.String(), tt.says) {
				t.Errorf("%d %s", w.Code, w.Body)
			}
			if got := h.take(); !slices.Equal(got, []string{tt.kind + " " + result}) {
				t.Errorf("counted as %q", got)
			}
			if strings.Contains(h.log.String()+w.Body.String(), secret) {
				t.Errorf("the secret is shown:\n%s\n%s", h.log, w.Body)
			}
			// No report has an effect by another's secret, by none, or by a signature of another body.
			for what, change := range map[string]func() (string, []byte, []string){
				"another's secret": func() (string, []byte, []string) {
					path, header := prove(tt.kind, tt.kind, secret+"x", body)
					return path, body, header
				},
				"the beginning of the secret": func() (string, []byte, []string) {
					path, header := prove(tt.kind, tt.kind, secret[:len(secret)-1], body)
					return path, body, header
				},
				"no secret": func() (string, []byte, []string) { return "/webhooks/" + tt.kind, body, nil },
				"an empty one": func() (string, []byte, []string) {
					path, header := prove(tt.kind, tt.kind, "", body)
					return path, body, header
				},
			} {
				path, body, header := change()
				if w := h.send(t, path, body, header...); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), ";") {
					t.Errorf("%s: %d %s", what, w.Code, w.Body)
				}
				if got := h.marks.take(); got != nil {
					t.Errorf("%s marks %q", what, got)
				}
				if got := h.take(); !slices.Equal(got, []string{tt.kind + " denied"}) {
					t.Errorf("%s is counted as %q", what, got)
				}
			}
		})
	}
}

// A signature covers each byte of the body.
func TestSignatureOfAnotherBody(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"github", "gitea", "generic"} {
		h := start(t)
		body := recorded(t, kind)
		path, header := prove(kind, kind, secret, body)
		if w := h.send(t, path, append(bytes.Clone(body), ' '), header...); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "signature") {
			t.Errorf("%s: %d %s", kind, w.Code, w.Body)
		}
		for i := 0; i < len(header); i += 2 {
			if strings.HasPrefix(header[i+1], "sha256=") {
				header[i+1] = "sha1=" + header[i+1][7:]
			} else {
				header[i+1] = "zz" + header[i+1]
			}
		}
		if w := h.send(t, path, body, header...); w.Code != http.StatusForbidden {
			t.Errorf("%s, not in the form of a signature: %d %s", kind, w.Code, w.Body)
		}
		if got := h.marks.take(); got != nil {
			t.Errorf("%s: marked %q", kind, got)
		}
	}
}

// GitHub and Gitea send a form where the operator leaves the preset; the signature is of the form.
func TestForm(t *testing.T) {
	t.Parallel()
	h := start(t)
	body := []byte("payload=" + url.QueryEscape(string(recorded(t, "github"))))
	path, header := prove("github", "github", secret, body)
	w := h.send(t, path, body, append(header, "Content-Type", "application/x-www-form-urlencoded")...)
	if got := h.marks.take(); !slices.Equal(got, []string{"ghcr.io/acme/team/app:v1.4"}) {
		t.Errorf("marked %q: %d %s", got, w.Code, w.Body)
	}
}

// The header Authorization is what each sender can make of it.
func TestAuthorization(t *testing.T) {
	t.Parallel()
	h := start(t)
	basic := base64.StdEncoding.EncodeToString([]byte("mirror:" + secret))
	for _, text := range []string{"Bearer " + secret, "bearer " + secret, secret, "Basic " + basic} {
		for _, kind := range []string{"harbor", "distribution", "gitlab", "generic"} {
			if w := h.send(t, "/webhooks/"+kind, []byte("{}"), "Authorization", text); w.Code == http.StatusForbidden {
				t.Errorf("%s with %q: %d %s", kind, text, w.Code, w.Body)
			}
		}
		for _, kind := range []string{"dockerhub", "quay", "github", "gitea"} {
			if w := h.send(t, "/webhooks/"+kind, []byte("{}"), "Authorization", text); w.Code != http.StatusForbidden {
				t.Errorf("%s with %q: %d %s", kind, text, w.Code, w.Body)
			}
		}
	}
	for _, text := range []string{"Basic x", "Basic " + base64.StdEncoding.EncodeToString([]byte(secret+":")), "Bearer", "Bearer  ", "Token " + secret} {
		if w := h.send(t, "/webhooks/harbor", []byte("{}"), "Authorization", text); w.Code != http.StatusForbidden {
			t.Errorf("%q: %d %s", text, w.Code, w.Body)
		}
	}
}

// A signature by the Standard Webhooks scheme holds for five minutes, and for one report.
func TestStandardSignature(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key := []byte("0123456789abcdef0123456789abcdef")
		encoded := "whsec_" + base64.StdEncoding.EncodeToString(key)
		body := recorded(t, "generic")
		for _, tt := range []struct{ kind, secret string }{{"generic", encoded}, {"generic", string(key)}, {"gitlab", encoded}} {
			h := start(t, webhook.Hook{Name: "x", Type: tt.kind, Secrets: []string{tt.secret}, Upstream: ""})
			send := func(what string, status int, header []string) {
				t.Helper()
				if w := h.send(t, "/webhooks/x", body, header...); w.Code != status {
					t.Errorf("%s, %s: %d %s", tt.kind, what, w.Code, w.Body)
				}
			}
			now := time.Now()
			send("an old one", http.StatusForbidden, standard(key, "1", now.Add(-5*time.Minute-time.Second), body))
			send("one of the future", http.StatusForbidden, standard(key, "1", now.Add(5*time.Minute+time.Second), body))
			send("another's", http.StatusForbidden, standard(key[1:], "1", now, body))
			send("without an id", http.StatusForbidden, standard(key, "", now, body))
			send("of another body", http.StatusForbidden, standard(key, "1", now, body[1:]))
			other := standard(key, "1", now, body)
			other[3] = strconv.FormatInt(now.Unix()+1, 10)
			send("with another time", http.StatusForbidden, other)
			// The secret in a header does not save a wrong signature.
			send("wrong, beside the secret", http.StatusForbidden, append(other, "Authorization", "Bearer "+tt.secret, "X-Gitlab-Token", tt.secret))
			if got := h.marks.take(); got != nil {
				t.Errorf("%s: marked %q", tt.kind, got)
			}
			at := standard(key, "1", now.Add(4*time.Minute), body)
			for range 3 {
				send("a right one", http.StatusAccepted, at)
			}
			time.Sleep(9*time.Minute - time.Second)
			send("again, at the end of its time", http.StatusAccepted, at)
			want := []string{"ghcr.io/acme/app:1.4"}
			if tt.kind == "gitlab" {
				want = nil
			}
			if diff := gocmp.Diff(want, h.marks.take()); diff != "" {
				t.Errorf("%s: marked (-want +got):\n%s", tt.kind, diff)
			}
			time.Sleep(2 * time.Second)
			send("again, after it", http.StatusForbidden, at)
		}
	})
}

// A report that comes twice has one effect, where its sender tells reports apart.
func TestReplay(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			kind, body string
			header     []string // that identifies the delivery
			known      bool
		}{
			{"distribution", "distribution", nil, true},
			{"distribution", "acr", nil, true},
			{"harbor", "harbor-cloudevents", nil, true},
			{"github", "github", []string{"X-GitHub-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"}, true},
			{"gitea", "gitea", []string{"X-Gitea-Delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"}, true},
			// Two pushes of one tag may be reported by equal bodies: neither may be taken for the other.
			{"github", "github", nil, false},
			{"dockerhub", "dockerhub", nil, false},
			{"quay", "quay-2013", nil, false},
			{"harbor", "harbor", nil, false},
			{"generic", "generic", nil, false},
		} {
			h := start(t)
			body := recorded(t, tt.body)
			path, header := prove(tt.kind, tt.kind, secret, body)
			header = append(header, tt.header...)
			for range 3 {
				if w := h.send(t, path, body, header...); w.Code != http.StatusAccepted {
					t.Errorf("%s: %d %s", tt.body, w.Code, w.Body)
				}
			}
			want, results := 3, []string{"accepted", "accepted", "accepted"}
			if tt.known {
				want, results = 1, []string{"accepted", "duplicate", "duplicate"}
			}
			if got := h.marks.take(); len(got) != want {
				t.Errorf("%s: marked %d times, want %d", tt.body, len(got), want)
			}
			if got := h.take(); strings.Join(got, " ") != tt.kind+" "+strings.Join(results, " "+tt.kind+" ") {
				t.Errorf("%s: counted as %q", tt.body, got)
			}
			// After its time it is a new one.
			time.Sleep(10 * time.Minute)
			h.send(t, path, body, header...)
			if got := h.marks.take(); len(got) != 1 {
				t.Errorf("%s, later: marked %q", tt.body, got)
			}
			if tt.header != nil { // not signed: the tag is checked once more, which is all that a thief gains
				header[len(header)-1] = "another"
				h.send(t, path, body, header...)
				if got := h.marks.take(); len(got) != 1 {
					t.Errorf("%s, another delivery: marked %q", tt.body, got)
				}
			}
		}
	})
}

// A report that could not be recorded may come again.
func TestExpireFails(t *testing.T) {
	t.Parallel()
	h := start(t)
	body := recorded(t, "distribution")
	path, header := prove("distribution", "distribution", secret, body)
	h.marks.err = errors.New("disk full")
	w := h.send(t, path, body, header...)
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if text := h.log.Take(); !strings.Contains(text, "disk full") || !strings.Contains(text, "registry.corp:5000/team/app:1.4") {
		t.Errorf("log: %s", text)
	}
	h.marks.err = nil
	h.send(t, path, body, header...)
	if got := h.marks.take(); !slices.Equal(got, []string{"registry.corp:5000/team/app:1.4"}) {
		t.Errorf("marked %q", got)
	}
	if got := h.take(); !slices.Equal(got, []string{"distribution failed", "distribution accepted"}) {
		t.Errorf("counted as %q", got)
	}
}

// Names are cleaned, and found by the list of upstreams.
func TestNames(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		image, upstream string
		want            []string
	}{
		{image: "nginx:1.27", want: []string{"docker.io/library/nginx:1.27"}},
		{image: "docker.io/nginx", want: []string{"docker.io/library/nginx:latest"}},
		{image: "index.docker.io/library/nginx:1", want: []string{"docker.io/library/nginx:1"}},
		{image: "registry-1.docker.io/acme/app:1", want: []string{"docker.io/acme/app:1"}},
		{image: "GHCR.IO/acme/app:v1@sha256:" + strings.Repeat("a", 64), want: []string{"ghcr.io/acme/app:v1"}},
		{image: "harbor.corp.example/hub-proxy/acme/app:1", want: []string{"harbor.corp.example/hub-proxy/acme/app:1", "docker.io/acme/app:1"}},
		{image: "harbor.corp.example/hub-proxy/nginx:1", want: []string{"harbor.corp.example/hub-proxy/nginx:1", "docker.io/library/nginx:1"}},
		{image: "harbor.corp.example:443/team/app:1", want: []string{"harbor.corp.example/team/app:1"}},
		{image: "harbor.corp.example/hub-proxy:1", want: []string{"harbor.corp.example/hub-proxy:1"}},
		{image: "gitlab-registry.internal:5000/group/app:1", want: []string{"images.gitlab/group/app:1"}},
		{image: "team.azurecr.io/app:1", want: []string{"team.azurecr.io/app:1"}},
		{image: "registry.example/acme/app:1"},
		{image: "ghcr.io.evil.example/acme/app:1"},
		{image: "ghcr.io/acme/app@sha256:" + strings.Repeat("a", 64)},
		// With an upstream, reports about others have no effect, and a name that is not known is the upstream's.
		{image: "harbor.corp.example/hub-proxy/acme/app:1", upstream: "docker.io", want: []string{"docker.io/acme/app:1"}},
		{image: "harbor.corp.example/team/app:1", upstream: "docker.io"},
		{image: "ghcr.io/acme/app:1", upstream: "docker.io"},
		{image: "nginx:1", upstream: "docker.io", want: []string{"docker.io/library/nginx:1"}},
		{image: "harbor.outside.example/hub-proxy/acme/app:1", upstream: "docker.io", want: []string{"docker.io/acme/app:1", "docker.io/hub-proxy/acme/app:1"}},
		{image: "registry.outside.example/group/app:1", upstream: "images.gitlab", want: []string{"images.gitlab/group/app:1"}},
		{image: "team.azurecr.io/app:1", upstream: "*.azurecr.io", want: []string{"team.azurecr.io/app:1"}},
		{image: "registry.outside.example/app:1", upstream: "*.azurecr.io"},
	} {
		h := start(t, webhook.Hook{Name: "x", Type: "generic", Secrets: []string{secret}, Upstream: tt.upstream})
		w := h.send(t, "/webhooks/x", fmt.Appendf(nil, `{"image":%q}`, tt.image), "Authorization", "Bearer "+secret)
		if diff := gocmp.Diff(tt.want, h.marks.take()); diff != "" {
			t.Errorf("%s of %q: %d %s(-want +got):\n%s", tt.image, tt.upstream, w.Code, w.Body, diff)
		}
	}
}

// A name that can't be that of an image has no effect, whatever it holds.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"../../etc/passwd", "acme/App", "acme//app", "/acme/app", "acme/app/", "acme/app:1", "acme/app\x00", "acme/ app", "-app", "",
		strings.Repeat("a/", 200) + "a", "ácme/app", "acme/app?x=y", "http://evil.example/app",
	} {
		for _, tag := range []string{"1", ".1", "a b", "a/b", strings.Repeat("a", 129), "sha256:aa", "\n", "\u202e"} {
			h := start(t)
			body := fmt.Appendf(nil, `{"push_data":{"tag":%q},"repository":{"repo_name":%q}}`, tag, name)
			if w := h.send(t, "/webhooks/dockerhub/"+secret, body); w.Code >= 500 {
				t.Errorf("%q %q: %d %s", name, tag, w.Code, w.Body)
			}
			if got := h.marks.take(); got != nil {
				t.Errorf("%q %q: marked %q", name, tag, got)
			}
			if text := h.log.String(); strings.ContainsAny(text, "\x00\u202e") {
				t.Errorf("%q %q: log %q", name, tag, text)
			}
		}
	}
}

// A script hears of a registry that is not an upstream; a registry doesn't, since it would send its report again and again.
func TestNotOurs(t *testing.T) {
	t.Parallel()
	h := start(t)
	generic := []byte(`{"image":"registry.example/acme/app:1"}`)
	path, header := prove("generic", "generic", secret, generic)
	if w := h.send(t, path, generic, header...); w.Code != http.StatusNotFound ||
		!strings.Contains(w.Body.String(), `"registry.example/acme/app" is not at an upstream of this mirror`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if text := h.log.Take(); !strings.Contains(text, "level=INFO") || !strings.Contains(text, "name=generic") {
		t.Errorf("log: %s", text)
	}
	body := bytes.ReplaceAll(recorded(t, "distribution"), []byte("registry.corp:5000"), []byte("registry.example"))
	path, header = prove("distribution", "distribution", secret, body)
	if w := h.send(t, path, body, header...); w.Code != http.StatusAccepted || !strings.Contains(w.Body.String(), "nothing to do") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	if got := h.marks.take(); got != nil {
		t.Errorf("marked %q", got)
	}
}

// What a caller does wrong is said, with the way out.
func TestWrongRequests(t *testing.T) {
	t.Parallel()
	h := start(t)
	for _, tt := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/webhooks/missing", "{}", 404, "no such webhook"},
		{"POST", "/webhooks/", "{}", 404, "no such webhook"},
		{"POST", "/webhooks/generic/" + secret, "{}", 404, "no such webhook"}, // a secret in a URL ends in logs
		{"GET", "/webhooks/generic", "", 405, "POST"},
		{"HEAD", "/webhooks/generic", "", 405, ""},
		{"POST", "/webhooks/generic", "{", 400, "not the JSON"},
		{"POST", "/webhooks/generic", "", 400, "not the JSON"},
		{"POST", "/webhooks/generic", `{"image":"https://ghcr.io/a"}`, 400, "leave out"},
		{"POST", "/webhooks/generic", `{"picture":"a"}`, 400, `send {"image": `},
		{"POST", "/webhooks/generic", `[1,"a",{}]`, 400, `send {"image": `},
		{"POST", "/webhooks/generic", `[]`, 400, `send {"image": `},
		{"POST", "/webhooks/generic", `null`, 400, `send {"image": `},
		{"POST", "/webhooks/generic", `{"images":[]}`, 400, `send {"image": `},
		{"POST", "/webhooks/generic", `{"image":"ghcr.io/a/b:"}`, 202, "nothing to check"},
		{"POST", "/webhooks/generic", `{"images":["` + strings.Repeat(`ghcr.io/a/b:1","`, 1000) + `ghcr.io/a/b:2"]}`, 400, "more than 1000"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, tt.path, strings.NewReader(tt.body))
		r.Header.Set("Authorization", "Bearer "+secret)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s %s %.40s: %d %s", tt.method, tt.path, tt.body, w.Code, w.Body)
		}
		if (tt.status == 405) != (w.Header().Get("Allow") == "POST") {
			t.Errorf("%s %s: Allow: %s", tt.method, tt.path, w.Header().Get("Allow"))
		}
	}
}

// A large body gets 413: without being read where its size is announced, else after the first MiB.
func TestLargeBody(t *testing.T) {
	t.Parallel()
	h := start(t)
	for _, kind := range webhook.Types() {
		for _, announced := range []bool{true, false} {
			path, header := prove(kind, kind, secret, nil)
			body := &counted{left: 10 << 20}
			r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, body)
			r.ContentLength = -1
			if announced {
				r.ContentLength = body.left
			}
			for i := 0; i < len(header); i += 2 {
				r.Header.Set(header[i], header[i+1])
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusRequestEntityTooLarge || w.Header().Get("Connection") != "close" {
				t.Errorf("%s, announced %v: %d %s", kind, announced, w.Code, w.Body)
			}
			if announced && body.read > 0 || body.read > webhook.MaxBody+1 {
				t.Errorf("%s, announced %v: %d bytes were read", kind, announced, body.read)
			}
		}
	}
	// Without a secret not a byte is read.
	for _, kind := range webhook.Types() {
		body := &counted{left: 100}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/webhooks/"+kind, body)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusForbidden || body.read > 0 {
			t.Errorf("%s: %d, %d bytes were read", kind, w.Code, body.read)
		}
	}
}

// counted is a body of zeros that counts what is read.
type counted struct{ left, read int64 }

func (c *counted) Read(p []byte) (int, error) {
	n := min(int64(len(p)), c.left)
	if n == 0 {
		return 0, io.EOF
	}
	clear(p[:n])
	c.left, c.read = c.left-n, c.read+n
	return int(n), nil
}

// Each hook accepts a bounded number of reports in a time; refused ones don't count.
func TestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		h := start(t)
		body := recorded(t, "quay")
		for range 300 {
			h.send(t, "/webhooks/quay/wrong", body)
		}
		limited := 0
		for range 150 {
			switch w := h.send(t, "/webhooks/quay/"+secret, body); w.Code {
			case http.StatusTooManyRequests:
				limited++
				if w.Header().Get("Retry-After") != "1" {
					t.Errorf("Retry-After: %s", w.Header().Get("Retry-After"))
				}
			case http.StatusAccepted:
			default:
				t.Errorf("%d %s", w.Code, w.Body)
			}
		}
		if limited != 50 {
			t.Errorf("%d of 150 reports at once were too many, want 50", limited)
		}
		time.Sleep(time.Second)
		if w := h.send(t, "/webhooks/quay/"+secret, body); w.Code != http.StatusAccepted {
			t.Errorf("a second later: %d %s", w.Code, w.Body)
		}
		if w := h.send(t, "/webhooks/dockerhub/"+secret, recorded(t, "dockerhub")); w.Code != http.StatusAccepted {
			t.Errorf("another hook: %d %s", w.Code, w.Body)
		}
		if n := strings.Count(h.log.Take(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings in a second, want 1", n)
		}
		time.Sleep(time.Minute)
		h.send(t, "/webhooks/quay/wrong", body)
		if text := h.log.Take(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, "suppressed=349") {
			t.Errorf("log: %s", text)
		}
	})
}

// A reload takes up secrets, and keeps what is remembered. While one secret replaces another, both count.
func TestReload(t *testing.T) {
	t.Parallel()
	const next = "another-long-random-secret-0000"
	h := start(t)
	body := recorded(t, "distribution")
	send := func(key string) int {
		t.Helper()
		path, header := prove("distribution", "distribution", key, body)
		return h.send(t, path, body, header...).Code
	}
	use := func(keys ...string) {
		h.Use(webhook.Setup{Names: names(t), Hooks: []webhook.Hook{{Name: "distribution", Type: "distribution", Secrets: keys}}})
	}
	if got := [2]int{send(secret), send(next)}; got != [2]int{202, 403} {
		t.Errorf("before: %v", got)
	}
	use(next, secret)
	if got := [2]int{send(secret), send(next)}; got != [2]int{202, 202} {
		t.Errorf("both: %v", got)
	}
	use(next)
	if got := [2]int{send(secret), send(next)}; got != [2]int{403, 202} {
		t.Errorf("after: %v", got)
	}
	if got := h.marks.take(); len(got) != 1 {
		t.Errorf("a reload made the mirror forget the report: %q", got)
	}
	use()
	if got := [3]int{send(secret), send(next), send("")}; got != [3]int{403, 403, 403} {
		t.Errorf("without a secret: %v", got)
	}
	h.Use(webhook.Setup{Names: names(t)})
	if got := send(next); got != http.StatusNotFound {
		t.Errorf("without the hook: %d", got)
	}
}

// Reports of all kinds at once, right and wrong, while reloads remove hooks.
func TestTogether(t *testing.T) {
	t.Parallel()
	h := start(t)
	var wg sync.WaitGroup
	for _, kind := range webhook.Types() {
		body := recorded(t, kind)
		for i := range 8 {
			wg.Go(func() {
				for n := range 50 {
					path, header := prove(kind, kind, cmp.Or([]string{secret, "wrong"}[(i+n)%2], secret), body)
					if w := h.send(t, path, body, header...); w.Code >= 500 {
						t.Errorf("%s: %d %s", kind, w.Code, w.Body)
					}
				}
			})
		}
	}
	for range 20 {
		h.Use(webhook.Setup{Names: names(t), Hooks: []webhook.Hook{{Name: "quay", Type: "quay", Secrets: []string{secret}}}})
	}
	wg.Wait()
}
