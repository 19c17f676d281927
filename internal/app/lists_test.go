package app_test

import (
	"io"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/origin"
)

// What a client may not pull it does not see in lists, which others have brought into the cache: of a repository of others the lists
// answer as of one that does not exist, without a question to the registry. There is no list of repositories.
func TestListsShowWhatTheClientMayPull(t *testing.T) {
	t.Parallel()
	o := limited(t)
	built := o.AddImage("private/alice", "1", origin.Image{})
	r := run(t, aliceAndBob(t, t.TempDir(), o, ""))
	ask := func(path, login string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.Addr().String()+"/v2/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if login != "" {
			req.Header.Set("Authorization", login)
		}
		tr := &http.Transport{DisableKeepAlives: true}
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	alice, bob := basic("alice", "alice1"), basic("bob", "bob1")
	lists := []string{"tags/list", "tags/list?n=1", "referrers/" + built.Root.Digest.String(), "manifests/1"}
	for _, list := range lists {
		if status, body := ask(nameOf(o)+"/private/alice/"+list, alice); status != 200 {
			t.Fatalf("%s: %d %s", list, status, body)
		}
	}
	o.ClearRequests()
	id := regexp.MustCompile(`\b[0-9a-f]{8}\b`) // of a failure: a fingerprint of the reason and the name
	plain := func(body string) string { return id.ReplaceAllString(body, "ID") }
	for name, login := range map[string]string{"bob": bob, "a client without a login": ""} {
		for _, list := range lists {
			there, a := ask(nameOf(o)+"/private/alice/"+list, login)
			absent, b := ask(nameOf(o)+"/private/none/"+list, login)
			if there != absent || there/100 != 4 || plain(a) != strings.ReplaceAll(plain(b), "private/none", "private/alice") {
				t.Errorf("%s, %s: %d %s, and one that is not there %d %s", name, list, there, a, absent, b)
			}
		}
	}
	for _, login := range []string{"", alice, bob} {
		for _, path := range []string{"_catalog", "_catalog?n=100", "_catalog?ns=" + nameOf(o), nameOf(o) + "/_catalog"} {
			if status, body := ask(path, login); status/100 != 4 || strings.Contains(body, "private") {
				t.Errorf("%s: %d %s", path, status, body)
			}
		}
	}
	if n := len(o.Requests()); n > 0 {
		t.Errorf("the registry was asked %d times", n)
	}
}
