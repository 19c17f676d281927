package server_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/registrymirror/mirror/access"
	"github.com/registrymirror/mirror/cache/flight"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/pull"
	"github.com/registrymirror/mirror/route"
	"github.com/registrymirror/mirror/server"
	"github.com/registrymirror/mirror/upstream/fault"
)

const someDigest = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func upstreamError(status int, change func(*fault.Error)) error {
	e := &fault.Error{
		Op: "manifest", Upstream: "docker.io", Repository: "library/nginx", Reference: "1.27", Status: status,
		Steps: []fault.Step{{Name: fault.StepManifest, Host: "registry-1.docker.io", Status: status}},
	}
	if change != nil {
		change(e)
	}
	return e
}

// The answers to errors, as bytes on the wire.
func TestErrorAnswers(t *testing.T) {
	t.Parallel()
	const manifests, blobs = "/v2/library/nginx/manifests/1.27", "/v2/library/nginx/blobs/" + someDigest
	for _, c := range []struct {
		name   string
		path   string
		err    error
		status int
	}{
		{"unknown-upstream", "/v2/acme/app/manifests/v1?ns=evil.example", &route.UnknownError{Key: "evil.example"}, 404},
		{
			"forbidden", "/v2/acme/app/manifests/v1?ns=docker.io", &access.ForbiddenError{
				Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Mirrored: true,
			}, 403,
		},
		{
			"forbidden-here", "/v2/docker.io/acme/app/manifests/v1", &access.ForbiddenError{
				Repo: oci.Repo{Host: "docker.io", Name: "acme/app"},
			}, 401,
		},
		{"tag-missing", manifests, upstreamError(404, nil), 404},
		{"blob-missing", blobs, upstreamError(404, func(e *fault.Error) { e.Op, e.Reference = "blob", someDigest }), 404},
		{
			"repository-missing", "/v2/library/nginx/tags/list", upstreamError(404, func(e *fault.Error) { e.Op = "tags" }),
			404,
		},
		{"credential-refused", manifests, upstreamError(401, func(e *fault.Error) {
			e.Steps[0] = fault.Step{Name: fault.StepToken, Host: "auth.docker.io", Status: 401}
			e.Credential.Name, e.Message = "hub-pull", "incorrect username or password"
		}), 403},
		{"no-credential", manifests, upstreamError(401, func(e *fault.Error) {
			e.Challenge = `Bearer realm="https://auth.docker.io/token",error="insufficient_scope"`
		}), 403},
		{"limited", manifests, upstreamError(429, func(e *fault.Error) { e.RetryAfter = 90 * time.Second }), 503},
		{"limited-without-a-time", manifests, upstreamError(429, nil), 503},
		{"dns", manifests, upstreamError(0, func(e *fault.Error) {
			e.Steps[0].Name = fault.StepDNS
			e.Err = &net.DNSError{Err: "no such host", Name: "registry-1.docker.io", Server: "10.0.0.2:53", IsNotFound: true}
		}), 502},
		{"refused", manifests, upstreamError(0, func(e *fault.Error) {
			e.Steps[0].Name = fault.StepDial
			e.Err = &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
		}), 502},
		{"tls", manifests, upstreamError(0, func(e *fault.Error) { e.Err = http.ErrSchemeMismatch }), 502},
		{"upstream-503", manifests, upstreamError(503, nil), 502},
		{"web-page", manifests, upstreamError(0, func(e *fault.Error) {
			e.Err = &fault.ContentError{Kind: fault.ContentNotRegistry, Want: "a manifest", Got: "text/html"}
		}), 502},
		{"policy", manifests, upstreamError(412, func(e *fault.Error) {
			e.Code, e.Message = "PROJECTPOLICYVIOLATION", "current image with 4 \"vulnerabilities\"\r\nX-Evil: 1"
		}), 403},
		{"slow", manifests, &pull.TimeoutError{
			Ref: oci.Ref{
				Repo: oci.Repo{Host: "docker.io", Name: "library/nginx"},
				Tag:  "1.27",
			},
			Waited: 25 * time.Second,
		}, 504},
		{"wrong-bytes", blobs, &flight.MismatchError{Digest: someDigest, Size: 10, GotSize: 12, Host: "cdn.example"}, 502},
		{"stopping", blobs, flight.ErrClosed, 503},
		{"internal", manifests, errors.New("catalog: page is gone"), 500},
		{"bad-name", "/v2/Library/nginx/manifests/1.27", nil, 400},
		{"bad-tag", "/v2/library/nginx/manifests/-1", nil, 400},
		{"bad-digest", "/v2/library/nginx/blobs/sha256:12", nil, 400},
		{"percent", "/v2/library%2Fnginx/manifests/1.27", nil, 400},
		{"catalog", "/v2/_catalog", nil, 404},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := &puller{err: c.err}
			if e, ok := errors.AsType[*route.UnknownError](c.err); ok {
				p.route = func(oci.Request) (oci.Ref, error) { return oci.Ref{}, e }
			}
			var seen records
			o := options(p)
			o.Observe = seen.observe
			ts := serve(t, server.New(o))
			get := raw(t, ts, "GET "+c.path+" HTTP/1.1\r\nHost: m\r\n\r\n")
			head := raw(t, ts, "HEAD "+c.path+" HTTP/1.1\r\nHost: m\r\n\r\n")
			golden(t, c.name+".golden", withoutDate(get))

			getHead, body, _ := strings.Cut(get, "\r\n\r\n")
			headHead, rest, _ := strings.Cut(head, "\r\n\r\n")
			if rest != "" {
				t.Errorf("HEAD has a body: %q", rest)
			}
			if withoutDate(getHead+"\r\n") != withoutDate(headHead+"\r\n") {
				t.Errorf("GET and HEAD differ:\n%s\n%s", getHead, headHead)
			}
			if !strings.Contains(getHead, fmt.Sprintf("\r\nContent-Length: %d", len(body))) {
				t.Errorf("Content-Length is not %d in\n%s", len(body), getHead)
			}
			checkAnswer(t, getHead, body, c.status)
			for _, q := range seen.all() {
				if q.Finding == nil || q.Status != c.status || q.ID == "" || !strings.Contains(getHead, "; id="+q.ID) {
					t.Errorf("observed %+v for\n%s", q, getHead)
				}
			}
			if n := len(seen.all()); n != 2 {
				t.Errorf("%d requests observed, want 2", n)
			}
		})
	}
}

