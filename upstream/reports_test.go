package upstream_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/fault"
)

// What public reports say that registries and what stands before them answer, each with the number of requests that it
// takes to get a manifest by tag, or to say why there is none. docs/proof.md has the table.
func TestPublicReports(t *testing.T) {
	t.Parallel()
	send := func(w http.ResponseWriter, r *http.Request, mediaType string) {
		w.Header()["Content-Type"] = nil
		if mediaType != "" {
			w.Header().Set("Content-Type", mediaType)
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(manifest)))
		if r.Method == http.MethodGet {
			_, _ = w.Write(manifest)
		}
	}
	challenged := func(challenge, token string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			user, pass, _ := r.BasicAuth()
			switch {
			case r.URL.Path == "/v2/token" && user == "bot":
				_, _ = io.WriteString(w, token)
			case r.Header.Get("Authorization") == "Bearer good", strings.HasPrefix(challenge, "BASIC") && pass == "pw":
				send(w, r, oci.MediaTypeOCIManifest)
			default:
				w.Header().Set("WWW-Authenticate", strings.ReplaceAll(challenge, "SELF", "http://"+r.Host))
				w.WriteHeader(http.StatusUnauthorized)
			}
		}
	}
	digest := string(digestOf(manifest))
	for _, tt := range []struct {
		report   string
		answer   http.HandlerFunc
		requests []string // "METHOD last-part-of-the-path"
		kind     fault.ContentKind
		status   int
	}{
		{
			report: "quay#1310, singularity#733: no Docker-Content-Digest", answer: func(w http.ResponseWriter, r *http.Request) {
				send(w, r, oci.MediaTypeOCIManifest)
			},
			requests: []string{"HEAD 1", "GET 1"},
		},
		{
			report: "pulp_container#1997, dkregistry-rs#82: charset=utf-8 in the type", answer: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Docker-Content-Digest", digest)
				send(w, r, oci.MediaTypeOCIManifest+"; charset=utf-8")
			},
			requests: []string{"HEAD 1"},
		},
		{
			report: "containerd#7400: a page of text/html with 200", answer: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.Header().Set("Docker-Content-Digest", digest)
				_, _ = io.WriteString(w, "<html><title>Index</title>")
			},
			requests: []string{"HEAD 1", "GET 1"}, kind: fault.ContentNotRegistry,
		},
		{
			report: "docker/cli#5304: a firewall's page with 200 and no type", answer: func(w http.ResponseWriter, r *http.Request) {
				w.Header()["Content-Type"] = nil
				_, _ = io.WriteString(w, "<html>\n<head><title>Forbidden</title></head>")
			},
			requests: []string{"HEAD 1", "GET 1"}, kind: fault.ContentNotRegistry,
		},
		{
			report:   "watchtower#1894: a challenge without service",
			answer:   challenged(`Bearer realm="SELF/v2/token"`, `{"token":"good"}`),
			requests: []string{"HEAD 1", "GET token", "HEAD 1", "GET 1"},
		},
		{
			report:   "nexus-public#659, devcontainers/cli#692: a challenge without scope",
			answer:   challenged(`Bearer realm="SELF/v2/token",service="reg"`, `{"token":"good"}`),
			requests: []string{"HEAD 1", "GET token", "HEAD 1", "GET 1"},
		},
		{
			report: "klar#163, vscode-containers#440: BASIC in capitals", answer: challenged(`BASIC realm="Sonatype Nexus Repository Manager"`, ""),
			requests: []string{"HEAD 1", "HEAD 1", "GET 1"},
		},
		{
			report: "katello#10768: expires_at, and a time that is none",
			answer: challenged(`Bearer realm="SELF/v2/token",service="reg"`,
				`{"token":"good","expires_at":"2023-10-13 12:00:00 UTC","issued_at":"Fri Oct 13"}`),
			requests: []string{"HEAD 1", "GET token", "HEAD 1", "GET 1"},
		},
		{
			report: "podman#2073: 404 with a page", answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", "text/html")
				w.WriteHeader(http.StatusNotFound)
				_, _ = io.WriteString(w, "<html><title>404</title>")
			},
			requests: []string{"HEAD 1", "GET list"}, status: 404,
		},
		{
			report: "enroot#273, che-plugin-registry#2082: old forms to a client that names no new ones", answer: func(w http.ResponseWriter, r *http.Request) {
				if !strings.Contains(r.Header.Get("Accept"), oci.MediaTypeOCIManifest) {
					w.WriteHeader(http.StatusNotFound)
					return
				}
				w.Header().Set("Docker-Content-Digest", digest)
				send(w, r, oci.MediaTypeOCIManifest)
			},
			requests: []string{"HEAD 1"},
		},
		{
			report: "jib#2898: 400 and no challenge, but at /v2/", answer: func(w http.ResponseWriter, r *http.Request) {
				_, pass, _ := r.BasicAuth()
				switch {
				case pass == "pw":
					w.Header().Set("Docker-Content-Digest", digest)
					send(w, r, oci.MediaTypeOCIManifest)
				case r.URL.Path == "/v2/":
					w.Header().Set("WWW-Authenticate", `BASIC realm="Sonatype Nexus Repository Manager"`)
					w.WriteHeader(http.StatusUnauthorized)
				default:
					w.WriteHeader(http.StatusBadRequest)
					_, _ = io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"[ERROR-400] DOCKER Either Authorization header is missing or invalid"}]}`)
				}
			},
			requests: []string{"HEAD 1", "GET v2", "HEAD 1"},
		},
	} {
		t.Run(tt.report, func(t *testing.T) {
			t.Parallel()
			s := serve(t, tt.answer)
			d, err := registry(t, s.URL, as(login("bot", "pw"))).Resolve(t.Context(), repo, "1")
			switch bad, _ := errors.AsType[*fault.ContentError](err); {
			case tt.kind != "" && (bad == nil || bad.Kind != tt.kind), tt.status != 0 && upstreamError(t, err).Status != tt.status:
				t.Error(err)
			case tt.kind == "" && tt.status == 0 && (err != nil || string(d.Digest) != digest || d.MediaType != oci.MediaTypeOCIManifest):
				t.Errorf("%+v, %v", d, err)
			}
			var asked []string
			for _, line := range s.asked() {
				line, _, _ = strings.Cut(line, " [")
				method, path, _ := strings.Cut(line, " ")
				path, _, _ = strings.Cut(strings.TrimSuffix(path, "/"), "?")
				asked = append(asked, method+" "+path[strings.LastIndexByte(path, '/')+1:])
			}
			if strings.Join(asked, ", ") != strings.Join(tt.requests, ", ") {
				t.Errorf("requests %q, want %q", asked, tt.requests)
			}
		})
	}
}
