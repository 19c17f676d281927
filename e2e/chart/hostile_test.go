package chart_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

// hostile are texts that are something else than a string, or end one, where they stand in YAML without quotes.
var hostile = []string{
	"a: b", "x\ny: z", "{{ .Values }}", "&a", "- ", "yes", "null", "0x10", "1e3", "1:30", "a #b", `"`, `\`, "%", "!!int 1", "[", "|", " a", "\ta", "---",
	"<<", "\u2028", "é",
}

// textPaths are the places of values.yaml that take texts of any form: strings, items of lists of strings, and keys and values of maps of
// strings. The configuration is a text too, but not one of any form: TestConfigIsVerbatim.
func textPaths(t *testing.T) (paths []string) {
	t.Helper()
	type schema struct {
		Type              any
		Enum              []any
		Properties        map[string]json.RawMessage
		PatternProperties map[string]json.RawMessage
		Items             json.RawMessage
	}
	var walk func(raw json.RawMessage, at string)
	walk = func(raw json.RawMessage, at string) {
		var s schema
		if len(raw) == 0 || json.Unmarshal(raw, &s) != nil {
			return
		}
		switch {
		case s.Type == "string" && s.Enum == nil && at != "/config":
			paths = append(paths, at)
		case s.Type == "array":
			walk(s.Items, at+"/0")
		}
		for key, below := range s.Properties {
			walk(below, at+"/"+key)
		}
		for range s.PatternProperties { // labels and annotations
			paths = append(paths, at+"/example.com~1key", at+"/KEY")
		}
	}
	walk(json.RawMessage(read(t, filepath.Join(chartDir, "values.schema.json"))), "")
	slices.Sort(paths)
	return paths
}

// with sets a text at each of some paths.
func with(t *testing.T, base string, texts map[string]string) string {
	t.Helper()
	var values any = parsed(t, base)
	for path, text := range texts {
		values = set(values, strings.Split(strings.TrimPrefix(path, "/"), "/"), text)
	}
	return toYAML(t, values)
}

// set sets a text in a value: 0 is the only item of a list, KEY the text itself as a key.
func set(v any, path []string, text string) any {
	if len(path) == 0 {
		return text
	}
	if path[0] == "0" {
		list, ok := v.([]any)
		if !ok || len(list) == 0 {
			list = []any{nil}
		}
		list[0] = set(list[0], path[1:], text)
		return list
	}
	m, ok := v.(map[string]any)
	if !ok {
		m = make(map[string]any)
	}
	if path[0] == "KEY" {
		m[text] = "value"
		return m
	}
	key := strings.ReplaceAll(path[0], "~1", "/")
	m[key] = set(m[key], path[1:], text)
	return m
}

// refusedAt are the places that the schema refuses, of an error of Helm.
var refusedAt = regexp.MustCompile(`at '([^']*)'`)

// accepted are the paths at which the chart takes a text; the schema refuses the others.
func accepted(t *testing.T, base, text string, paths []string) (taken []string, output string) {
	t.Helper()
	taken = paths
	for range 4 { // a map is refused for a key first, then for a value
		texts := make(map[string]string)
		for _, p := range taken {
			texts[p] = text
		}
		out, err := template(t, "helm", with(t, base, texts))
		if err == nil {
			return taken, out
		}
		places := refusedAt.FindAllStringSubmatch(err.Error(), -1)
		before := len(taken)
		taken = slices.DeleteFunc(slices.Clone(taken), func(p string) bool {
			return slices.ContainsFunc(places, func(m []string) bool { return m[1] == p || m[1]+"/KEY" == p })
		})
		if len(taken) == before {
			t.Fatalf("%q: the error names none of the places: %v", text, err)
		}
	}
	t.Fatalf("%q: some places are refused one at a time", text)
	return nil, ""
}

// replaced is a decoded value with other texts.
func replaced(v any, r *strings.Replacer) any {
	switch v := v.(type) {
	case string:
		return r.Replace(v)
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = replaced(v[i], r)
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, below := range v {
			out[r.Replace(k)] = replaced(below, r)
		}
		return out
	}
	return v
}

