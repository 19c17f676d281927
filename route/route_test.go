package route_test

import (
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/distribution/distribution/v3/registry/api/errcode"
	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/oci"
	"github.com/registrymirror/mirror/route"
)

func upstreams() []route.Upstream {
	return []route.Upstream{
		{Name: "ghcr.io"},
		{Name: "docker.io", Aliases: []string{"index.docker.io", "registry-1.docker.io", "docker.io"}, Library: true},
		{Name: "registry.corp:5000", Aliases: []string{"corp"}},
		{Name: "localhost"},
		{Name: "Quay.IO"},
	}
}

var have = []string{"Quay.IO", "docker.io", "ghcr.io", "localhost", "registry.corp:5000"}

func TestResolve(t *testing.T) {
	t.Parallel()
	table := newTable(t, upstreams(), "docker.io")
	closed := newTable(t, upstreams(), "")
	tests := []struct {
		name  string
		table *route.Table
		ns    string
		repo  string
		want  route.Target
	}{
		{"ns", table, "ghcr.io", "acme/app", target("ghcr.io", "acme/app", route.ViaNamespace)},
		{"ns wins over a prefix", table, "docker.io", "ghcr.io/x", target("docker.io", "ghcr.io/x", route.ViaNamespace)},
		{
			"ns and its own name as a prefix", table, "ghcr.io", "ghcr.io/x",
			target("ghcr.io", "x", route.ViaNamespace),
		},
		{"the same, of two components", table, "ghcr.io", "ghcr.io/acme/app", target("ghcr.io", "acme/app", route.ViaNamespace)},
		{
			"name and alias", table, "docker.io", "index.docker.io/acme/app",
			target("docker.io", "acme/app", route.ViaNamespace),
		},
		{"alias and name", table, "registry-1.docker.io", "docker.io/a/b", target("docker.io", "a/b", route.ViaNamespace)},
		{"the same, library", table, "docker.io", "docker.io/nginx", target("docker.io", "library/nginx", route.ViaNamespace)},
		{"the same with capitals", table, "quay.io", "QUAY.io/a/b", target("Quay.IO", "a/b", route.ViaNamespace)},
		{
			"the same with a port", table, "registry.corp:5000", "registry.corp:5000/a/b",
			target("registry.corp:5000", "a/b", route.ViaNamespace),
		},
		{
			"port and word", table, "registry.corp:5000", "corp/a/b",
			target("registry.corp:5000", "a/b", route.ViaNamespace),
		},
		{"repeated", table, "ghcr.io", "ghcr.io/ghcr.io/acme/a", target("ghcr.io", "acme/a", route.ViaNamespace)},
		{"by all its hosts", table, "docker.io", "index.docker.io/registry-1.docker.io/docker.io/a", target("docker.io", "library/a", route.ViaNamespace)},
		{"repeated alone", table, "ghcr.io", "ghcr.io/ghcr.io", target("ghcr.io", "ghcr.io", route.ViaNamespace)},
		{"alone it is a repository", table, "ghcr.io", "ghcr.io", target("ghcr.io", "ghcr.io", route.ViaNamespace)},
		{"further on it is none", table, "ghcr.io", "acme/ghcr.io/a", target("ghcr.io", "acme/ghcr.io/a", route.ViaNamespace)},
		{"an unknown host is none", table, "ghcr.io", "gcr.io/a/b", target("ghcr.io", "gcr.io/a/b", route.ViaNamespace)},
		{"ns, alias", table, "index.docker.io", "a/b", target("docker.io", "a/b", route.ViaNamespace)},
		{"ns, word for an alias", table, "corp", "app", target("registry.corp:5000", "app", route.ViaNamespace)},
		{"ns with capitals", table, "GHCR.io", "acme/app", target("ghcr.io", "acme/app", route.ViaNamespace)},
		{"ns of a name with capitals", table, "quay.io", "a/b", target("Quay.IO", "a/b", route.ViaNamespace)},
		{"ns with a port", table, "registry.corp:5000", "app", target("registry.corp:5000", "app", route.ViaNamespace)},
		{"ns, library", table, "docker.io", "nginx", target("docker.io", "library/nginx", route.ViaNamespace)},
		{"ns, no library elsewhere", table, "ghcr.io", "nginx", target("ghcr.io", "nginx", route.ViaNamespace)},
		{"ns without a default", closed, "ghcr.io", "a/b", target("ghcr.io", "a/b", route.ViaNamespace)},
		{"prefix", table, "", "ghcr.io/acme/app", target("ghcr.io", "acme/app", route.ViaPrefix)},
		{"prefix, alias", table, "", "registry-1.docker.io/a/b", target("docker.io", "a/b", route.ViaPrefix)},
		{"prefix, word", table, "", "corp/app", target("registry.corp:5000", "app", route.ViaPrefix)},
		{"prefix with a port", table, "", "registry.corp:5000/a/b", target("registry.corp:5000", "a/b", route.ViaPrefix)},
		{"prefix with capitals", table, "", "GHCR.IO/a/b", target("ghcr.io", "a/b", route.ViaPrefix)},
		{"prefix, library", table, "", "docker.io/nginx", target("docker.io", "library/nginx", route.ViaPrefix)},
		{
			"prefix, library as written", table, "", "docker.io/library/nginx",
			target("docker.io", "library/nginx", route.ViaPrefix),
		},
		{"prefix localhost", table, "", "localhost/a", target("localhost", "a", route.ViaPrefix)},
		{"prefix of another host", table, "", "ghcr.io/docker.io/a", target("ghcr.io", "docker.io/a", route.ViaPrefix)},
		{"prefix, repeated", table, "", "ghcr.io/ghcr.io/acme/a", target("ghcr.io", "acme/a", route.ViaPrefix)},
		{"prefix, by all its hosts", table, "", "index.docker.io/docker.io/docker.io/acme/a", target("docker.io", "acme/a", route.ViaPrefix)},
		{"prefix, repeated, library", table, "", "docker.io/docker.io/nginx", target("docker.io", "library/nginx", route.ViaPrefix)},
		{"prefix, a project that is called like an alias", table, "", "corp/corp/app", target("registry.corp:5000", "corp/app", route.ViaPrefix)},
		{"prefix, and a host further on", table, "", "ghcr.io/acme/ghcr.io/a", target("ghcr.io", "acme/ghcr.io/a", route.ViaPrefix)},
		{"prefix without a default", closed, "", "ghcr.io/a/b", target("ghcr.io", "a/b", route.ViaPrefix)},
		{"default", table, "", "acme/app", target("docker.io", "acme/app", route.ViaDefault)},
		{"default, library", table, "", "nginx", target("docker.io", "library/nginx", route.ViaDefault)},
		{"a key alone is a repository", table, "", "corp", target("docker.io", "library/corp", route.ViaDefault)},
		{"a host alone is a repository", table, "", "node.js", target("docker.io", "library/node.js", route.ViaDefault)},
		{
			"a host in a later component is not a prefix", table, "", "acme/ghcr.io/a",
			target("docker.io", "acme/ghcr.io/a", route.ViaDefault),
		},
		{"a longer word is not a prefix", table, "", "corporate/a", target("docker.io", "corporate/a", route.ViaDefault)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.table.Resolve(oci.Request{Kind: oci.KindManifest, Name: tt.repo, Namespace: tt.ns, Tag: "v1"})
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestResolveUnknown(t *testing.T) {
	t.Parallel()
	table := newTable(t, upstreams(), "docker.io")
	closed := newTable(t, upstreams(), "")
	long := strings.Repeat("a", 400)
	tests := []struct {
		name  string
		table *route.Table
		ns    string
		repo  string
		want  route.UnknownError
		says  string
	}{
		{
			"ns", table, "gcr.io", "a/b",
			route.UnknownError{Key: "gcr.io", Via: route.ViaNamespace, Have: have},
			`"gcr.io" is not an upstream of this mirror`,
		},
		{
			"ns, with a prefix that is known", table, "gcr.io", "ghcr.io/b",
			route.UnknownError{Key: "gcr.io", Via: route.ViaNamespace, Have: have},
			"add it under upstreams",
		},
		{
			"ns, another port", table, "registry.corp:5001", "a",
			route.UnknownError{Key: "registry.corp:5001", Via: route.ViaNamespace, Have: have},
			"registry.corp:5001",
		},
		{
			"ns, no port", table, "registry.corp", "a",
			route.UnknownError{Key: "registry.corp", Via: route.ViaNamespace, Have: have},
			"registry.corp",
		},
		{
			"ns, dot at the end", table, "ghcr.io.", "a",
			route.UnknownError{Key: "ghcr.io.", Via: route.ViaNamespace, Have: have},
			"ghcr.io.",
		},
		{
			"ns, below a known host", table, "x.ghcr.io", "a",
			route.UnknownError{Key: "x.ghcr.io", Via: route.ViaNamespace, Have: have},
			"x.ghcr.io",
		},
		{"ns too long", table, long, "a", route.UnknownError{Key: long[:255], Via: route.ViaNamespace, Have: have}, "aaa..."},
		{"host", table, "", "gcr.io/a/b", route.UnknownError{Key: "gcr.io", Via: route.ViaPrefix, Have: have}, `"gcr.io"`},
		{
			"host with a port", table, "", "reg:5000/a",
			route.UnknownError{Key: "reg:5000", Via: route.ViaPrefix, Have: have},
			"configured: Quay.IO, docker.io, ghcr.io, localhost, registry.corp:5000",
		},
		{
			"no default", closed, "", "a/b",
			route.UnknownError{Key: "a/b", Via: route.ViaDefault, Have: have},
			"set defaultUpstream",
		},
		{
			"no default, a key alone", closed, "", "corp",
			route.UnknownError{Key: "corp", Via: route.ViaDefault, Have: have},
			"send ns=HOST",
		},
		{
			"nothing configured", new(route.Table), "", "a",
			route.UnknownError{Key: "a", Via: route.ViaDefault},
			"configured: none",
		},
		{
			"localhost", newTable(t, nil, ""), "", "localhost/a",
			route.UnknownError{Key: "localhost", Via: route.ViaPrefix},
			"localhost",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := tt.table.Resolve(oci.Request{Kind: oci.KindBlob, Name: tt.repo, Namespace: tt.ns})
			e, ok := errors.AsType[*route.UnknownError](err)
			if !ok {
				t.Fatalf("got %+v and %v, want an UnknownError", got, err)
			}
			if diff := cmp.Diff(&tt.want, e); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if got != (route.Target{}) {
				t.Errorf("a target beside the error: %+v", got)
			}
			checkSentence(t, e)
			if !strings.Contains(e.Error(), tt.says) {
				t.Errorf("%q does not say %q", e, tt.says)
			}
		})
	}
}

// A pattern means the host that a request names; names go first, then the more specific pattern.
func TestPatterns(t *testing.T) {
	t.Parallel()
	below := func(domain string) func(string) bool {
		return func(host string) bool {
			label, ok := strings.CutSuffix(host, domain)
			return ok && label != "" && !strings.Contains(label, ".")
		}
	}
	table := newTable(t, []route.Upstream{
		{Name: "*.azurecr.io", Fits: below(".azurecr.io")},
		{Name: "*-x.azurecr.io", Fits: below("-x.azurecr.io")},
		{Name: "acme.azurecr.io", Aliases: []string{"corp.azurecr.io"}},
		{Name: "docker.io", Library: true},
	}, "docker.io")
	for _, tt := range []struct{ ns, repo, host, name, pattern, entry string }{
		{"acme.azurecr.io", "app", "acme.azurecr.io", "app", "", "acme.azurecr.io"},
		{"corp.azurecr.io", "app", "acme.azurecr.io", "app", "", "acme.azurecr.io"},
		{"other.azurecr.io", "app", "other.azurecr.io", "app", "*.azurecr.io", "*.azurecr.io"},
		{"OTHER.azurecr.io", "app", "other.azurecr.io", "app", "*.azurecr.io", "*.azurecr.io"},
		{"other-x.azurecr.io", "app", "other-x.azurecr.io", "app", "*-x.azurecr.io", "*-x.azurecr.io"},
		{"", "other.azurecr.io/a/b", "other.azurecr.io", "a/b", "*.azurecr.io", "*.azurecr.io"},
		{"", "other/a", "docker.io", "other/a", "", "docker.io"},
	} {
		got, err := table.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: tt.ns, Name: tt.repo, Tag: "v1"})
		if err != nil || got.Host != tt.host || got.Name != tt.name || got.Pattern != tt.pattern || table.Entry(got.Host) != tt.entry {
			t.Errorf("%+v: %+v, entry %q, %v", tt, got, table.Entry(got.Host), err)
		}
	}
	for _, ns := range []string{"a.b.azurecr.io", "azurecr.io", "other.azurecr.io.evil.example"} {
		got, err := table.Resolve(oci.Request{Kind: oci.KindManifest, Namespace: ns, Name: "app", Tag: "v1"})
		e, ok := errors.AsType[*route.UnknownError](err)
		if !ok || got != (route.Target{}) || table.Entry(ns) != "" {
			t.Errorf("%s: %+v, %v", ns, got, err)
		} else if diff := cmp.Diff([]string{"*-x.azurecr.io", "*.azurecr.io", "acme.azurecr.io", "docker.io"}, e.Have); diff != "" {
			t.Error(diff)
		}
	}
}