// checkAnswer checks the promises for each answer to an error.
func checkAnswer(t *testing.T, head, body string, status int) {
	t.Helper()
	line, _, _ := strings.Cut(head, "\r\n")
	words := fmt.Sprintf("HTTP/1.1 %d %s", status, http.StatusText(status))
	reason := strings.TrimPrefix(line, fmt.Sprintf("HTTP/1.1 %d ", status))
	switch {
	case !strings.HasPrefix(line, words):
		t.Errorf("status line %q, want %q first", line, words)
	case status == 404 && line != words:
		t.Errorf("404 has a phrase: %q", line)
	case status != 404 && !strings.HasPrefix(line, words+" (mirror: "):
		t.Errorf("no phrase in %q", line)
	case len(reason) > 160:
		t.Errorf("reason phrase has %d bytes: %q", len(reason), reason)
	}
	if !strings.Contains(head, "\r\nCache-Status: mirror; ") || !strings.Contains(head, "\r\nMirror-Reason: ") ||
		!strings.Contains(head, "\r\nWarning: 299 - \"") {
		t.Errorf("no Cache-Status, Mirror-Reason or Warning in\n%s", head)
	}
	if closes := strings.Contains(head, "\r\nConnection: close"); closes != (status != 404) {
		t.Errorf("connection closes: %v, with status %d", closes, status)
	}
	if strings.Contains(head, "X-Evil: 1\r\n") {
		t.Errorf("a header was smuggled in:\n%s", head)
	}
	for i := range len(head) {
		if c := head[i]; c > '~' || c < ' ' && c != '\r' && c != '\n' {
			t.Errorf("byte %#x in the header", c)
		}
	}
	var doc struct {
		Errors []struct{ Code, Message, Detail string }
	}
	if err := json.Unmarshal([]byte(body), &doc); err != nil || len(doc.Errors) != 1 {
		t.Fatalf("body %q: %v", body, err)
	}
	if e := doc.Errors[0]; len(e.Message) > 300 || e.Message == "" || !strings.Contains(e.Detail,
		"https://help.example/") {
		t.Errorf("entry %+v", e)
	}
}

