package chart_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v4"
)

// leaf is a value of values.yaml without values below it that have a comment of their own.
type leaf struct {
	path        []string
	description string
	value       *yaml.Node
}

func (l leaf) name() string { return strings.Join(l.path, ".") }

// valuesFile is values.yaml.
func valuesFile(t *testing.T) *yaml.Node {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(read(t, filepath.Join(chartDir, "values.yaml"))), &doc); err != nil {
		t.Fatal(err)
	}
	return doc.Content[0]
}

// leaves are the values, in their order, with their comments. A map without comments in it is one value.
func leaves(n *yaml.Node, path []string) (all []leaf) {
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		at := append(slices.Clone(path), key.Value)
		if value.Kind == yaml.MappingNode && slices.ContainsFunc(value.Content, func(n *yaml.Node) bool { return n.HeadComment != "" }) {
			all = append(all, leaves(value, at)...)
			continue
		}
		all = append(all, leaf{at, comment(key.HeadComment), value})
	}
	return all
}

// comment is the last paragraph of a comment, as one line.
func comment(text string) string {
	paragraphs := strings.Split(text, "\n\n")
	var words []string
	for line := range strings.Lines(paragraphs[len(paragraphs)-1]) {
		words = append(words, strings.Fields(strings.TrimPrefix(line, "#"))...)
	}
	return strings.Join(words, " ")
}

// nested is a value at a path.
func nested(path []string, value any) map[string]any {
	for _, p := range slices.Backward(path) {
		value = map[string]any{p: value}
	}
	return value.(map[string]any)
}

// merged is a with the values of b in it.
func merged(a, b map[string]any) map[string]any {
	out := maps.Clone(a)
	for k, v := range b {
		below, ok := v.(map[string]any)
		had, ok2 := out[k].(map[string]any)
		if ok && ok2 {
			v = merged(had, below)
		}
		out[k] = v
	}
	return out
}