// TestHostileStrings sets every text of the values to one that means something in YAML. The schema refuses it, or the objects are those of
// plain texts, with that one in their place: nothing else changes, and a string stays a string.
func TestHostileStrings(t *testing.T) {
	t.Parallel()
	paths := textPaths(t)
	if t.Logf("%d texts at %d places", len(hostile), len(paths)); len(paths) < 60 {
		t.Fatalf("only %d texts: %v", len(paths), paths)
	}
	for _, tt := range []struct {
		name, base string
		texts      []string
	}{
		{"one", everything, hostile},
		// Those of the values that matter for these alone.
		{"each node", "{kind: DaemonSet, endpoint: {type: HostPort}, " + strings.TrimPrefix(strings.Replace(everything, "agent: {enabled: true}, ", "", 1), "{"), hostile[:5]},
		{"balanced", "{endpoint: {type: LoadBalancer, url: 'http://mirror.example:5000'}}", hostile[:5]},
	} {
		for _, text := range tt.texts {
			name, base := tt.name, tt.base
			t.Run(name+"/"+fmt.Sprintf("%q", text), func(t *testing.T) {
				t.Parallel()
				taken, output := accepted(t, base, text, paths)
				plain := make(map[string]string)
				var back []string
				for i, p := range taken {
					plain[p] = fmt.Sprintf("plain%dtext", i)
					back = append(back, plain[p], text)
				}
				want := documents(t, rendered(t, "helm", with(t, base, plain)))
				got := documents(t, output)
				if len(want) != len(got) {
					t.Fatalf("%d objects, and %d with plain texts", len(got), len(want))
				}
				r := strings.NewReplacer(back...)
				for i := range want {
					if diff := cmp.Diff(replaced(asJSON(t, want[i]), r), asJSON(t, got[i])); diff != "" {
						t.Errorf("(-plain +now):\n%s", diff)
					}
				}
				decodeTypes(t, output)
			})
		}
	}
}

// decodeTypes decodes objects as the API server does: a string that has become a number or a map is an error.
func decodeTypes(t *testing.T, text string) {
	t.Helper()
	for _, doc := range documents(t, text) {
		if _, _, err := codecs.UniversalDeserializer().Decode([]byte(doc), nil, nil); err != nil {
			t.Errorf("%v:\n%s", err, doc)
		}
	}
}

// TestNamesStayStrings installs under names that YAML takes for numbers and the like.
func TestNamesStayStrings(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"123", "1e3", "0x10", "true", "null", "yes", "on"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, helm := range helms {
				out, err := command(t, everything, helm, "template", name, chartDir, "--namespace", name, "--kube-version", "1.37.0", "--values", "-",
					"--set-string", "imagePullSecrets={"+name+"},secrets={"+name+"},priorityClassName="+name+",agent.priorityClassName="+name,
					"--set-string", "admin.tokenSecret="+name+",agent.authorizationSecret="+name+",serviceAccount.name="+name+",cache.storageClassName="+name,
					"--set-string", "test.caSecret="+name+",test.loginSecret="+name)
				if err != nil {
					t.Fatal(err)
				}
				for _, o := range decode(t, out) {
					if o.namespace != name && o.namespace != "default" && o.namespace != "" {
						t.Errorf("%s is in another namespace", o.id())
					}
				}
			}
		})
	}
}

// TestConfigIsVerbatim: the file that the mirror reads is the text of the values.
func TestConfigIsVerbatim(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"indented":      "  upstreams:\n    docker.io: {}\n  log: {level: debug}\n",
		"comments":      "# at the top\n\n# and: more\nupstreams: {docker.io: {}} # {{ and here }}\n\n",
		"trailing":      "upstreams: {docker.io: {}}   \nlog: {level: debug}",
		"carriage":      "upstreams: {docker.io: {}}\r\nlog: {level: debug}\r\n",
		"document":      "---\nupstreams: {docker.io: {}}\n...\n",
		"other letters": "# Zürich, 東京 \u2028\nupstreams: {docker.io: {}}\n",
		"block":         "upstreams:\n  docker.io: {}\nrules: []\n# |\n",
		"comment first": "    # indented more than what comes\nupstreams: {docker.io: {}}\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, helm := range helms {
				out := rendered(t, helm, toYAML(t, map[string]any{"config": text}))
				for _, o := range decode(t, out) {
					m, ok := o.value.(*corev1.ConfigMap)
					if ok && o.name == "mirror-config" && strings.TrimRight(m.Data["config.yaml"], "\n") != strings.TrimRight(text, "\n") {
						t.Errorf("%s: %q is now %q", helm, text, m.Data["config.yaml"])
					}
				}
			}
		})
	}
}

// TestLabelsOnce: a label that several values set is there once, the more specific one.
func TestLabelsOnce(t *testing.T) {
	t.Parallel()
	const values = `{commonLabels: {team: all, release: all}, podLabels: {team: mirror}, config: "kubernetes: {events: true}",
agent: {enabled: true, podLabels: {team: agent}}, metrics: {serviceMonitor: {enabled: true, labels: {release: prometheus}}, podMonitor: {enabled: true, labels: {release: prometheus}},
prometheusRule: {enabled: true, labels: {release: prometheus}}, dashboard: {enabled: true, labels: {release: prometheus}}}}`
	for _, helm := range helms {
		for _, o := range decode(t, rendered(t, helm, values)) {
			want := map[string]string{"StatefulSet mirror": "mirror", "DaemonSet mirror-agent": "agent"}[o.kind+" "+o.name]
			if pod := podOf(o.value); want != "" && pod.Labels["team"] != want {
				t.Errorf("%s: the label of its pods is %q", o.id(), pod.Labels["team"])
			}
			if o.meta.GetLabels()["team"] != "all" {
				t.Errorf("%s lacks a common label: %v", o.id(), o.meta.GetLabels())
			}
		}
	}
}