func TestAnswersWithoutFallback(t *testing.T) {
	t.Parallel()
	p := &puller{route: func(oci.Request) (oci.Ref, error) {
		return oci.Ref{}, &route.UnknownError{Key: "evil.example"}
	}}
	var seen records
	o := options(p)
	o.ClientsFallBack, o.Observe = false, seen.observe
	ts := serve(t, server.New(o))
	res, body := do(t, ts, "GET", "/v2/acme/app/manifests/v1?ns=evil.example")
	if res.StatusCode != 403 || !strings.Contains(string(body), "DENIED") || !strings.Contains(res.Status,
		"evil.example") {
		t.Errorf("%s\n%s", res.Status, body)
	}
	if q := seen.all(); len(q) != 1 || q[0].Finding.Declined {
		t.Errorf("observed %+v: the client has no other host, so it is not declined", q)
	}
}

// Where clients cannot go on to the registry, missing content is refused in a way that containerd prints. Tools that rely on a
// 404 get it.
func TestMissingWithoutFallback(t *testing.T) {
	t.Parallel()
	const (
		runtime = "containerd/v2.1.4"
		d       = "sha256:0000000000000000000000000000000000000000000000000000000000000000"
		hex     = "0000000000000000000000000000000000000000000000000000000000000000"
	)
	missing := func(op, reference, code string) error {
		return &fault.Error{Op: op, Upstream: "docker.io", Repository: "acme/app", Reference: reference, Status: 404, Code: code}
	}
	for _, tt := range []struct {
		name, agent, path string
		err               error
		status            int
	}{
		{"tag", runtime, "manifests/v1", missing("resolve", "v1", "MANIFEST_UNKNOWN"), 403},
		{"tag, by CRI-O", "cri-o/1.33.0 go/go1.24 os/linux arch/amd64", "manifests/v1", missing("resolve", "v1", "MANIFEST_UNKNOWN"), 403},
		{"tag, by a client unheard of", "thing/1", "manifests/v1", missing("resolve", "v1", "MANIFEST_UNKNOWN"), 403},
		{"repository", runtime, "manifests/v1", missing("resolve", "v1", "NAME_UNKNOWN"), 403},
		{"digest", runtime, "manifests/" + d, missing("manifest", d, "MANIFEST_UNKNOWN"), 403},
		{"signature", runtime, "manifests/sha256-" + hex + ".sig", missing("resolve", "x", "MANIFEST_UNKNOWN"), 404},
		{"attestation", runtime, "manifests/sha256-" + hex + ".att", missing("resolve", "x", "MANIFEST_UNKNOWN"), 404},
		{"referrers tag", runtime, "manifests/sha256-" + hex, missing("resolve", "x", "MANIFEST_UNKNOWN"), 404},
		{"like a signature", runtime, "manifests/sha256-" + hex[1:] + ".sig", missing("resolve", "x", "MANIFEST_UNKNOWN"), 403},
		{"cosign", "cosign/v3.0.2 (linux; amd64)", "manifests/v1", missing("resolve", "v1", "MANIFEST_UNKNOWN"), 404},
		{"crane", "crane/0.22.1 go-containerregistry/0.22.1", "manifests/v1", missing("resolve", "v1", "MANIFEST_UNKNOWN"), 404},
		{"Helm", "Helm/3.19.0", "manifests/v1", missing("resolve", "v1", "MANIFEST_UNKNOWN"), 404},
		{"build cache", "buildkit/v0.25", "manifests/cache", missing("resolve", "cache", "MANIFEST_UNKNOWN"), 404},
		{"blob", runtime, "blobs/" + d, missing("blob", d, "BLOB_UNKNOWN"), 404},
		{"referrers", runtime, "referrers/" + d, missing("referrers", d, ""), 404},
		{"tags", runtime, "tags/list", missing("tags", "", "NAME_UNKNOWN"), 404},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			o := options(&puller{err: tt.err})
			o.ClientsFallBack = false
			ts, usual := serve(t, server.New(o)), serve(t, server.New(options(&puller{err: tt.err})))
			for _, method := range []string{"HEAD", "GET"} {
				res, body := do(t, ts, method, "/v2/acme/app/"+tt.path+"?ns=docker.io", "User-Agent", tt.agent)
				if res.StatusCode != tt.status || !strings.HasSuffix(strings.Split(res.Header.Get("Mirror-Reason"), ";")[0], "not-found") {
					t.Errorf("%s: %s %v", method, res.Status, res.Header)
				}
				if tt.status == 403 && (!strings.Contains(res.Status, "has no ") || method == "GET" && !strings.Contains(string(body), "DENIED")) {
					t.Errorf("%s: %q does not say it: %s", method, res.Status, body)
				}
				if res, _ := do(t, usual, method, "/v2/acme/app/"+tt.path+"?ns=docker.io", "User-Agent", tt.agent); res.StatusCode != 404 {
					t.Errorf("where they fall back: %s", res.Status)
				}
			}
		})
	}
}

