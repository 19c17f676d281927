package admin_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-chi/chi/v5"
	gocmp "github.com/google/go-cmp/cmp"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/auth"
	"github.com/registrymirror/mirror/coverage"
	"github.com/registrymirror/mirror/diagnose"
	"github.com/registrymirror/mirror/diagnose/doctor"
	"github.com/registrymirror/mirror/diagnose/symptom"
	"github.com/registrymirror/mirror/drift"
	"github.com/registrymirror/mirror/journal"
	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/upstream/endpoint"
	"github.com/registrymirror/mirror/warm"
)

// document is the part of OpenAPI that the tests read.
type document struct {
	Paths map[string]map[string]struct {
		Parameters []parameter
		Security   []map[string][]string
		Responses  map[string]struct {
			Ref     string `yaml:"$ref"`
			Content map[string]struct {
				Schema struct {
					Ref string `yaml:"$ref"`
				}
			}
		}
	}
	Components struct {
		Parameters map[string]parameter
		Schemas    map[string]schema
	}
}

type parameter struct {
	Ref    string `yaml:"$ref"`
	Name   string
	In     string
	Schema schema
}

type schema struct {
	Ref        string `yaml:"$ref"`
	Type       string
	Format     string
	Enum       []string
	Required   []string
	Properties map[string]schema
	Items      *schema
	Additional any `yaml:"additionalProperties"`
}

func last(ref string) string { return ref[strings.LastIndex(ref, "/")+1:] }

// everything is the admin listener with all that it can have.
func everything() http.Handler { return admin.New(everythingOptions()) }

