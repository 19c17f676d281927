package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/oci"
)

const (
	layerType  = "application/vnd.oci.image.layer.v1.tar+gzip"
	configType = "application/vnd.oci.image.config.v1+json"
	emptySum   = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
)

func TestParseManifest(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		contentType string
		doc         string
		want        oci.Manifest // Digest and Bytes apart, which are checked for all
	}{
		{
			name: "OCI image", contentType: oci.MediaTypeOCIManifest,
			doc: fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s,%s]}`, oci.MediaTypeOCIManifest,
				desc(configType, sum256, 7), desc(layerType, sum512, 8), desc(layerType, sum256, 9)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIManifest, Artifact: configType,
				Children: []oci.Child{blob(configType, sum256, 7), blob(layerType, sum512, 8), blob(layerType, sum256, 9)},
			},
		},
		{
			name: "layers before config, in the spec's order all the same", contentType: oci.MediaTypeDockerManifest,
			doc: fmt.Sprintf(`{"layers":[%s],"config":%s,"mediaType":%q}`, desc(layerType, sum512, 8),
				desc(configType, sum256, 7), oci.MediaTypeDockerManifest),
			want: oci.Manifest{
				MediaType: oci.MediaTypeDockerManifest, Artifact: configType,
				Children: []oci.Child{blob(configType, sum256, 7), blob(layerType, sum512, 8)},
			},
		},
		{
			name: "OCI index", contentType: oci.MediaTypeOCIIndex + "; charset=utf-8",
			doc: fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, desc(oci.MediaTypeOCIManifest, sum256, 7)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIIndex,
				Children:  []oci.Child{manifest(oci.MediaTypeOCIManifest, sum256, 7)},
			},
		},
		{
			name: "Docker manifest list", contentType: oci.MediaTypeDockerManifestList,
			doc: fmt.Sprintf(`{"mediaType":%q,"manifests":[%s]}`, oci.MediaTypeDockerManifestList,
				desc("application/vnd.example", sum256, 7)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeDockerManifestList,
				Children:  []oci.Child{manifest("application/vnd.example", sum256, 7)},
			},
		},
		{
			name: "index without entries", contentType: oci.MediaTypeOCIIndex, doc: string(oci.EmptyIndex()),
			want: oci.Manifest{MediaType: oci.MediaTypeOCIIndex},
		},
		{
			name: "index with null for its entries", contentType: oci.MediaTypeOCIIndex, doc: `{"manifests":null}`,
			want: oci.Manifest{MediaType: oci.MediaTypeOCIIndex},
		},
		{
			name: "referrer", contentType: oci.MediaTypeOCIManifest,
			doc: fmt.Sprintf(`{"artifactType":"application/vnd.sig","config":%s,"layers":[],"subject":%s}`,
				desc("application/vnd.oci.empty.v1+json", sum256, 2), desc(oci.MediaTypeOCIManifest, sum512, 5)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIManifest, Artifact: "application/vnd.sig",
				Children: []oci.Child{blob("application/vnd.oci.empty.v1+json", sum256, 2)},
				Subject:  &oci.Descriptor{MediaType: oci.MediaTypeOCIManifest, Digest: sum512, Size: 5},
			},
		},
		{
			name: "OCI artifact manifest", contentType: oci.MediaTypeOCIArtifactManifest,
			doc: fmt.Sprintf(`{"mediaType":%q,"artifactType":"a/b","blobs":[%s]}`, oci.MediaTypeOCIArtifactManifest,
				desc("c/d", sum256, 7)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIArtifactManifest, Artifact: "a/b", Children: []oci.Child{blob("c/d", sum256, 7)},
			},
		},
		{
			name: "OCI artifact manifest with a config, which it has not", contentType: oci.MediaTypeOCIArtifactManifest,
			doc:  `{"config":{"mediaType":"a/b"},"blobs":[]}`,
			want: oci.Manifest{MediaType: oci.MediaTypeOCIArtifactManifest},
		},
		{
			name: "image with null for its config", contentType: oci.MediaTypeOCIManifest, doc: `{"config":null,"layers":[]}`,
			want: oci.Manifest{MediaType: oci.MediaTypeOCIManifest},
		},
		{
			name: "schema 1", contentType: oci.MediaTypeDockerSchema1Signed,
			doc:  `{"schemaVersion":1,"fsLayers":[{"blobSum":"` + sum256 + `"}],"history":[]}`,
			want: oci.Manifest{MediaType: oci.MediaTypeDockerSchema1Signed},
		},
		{
			name: "unknown type", contentType: "application/vnd.example.v1+json; v=1",
			doc:  `{"manifests":[1],"layers":"x","config":[],"layers":2}`,
			want: oci.Manifest{MediaType: "application/vnd.example.v1+json"},
		},
		{
			name: "the document's own type wins", contentType: oci.MediaTypeDockerManifest,
			doc: fmt.Sprintf(`{"mediaType":%q,"config":%s,"layers":[]}`, oci.MediaTypeOCIManifest, desc(configType, sum256, 7)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIManifest, Artifact: configType,
				Children: []oci.Child{blob(configType, sum256, 7)},
			},
		},
		{
			name: "an unknown type of its own wins", contentType: oci.MediaTypeOCIManifest,
			doc:  `{"mediaType":"application/vnd.example.v1+json","layers":1}`,
			want: oci.Manifest{MediaType: "application/vnd.example.v1+json"},
		},
		{
			name: "image sent as text", contentType: "text/plain; charset=utf-8",
			doc: fmt.Sprintf(`{"config":%s,"layers":[%s]}`, desc(configType, sum256, 7), desc(layerType, sum512, 8)),
			want: oci.Manifest{
				MediaType: "text/plain", Artifact: configType,
				Children: []oci.Child{blob(configType, sum256, 7), blob(layerType, sum512, 8)},
			},
		},
		{
			name: "index that says no type at all", contentType: "",
			doc: fmt.Sprintf(`{"manifests":[%s]}`, desc(oci.MediaTypeOCIManifest, sum256, 7)),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIIndex, Children: []oci.Child{manifest(oci.MediaTypeOCIManifest, sum256, 7)},
			},
		},
		{
			name: "Content-Type that is none", contentType: "a\r\nb/c",
			doc:  `{"schemaVersion":1,"fsLayers":[]}`,
			want: oci.Manifest{MediaType: oci.MediaTypeDockerSchema1Signed},
		},
		{
			name: "an object that says nothing", contentType: "", doc: `{}`,
			want: oci.Manifest{MediaType: "application/json"},
		},
		{
			name: "sizes that are not said", contentType: oci.MediaTypeOCIManifest,
			doc: fmt.Sprintf(`{"layers":[{"digest":%q},{"digest":%q,"size":0},{"digest":%q,"size":0}]}`, sum256, sum512,
				emptySum),
			want: oci.Manifest{
				MediaType: oci.MediaTypeOCIManifest,
				Children:  []oci.Child{blob("", sum256, -1), blob("", sum512, -1), blob("", emptySum, 0)},
			},
		},
		{
			name: "foreign layer", contentType: oci.MediaTypeDockerManifest,
			doc: fmt.Sprintf(`{"layers":[{"digest":%q,"size":1,"urls":["https://example.com/x"]}]}`, sum256),
			want: oci.Manifest{
				MediaType: oci.MediaTypeDockerManifest,
				Children: []oci.Child{{
					Descriptor: oci.Descriptor{Digest: sum256, Size: 1, URLs: []string{"https://example.com/x"}},
				}},
			},
		},
		{
			name: "blanks around", contentType: oci.MediaTypeOCIIndex, doc: "\n {\"manifests\": [ ] } \n",
			want: oci.Manifest{MediaType: oci.MediaTypeOCIIndex},
		},
		{
			name: "brackets in strings are not depth", contentType: oci.MediaTypeOCIIndex,
			doc:  `{"manifests":[],"annotations":{"x":"` + strings.Repeat(`[{\"\\`, 100) + `"}}`,
			want: oci.Manifest{MediaType: oci.MediaTypeOCIIndex},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got, err := oci.ParseManifest(tt.contentType, []byte(tt.doc))
			if err != nil {
				t.Fatal(err)
			}
			if string(got.Bytes) != tt.doc || !oci.VerifyDigest(got.Digest, []byte(tt.doc)) {
				t.Errorf("bytes %q with digest %s", got.Bytes, got.Digest)
			}
			got.Bytes, got.Digest = nil, ""
			if diff := cmp.Diff(&tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseManifestRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name        string
		contentType string
		doc         string
		fault       oci.Fault
		says        string
	}{
		{
			"too large", oci.MediaTypeOCIManifest, `{"a":"` + strings.Repeat("x", oci.MaxManifestSize) + `"}`, oci.FaultTooLarge,
			"4194304",
		},
		{"nothing", oci.MediaTypeOCIManifest, "", oci.FaultNotJSON, "JSON object"},
		{"HTML", "text/html", "<!doctype html><html>", oci.FaultNotJSON, "JSON object"},
		{"list", oci.MediaTypeOCIManifest, "[]", oci.FaultNotJSON, "JSON object"},
		{"cut short", oci.MediaTypeOCIManifest, `{"layers":[`, oci.FaultNotJSON, "at byte"},
		{"no closing brace", oci.MediaTypeOCIManifest, `{"layers":[]`, oci.FaultNotJSON, "at byte"},
		{"comma at the end", oci.MediaTypeOCIManifest, `{"layers":[],}`, oci.FaultNotJSON, "at byte"},
		{"key that is a number", oci.MediaTypeOCIManifest, `{1:2}`, oci.FaultNotJSON, "at byte"},
		{"wrong bracket", oci.MediaTypeOCIManifest, `{]`, oci.FaultNotJSON, "at byte"},
		{"second object", oci.MediaTypeOCIManifest, `{"layers":[]}{}`, oci.FaultNotJSON, "after the end"},
		{"text after the end", oci.MediaTypeOCIManifest, `{"layers":[]}x`, oci.FaultNotJSON, "after the end"},
		{"unknown type that is not JSON", "application/vnd.example", "x", oci.FaultNotJSON, "JSON object"},
		{
			"too deep", "application/vnd.example", strings.Repeat(`{"a":`, 65) + "1" + strings.Repeat("}", 65), oci.FaultTooDeep,
			"65",
		},
		{"manifests and layers", oci.MediaTypeOCIManifest, `{"manifests":[],"layers":[]}`, oci.FaultAmbiguous, `"layers"`},
		{"manifests and config", oci.MediaTypeOCIIndex, `{"manifests":[],"config":{}}`, oci.FaultAmbiguous, `"config"`},
		{"manifests and fsLayers", oci.MediaTypeOCIIndex, `{"fsLayers":[],"manifests":[]}`, oci.FaultAmbiguous, `"fsLayers"`},
		{"manifests and blobs", "", `{"blobs":[],"manifests":[]}`, oci.FaultAmbiguous, `"blobs"`},
		{"null counts", oci.MediaTypeOCIManifest, `{"manifests":null,"layers":[]}`, oci.FaultAmbiguous, `"manifests"`},
		{"escapes in a key count", "", `{"manifests":[],"\u006cayers":[]}`, oci.FaultAmbiguous, `"layers"`},
		{"capitals in a key", oci.MediaTypeOCIManifest, `{"Manifests":[],"layers":[]}`, oci.FaultAmbiguous, `"Manifests"`},
		{"long s in a key", oci.MediaTypeOCIManifest, `{"layer\u017f":[]}`, oci.FaultAmbiguous, `"layers"`},
		{"layers twice", oci.MediaTypeOCIManifest, `{"layers":[],"layers":[]}`, oci.FaultAmbiguous, "more than once"},
		{
			"layers three times", oci.MediaTypeOCIManifest, `{"layers":1,"layers":2,"layers":3}`, oci.FaultAmbiguous,
			"more than once",
		},
		{"mediaType twice", "", `{"mediaType":"a/b","mediaType":"a/b"}`, oci.FaultAmbiguous, "more than once"},
		{"index with layers", oci.MediaTypeOCIIndex, `{"layers":[]}`, oci.FaultAmbiguous, "index"},
		{"image with manifests", oci.MediaTypeOCIManifest, `{"manifests":[]}`, oci.FaultAmbiguous, "image"},
		{"schema 1 with manifests", oci.MediaTypeDockerSchema1, `{"manifests":[]}`, oci.FaultAmbiguous, "image"},
		{"schema 1 with layers", oci.MediaTypeDockerSchema1, `{"fsLayers":[],"layers":[]}`, oci.FaultAmbiguous, `"fsLayers"`},
		{
			"sent as an index, has layers and a type of its own", oci.MediaTypeOCIIndex, `{"mediaType":"a/b","layers":[]}`,
			oci.FaultAmbiguous, "index",
		},
		{
			"image sent as an index", oci.MediaTypeOCIIndex, `{"mediaType":"` + oci.MediaTypeOCIManifest + `"}`,
			oci.FaultAmbiguous, "sent as",
		},
		{
			"index sent as an image", oci.MediaTypeDockerManifest, `{"mediaType":"` + oci.MediaTypeOCIIndex + `"}`,
			oci.FaultAmbiguous, "sent as",
		},
		{
			"index sent as schema 1", oci.MediaTypeDockerSchema1, `{"mediaType":"` + oci.MediaTypeOCIIndex + `"}`,
			oci.FaultAmbiguous, "sent as",
		},
		{"mediaType that is a number", "", `{"mediaType":1}`, oci.FaultMediaType, "not a string"},
		{"mediaType that would end a header", "", `{"mediaType":"a/b\r\nSet-Cookie: x"}`, oci.FaultMediaType, `\r\n`},
		{"artifactType that is a list", oci.MediaTypeOCIManifest, `{"artifactType":[]}`, oci.FaultMediaType, "artifactType"},
		{"layers that is an object", oci.MediaTypeOCIManifest, `{"layers":{}}`, oci.FaultBadDescriptor, "not a list"},
		{"config that is a list", oci.MediaTypeOCIManifest, `{"config":[]}`, oci.FaultBadDescriptor, "config"},
		{"null for a layer", oci.MediaTypeOCIManifest, `{"layers":[null]}`, oci.FaultBadDescriptor, "layers[0]"},
		{
			"size that is a string", oci.MediaTypeOCIManifest, `{"layers":[{"size":"1"}]}`, oci.FaultBadDescriptor,
			"its size is a string",
		},
		{
			"size that is negative", oci.MediaTypeOCIManifest,
			fmt.Sprintf(`{"layers":[%s,%s]}`, desc("", sum256, 1), desc("", sum256, -1)), oci.FaultBadDescriptor, "layers[1]",
		},
		{
			"size that is a fraction", oci.MediaTypeOCIManifest, `{"layers":[{"digest":"` + sum256 + `","size":1.5}]}`,
			oci.FaultBadDescriptor, "size",
		},
		{
			"size beyond int64", oci.MediaTypeOCIManifest, `{"layers":[{"digest":"` + sum256 + `","size":9223372036854775808}]}`,
			oci.FaultBadDescriptor, "size",
		},
		{
			"digest that climbs", oci.MediaTypeOCIManifest, `{"config":{"digest":"sha256:../../etc/passwd","size":1}}`,
			oci.FaultBadDescriptor, "config",
		},
		{
			"digest with capitals", oci.MediaTypeOCIIndex,
			fmt.Sprintf(`{"manifests":[%s]}`, desc("", "sha256:"+strings.ToUpper(hex64), 1)), oci.FaultBadDescriptor,
			"manifests[0]",
		},
		{"subject without a digest", oci.MediaTypeOCIManifest, `{"subject":{}}`, oci.FaultBadDescriptor, "subject"},
		{
			"a million empty layers", oci.MediaTypeOCIManifest, `{"layers":[{}` + strings.Repeat(`,{}`, 1_000_000) + `]}`,
			oci.FaultBadDescriptor, "layers[0]",
		},
		{"too many layers", oci.MediaTypeOCIManifest, many("layers", 10_001), oci.FaultTooMany, "10000"},
		{"too many manifests", oci.MediaTypeOCIIndex, many("manifests", 10_001), oci.FaultTooMany, "10000"},
		{
			"config is counted", oci.MediaTypeOCIManifest,
			`{"config":` + desc("", sum256, 1) + "," + many("layers", 10_000)[1:], oci.FaultTooMany, "10000",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m, err := oci.ParseManifest(tt.contentType, []byte(tt.doc))
			if err == nil {
				t.Fatalf("accepted as %s with %d children", m.MediaType, len(m.Children))
			}
			e, ok := errors.AsType[*oci.ManifestError](err)
			if !ok {
				t.Fatalf("error is a %T", err)
			}
			if e.Fault != tt.fault || !strings.Contains(e.Detail, tt.says) {
				t.Errorf("fault %s: %s; want %s: ...%s...", e.Fault, e.Detail, tt.fault, tt.says)
			}
		})
	}
}

func TestParseManifestAtTheLimits(t *testing.T) {
	t.Parallel()
	m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, []byte(many("layers", 10_000)))
	if err != nil || len(m.Children) != 10_000 {
		t.Errorf("10,000 layers: %v", err)
	}
	doc := `{"x":"` + strings.Repeat("x", oci.MaxManifestSize-len(`{"x":""}`)) + `"}`
	if _, err := oci.ParseManifest("application/vnd.example", []byte(doc)); err != nil {
		t.Errorf("%d bytes: %v", len(doc), err)
	}
	doc = strings.Repeat(`{"a":`, 64) + "1" + strings.Repeat("}", 64)
	if _, err := oci.ParseManifest("application/vnd.example", []byte(doc)); err != nil {
		t.Errorf("64 levels: %v", err)
	}
}

func TestMediaTypes(t *testing.T) {
	t.Parallel()
	for _, mt := range []string{
		oci.MediaTypeOCIIndex, oci.MediaTypeDockerManifestList, oci.MediaTypeOCIManifest, oci.MediaTypeDockerManifest,
		oci.MediaTypeOCIArtifactManifest,
	} {
		if !strings.Contains(oci.AcceptManifests, mt) {
			t.Errorf("Accept lacks %s", mt)
		}
		want := strings.Contains(mt, "index") || strings.Contains(mt, "list")
		if got := oci.IsIndex(mt); got != want {
			t.Errorf("IsIndex(%s) = %v", mt, got)
		}
	}
	if !strings.HasSuffix(oci.AcceptManifests, ", */*") {
		t.Errorf("Accept %q does not end in */*", oci.AcceptManifests)
	}
}

func TestEmptyIndex(t *testing.T) {
	t.Parallel()
	var doc map[string]any
	if err := json.Unmarshal(oci.EmptyIndex(), &doc); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"schemaVersion": 2.0, "mediaType": oci.MediaTypeOCIIndex, "manifests": []any{}}
	if diff := cmp.Diff(want, doc); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	oci.EmptyIndex()[0] = 'x'
	if oci.EmptyIndex()[0] != '{' {
		t.Error("callers share the bytes")
	}
}

func FuzzParseManifest(f *testing.F) {
	image := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s,"layers":[%s]}`, oci.MediaTypeOCIManifest,
		desc(configType, sum256, 7), desc(layerType, sum512, 8))
	index := fmt.Sprintf(`{"schemaVersion":2,"manifests":[%s]}`, desc(oci.MediaTypeOCIManifest, sum256, 7))
	for _, doc := range []string{
		image, index, `{}`, `[]`, `{"manifests":[],"layers":[]}`, `{"Layers":[]}`, `{"layers":null}`, `{"fsLayers":[]}`,
		`{"layers":[{}]}`, `{"mediaType":"a/b"}`, `{"blobs":[],"artifactType":"a/b"}`, `{"subject":{}}`, `{"a":[[[[]]]]}`,
		`{"layer\u017f":[],"config":null}`, "\xff", `{"layers":[]}x`,
	} {
		for _, ct := range []string{"", oci.MediaTypeOCIManifest, oci.MediaTypeOCIIndex, "application/json; x=y", "a/b"} {
			f.Add(ct, []byte(doc))
		}
	}
	f.Fuzz(func(t *testing.T, contentType string, b []byte) {
		m, err := oci.ParseManifest(contentType, b)
		if err != nil {
			if _, ok := errors.AsType[*oci.ManifestError](err); !ok {
				t.Fatalf("error is a %T: %v", err, err)
			}
			return
		}
		if string(m.Bytes) != string(b) || !oci.VerifyDigest(m.Digest, b) || m.MediaType == "" {
			t.Fatalf("digest %s, media type %q", m.Digest, m.MediaType)
		}
		for _, c := range m.Children {
			if _, err := oci.ParseDigest(string(c.Digest)); err != nil || c.Size < -1 {
				t.Fatalf("child %+v: %v", c, err)
			}
		}
		checkLikeContainerd(t, m)
		again, err := oci.ParseManifest(m.MediaType, b)
		if err != nil {
			t.Fatalf("with its own type %s: %v", m.MediaType, err)
		}
		if diff := cmp.Diff(m, again); diff != "" {
			t.Fatalf("with its own type (-first +again):\n%s", diff)
		}
	})
}

// checkLikeContainerd reads the document as Go clients do, case folded and with the last key winning: both agree on what is an
// index, with its entries, and what is an image.
func checkLikeContainerd(t *testing.T, m *oci.Manifest) {
	t.Helper()
	if !json.Valid(m.Bytes) {
		t.Fatal("accepted what is not JSON")
	}
	if len(m.Children) == 0 {
		return
	}
	var doc struct {
		Config    *oci.Descriptor
		Layers    []oci.Descriptor
		Blobs     []oci.Descriptor
		Manifests []oci.Descriptor
	}
	if err := json.Unmarshal(m.Bytes, &doc); err != nil {
		return // a key that this form does not use, of a shape that the client would refuse
	}
	var want []oci.Digest
	if doc.Config != nil && !m.Children[0].Manifest {
		want = append(want, doc.Config.Digest)
	}
	for _, list := range [][]oci.Descriptor{doc.Layers, doc.Blobs, doc.Manifests} {
		for _, d := range list {
			want = append(want, d.Digest)
		}
	}
	var got []oci.Digest
	for _, c := range m.Children {
		got = append(got, c.Digest)
		if c.Manifest != (len(doc.Manifests) > 0) {
			t.Fatalf("child %s: manifest %v, document has %d manifests", c.Digest, c.Manifest, len(doc.Manifests))
		}
	}
	if m.MediaType == oci.MediaTypeOCIArtifactManifest || len(doc.Blobs) > 0 {
		return // each form reads one of layers and blobs
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatalf("children (-as a client reads them +ours):\n%s", diff)
	}
}

func desc(mediaType, digest string, size int64) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d}`, mediaType, digest, size)
}

func many(key string, n int) string {
	return fmt.Sprintf(`{%q:[%s%s]}`, key, desc("", sum256, 1), strings.Repeat(","+desc("", sum256, 1), n-1))
}

func blob(mediaType string, d oci.Digest, size int64) oci.Child {
	return oci.Child{Descriptor: oci.Descriptor{MediaType: mediaType, Digest: d, Size: size}}
}

func manifest(mediaType string, d oci.Digest, size int64) oci.Child {
	c := blob(mediaType, d, size)
	c.Manifest = true
	return c
}

// The memory of a manifest of the largest size: with little text for each entry that of the entries, with much text that of the
// bytes alone.
func TestParseManifestCosts(t *testing.T) { //nolint:paralleltest // it counts what the process allocates
	fill := func(entry string) []byte {
		n := min(10_000, (oci.MaxManifestSize-30)/(len(entry)+1))
		return []byte(`{"layers":[` + entry + strings.Repeat(","+entry, n-1) + `]}`)
	}
	plain := strings.TrimSuffix(desc(layerType, sum256, 1), "}")
	for name, doc := range map[string][]byte{
		"10,000 entries": fill(plain + `}`),
		"annotations":    fill(plain + `,"annotations":{"k":"` + strings.Repeat("v", 300) + `"` + strings.Repeat(`,"kk":"v"`, 30) + `}}`),
		"data":           fill(plain + `,"data":"` + strings.Repeat("QUJD", 80) + `"}`),
		"addresses":      fill(plain + `,"urls":["",""` + strings.Repeat(`,""`, 100) + `]}`),
		"features":       fill(plain + `,"platform":{"os":"linux","os.features":["x"` + strings.Repeat(`,"x"`, 60) + `]}}`),
		"one of all":     fill(plain + `,"urls":["` + strings.Repeat("x", 4_000_000) + `"]}`),
		"other keys":     []byte(`{"layers":[` + plain + `}]` + strings.Repeat(`,"a":1`, 600_000) + `}`),
	} {
		const most = 12 << 20 // beside the document itself, garbage included
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		m, err := oci.ParseManifest(oci.MediaTypeOCIManifest, doc)
		runtime.ReadMemStats(&after)
		if err != nil || len(m.Children) == 0 {
			t.Errorf("%s: %v", name, err)
		}
		if got := after.TotalAlloc - before.TotalAlloc; got > most {
			t.Errorf("%s: %d bytes took %d more, want at most %d", name, len(doc), got, most)
		}
	}
}