// Remedies name possible steps: where clients cannot go on to the registry, neither another host nor the node's own login.
func TestRemediesWithoutFallback(t *testing.T) {
	t.Parallel()
	repo := oci.Repo{Host: "quay.io", Name: "acme/app"}
	refused := func(public bool) error {
		return &fault.Error{Op: "resolve", Upstream: "quay.io", Repository: "acme/app", Reference: "v1", Status: 401, PublicOnly: public}
	}
	for name, err := range map[string]error{
		"unknown":   &route.UnknownError{Key: "quay.io"},
		"forbidden": &access.ForbiddenError{Repo: repo, Mirrored: true},
		"stranger":  refused(false), "public": refused(true),
	} {
		o := options(&puller{err: err})
		said := make(map[bool]string)
		for _, falls := range []bool{true, false} {
			o.ClientsFallBack = falls
			res, body := do(t, serve(t, server.New(o)), "GET", "/v2/acme/app/manifests/v1?ns=quay.io")
			said[falls] = res.Status + string(body)
		}
		for _, way := range []string{"directly", "imagePullSecret"} {
			if strings.Contains(said[false], way) {
				t.Errorf("%s: %s", name, said[false])
			}
		}
		if !strings.Contains(said[true], "directly") && !strings.Contains(said[true], "imagePullSecret") {
			t.Errorf("%s, where they fall back: %s", name, said[true])
		}
	}
}

func TestWritesAreRefused(t *testing.T) {
	t.Parallel()
	ts := serve(t, server.New(options(&puller{})))
	for _, method := range []string{"POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"} {
		for _, path := range []string{"/v2/library/nginx/blobs/uploads/", "/v2/library/nginx/manifests/1", "/v2/"} {
			res, body := do(t, ts, method, path)
			if res.StatusCode != 405 || res.Header.Get("Allow") != "GET, HEAD" || !strings.Contains(string(body),
				"UNSUPPORTED") ||
				!strings.Contains(res.Status, "push to the registry itself") {
				t.Errorf("%s %s: %s %v\n%s", method, path, res.Status, res.Header, body)
			}
		}
	}
	// A request with a body is answered without a phrase, and its body is not read.
	got := raw(t, ts, "PUT /v2/a/blobs/uploads/x HTTP/1.1\r\nHost: m\r\nContent-Length: 1000000\r\n\r\npartial")
	if !strings.HasPrefix(got, "HTTP/1.1 405 Method Not Allowed\r\n") || !strings.Contains(got, "Connection: close") {
		t.Errorf("write with a body: %s", got)
	}
}