func everythingOptions() admin.Options {
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	return admin.Options{
		Loopback: true, Hosts: asExample,
		Metrics: http.NotFoundHandler(),
		Upstreams: func() []admin.Upstream {
			return []admin.Upstream{{
				Name: "docker.io", Access: "public",
				Endpoints: []admin.Endpoint{{URL: "https://registry-1.docker.io", State: "up", LastError: "x", LastErrorAt: at, Since: at}},
				Credentials: []admin.Credential{{
					Name: "hub", Kind: "file", For: "docker.io", Repositories: []string{"**"}, State: "ok", ExpiresAt: at, LastRefresh: at,
					LastError: "x", LastErrorAt: at, Since: at,
				}},
				Limits: []admin.Limit{
					{
						Credential: "hub", Source: "192.0.2.1", Endpoint: "https://registry-1.docker.io", Limit: 100, Remaining: 3,
						WindowSeconds: 60, ResetAt: at, SaidAt: at, Spent: &admin.Spent{
							Since: at, Requests: 3, Repositories: []admin.Use{{Repository: "library/nginx", Requests: 3}}, Elsewhere: new(int64(4)),
						},
					},
					{Endpoint: "https://registry-1.docker.io", SaidAt: at, Spent: &admin.Spent{Repositories: []admin.Use{}}},
				},
			}, {Name: "*.azurecr.io", Access: "rules", Endpoints: []admin.Endpoint{}, Credentials: []admin.Credential{}, Limits: []admin.Limit{}}}
		},
		Failures: &kept{list: []journal.Failure{{
			Finding: diagnose.Finding{
				Reason: diagnose.DNSNotFound, Class: diagnose.ClassNetwork, Summary: "s", Remedy: "r", Evidence: []string{"e"},
				Upstream: "docker.io", Host: "h", Stage: "dns", Status: 404,
			},
			ID: "7f3a9c2e", Image: "docker.io/acme/app:1", Platform: "linux/arm64", Outcome: journal.Failed, Client: "c", UserAgent: "u",
			Clients: map[string]int64{"c": 1}, Count: 1, FirstSeen: at, LastSeen: at,
		}}},
		Doctor: func(context.Context, string, string) *doctor.Report {
			return &doctor.Report{
				Image: "docker.io/acme/app:1", Platform: "linux/arm64", Upstream: "docker.io", Digest: "sha256:aa", At: "mirror",
				Began: doctor.At(at), Took: doctor.Duration(time.Second),
				Steps: []doctor.Step{{
					Stage: "tls", State: doctor.Broken, Endpoint: "e", Host: "h", Addr: "a", Status: 1, Requests: 2, Took: 1, Detail: "d",
					Reason: "tls-expired", Remedy: "r", Certificates: []doctor.Certificate{{Names: []string{"n"}}}, Skew: 1,
					Credential: &doctor.Credential{Kind: "k", ExpiresAt: doctor.At(at), LastError: "x"},
					Limits:     []doctor.Limit{{Credential: "c", Source: "s", Limit: 1, Window: 1, ResetAt: doctor.At(at)}},
					Platforms:  []string{"linux/amd64"},
				}},
				Failure: &doctor.Failure{Reason: "tls-expired", Class: "tls", Evidence: []string{"e"}, Upstream: "u", Host: "h", Stage: "s", Status: 1},
				Cache:   &doctor.Cache{Digest: "sha256:aa", CheckedAt: doctor.At(at)},
			}
		},
		Self: func(context.Context) *doctor.MirrorReport {
			return &doctor.MirrorReport{OK: true, At: "mirror", Version: "v1", Began: at, Took: 1, Checks: []doctor.Check{
				{Area: doctor.AreaUpstream, Name: "docker.io", State: doctor.Broken, Detail: "d", Remedy: "r", Steps: []doctor.Step{{Stage: "ping", State: doctor.OK}}},
			}}
		},
		Reset: func(name string) []string { return []string{name} },
		Tags:  newLedger(),
		Warm:  newWarmer(),
		Uses: func(context.Context) (map[oci.Ref][]string, []string, error) {
			return map[oci.Ref][]string{{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Tag: "v1"}: {"prod/web"}}, []string{"n"}, nil
		},
		Held:  func() []admin.HeldTag { return []admin.HeldTag{{Image: "a:1"}, {Image: "b:1", Immutable: true}} },
		Drift: func(context.Context) (drift.Report, error) { return drifting, nil },
		Coverage: func(context.Context) (coverage.Report, error) {
			return coverage.Report{
				Nodes: []coverage.NodeReport{{
					Node: "node-7", Images: 1, Unknown: 1, Since: at, LastSeen: at, Reason: "r", Clients: []string{"10.0.0.7"},
					Details: []coverage.ImageReport{{
						Image: "docker.io/acme/app:v1", Digest: "sha256:aa", State: coverage.Missed, Why: coverage.WhyPast, PulledAt: at, Client: "c",
						Pods: []string{"prod/web"},
					}},
				}},
				Summary: coverage.Summary{Nodes: 1, Images: 1, Missed: 1, Unknown: 1}, Since: at, Replicas: 2, Notes: []string{"n"},
			}, nil
		},
		Cache: func() admin.Cache { return admin.Cache{Bytes: 1, Degraded: true} },
		About: func() admin.About {
			return admin.About{Version: "v1.2.3", GoVersion: "go1.26", StartedAt: at, Config: admin.Config{
				File: "/etc/mirror/config.yaml", TakenAt: at, LastError: "x", Restart: []string{"listen"},
			}}
		},
		Reload: func(context.Context) (admin.Reloaded, error) {
			return admin.Reloaded{Changed: []string{"log.level"}, Removed: []string{"upstreams.ghcr.io"}, Restart: []string{"listen"}}, nil
		},
		Pulls: func(context.Context, bool) ([]journal.Pull, error) {
			return []journal.Pull{{
				Ref:    oci.Ref{Repo: oci.Repo{Host: "docker.io", Name: "acme/app"}, Tag: "v1", Digest: "sha256:ab"},
				Client: "c", Outcome: journal.Stale, Began: at, Took: time.Second, ID: "7f3a9c2e",
			}}, nil
		},
	}
}

// described reads the document as it is served.
func described(t *testing.T, h http.Handler) (document, []byte) {
	t.Helper()
	status, text, header := get(t, h, "GET", "/api/v1/openapi.yaml", "")
	if status != 200 || header.Get("Content-Type") != "application/yaml" {
		t.Fatalf("%d %s", status, header.Get("Content-Type"))
	}
	var doc document
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	return doc, []byte(text)
}