// A registry with a port in a path is the one that ns names, or a mistake.
func TestNamespaceAndAnotherPort(t *testing.T) {
	t.Parallel()
	table := newTable(t, upstreams(), "docker.io")
	for _, name := range []string{"registry.corp:5000/a", "registry.corp:5001/a", "GHCR.io/a", "localhost:5000/a/b"} {
		got, err := table.Resolve(oci.Request{Kind: oci.KindManifest, Name: name, Namespace: "docker.io", Tag: "1"})
		if e, ok := errors.AsType[errcode.Error](err); !ok || e.Code != errcode.ErrorCodeNameInvalid || got != (route.Target{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

// Two hosts of one pattern are different upstreams.
func TestNamespaceAndHostOfAPattern(t *testing.T) {
	t.Parallel()
	table := newTable(t, []route.Upstream{{
		Name: "*.azurecr.io", Fits: func(host string) bool { return strings.HasSuffix(host, ".azurecr.io") },
	}}, "")
	for name, want := range map[string]string{"a.azurecr.io/x/y": "x/y", "b.azurecr.io/x/y": "b.azurecr.io/x/y"} {
		got, err := table.Resolve(oci.Request{Kind: oci.KindBlob, Name: name, Namespace: "A.azurecr.io"})
		if err != nil || got.Host != "a.azurecr.io" || got.Name != want || got.Pattern != "*.azurecr.io" {
			t.Errorf("%s: %+v, %v; want %s", name, got, err, want)
		}
	}
}

func TestResolvePing(t *testing.T) {
	t.Parallel()
	got, err := newTable(t, nil, "").Resolve(oci.Request{Kind: oci.KindPing, Namespace: "unknown.io"})
	if err != nil || got != (route.Target{}) {
		t.Errorf("got %+v, %v; a ping needs no route", got, err)
	}
}

// With many or long names the sentence stays a line.
func TestUnknownErrorIsShort(t *testing.T) {
	t.Parallel()
	names := make([]string, 0, 500)
	for i := range 500 {
		names = append(names, strings.Repeat("x", 1+i/2)+".example")
	}
	for _, via := range []route.Via{route.ViaNamespace, route.ViaPrefix, route.ViaDefault} {
		e := &route.UnknownError{Key: strings.Repeat("k", 255), Via: via, Have: names}
		checkSentence(t, e)
		e.Have = names[490:]
		checkSentence(t, e)
		if !strings.Contains(e.Error(), "and 9 more") {
			t.Errorf("%q does not say how many more there are", e)
		}
		e.Key = "a\r\nb\xff\u00e9"
		checkSentence(t, e)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name      string
		upstreams []route.Upstream
		fallback  string
		says      []string
	}{
		{
			"name twice",
			[]route.Upstream{{Name: "ghcr.io"}, {Name: "ghcr.io"}},
			"",
			[]string{`"ghcr.io" is in the list twice`},
		},
		{"name twice but for capitals", []route.Upstream{{Name: "ghcr.io"}, {Name: "GHCR.io"}}, "", []string{"twice"}},
		{
			"alias of two",
			[]route.Upstream{{Name: "a.io", Aliases: []string{"x"}}, {Name: "b.io", Aliases: []string{"X"}}},
			"",
			[]string{`"X" names both upstream "a.io" and upstream "b.io"`},
		},
		{
			"alias that is a name",
			[]route.Upstream{{Name: "a.io", Aliases: []string{"b.io"}}, {Name: "b.io"}},
			"",
			[]string{`"b.io" names both`},
		},
		{
			"name that is an alias",
			[]route.Upstream{{Name: "b.io"}, {Name: "a.io", Aliases: []string{"b.io"}}},
			"",
			[]string{`"b.io" names both`},
		},
		{"no name", []route.Upstream{{}}, "", []string{`upstream ""`}},
		{"URL", []route.Upstream{{Name: "https://a.io"}}, "", []string{"HOST:PORT"}},
		{"path in an alias", []route.Upstream{{Name: "a.io", Aliases: []string{"a.io/b"}}}, "", []string{`"a.io/b"`}},
		{"pattern", []route.Upstream{{Name: "*.a.io"}}, "", []string{`"*.a.io"`}},
		{"too long", []route.Upstream{{Name: strings.Repeat("a", 256)}}, "", []string{"HOST:PORT"}},
		{"unknown default", []route.Upstream{{Name: "a.io"}}, "b.io", []string{`default upstream "b.io"`, "a.io"}},
		{"default of an empty list", nil, "b.io", []string{"none"}},
		{
			"all at once",
			[]route.Upstream{{Name: "a.io"}, {Name: "a.io"}, {Name: "/"}},
			"c.io",
			[]string{"twice", `"/"`, `"c.io"`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			table, err := route.New(tt.upstreams, tt.fallback)
			if err == nil || table != nil {
				t.Fatalf("got %v, %v", table, err)
			}
			for _, s := range tt.says {
				if !strings.Contains(err.Error(), s) {
					t.Errorf("%q does not say %q", err, s)
				}
			}
		})
	}
}

func TestNewDefaultByAlias(t *testing.T) {
	t.Parallel()
	got, err := newTable(t, upstreams(), "Index.Docker.io").Resolve(oci.Request{Kind: oci.KindManifest, Name: "nginx"})
	if want := target("docker.io", "library/nginx", route.ViaDefault); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A table does not change when its input does.
func TestNewCopies(t *testing.T) {
	t.Parallel()
	list := upstreams()
	table := newTable(t, list, "docker.io")
	for i := range list {
		list[i].Name = "evil.io"
		for j := range list[i].Aliases {
			list[i].Aliases[j] = "evil.io"
		}
	}
	got, err := table.Resolve(oci.Request{Kind: oci.KindManifest, Name: "index.docker.io/a"})
	if want := target("docker.io", "library/a", route.ViaPrefix); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
}

// FuzzResolve holds the promise: whatever a client sends, the answer is an upstream of the list, an *UnknownError, or
// NAME_INVALID for a name that does not fit ns, and without ns a name with the host of another registry is never sent to a
// registry.
func FuzzResolve(f *testing.F) {
	for _, uri := range []string{
		"/v2/", "/v2/nginx/manifests/v1", "/v2/a/b/tags/list?ns=ghcr.io", "/v2/ghcr.io/a/b/manifests/v1",
		"/v2/GHCR.IO/a/manifests/v1", "/v2/gcr.io/a/manifests/v1", "/v2/registry.corp:5000/a/manifests/v1",
		"/v2/corp/a/manifests/v1?ns=CORP", "/v2/docker.io/docker.io/a/tags/list", "/v2/localhost/a/tags/list?ns=x",
		"/v2/[::1]:5000/a/tags/list", "/v2/docker.io/tags/list", "/v2/ghcr.io/a/b/manifests/v1?ns=ghcr.io", "/v2/registry.corp:5000/a/tags/list?ns=corp",
		"/v2/registry.corp:5000/a/tags/list?ns=ghcr.io", "/v2/ghcr.io/ghcr.io/a/tags/list?ns=ghcr.io",
	} {
		f.Add(uri, true)
		f.Add(uri, false)
	}
	open, err := route.New(upstreams(), "docker.io")
	if err != nil {
		f.Fatal(err)
	}
	closed, err := route.New(upstreams(), "")
	if err != nil {
		f.Fatal(err)
	}
	known := map[string]bool{}
	for _, name := range have {
		known[name] = true
	}
	f.Fuzz(func(t *testing.T, uri string, fallback bool) {
		u, err := url.ParseRequestURI(uri)
		if err != nil {
			return
		}
		r, err := oci.ParseRequest(http.MethodGet, u)
		if err != nil {
			return
		}
		table := closed
		if fallback {
			table = open
		}
		got, err := table.Resolve(r)
		if err != nil {
			if bad, ok := errors.AsType[errcode.Error](err); ok && bad.Code == errcode.ErrorCodeNameInvalid &&
				r.Namespace != "" && got == (route.Target{}) {
				return
			}
			e, ok := errors.AsType[*route.UnknownError](err)
			if !ok || len(e.Key) > 255 || got != (route.Target{}) {
				t.Fatalf("%+v gave %+v and %v", r, got, err)
			}
			checkSentence(t, e)
			return
		}
		if r.Kind == oci.KindPing {
			return
		}
		if !known[got.Host] {
			t.Fatalf("%+v leads to %q, which is not in the list", r, got.Host)
		}
		if !strings.HasSuffix(r.Name, strings.TrimPrefix(got.Name, "library/")) || strings.HasPrefix(got.Name, "/") ||
			got.Name == "" {
			t.Fatalf("%+v leads to repository %q", r, got.Name)
		}
		if strings.Contains(got.Name, ":") || strings.ToLower(got.Name) != got.Name {
			t.Fatalf("%+v leads to %q, which is not a repository", r, got.Name)
		}
		if first, _, more := strings.Cut(got.Name, "/"); more && oci.LooksLikeHost(first) && table.Entry(first) == got.Host {
			t.Fatalf("%+v leads to %q, which begins with its own upstream", r, got.Name)
		}
		switch first, _, more := strings.Cut(r.Name, "/"); {
		case (got.Via == route.ViaNamespace) != (r.Namespace != ""):
			t.Fatalf("%+v went via %s", r, got.Via)
		case got.Via == route.ViaDefault && (!fallback || got.Host != "docker.io" || more && oci.LooksLikeHost(first)):
			t.Fatalf("%+v went to %s by default", r, got.Repo)
		}
	})
}

// A client can send each key of New as ns.
func TestKeysCanBeSent(t *testing.T) {
	t.Parallel()
	sent := 0
	for c := range 256 {
		name := "a" + string([]byte{byte(c)}) + "b"
		table, err := route.New([]route.Upstream{{Name: name}}, "")
		if err != nil {
			continue
		}
		sent++
		u := &url.URL{Path: "/v2/x/tags/list", RawQuery: url.Values{"ns": {name}}.Encode()}
		r, err := oci.ParseRequest(http.MethodGet, u)
		if err != nil {
			t.Errorf("%q is a key, and refused as ns: %v", name, err)
			continue
		}
		if got, err := table.Resolve(r); err != nil || got.Host != name {
			t.Errorf("%q leads to %+v, %v", name, got, err)
		}
	}
	if sent != 26+26+10+len("._-:[]") {
		t.Errorf("%d bytes can be in a key", sent)
	}
}

func TestResolveAllocates(t *testing.T) { // not parallel: AllocsPerRun counts the whole process
	table := newTable(t, upstreams(), "docker.io")
	tests := []struct {
		name string
		r    oci.Request
		want float64
	}{
		{"ns", oci.Request{Kind: oci.KindBlob, Name: "acme/app", Namespace: "ghcr.io"}, 0},
		{"prefix", oci.Request{Kind: oci.KindBlob, Name: "ghcr.io/acme/app"}, 0},
		{"default", oci.Request{Kind: oci.KindBlob, Name: "acme/app"}, 0},
		{"library", oci.Request{Kind: oci.KindBlob, Name: "nginx"}, 1},
		{"unknown", oci.Request{Kind: oci.KindBlob, Name: "acme/app", Namespace: "gcr.io"}, 1},
	}
	for _, tt := range tests {
		if n := testing.AllocsPerRun(100, func() { _, _ = table.Resolve(tt.r) }); n != tt.want {
			t.Errorf("%s: %v allocations, want %v", tt.name, n, tt.want)
		}
	}
}

func BenchmarkResolve(b *testing.B) {
	table, err := route.New(upstreams(), "docker.io")
	if err != nil {
		b.Fatal(err)
	}
	for name, r := range map[string]oci.Request{
		"ns":      {Kind: oci.KindBlob, Name: "acme/app", Namespace: "ghcr.io"},
		"prefix":  {Kind: oci.KindBlob, Name: "ghcr.io/acme/app"},
		"library": {Kind: oci.KindBlob, Name: "nginx"},
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := table.Resolve(r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func newTable(t *testing.T, list []route.Upstream, fallback string) *route.Table {
	t.Helper()
	table, err := route.New(list, fallback)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func target(host, name string, via route.Via) route.Target {
	return route.Target{Repo: oci.Repo{Host: host, Name: name}, Via: via}
}

// checkSentence holds that an error is one printable line of at most 300 bytes.
func checkSentence(t *testing.T, err error) {
	t.Helper()
	s := err.Error()
	if s == "" || len(s) > 300 {
		t.Errorf("%d bytes: %q", len(s), s)
	}
	for _, c := range []byte(s) {
		if c < 0x20 || c > 0x7e {
			t.Fatalf("byte %#x in %q", c, s)
		}
	}
}