func TestPhraseKeepsItsPlace(t *testing.T) {
	t.Parallel()
	failing := func(change func(*server.Options)) *httptest.Server {
		o := options(&puller{err: upstreamError(503, nil)})
		if change != nil {
			change(&o)
		}
		return serve(t, server.New(o))
	}
	const path = "/v2/library/nginx/manifests/1.27"
	t.Run("closes after it", func(t *testing.T) {
		t.Parallel()
		ts := failing(nil)
		for _, method := range []string{"GET", "HEAD"} {
			res, open := conversation(t, ts, request(t, ts, method, path))
			if open || len(res) != 1 || !strings.Contains(res[0].Status, "(mirror: ") {
				t.Errorf("%s: %v, connection open: %v", method, res, open)
			}
		}
	})
	t.Run("arrives though the client has sent more", func(t *testing.T) {
		t.Parallel()
		// A connection that is closed with bytes unread is reset, and the answer lost with it.
		more := strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: m\r\n\r\n", 400)
		if got := raw(t, failing(nil), more); strings.Count(got, "HTTP/1.1 502 ") != 1 || !strings.HasSuffix(got, "}]}\n") {
			t.Errorf("%s", got)
		}
	})
	t.Run("off", func(t *testing.T) {
		t.Parallel()
		ts := failing(func(o *server.Options) { o.ErrorPhrase = false })
		res, open := conversation(t, ts, request(t, ts, "HEAD", path), request(t, ts, "GET", path))
		if !open || len(res) != 2 || res[0].Status != "502 Bad Gateway" || res[1].Status != res[0].Status {
			t.Errorf("%v, connection open: %v", res, open)
		}
		if res[0].Header.Get("Mirror-Reason") == "" || res[0].Header.Get("Warning") == "" {
			t.Errorf("no explanation in the headers: %v", res[0].Header)
		}
	})
	t.Run("404 keeps the connection", func(t *testing.T) {
		t.Parallel()
		ts := serve(t, server.New(options(&puller{err: upstreamError(404, nil)})))
		res, open := conversation(t, ts, request(t, ts, "HEAD", path), request(t, ts, "GET", path))
		if !open || len(res) != 2 || res[0].Status != "404 Not Found" || res[1].Status != "404 Not Found" {
			t.Errorf("%v, connection open: %v", res, open)
		}
	})
	t.Run("HTTP/1.0", func(t *testing.T) {
		t.Parallel()
		got := raw(t, failing(nil), "GET "+path+" HTTP/1.0\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.0 502 Bad Gateway\r\n") {
			t.Errorf("%s", got)
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		s := server.New(options(&puller{err: upstreamError(503, nil)}))
		ts := serveTLS(t, s, true)
		res, err := ts.Client().Get(ts.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.ProtoMajor != 2 || res.StatusCode != 502 || !strings.Contains(string(body), "UNAVAILABLE") {
			t.Errorf("%s %s\n%s", res.Proto, res.Status, body)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		s := server.New(options(&puller{err: upstreamError(503, nil)}))
		ts := serveTLS(t, s, false)
		res, err := ts.Client().Get(ts.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.ProtoMajor != 1 || !strings.Contains(res.Status, "(mirror: registry-1.docker.io answered 503") {
			t.Errorf("%s %s", res.Proto, res.Status)
		}
	})
	t.Run("a ResponseWriter without a connection", func(t *testing.T) {
		t.Parallel()
		w := httptest.NewRecorder()
		server.New(options(&puller{err: upstreamError(503, nil)})).ServeHTTP(w,
			httptest.NewRequestWithContext(t.Context(), "GET", path, nil))
		if w.Code != 502 || w.Body.Len() == 0 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	})
}

func TestNeverChallengesNorLimits(t *testing.T) {
	t.Parallel()
	for _, r := range diagnose.Reasons() {
		if r.Origin() != diagnose.InRequest {
			continue
		}
		a := r.Answer()
		// A login that the mirror does not accept is one of a client without ns: see TestLoginRefused; under access: client the
		// login is one for the registry: see TestClientsOwnLogin.
		// A client that is over its own limit is told so: it waits for its turn with each attempt.
		if a.Status == 401 && r != diagnose.LoginRefused && r != diagnose.ClientLoginMissing || a.Status == 429 && r != diagnose.ClientLimited || a.Status < 400 {
			t.Errorf("%s is answered %d", r, a.Status)
		}
		if a.Status == 500 && r != diagnose.InternalError {
			t.Errorf("%s has no answer of its own", r)
		}
		if a.Status == 503 && a.RetryAfter == 0 {
			t.Errorf("%s is answered 503 without Retry-After", r)
		}
	}
}

func TestPanics(t *testing.T) {
	t.Parallel()
	p := &puller{route: func(oci.Request) (oci.Ref, error) { panic("boom \r\n https://h/?token=secret") }}
	var seen records
	o := options(p)
	o.Observe = seen.observe
	ts := serve(t, server.New(o))
	res, body := do(t, ts, "GET", "/v2/a/manifests/b")
	if res.StatusCode != 500 || !strings.Contains(string(body), "UNKNOWN") || strings.Contains(string(body), "boom") {
		t.Errorf("%s\n%s", res.Status, body)
	}
	if q := seen.all(); len(q) != 1 || q[0].Finding == nil || q[0].Finding.Reason != diagnose.InternalError {
		t.Errorf("observed %+v", q)
	}
}

func TestLoop(t *testing.T) {
	t.Parallel()
	o := options(&puller{err: upstreamError(503, nil)})
	o.Via = "mirror-1f2e"
	ts := serve(t, server.New(o))
	for via, want := range map[string]string{
		"1.1 mirror-1f2e":                      "loop",
		"1.0 fred, 1.1 MIRROR-1F2E (comment)":  "loop",
		"HTTP/1.1 mirror-1f2e, 1.1 p.example.": "loop",
		"1.1 mirror-1f2e0":                     "upstream-error",
		"1.1 other":                            "upstream-error",
		"mirror-1f2e":                          "upstream-error",
	} {
		res, _ := do(t, ts, "GET", "/v2/library/nginx/manifests/1.27", "Via", via)
		if got, _, _ := strings.Cut(res.Header.Get("Mirror-Reason"), ";"); got != want || res.StatusCode != 502 {
			t.Errorf("Via %q: %s, %s", via, res.Status, got)
		}
	}
}

func FuzzPhrase(f *testing.F) {
	f.Add(403, "registry-1.docker.io answered 403", "renew, or else; do nothing", "7f3a9c2e")
	f.Add(503, "a\r\nX-Evil: 1", "b\x00\x7f\u2028", "")
	f.Add(502, strings.Repeat("long ", 100), strings.Repeat("é", 300), "x")
	f.Add(0, "", "", "")
	f.Fuzz(func(t *testing.T, status int, summary, remedy, id string) {
		finding := diagnose.Finding{Summary: summary, Remedy: remedy}
		for what, s := range map[string]struct {
			text  string
			limit int
		}{
			"phrase":   {server.Phrase(status, finding, id), 160},
			"message":  {server.Sentence(finding, 300), 300},
			"warning":  {server.Warning(summary), 2*300 + 8}, // quotes are escaped
			"cleaned":  {server.Sentence(diagnose.Finding{Summary: diagnose.Clean(summary)}, 300), 300},
			"two-line": {server.Sentence(diagnose.Finding{Summary: summary + "\n" + remedy}, 90), 90},
		} {
			if len(s.text) > s.limit {
				t.Errorf("%s has %d bytes: %q", what, len(s.text), s.text)
			}
			for i := range len(s.text) {
				if c := s.text[i]; c < ' ' || c > '~' {
					t.Errorf("%s has byte %#x: %q", what, c, s.text)
				}
			}
		}
		u, err := url.Parse(diagnose.Clean(summary))
		if err == nil && u.Scheme != "" && u.Host != "" && u.RawQuery != "" {
			t.Errorf("a URL kept its query: %q", u)
		}
	})
}