// The document has every route, and no other. Each of its parameters is accepted, and no other.
func TestOpenAPIRoutes(t *testing.T) {
	t.Parallel()
	h := everything()
	doc, _ := described(t, h)
	var there, told []string
	err := chi.Walk(h.(chi.Routes), func(method, route string, _ http.Handler, _ ...func(http.Handler) http.Handler) error {
		if !strings.HasPrefix(route, "/debug/pprof/") {
			there = append(there, method+" "+route)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, methods := range doc.Paths {
		for method, op := range methods {
			told = append(told, strings.ToUpper(method)+" "+path)
			_, with := op.Responses["200"]
			if _, without := op.Responses["204"]; with == without && !strings.HasSuffix(path, "/events") {
				t.Errorf("%s %s: neither 200 nor 204, or both", method, path)
			}
			var names []string
			for _, p := range doc.inQuery(op.Parameters) {
				names = append(names, p.Name)
				value := map[string]string{"integer": "1", "boolean": "true"}[p.Schema.Type]
				switch p.Name {
				case "since":
					value = "1h"
				case "continue":
					value = "eA"
				case "class":
					value = "auth"
				case "reason":
					value = "never-pull"
				case "platforms":
					value = "linux/amd64,linux/arm64"
				case "keep":
					value = "7d"
				case "with":
					value = "signatures"
				case "kind":
					value = "pulled"
				case "at":
					value = "1h&image=acme/app:v1"
				case "image":
					if path != "/api/v1/failures" && path != "/api/v1/failures/summary" {
						value = "acme/app:v1"
					}
				}
				if status, body := send(t, h, method, path, "?"+p.Name+"="+cmp.Or(value, "x")); status/100 != 2 {
					t.Errorf("%s of %s: %d %s", p.Name, path, status, body)
				}
			}
			if len(names) == 0 {
				continue
			}
			status, body := send(t, h, method, path, "?nonsense=1")
			if status != 400 {
				t.Errorf("unknown parameter of %s: %d", path, status)
			}
			for _, n := range names { // the sentence lists the known ones
				if !strings.Contains(body, n) {
					t.Errorf("%s does not list the parameter %s: %s", path, n, body)
				}
			}
		}
	}
	slices.Sort(there)
	slices.Sort(told)
	if diff := gocmp.Diff(there, told); diff != "" {
		t.Errorf("(-routes +document):\n%s", diff)
	}
}

// The schemas have the fields of the types. A field is required where it is never left out. A failure of the record, its finding
// and a failure of a text are never part of an answer: they can change apart from the API.
func TestOpenAPITypes(t *testing.T) {
	t.Parallel()
	doc, _ := described(t, everything())
	seen := make(map[string]bool)
	for name, v := range map[string]any{
		"FailureList": admin.FailureList{}, "Summary": admin.FailureSummary{}, "Explanation": admin.Explanation{},
		"PullList": admin.PullList{}, "UpstreamList": admin.UpstreamList{}, "Cache": admin.Cache{},
		"DoctorRequest": admin.DoctorRequest{}, "Report": doctor.Report{}, "Status": admin.Status{}, "Reloaded": admin.Reloaded{},
		"ResetRequest": admin.ResetRequest{}, "ResetAnswer": admin.ResetAnswer{},
		"TagList": admin.TagList{}, "Tag": admin.Tag{}, "PinList": admin.PinList{}, "PinRequest": admin.PinRequest{},
		"ImageRequest": admin.ImageRequest{}, "Refreshed": admin.Refreshed{}, "PurgeRequest": admin.PurgeRequest{},
		"DriftList":    admin.DriftList{},
		"MirrorReport": doctor.MirrorReport{}, "MirrorCheck": doctor.Check{},
		"CoverageList": admin.CoverageList{}, "CoverageNode": coverage.NodeReport{}, "CoverageImage": coverage.ImageReport{},
		"CoverageSummary": coverage.Summary{}, "WarmRequest": admin.WarmRequest{}, "WarmJob": admin.WarmJob{}, "WarmJobList": admin.WarmJobList{},
		"WarmPlan": admin.WarmPlan{}, "WarmVerified": admin.WarmVerified{},
	} {
		compare(t, doc, seen, name, schema{Ref: "/" + name}, reflect.TypeOf(v))
	}
	for name := range doc.Components.Schemas {
		if !seen[name] && name != "Problem" {
			t.Errorf("%s is in no answer", name)
		}
	}
	classes := []string{string(diagnose.ClassUnknown)} // of explain alone
	for _, r := range diagnose.Reasons() {
		classes = append(classes, string(r.Class()))
	}
	slices.Sort(classes)
	if diff := gocmp.Diff(slices.Compact(classes), slices.Sorted(slices.Values(doc.Components.Schemas["Class"].Enum))); diff != "" {
		t.Errorf("classes (-there +document):\n%s", diff)
	}
	for _, s := range []endpoint.State{
		endpoint.StateUp, endpoint.StateDegraded, endpoint.StateOpen, endpoint.StateUnknown,
	} {
		if !slices.Contains(doc.Components.Schemas["Endpoint"].Properties["state"].Enum, string(s)) {
			t.Errorf("no state %s of endpoints", s)
		}
	}
	for _, s := range []auth.State{
		auth.StateUnknown, auth.StateOK, auth.StateExpiring, auth.StateExpired, auth.StateRejected, auth.StateFailing,
	} {
		if !slices.Contains(doc.Components.Schemas["Credential"].Properties["state"].Enum, string(s)) {
			t.Errorf("no state %s of credentials", s)
		}
	}
}

// compare holds a schema against the type whose JSON it describes.
func compare(t *testing.T, doc document, seen map[string]bool, at string, s schema, typ reflect.Type) {
	t.Helper()
	if s.Ref != "" {
		name := last(s.Ref)
		var ok bool
		if s, ok = doc.Components.Schemas[name]; !ok {
			t.Errorf("%s: there is no schema %s", at, name)
			return
		}
		seen[name] = true
	}
	for typ.Kind() == reflect.Pointer {
		typ = typ.Elem()
	}
	want := ""
	switch {
	case typ == reflect.TypeFor[time.Time]():
		want = "string date-time"
	case typ == reflect.TypeFor[doctor.Duration](), typ.Kind() == reflect.String:
		want = "string "
	case typ.Kind() == reflect.Int, typ.Kind() == reflect.Int64:
		want = "integer "
	case typ.Kind() == reflect.Bool:
		want = "boolean "
	case typ.Kind() == reflect.Slice:
		want = "array "
		if s.Items == nil {
			t.Errorf("%s: an array without items", at)
			return
		}
		compare(t, doc, seen, at+"[]", *s.Items, typ.Elem())
	case typ.Kind() == reflect.Map:
		want = "object "
		if m, ok := s.Additional.(map[string]any); !ok || m["type"] != "integer" || typ.Elem().Kind() != reflect.Int64 {
			t.Errorf("%s: not a map of integers", at)
		}
	case typ.Kind() == reflect.Struct:
		want = "object "
		fields, required := fieldsOf(t, typ)
		if diff := gocmp.Diff(slices.Sorted(maps.Keys(fields)), slices.Sorted(maps.Keys(s.Properties))); diff != "" {
			t.Errorf("%s (-type +document):\n%s", at, diff)
			return
		}
		slices.Sort(required)
		if diff := gocmp.Diff(required, slices.Sorted(slices.Values(s.Required))); diff != "" {
			t.Errorf("%s, required (-type +document):\n%s", at, diff)
		}
		request := strings.HasSuffix(typ.Name(), "Request")
		if closed := s.Additional == false; closed != request { // answers may get more fields
			t.Errorf("%s: additionalProperties: %v", at, s.Additional)
		}
		for name, f := range fields {
			compare(t, doc, seen, at+"."+name, s.Properties[name], f)
		}
	}
	if got := s.Type + " " + s.Format; got != want {
		t.Errorf("%s is %q, want %q", at, got, want)
	}
}

// fieldsOf are the fields of a type as JSON, and those that are always there.
func fieldsOf(t *testing.T, typ reflect.Type) (fields map[string]reflect.Type, required []string) {
	t.Helper()
	for _, apart := range []reflect.Type{
		reflect.TypeFor[journal.Failure](), reflect.TypeFor[diagnose.Finding](), reflect.TypeFor[symptom.Failure](),
	} {
		if typ.PkgPath() == apart.PkgPath() {
			t.Errorf("%s is in an answer; it needs a type of the API", typ)
		}
	}
	fields = make(map[string]reflect.Type)
	for f := range typ.Fields() {
		if f.Anonymous {
			inner, always := fieldsOf(t, f.Type)
			maps.Copy(fields, inner)
			required = append(required, always...)
			continue
		}
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		fields[name] = f.Type
		if !strings.Contains(opts, "omit") {
			required = append(required, name)
		}
	}
	return fields, required
}

// Answers fit the document: with every field set, with none set, and as errors.
func TestOpenAPIAnswers(t *testing.T) {
	t.Parallel()
	full := everything()
	doc, text := described(t, full)
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	if tree, err = jsonschema.UnmarshalJSON(bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	c.AssertFormat()
	if err := c.AddResource("api.json", tree); err != nil {
		t.Fatal(err)
	}
	empty := admin.New(admin.Options{
		Loopback: true, Hosts: asExample,
		Upstreams: func() []admin.Upstream { return nil }, Failures: &kept{}, Cache: func() admin.Cache { return admin.Cache{} },
		Pulls:    func(context.Context, bool) ([]journal.Pull, error) { return nil, nil },
		About:    func() admin.About { return admin.About{} },
		Reload:   func(context.Context) (admin.Reloaded, error) { return admin.Reloaded{}, nil },
		Tags:     &ledger{},
		Warm:     &warmer{now: warm.Job{State: warm.Queued}},
		Drift:    func(context.Context) (drift.Report, error) { return drift.Report{}, nil },
		Coverage: func(context.Context) (coverage.Report, error) { return coverage.Report{}, nil },
	})
	checked := 0
	problem := c.MustCompile("api.json#/components/schemas/Problem")
	for path, methods := range doc.Paths {
		for method, op := range methods {
			for _, status := range []string{"200", "202"} {
				want := op.Responses[status].Content["application/json"].Schema.Ref
				if want == "" {
					continue
				}
				s, query := c.MustCompile("api.json"+want), ""
				if _, later := op.Responses["202"]; later && status == "200" {
					query = "?dryRun=true"
				}
				for name, tt := range map[string]struct {
					h      http.Handler
					query  string
					schema *jsonschema.Schema
					status string
				}{
					"full": {full, query, s, status}, "empty": {empty, query, s, status},
					"refused": {full, "?nonsense=1", problem, "400"},
				} {
					if (path == "/api/v1/doctor" || path == "/api/v1/upstreams/reset") && name == "empty" || name == "refused" && len(doc.inQuery(op.Parameters)) == 0 {
						continue
					}
					code, text := send(t, tt.h, method, path, tt.query)
					body, err := jsonschema.UnmarshalJSON(strings.NewReader(text))
					if err == nil {
						err = tt.schema.Validate(body)
					}
					if _, said := op.Responses[tt.status]; err != nil || fmt.Sprint(code) != tt.status || !said {
						t.Errorf("%s %s, %s: %d, %v", method, path, name, code, err)
					}
					checked++
				}
			}
		}
	}
	if checked < 15 {
		t.Errorf("only %d answers were looked at", checked)
	}
}

// bodies are requests that are in order, by path.
var bodies = map[string]string{
	"/api/v1/doctor":          `{"image":"docker.io/acme/app:1"}`,
	"/api/v1/upstreams/reset": `{"upstream":"docker.io"}`,
	"/api/v1/tags/refresh":    `{"image":"docker.io/acme/app:v1"}`,
	"/api/v1/pins":            `{"image":"docker.io/acme/app:v1","digest":"` + sum + `"}`,
	"/api/v1/warm":            `{"images":["docker.io/acme/app:v1"]}`,
	"/api/v1/warm/verify":     `{"images":["docker.io/acme/app:v1"]}`,
	"/api/v1/explain":         "Failed to pull image \"acme/app:1\": 502 Bad Gateway (mirror: x; y [7f3a9c2e])\n",
}

// send sends a request with a body that is in order.
func send(t *testing.T, h http.Handler, method, path, query string) (status int, body string) {
	t.Helper()
	method = strings.ToUpper(method)
	text := bodies[path]
	if method == http.MethodGet || method == http.MethodDelete {
		text = ""
	}
	r := httptest.NewRequestWithContext(t.Context(), method, path+query, strings.NewReader(text))
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// inQuery are those of the parameters that are in the query.
func (d document) inQuery(all []parameter) (list []parameter) {
	for _, p := range all {
		if p.Ref != "" {
			p = d.Components.Parameters[last(p.Ref)]
		}
		if p.In == "query" {
			list = append(list, p)
		}
	}
	return list
}
