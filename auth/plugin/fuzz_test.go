package plugin_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/registrymirror/mirror/auth/plugin"
)

// Whatever a program prints: no login is taken but one of an entry whose host has as many labels as the image's, and the
// same port; and no error has a word of it.
func FuzzAnswer(f *testing.F) {
	f.Add(answer("Image", "1h", login("*.example:5000/a", "u")+","+login("reg.example", "v")), "reg.example:5000/a/b")
	f.Add(answer("Registry", "0s", login("r?g.[a-z]*", "u")), "reg.example")
	f.Add(answer("Global", "", login("https://reg.example/", "u")), "reg.example/app")
	f.Add(`{"kind":"CredentialProviderResponse","auth":{"":{"password":"`+canary+`"}}}`, "")
	f.Add(`{"auth":["`+canary, "reg.example")
	f.Fuzz(func(t *testing.T, out, image string) {
		_, password, err := plugin.Parse([]byte(out), image)
		if err != nil {
			if password != "" {
				t.Errorf("a login with an error: %v", err)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error quotes the output: %v", err)
			}
			return
		}
		if password == "" {
			return
		}
		var doc struct {
			Auth map[string]struct{ Password string }
		}
		if err := json.Unmarshal([]byte(out), &doc); err != nil {
			t.Fatalf("a login from a text that is not JSON: %v", err)
		}
		for name, entry := range doc.Auth {
			if entry.Password == password && shape(name) == shape(image) {
				return
			}
		}
		t.Errorf("%s: the login of no entry that fits: %s", image, out)
	})
}

// shape is the number of labels, and the port.
func shape(name string) string {
	if _, rest, ok := strings.Cut(name, "://"); ok {
		name = rest
	}
	host, _, _ := strings.Cut(name, "/")
	host, port, _ := strings.Cut(host, ":")
	return strings.Repeat(".", strings.Count(host, ".")) + ":" + port
}