func toYAML(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v) // which is YAML too
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func parsed(t *testing.T, text string) map[string]any {
	t.Helper()
	out := make(map[string]any)
	if err := yaml.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// pair is a certificate of nodes with its key: neither is without the other.
const pair = "agent: {clientCert: /etc/containerd/certs.d/a.crt, clientKey: /etc/containerd/certs.d/a.key}"

// changes are another value for each one that can't be turned or counted up, and the values that it needs to matter, both as YAML.
var changes = map[string]struct{ to, with string }{
	"kind":                              {to: "DaemonSet"},
	"image.repository":                  {to: "registry.example/mirror"},
	"image.tag":                         {to: "v9.9.9"},
	"image.digest":                      {to: "sha256:" + strings.Repeat("a", 64)},
	"image.pullPolicy":                  {to: "Always"},
	"imagePullSecrets":                  {to: "[pull]"},
	"nameOverride":                      {to: "other"},
	"fullnameOverride":                  {to: "other"},
	"config":                            {to: `"upstreams: {ghcr.io: {}}"`},
	"secrets":                           {to: "[hub]"},
	"endpoint.type":                     {to: "HostPort", with: "kind: DaemonSet"},
	"endpoint.clusterIP":                {to: "10.96.0.50"},
	"endpoint.url":                      {to: "http://mirror.example:5000"},
	"endpoint.ipFamily":                 {to: "IPv6"},
	"endpoint.ipFamilyPolicy":           {to: "PreferDualStack"},
	"endpoint.sessionAffinity":          {to: "None"},
	"endpoint.trafficDistribution":      {to: "PreferSameZone"},
	"endpoint.loadBalancerClass":        {to: "example.com/lb", with: "endpoint: {type: LoadBalancer, url: 'http://mirror.example:5000'}"},
	"endpoint.loadBalancerSourceRanges": {to: "[10.0.0.0/8]", with: "endpoint: {type: LoadBalancer, url: 'http://mirror.example:5000'}"},
	"endpoint.hostNetwork":              {to: "true", with: "{kind: DaemonSet, endpoint: {type: HostPort}}"},
	"cache.size":                        {to: "60Gi"},
	"cache.volume":                      {to: "emptyDir"},
	"cache.storageClassName":            {to: "fast"},
	"cache.whenDeleted":                 {to: "Delete"},
	"cache.whenScaled":                  {to: "Delete"},
	"cache.hostPath":                    {to: "/data/mirror", with: "kind: DaemonSet"},
	"admin.tokenSecret":                 {to: "other"},
	"admin.tokenKey":                    {to: "other"},
	"metrics.serviceMonitor.interval":   {to: "10s"},
	"metrics.podMonitor.interval":       {to: "10s"},
	"agent.certsDir":                    {to: "/var/snap/microk8s/current/args/certs.d"},
	"agent.registries":                  {to: "[docker.io]"},
	"agent.every":                       {to: "10s"},
	"agent.dialTimeout":                 {to: "2s"},
	"agent.ca":                          {to: "/etc/containerd/certs.d/ca.crt"},
	"agent.clientCert":                  {to: "/etc/containerd/certs.d/node.crt", with: pair},
	"agent.clientKey":                   {to: "/etc/containerd/certs.d/node.key", with: pair},
	"test.caSecret":                     {to: "authority"},
	"test.loginSecret":                  {to: "builder"},
	"test.resources":                    {to: "{limits: {memory: 96Mi}}"},
	"agent.authorizationSecret":         {to: "nodes"},
	"agent.authorizationKey":            {to: "other", with: "agent: {authorizationSecret: nodes}"},
	"agent.extraArgs":                   {to: "[--log-format=json]"},
	"agent.extraEnv":                    {to: "[{name: A, value: b}]"},
	"agent.tolerations":                 {to: "[{key: a, operator: Exists}]"},
	"agent.priorityClassName":           {to: "other"},
	"agent.resources":                   {to: "{limits: {memory: 96Mi}}"},
	"agent.podSecurityContext":          {to: "{runAsNonRoot: false}"},
	"agent.securityContext":             {to: "{seLinuxOptions: {type: spc_t}}"},
	"agent.maxUnavailable":              {to: "3"},
	"serviceAccount.name":               {to: "other"},
	"networkPolicy.clients":             {to: "[{podSelector: {}}]"},
	"networkPolicy.metrics":             {to: "[{podSelector: {}}]"},
	"networkPolicy.admin":               {to: "[{podSelector: {}}]"},
	"networkPolicy.egress":              {to: "[{ports: [{port: 443}]}]"},
	"tolerations":                       {to: "[{key: a, operator: Exists}]"},
	"topologySpreadConstraints":         {to: "[{topologyKey: zone, maxSkew: 1, whenUnsatisfiable: DoNotSchedule}]"},
	"priorityClassName":                 {to: "other"},
	"resources":                         {to: "{limits: {memory: 2Gi}}"},
	"podSecurityContext":                {to: "{fsGroupChangePolicy: Always}"},
	"securityContext":                   {to: "{runAsUser: 1234}"},
	"extraEnv":                          {to: "[{name: A, value: b}]"},
	"extraVolumes":                      {to: "[{name: a, emptyDir: {}}]"},
	"extraVolumeMounts":                 {to: "[{name: a, mountPath: /a}]"},
	"test.image":                        {to: "docker.io/library/busybox:1"},
	"extraObjects":                      {to: "[{apiVersion: v1, kind: ConfigMap, metadata: {name: a}}]"},
}

// everything has all parts on, so that each value matters.
const everything = `{config: "kubernetes: {events: true}", admin: {tokenSecret: admin}, agent: {enabled: true}, networkPolicy: {enabled: true},
metrics: {serviceMonitor: {enabled: true}, podMonitor: {enabled: true}, prometheusRule: {enabled: true}, dashboard: {enabled: true}}}`

// other is another value than the one of values.yaml.
func other(t *testing.T, l leaf) any {
	t.Helper()
	if c, ok := changes[l.name()]; ok {
		return parsed(t, "v: "+c.to)["v"]
	}
	var now any
	if err := l.value.Decode(&now); err != nil {
		t.Fatal(err)
	}
	switch now := now.(type) {
	case bool:
		return !now
	case int:
		return now + 1
	case map[string]any: // of labels, annotations, and the like
		if strings.HasSuffix(l.name(), "ffinity") {
			return map[string]any{"nodeAffinity": map[string]any{}}
		}
		return map[string]any{"example.com/a": "b"}
	}
	t.Fatalf("%s: there is no other value to try: add one", l.name())
	return nil
}

// TestEveryValueMatters changes each value of values.yaml in turn: the output is another one, of valid objects.
func TestEveryValueMatters(t *testing.T) {
	t.Parallel()
	all := leaves(valuesFile(t), nil)
	for name := range changes {
		if !slices.ContainsFunc(all, func(l leaf) bool { return l.name() == name }) {
			t.Errorf("values.yaml has no %s", name)
		}
	}
	base := parsed(t, everything)
	before := make(map[string]string) // by the values that are needed
	for _, l := range all {
		with := changes[l.name()].with
		if before[with] == "" {
			before[with] = rendered(t, "helm", toYAML(t, merged(base, parsed(t, with))))
		}
	}
	for _, l := range all {
		t.Run(l.name(), func(t *testing.T) {
			t.Parallel()
			with := changes[l.name()].with
			value := other(t, l)
			if now, ok := valueAt(base, l.path); ok && fmt.Sprint(now) == fmt.Sprint(value) {
				value = !value.(bool) // it is on already
			}
			out := rendered(t, "helm", toYAML(t, merged(merged(base, parsed(t, with)), nested(l.path, value))))
			if out == before[with] {
				t.Error("another value changes nothing")
			}
			decode(t, out)
		})
	}
}

func valueAt(values map[string]any, path []string) (any, bool) {
	for i, p := range path {
		v, ok := values[p]
		if !ok || i == len(path)-1 {
			return v, ok
		}
		if values, ok = v.(map[string]any); !ok {
			return nil, false
		}
	}
	return nil, false
}

// TestSchemaRefuses has a typo at each place, and values of a wrong kind.
func TestSchemaRefuses(t *testing.T) {
	t.Parallel()
	var places [][]string
	var walk func(n *yaml.Node, path []string)
	walk = func(n *yaml.Node, path []string) {
		places = append(places, path)
		for i := 0; i+1 < len(n.Content); i += 2 {
			v := n.Content[i+1]
			if v.Kind == yaml.MappingNode && slices.ContainsFunc(v.Content, func(n *yaml.Node) bool { return n.HeadComment != "" }) {
				walk(v, append(slices.Clone(path), n.Content[i].Value))
			}
		}
	}
	walk(valuesFile(t), nil)
	wrong := map[string]string{
		"replicas: two": "'/replicas': got string", "kind: Deployment": "'/kind': value must be one of", "agent: {enabled: 'yes'}": "'/agent/enabled': got string",
		"endpoint: {type: Nodeport}": "'/endpoint/type': value must be one of", "endpoint: {port: 99999}": "'/endpoint/port': maximum",
		"cache: {size: 50G}": "'/cache/size'", "image: {digest: 'abc'}": "'/image/digest'", "agent: {every: 30}": "'/agent/every': got number",
		"config: {upstreams: {}}": "'/config': got object", "secrets: ['../x']": "'/secrets/0'", "endpoint: {url: 'http://mirror/path'}": "'/endpoint/url'",
		"resources: {limit: {}}": "additional properties 'limit' not allowed", "tolerations: [{kee: x}]": "additional properties 'kee' not allowed",
		"extraEnv: [{nam: x}]": "additional properties 'nam' not allowed", "preStopSeconds: 0": "'/preStopSeconds': minimum",
		"cache: {hostPath: /}": "'/cache/hostPath'", "cache: {hostPath: var/lib/mirror}": "'/cache/hostPath'", "cache: {hostPath: '/a b'}": "'/cache/hostPath'",
		"agent: {certsDir: /}": "'/agent/certsDir'", "agent: {certsDir: /etc}": "'/agent/certsDir'", "agent: {certsDir: certs.d}": "'/agent/certsDir'",
		"agent: {registries: ['a b']}": "'/agent/registries/0'", "image: {repository: 'A b'}": "'/image/repository'", "fullnameOverride: a.b": "'/fullnameOverride'",
		"commonLabels: {a: 'b c'}": "'/commonLabels/a'", "podAnnotations: {'<<': x}": "'/podAnnotations'", "endpoint: {url: 'http://a b'}": "'/endpoint/url'",
	}
	for _, p := range places {
		wrong[toYAML(t, nested(append(slices.Clone(p), "typo"), "x"))] = "additional properties 'typo' not allowed"
	}
	for values, says := range wrong {
		t.Run(values, func(t *testing.T) {
			t.Parallel()
			for _, helm := range helms {
				if _, err := template(t, helm, values); err == nil || !strings.Contains(err.Error(), says) {
					t.Errorf("%s: %v", helm, err)
				}
			}
		})
	}
}

// TestSchemaHasTheValues compares values.schema.json with values.yaml: neither has a value that the other one lacks.
func TestSchemaHasTheValues(t *testing.T) {
	t.Parallel()
	type schema struct {
		Properties           map[string]json.RawMessage
		AdditionalProperties any
	}
	var walk func(raw []byte, path []string) []string
	walk = func(raw []byte, path []string) (names []string) {
		var s schema
		if err := json.Unmarshal(raw, &s); err != nil {
			t.Fatal(err)
		}
		if len(s.Properties) == 0 || s.AdditionalProperties != false {
			return []string{strings.Join(path, ".")}
		}
		for k, v := range s.Properties {
			names = append(names, walk(v, append(slices.Clone(path), k))...)
		}
		return names
	}
	inSchema := walk([]byte(read(t, filepath.Join(chartDir, "values.schema.json"))), nil)
	var inValues []string
	for _, l := range leaves(valuesFile(t), nil) {
		inValues = append(inValues, l.name())
	}
	for _, name := range inValues {
		if !slices.ContainsFunc(inSchema, func(s string) bool { return s == name || strings.HasPrefix(s, name+".") }) {
			t.Errorf("values.schema.json lacks %s", name)
		}
	}
	for _, name := range inSchema {
		if name != "global" && !slices.ContainsFunc(inValues, func(v string) bool { return v == name || strings.HasPrefix(name, v+".") }) {
			t.Errorf("values.yaml lacks %s", name)
		}
	}
}
