package client_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/admin/client"
)

func TestGet(t *testing.T) {
	t.Parallel()
	var elsewhere string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		elsewhere = r.Header.Get("Authorization")
	}))
	defer other.Close()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Header.Get("Authorization") != "Bearer s3cret":
			admin.Problem(w, http.StatusUnauthorized, "no")
		case r.URL.Path == "/base/api/v1/moved":
			http.Redirect(w, r, other.URL, http.StatusFound)
		case r.URL.Path == "/base/api/v1/broken":
			admin.Problem(w, http.StatusInternalServerError, "it is broken")
		case r.URL.Path == "/base/api/v1/page":
			http.Error(w, "<html>", http.StatusBadGateway)
		default:
			_, _ = w.Write([]byte(r.URL.RequestURI()))
		}
	}))
	defer s.Close()
	c, err := client.New(client.Options{URL: s.URL + "/base", Token: "s3cret"})
	if err != nil {
		t.Fatal(err)
	}
	body, err := c.Get(t.Context(), "things", url.Values{"a": {"b c"}})
	if err != nil || string(body) != "/base/api/v1/things?a=b+c" {
		t.Errorf("%s, %v", body, err)
	}
	for path, want := range map[string]string{
		"moved": "302 Found", "broken": "500 Internal Server Error: it is broken", "page": "502 Bad Gateway",
	} {
		if _, err := c.Get(t.Context(), path, nil); err == nil || !strings.HasSuffix(err.Error(), want) ||
			errors.Is(err, client.ErrUnreachable) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if elsewhere != "" {
		t.Error("the token went elsewhere")
	}
	stranger, err := client.New(client.Options{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stranger.Get(t.Context(), "things", nil); err == nil || !strings.Contains(err.Error(), "--admin-token-file") {
		t.Errorf("without a token: %v", err)
	}
	s.Close()
	if _, err := c.Get(t.Context(), "things", nil); !errors.Is(err, client.ErrUnreachable) || !strings.Contains(err.Error(), "--admin") {
		t.Errorf("no listener: %v", err)
	}
}

func TestBadURLs(t *testing.T) {
	t.Parallel()
	for _, u := range []string{"", "ftp://a", "http://", "http://a:b@c", "://"} {
		if _, err := client.New(client.Options{URL: u}); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
}

// HOST:PORT is what people write of a listener.
func TestHostAndPort(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "{}") }))
	t.Cleanup(s.Close)
	_, port, _ := net.SplitHostPort(s.Listener.Addr().String())
	for _, where := range []string{"127.0.0.1:" + port, "localhost:" + port} {
		c, err := client.New(client.Options{URL: where})
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if _, err := c.Get(t.Context(), "things", nil); err != nil {
			t.Errorf("%s: %v", where, err)
		}
	}
	for _, bad := range []string{"127.0.0.1", ":5001", "host:", "a:b@host:1"} {
		if _, err := client.New(client.Options{URL: bad}); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

// A refusal has each of its problems, and one line.
func TestRefused(t *testing.T) {
	t.Parallel()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusUnprocessableEntity)
		_, _ = io.WriteString(w, `{"title":"x","status":422,"detail":"no\nmore","problems":["a","b"]}`)
	}))
	t.Cleanup(s.Close)
	c, err := client.New(client.Options{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Do(t.Context(), http.MethodPost, "reload", nil, nil)
	refused, ok := errors.AsType[*client.Refused](err)
	if !ok || len(refused.Problems) != 2 || err.Error() != s.URL+" answered 422 Unprocessable Entity: no" {
		t.Errorf("%#v", err)
	}
}
