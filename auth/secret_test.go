package auth_test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/registrymirror/mirror/auth"
)

const canary = "canary-7f3a9c2e"

// holder hides a credential in unexported fields, where fmt does not call methods.
type holder struct {
	cred   auth.Credential
	secret auth.Secret
	list   []auth.Secret
	ptr    *auth.Credential
}

func TestSecretNeverShows(t *testing.T) {
	t.Parallel()
	s := auth.NewSecret(canary)
	c := auth.Credential{Name: "hub", Username: "bot", Password: s, Identity: s}
	h := holder{cred: c, secret: s, list: []auth.Secret{s}, ptr: &c}
	values := map[string]any{
		"secret": s, "pointer": &s, "credential": c, "credential pointer": &c, "holder": h, "holder pointer": &h,
		"map": map[string]auth.Secret{"a": s}, "key": map[auth.Secret]int{s: 1}, "slice": []any{s, c, h},
	}
	for name, v := range values {
		for _, verb := range []string{
			"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%t", "%c", "%U", "%08v", "% x", "%#x", "%w",
		} {
			check(t, name+" "+verb, fmt.Sprintf(verb, v))
		}
		check(t, name+" print", fmt.Sprint(v))
		if b, err := json.Marshal(v); err == nil {
			check(t, name+" json", string(b))
		}
		var buf bytes.Buffer
		for _, handler := range []slog.Handler{slog.NewTextHandler(&buf, nil), slog.NewJSONHandler(&buf, nil)} {
			slog.New(handler).Info("x", "v", v)
			slog.New(handler).With("v", v).WithGroup("g").Info("x", slog.Any("w", v))
		}
		check(t, name+" slog", buf.String())
	}
	b, err := xml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	check(t, "xml", string(b))
	check(t, "error", fmt.Errorf("login: %v: %w", c, fmt.Errorf("%s", s)).Error())
}

func check(t *testing.T, what, got string) {
	t.Helper()
	if strings.Contains(got, canary) || strings.Contains(got, fmt.Sprintf("%x", canary)) ||
		strings.Contains(got, fmt.Sprintf("%X", canary)) || strings.Contains(got, fmt.Sprintf("% x", canary)) {
		t.Errorf("%s shows the secret: %s", what, got)
	}
}

func TestSecretShownAs(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		secret auth.Secret
		text   string
		json   string
	}{
		{"set", auth.NewSecret(canary), "***", `{"p":"***"}`},
		{"zero", auth.Secret{}, "", `{"p":""}`},
		{"empty", auth.NewSecret(""), "", `{"p":""}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			for _, verb := range []string{"%v", "%s", "%#v", "%x"} {
				if got := fmt.Sprintf(verb, tt.secret); got != tt.text {
					t.Errorf("%s = %q, want %q", verb, got, tt.text)
				}
			}
			b, err := json.Marshal(map[string]auth.Secret{"p": tt.secret})
			if err != nil || string(b) != tt.json {
				t.Errorf("json = %s, %v, want %s", b, err, tt.json)
			}
			if got := tt.secret.LogValue().String(); got != tt.text {
				t.Errorf("log value = %q, want %q", got, tt.text)
			}
		})
	}
}

func TestSecretComparesByText(t *testing.T) {
	t.Parallel()
	a, b := auth.NewSecret("one"), auth.NewSecret(strings.Clone("one"))
	if a != b {
		t.Error("secrets of one text differ")
	}
	if a == auth.NewSecret("two") {
		t.Error("secrets of two texts are equal")
	}
	if got := a.Reveal(); got != "one" {
		t.Errorf("Reveal = %q", got)
	}
	if got := (auth.Secret{}).Reveal(); got != "" {
		t.Errorf("Reveal of nothing = %q", got)
	}
}

func TestIsAnonymous(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		cred auth.Credential
		want bool
	}{
		{"zero", auth.Credential{}, true},
		{"named", auth.Credential{Name: "hub", Expires: time.Now()}, true},
		{"password", auth.Credential{Username: "bot", Password: auth.NewSecret("x")}, false},
		{"identity", auth.Credential{Identity: auth.NewSecret("x")}, false},
	} {
		if got := tt.cred.IsAnonymous(); got != tt.want {
			t.Errorf("%s: IsAnonymous = %t", tt.name, got)
		}
	}
}
