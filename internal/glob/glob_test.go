package glob_test

import (
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/registrymirror/mirror/internal/glob"
)

func TestHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, host string
		want          bool
	}{
		{"ghcr.io", "ghcr.io", true},
		{"ghcr.io", "GHCR.io", false},
		{"ghcr.io", "evilghcr.io", false},
		{"ghcr.io", "ghcr.io.evil.example", false},
		{"*", "localhost", true},
		{"*", "ghcr.io", false},
		{"*.io", "ghcr.io", true},
		{"*.io", "a.ghcr.io", false},
		{"*.io", ".io", false},
		{"*.*.amazonaws.com", "a.b.amazonaws.com", true},
		{"eu-*.pkg.dev", "eu-docker.pkg.dev", true},
		{"eu-*.pkg.dev", "eu-.pkg.dev", true},
		{"eu-*.pkg.dev", "eu-docker.pkg.dev.evil", false},
		{"a*b*c.x", "a1b2c.x", true},
		{"a*b*c.x", "ab.x", false},
		{"**", "ghcr.io", true},
		{"**", "registry.corp:5000", true},
		{"**.ecr.aws", "ecr.aws", true},
		{"**.ecr.aws", "a.b.ecr.aws", true},
		{"**.ecr.aws", "aecr.aws", false},
		{"registry.corp:5000", "registry.corp:5000", true},
		{"registry.corp:5000", "registry.corp", false},
		{"registry.corp", "registry.corp:5000", false},
		{"*.corp:5000", "a.corp:5000", true},
		{"*.corp", "a.corp:5000", false},
		{"10.0.0.*", "10.0.0.1", true},
	} {
		if got := glob.Host(tt.pattern, tt.host); got != tt.want {
			t.Errorf("%s for %s: %v", tt.pattern, tt.host, got)
		}
	}
}

func TestPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"**", "", true},
		{"**", "a/b/c", true},
		{"*", "", false},
		{"*", "a", true},
		{"*", "a/b", false},
		{"a", "a", true},
		{"a", "ab", false},
		{"a", "b/a", false},
		{"acme/*", "acme/app", true},
		{"acme/*", "acme/team/app", false},
		{"acme/*", "acme", false},
		{"acme/*", "acme/", false},
		{"acme/**", "acme/team/app", true},
		{"acme/**", "acme", true},
		{"acme/**", "acmeevil/app", false},
		{"acme/**/app", "acme/app", true},
		{"acme/**/app", "acme/x/y/app", true},
		{"acme/**/app", "acme/x/y/apps", false},
		{"acme/app-*", "acme/app-1", true},
		{"acme/app-*-x", "acme/app-1-x", true},
		{"acme/app-*-x", "acme/app-x", false},
		{"**/a/**/b", "x/a/y/a/z/b", true},
		{"**/**/a", "a", true},
		{"*-*-*", "a-b", false},
	} {
		if got := glob.Path(tt.pattern, tt.path); got != tt.want {
			t.Errorf("%s for %q: %v", tt.pattern, tt.path, got)
		}
	}
}

func TestText(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"", "", true},
		{"*", "", true},
		{"**", "a/b:1", true},
		{"docker.io/*", "docker.io/library/nginx:1.27", true},
		{"*nginx*", "docker.io/library/nginx:1.27", true},
		{"*:1.27", "docker.io/library/nginx:1.27", true},
		{"*a*a*", "ba", false},
		{"a", "ab", false},
	} {
		if got := glob.Text(tt.pattern, tt.text); got != tt.want {
			t.Errorf("%s for %q: %v", tt.pattern, tt.text, got)
		}
	}
}

// Many wildcards take no longer than few.
func TestTime(t *testing.T) {
	t.Parallel()
	if glob.Path(strings.Repeat("**/", 50)+"x", strings.Repeat("a/", 1000)+"y") {
		t.Error("a path that ends otherwise fits")
	}
	if glob.Text(strings.Repeat("*a", 1000)+"b", strings.Repeat("a", 10_000)) {
		t.Error("a text that ends otherwise fits")
	}
}

// FuzzGlob holds the matchers against a regular expression that says the same.
func FuzzGlob(f *testing.F) {
	for _, s := range [][2]string{{"a/**/b*", "a/x/y/bc"}, {"*.*", "a.b"}, {"**", ""}, {"*", "."}, {"**/*/**", "a//"}} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 50 || len(name) > 200 || !utf8.ValidString(pattern) || strings.Contains(pattern+name, "\n") {
			t.Skip("the expression takes long, or means something else")
		}
		for sep, match := range map[string]func(string, string) bool{".": glob.Host, "/": glob.Path} {
			if got, want := match(pattern, name), expression(pattern, sep).MatchString(sep+name); got != want {
				t.Errorf("%q for %q by %s: %v", pattern, name, sep, got)
			}
		}
		all := strings.Split(pattern, "*")
		for i := range all {
			all[i] = regexp.QuoteMeta(all[i])
		}
		if got, want := glob.Text(pattern, name), regexp.MustCompile("^"+strings.Join(all, ".*")+"$").MatchString(name); got != want {
			t.Errorf("%q for the text %q: %v", pattern, name, got)
		}
	})
}

// expression says what a pattern means, of a name with a separator before each of its parts.
func expression(pattern, sep string) *regexp.Regexp {
	q := regexp.QuoteMeta(sep)
	text := "^"
	for p := range strings.SplitSeq(pattern, sep) {
		switch {
		case p == "**":
			text += "(" + q + "[^" + q + "]*)*"
			continue
		case strings.Trim(p, "*") == "" && p != "":
			text += q + "[^" + q + "]+"
			continue
		}
		all := strings.Split(p, "*")
		for i := range all {
			all[i] = regexp.QuoteMeta(all[i])
		}
		text += q + strings.Join(all, "[^"+q+"]*")
	}
	return regexp.MustCompile(text + "$")
}
