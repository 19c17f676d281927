package config

// Inside the package: the schema is made from the struct's tags.

import (
	"bytes"
	"encoding/json"
	"flag"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

var update = flag.Bool("update", false, "write schema.json")

func TestSchemaIsCurrent(t *testing.T) {
	g := generator{docs: fieldDocs(t, "config.go", "upstream.go", "tags.go", "credential.go", "webhook.go")}
	root := g.object(t, reflect.TypeFor[Config](), "", reflect.ValueOf(Default()).Elem())
	root["$schema"] = "https://json-schema.org/draft/2020-12/schema"
	root["title"] = "Configuration of mirror"
	var want bytes.Buffer
	e := json.NewEncoder(&want)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(root); err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile("schema.json", want.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want.String(), string(Schema())); diff != "" {
		t.Errorf("schema.json is not what the struct says; run: go generate ./config\n%s", diff)
	}
}

type generator struct {
	docs map[string]string // by Type.Field
}

const (
	durationPattern = `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`
	sizePattern     = `^[0-9]+(\.[0-9]+)? ?([KkMmGgTt]([Ii]([Bb])?|[Bb])|[Bb])?$`
	percentPattern  = `^[0-9]+(\.[0-9]+)? ?%$`
	nameSchema      = `^[A-Za-z0-9._*-]+(:[0-9]+)?$|^\[[0-9A-Fa-f:.]+\](:[0-9]+)?$`
)

// object is the schema of a struct. Where defaults is valid, its fields are those that hold when nothing is set.
func (g generator) object(t *testing.T, typ reflect.Type, at string, defaults reflect.Value) map[string]any {
	properties := map[string]any{}
	var short map[string]any
	for _, f := range strictyaml.Fields(typ) {
		here := strictyaml.Join(at, f.Key)
		var standard reflect.Value
		if defaults.IsValid() {
			standard = defaults.Field(f.Index)
		}
		p := g.value(t, typ.Field(f.Index).Type, here, standard)
		if f.Enum != nil {
			p["enum"] = f.Enum
		}
		doc := g.docs[typ.Name()+"."+typ.Field(f.Index).Name]
		if doc == "" {
			t.Errorf("%s.%s has no comment", typ.Name(), typ.Field(f.Index).Name)
		}
		p["description"] = doc
		properties[f.Key] = p
		if f.Short {
			short = p
		}
	}
	object := map[string]any{"type": []string{"object", "null"}, "additionalProperties": false}
	if len(properties) > 0 {
		object["properties"] = properties
	}
	if short != nil {
		object["type"] = "object"
		return map[string]any{"oneOf": []any{short, object}}
	}
	return object
}

func (g generator) value(t *testing.T, typ reflect.Type, at string, standard reflect.Value) map[string]any {
	m := map[string]any{}
	switch typ {
	case reflect.TypeFor[time.Duration]():
		m["type"], m["pattern"] = []string{"string", "integer"}, durationPattern+"|^0$"
		m["minimum"], m["maximum"] = 0, 0 // a number has no unit
	case reflect.TypeFor[Size]():
		m["type"], m["pattern"] = []string{"string", "integer"}, sizePattern
		m["minimum"] = 0
	case reflect.TypeFor[DiskShare]():
		m["type"], m["pattern"] = []string{"string", "integer"}, sizePattern+"|"+percentPattern
		m["minimum"] = 0
	case reflect.TypeFor[Percent]():
		m["type"], m["pattern"] = "string", percentPattern
	case reflect.TypeFor[Upstreams]():
		u := newUpstream("")
		return map[string]any{
			"type":                 "object",
			"minProperties":        1,
			"propertyNames":        map[string]any{"pattern": nameSchema},
			"additionalProperties": g.object(t, reflect.TypeFor[Upstream](), strictyaml.Join(at, "*"), reflect.ValueOf(&u).Elem()),
		}
	case reflect.TypeFor[Webhooks]():
		return map[string]any{
			"type":                 []string{"object", "null"},
			"propertyNames":        map[string]any{"pattern": namePattern.String()},
			"additionalProperties": g.object(t, reflect.TypeFor[Webhook](), strictyaml.Join(at, "*"), reflect.Value{}),
		}
	default:
		switch typ.Kind() {
		case reflect.Pointer:
			return g.value(t, typ.Elem(), at, reflect.Value{})
		case reflect.String:
			m["type"] = "string"
		case reflect.Bool:
			m["type"] = "boolean"
		case reflect.Int:
			m["type"], m["minimum"] = "integer", 1
		case reflect.Struct:
			return g.object(t, typ, at, standard)
		case reflect.Slice:
			return map[string]any{
				"type":  []string{"array", "null"},
				"items": g.value(t, typ.Elem(), strictyaml.Join(at, "*"), reflect.Value{}),
			}
		case reflect.Map:
			return map[string]any{
				"type":                 []string{"object", "null"},
				"additionalProperties": g.value(t, typ.Elem(), strictyaml.Join(at, "*"), reflect.Value{}),
			}
		default:
			t.Fatalf("%s: no schema for %s", at, typ)
		}
	}
	if standard.IsValid() && (typ.Kind() != reflect.String || standard.String() != "") {
		m["default"] = strictyaml.Text(standard)
		if typ.Kind() == reflect.Bool || typ == reflect.TypeFor[int]() {
			m["default"] = standard.Interface()
		}
	}
	return m
}

// fieldDocs are the comments of struct fields, each as one line.
func fieldDocs(t *testing.T, files ...string) map[string]string {
	t.Helper()
	docs := map[string]string{}
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if st, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range st.Fields.List {
					for _, id := range f.Names {
						docs[spec.Name.Name+"."+id.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
					}
				}
			}
			return false
		})
	}
	return docs
}
