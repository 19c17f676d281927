package config_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/config"
)

// FuzzParse holds that no text brings Parse down, that every problem has a place, and that what was accepted is
// complete, checked, and reads back the same.
func FuzzParse(f *testing.F) {
	example, err := os.ReadFile("../config.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	// In parts: the engine shortens what it finds interesting, which takes minutes for a long text.
	for part := range strings.SplitSeq(string(example), "\n\n") {
		f.Add(part, "")
		f.Add(commentedOut.ReplaceAllString(part, "$1$2"), "MIRROR_CACHE_SIZE=1GiB")
	}
	for _, text := range []string{
		"upstreams:\n  a.tags: {}\n  a: {tags: {wait: 1h}}\n", "? [a]\n: b\n", "a: &a [*a]\n", "<<: {listen: x}\n", "{]",
		"upstreams: {'': {}, '*': {}, 'a/b': {endpoints: ['http://%zz']}}", "listen: !!binary aGk=\n",
		"listen: |\n  a\n  b\n",
		"tls: {key: a}\nadmin: {listen: ':5000'}\ncache: {size: 1, minFree: 2}\n", "\xef\xbb\xbflisten: :1\n", "a: \x00",
	} {
		f.Add(text, "MIRROR_LISTEN=:1\nMIRROR_ADMIN_LISTEN=:1\nMIRROR_X=\nMIRROR_UPSTREAMS_A=1\nMIRROR_TLS_CERT=a")
	}
	f.Fuzz(func(t *testing.T, text, variables string) {
		c, err := config.Parse("dir/config.yaml", []byte(text), strings.Split(variables, "\n"))
		if err != nil {
			invalid, ok := errors.AsType[*config.Invalid](err)
			if !ok || c != nil || len(invalid.Problems) == 0 {
				t.Fatalf("Parse gave (%v, %v)", c, err)
			}
			for _, p := range invalid.Problems {
				inFile := p.Variable == "" && p.Line > 0 && p.Column > 0 && p.File != ""
				inEnv := p.Variable != "" && p.Line == 0 && strings.Contains(variables, p.Variable+"=")
				if !inFile && !inEnv || p.Message == "" {
					t.Errorf("a problem without a place: %+v", p)
				}
			}
			return
		}
		if len(c.Upstreams) == 0 || c.Listen == "" || c.Admin.Listen == "" || c.Cache.Dir == "" {
			t.Errorf("not complete: %+v", c)
		}
		for _, u := range c.Upstreams {
			if u.Name == "" || len(u.Endpoints) != 1 || u.Endpoints[0].URL == "" || u.Access != "public" {
				t.Errorf("not complete: %+v", u)
			}
		}
		out, err := c.YAML()
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse("config.yaml", out, nil)
		if err != nil {
			t.Fatalf("what was accepted is refused when printed: %v\n%s", err, out)
		}
		ignore := cmpopts.IgnoreFields(config.Config{}, "Overrides")
		if diff := cmp.Diff(c, again, cmpopts.EquateEmpty(), ignore); diff != "" {
			t.Errorf("%s\n%s", diff, out)
		}
	})
}
