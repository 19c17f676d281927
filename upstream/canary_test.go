package upstream_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream"
	"github.com/registrymirror/mirror/upstream/fault"
)

// canary is a token that must be shown nowhere.
const canary = "c4n4ry-Zm9vYmFyYmF6cXV4-7781"

// tokenAnswers are what token services send, with a token in it.
var tokenAnswers = []struct {
	name   string
	status int
	typ    string
	body   string
	taken  bool // it is JSON with a token
}{
	{"as it should be", 200, "application/json", `{"token":"` + canary + `"}`, true},
	{"created", 201, "application/json", `{"access_token":"` + canary + `"}`, true},
	{"accepted", 202, "", `{"token":"` + canary + `"}`, true},
	{"not of the origin", 203, "text/plain", `{"token":"` + canary + `"}`, true},
	{"byte order mark", 200, "application/json", "\xef\xbb\xbf" + `{"token":"` + canary + `"}`, true},
	{"something after it", 200, "application/json", `{"token":"` + canary + `"} ok`, false},
	{"two documents", 201, "application/json", `{"token":"` + canary + `"}{"token":"` + canary + `"}`, false},
	{"cut", 200, "application/json", `{"token":"` + canary, false},
	{"plain", 200, "text/plain", canary, false},
	{"plain, created", 201, "text/plain", canary + "\n", false},
	{"text", 200, "application/json", `"` + canary + `"`, false},
	{"list", 200, "application/json", `["` + canary + `"]`, false},
	{"list for a token", 200, "application/json", `{"token":["` + canary + `"]}`, false},
	{"another member", 200, "application/json", `{"jwt":"` + canary + `","message":"` + canary + `"}`, false},
	{"errors beside it", 200, "application/json", `{"errors":[{"code":"` + canary + `","message":"` + canary + `"}]}`, false},
	{"title", 200, "text/html", "<html><title>" + canary + "</title>", false},
	{"page", 200, "text/html", "<html><body>" + canary, false},
	{"XML", 200, "application/xml", "<Token><Message>" + canary + "</Message></Token>", false},
	{"form", 200, "application/x-www-form-urlencoded", "access_token=" + canary, false},
	{"not text", 200, "application/octet-stream", "\xff\xfe" + canary, false},
	{"content type", 200, "application/x-" + canary, canary, false},
	{"a token with a blank", 200, "application/json", `{"token":"` + canary + ` x"}`, false},
	{"redirect", 302, "text/plain", canary, false},
	{"choices", 300, "application/json", `{"message":"` + canary + `"}`, false},
	{"refused, with a token", 403, "application/json", `{"token":"` + canary + `"}`, false},
	{"refused, with a token in single quotes", 403, "text/plain", `{'token': '` + canary + `'}`, false},
	{"refused, with a token and words", 400, "application/json", `{"token":"` + canary + `","message":"no: ` + canary + `"}`, false},
	{"refused, with a token inside", 401, "application/json", `{"message":"got {\"token\":\"` + canary + `\"}"}`, false},
	{"refused, with a token as a detail", 401, "application/json", `{"errors":[{"code":"DENIED","detail":{"token":"` + canary + `"}}]}`, false},
	{"refused, in text", 400, "text/plain", "token: " + canary, false},
	{"refused, a word alone", 400, "text/plain", canary, false},
	{"refused, a page", 403, "text/html", "<html><title>" + canary + "</title>", false},
	{"refused, cut", 502, "application/json", `{"access_token":"` + canary, false},
}

// What a token service sends may be a token, in whatever form: nothing that is shown or logged has it.
func TestTokensAreShownNowhere(t *testing.T) {
	t.Parallel()
	for _, tt := range tokenAnswers {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s *server
			s = serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch {
				case r.URL.Path == "/token":
					w.Header().Set("Content-Type", tt.typ)
					w.WriteHeader(tt.status)
					_, _ = io.WriteString(w, tt.body)
				case r.Header.Get("Authorization") == "Bearer "+canary:
					w.Header().Set("Content-Type", oci.MediaTypeOCIManifest)
					_, _ = w.Write(manifest)
				default:
					w.Header().Set("WWW-Authenticate", `Bearer realm="`+s.URL+`/token"`)
					w.WriteHeader(http.StatusUnauthorized)
				}
			})
			var log bytes.Buffer
			r := registry(t, s.URL, as(login("bot", "pw")), func(o *upstream.Options) {
				o.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
			})
			_, err := r.Manifest(t.Context(), repo, "1")
			if tt.taken != (err == nil) {
				t.Errorf("the token was taken: %t, want %t: %v", err == nil, tt.taken, err)
			}
			texts := []string{log.String(), fmt.Sprintf("%+v", r.State()), fmt.Sprint(err)}
			if e, ok := errors.AsType[*fault.Error](err); ok {
				texts = append(texts, fmt.Sprintf("%+v %+v", *e, diagnose.Explain(err)))
				for _, step := range e.Steps {
					texts = append(texts, fmt.Sprint(step.Err))
				}
			}
			for _, text := range texts {
				if strings.Contains(text, canary) || strings.Contains(text, canary[:12]) || strings.Contains(text, "Zm9vYmFy") {
					t.Errorf("it shows the token: %s", text)
				}
			}
			if err != nil && tt.status < 300 && !strings.Contains(err.Error(), " bytes") && !strings.Contains(err.Error(), "header") {
				t.Errorf("%v, want what was sent, and its size", err)
			}
		})
	}
}
