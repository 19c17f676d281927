package config_test

import (
	"bytes"
	"encoding/json"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/config"
)

// commentedOut is a setting behind a #. Prose has exactly one space there.
var commentedOut = regexp.MustCompile(`(?m)^( *)#(\S|  )`)

func example(t *testing.T) (active, all string) {
	t.Helper()
	text, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return string(text), commentedOut.ReplaceAllString(string(text), "$1$2")
}

func TestTheExampleIsTheDefaults(t *testing.T) {
	t.Parallel()
	active, _ := example(t)
	want := config.Default()
	want.Cache.Dir = "mirror-data" // beside the file
	got := parse(t, active)
	for _, c := range []*config.Config{want, got} {
		for i := range c.Upstreams { // a list that is written as empty says no more than none
			u := &c.Upstreams[i]
			u.RedirectHosts = slices.Clip(append([]string{}, u.RedirectHosts...))
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config.example.yaml does not say the defaults:\n%s", diff)
	}
}

// With every # removed that stands before a setting, the example has no mistake.
func TestTheExampleIsRightInItsComments(t *testing.T) {
	t.Parallel()
	_, all := example(t)
	if _, err := config.Parse("config.yaml", []byte(all), nil); err != nil {
		t.Error(err)
	}
}

func TestTheExampleHasEverySetting(t *testing.T) {
	t.Parallel()
	active, all := example(t)
	inStruct := config.Paths()
	if diff := cmp.Diff(inStruct, pathsOf(t, all)); diff != "" {
		t.Errorf("config.example.yaml (+) and the struct (-) have other settings:\n%s", diff)
	}
	written := pathsOf(t, active)
	for _, path := range inStruct {
		shown, has := slices.Contains(written, path), hasDefault(path)
		if shown != has && !strings.HasPrefix(path, "upstreams.*.endpoints.*.") &&
			!strings.HasPrefix(path, "upstreams.*.credentials") {
			t.Errorf("%s: written out is %v, should be %v (with a default)", path, shown, has)
		}
	}
}

// hasDefault reports whether a path has a default that can be written.
func hasDefault(path string) bool {
	if slices.Contains([]string{"tls", "tls.cert", "tls.key", "tls.http2", "admin.tokenFile", "admin.tls", "admin.tls.cert", "admin.tls.key", "kubernetes.server", "kubernetes.tokenFile", "kubernetes.caFile", "upstreams.*.deny", "upstreams.*.only"}, path) {
		return false
	}
	for _, list := range []string{"admin.operators", "clients", "rules", "webhooks", "warm.schedules", "upstreams.*.pins", "upstreams.*.tags.immutable", "upstreams.*.tags.patterns"} {
		if path == list || strings.HasPrefix(path, list+".") {
			return false
		}
	}
	return true
}

// pathsOf are the paths of all keys in a text, sorted, with * for those that the operator chooses.
func pathsOf(t *testing.T, text string) []string {
	t.Helper()
	var document any
	if err := yaml.Load([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	chosen := []string{
		"upstreams", "webhooks", "upstreams.*.pins", "upstreams.*.credentials.*.plugin.env",
		"upstreams.*.credentials.*.plugin.annotations",
	}
	found := map[string]bool{}
	var walk func(v any, at string)
	walk = func(v any, at string) {
		switch v := v.(type) {
		case map[string]any:
			for key, child := range v {
				if slices.Contains(chosen, at) {
					walk(child, at+".*")
					continue
				}
				path := strings.TrimPrefix(at+"."+key, ".")
				found[path] = true
				walk(child, path)
			}
		case []any:
			for _, child := range v {
				walk(child, at+".*")
			}
		}
	}
	walk(document, "")
	var paths []string
	for path := range found {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	return paths
}

func compiled(t *testing.T) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("config.json", document); err != nil {
		t.Fatal(err)
	}
	s, err := c.Compile("config.json")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// asJSON is a YAML text as what a validator reads.
func asJSON(t *testing.T, text string) any {
	t.Helper()
	var document any
	if err := yaml.Load([]byte(text), &document); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(document)
	if err != nil {
		t.Fatal(err)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestSchema(t *testing.T) {
	t.Parallel()
	s := compiled(t)
	active, all := example(t)
	printed, err := config.Default().YAML()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"the example": active, "every setting": all, "what is printed": string(printed),
		"nulls": "upstreams: {ghcr.io: , quay.io: {tags: , authHosts: }}\ncache:\n",
		"zero":  "drain: 0\ncache: {minFree: 0, size: 1073741824}\n",
		"short": "upstreams: {'a:5000': {endpoints: ['http://a', {url: 'http://a', ca: b}]}, '[::1]:1': {}}\n",
	} {
		if err := s.Validate(asJSON(t, text)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, text := range map[string]string{
		"an unknown key": "listne: x\n", "an unknown key below": "upstreams: {ghcr.io: {endpoint: x}}\n",
		"a number for a duration": "drain: 60\n", "days": "drain: 7d\n", "a bad size": "cache: {size: 20 apples}\n",
		"percent": "cache: {minFree: 5%%}\n", "a word": "log: {level: inf}\n", "yes": "errorPhrase: 'yes'\n",
		"a list": "listen: [a]\n", "no registry": "upstreams: {}\n", "a scheme": "upstreams: {'https://ghcr.io': {}}\n",
	} {
		if err := s.Validate(asJSON(t, text)); err == nil {
			t.Errorf("%s is valid by the schema", name)
		}
		problems(t, text)
	}
}
