package strictyaml_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// config has a field of each kind.
type config struct {
	Name    string        `yaml:"name" reload:"restart"`
	On      bool          `yaml:"on"`
	Workers int           `yaml:"workers"`
	Wait    time.Duration `yaml:"wait"`
	Level   string        `yaml:"level" enum:"low,high"`
	Color   color         `yaml:"color"`
	Log     logging       `yaml:"log,omitzero"`
	Debug   *logging      `yaml:"debug,omitzero"`
	Hosts   []host        `yaml:"hosts"`
	Zones   zones         `yaml:"zones"`
	Labels  labels        `yaml:"labels"`
	Secret  string        `yaml:"-"`
}

type (
	labels map[string]string
	zones  []zone
)

type logging struct {
	File   string `yaml:"file,omitzero" path:"file"`
	Format string `yaml:"format,omitzero"`
}

type host struct {
	URL  string `yaml:"url,short"`
	Port int    `yaml:"port,omitzero"`
}

type zone struct {
	name  string
	Count int `yaml:"count"`
}

func (z *zone) SetKey(written string) { *z = zone{name: strings.ToLower(written), Count: 3} }
func (z *zone) Key() string           { return z.name }

// color is a type that reads its own text.
type color string

func (c *color) UnmarshalText(text []byte) error {
	if len(text) != 4 || text[0] != '#' {
		return strictyaml.BadValue(string(text), "a color", "write as in #fff")
	}
	*c = color(text)
	return nil
}

func (c *color) String() string { return string(*c) }

var schema = strictyaml.New(config{}, strictyaml.Options{
	Hints:    map[string]map[string]string{"log": {"path": "write file"}},
	Synonyms: map[string]string{"n": "name"},
	MappingHint: func(path, value string, list bool) string {
		if path == "log" && !list {
			return "write {file: " + value + "}"
		}
		return ""
	},
	SameKey:     "zones have no case",
	EnvPrefix:   "APP_",
	EnvReserved: []string{"APP_LOG_FILE"},
	EnvHint:     "see app help",
})

func defaults() *config {
	return &config{Name: "app", Workers: 1, Wait: time.Second, Level: "low", Color: "#fff"}
}

// decode reads a text, checks it, and returns the struct and the problems, one a line.
func decode(text string, env ...string) (*config, []string) {
	c := defaults()
	doc := schema.Decode("app.yaml", []byte(text), env, c)
	if doc.Readable {
		for i, h := range c.Hosts {
			if h.Port == 0 {
				doc.Report(strictyaml.Mistake{Path: strictyaml.Index("hosts", i) + ".url", Message: "has no port"})
			}
		}
		if c.On && c.Log.File == "" {
			doc.Report(strictyaml.Mistake{Path: "log.file", Message: "is missing", Beside: []string{"on"}})
		}
	}
	invalid, _ := errors.AsType[*strictyaml.Invalid](doc.Err())
	if invalid == nil {
		return c, nil
	}
	var list []string
	for _, p := range invalid.Problems {
		list = append(list, p.String())
	}
	return c, list
}

func TestDecode(t *testing.T) {
	t.Parallel()
	got, problems := decode(`
name: x
on: true
workers: 4
wait: 1m30s
level: high
color: '#abc'
log: {file: a.log}
debug:
hosts: [{url: a, port: 1}, {url: b, port: 2}]
zones: {B: {count: 5}, a: }
labels: {k: v}
`, "APP_WORKERS=8", "APP_LOG_FORMAT=json", "OTHER=1")
	want := &config{
		Name: "x", On: true, Workers: 8, Wait: 90 * time.Second, Level: "high", Color: "#abc", Log: logging{"a.log", "json"},
		Debug: &logging{}, Hosts: []host{{"a", 1}, {"b", 2}}, Zones: zones{{"b", 5}, {"a", 3}}, Labels: labels{"k": "v"},
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(zone{})); diff != "" || problems != nil {
		t.Errorf("%s%q", diff, problems)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text, want string
		env        []string
	}{
		{text: "nmae: x", want: `app.yaml:1:1: nmae: unknown key (did you mean "name"?)`},
		{text: "log: {path: x}", want: `app.yaml:1:7: log.path: unknown key (write file)`},
		{text: "count: 1", want: `app.yaml:1:1: count: unknown key (it belongs at zones.NAME.count)`},
		{text: "n: 1", want: `app.yaml:1:1: n: unknown key (did you mean "on"?)`},
		{text: "port: 1", want: `app.yaml:1:1: port: unknown key (it belongs at hosts[].port)`},
		{text: "log: a.log", want: `app.yaml:1:6: log: is one value and must have keys (write {file: a.log})`},
		{text: "debug: [x]", want: `app.yaml:1:8: debug: is a list and must have keys (write KEY: VALUE, one a line)`},
		{text: "color: red", want: `app.yaml:1:8: color: "red" is not a color (write as in #fff)`},
		{text: "level: hgih", want: `app.yaml:1:8: level: "hgih" is not one of low, high (did you mean "high"?)`},
		{text: "workers: 0", want: `app.yaml:1:10: workers: "0" is not a number from 1 on (write digits alone, as in 32)`},
		{text: "zones: {a: {}, A: {}}", want: `app.yaml:1:16: zones.a: in the list twice (zones have no case; the first is on line 1)`},
		{text: "hosts: [a]", want: `app.yaml:1:9: hosts[0]: has no port`},
		{text: "hosts: [{url: a}]", want: `app.yaml:1:15: hosts[0].url: has no port`},
		{text: "hosts: [{url: a, prot: 1}]", want: `app.yaml:1:18: hosts[0].prot: unknown key (did you mean "port"?)`},
		{text: "on: true", want: `app.yaml:1:5: log.file: is missing`},
		{env: []string{"APP_ON=true"}, want: `APP_ON: log.file: is missing`},
		{env: []string{"APP_NAEM=x"}, want: `APP_NAEM: no such setting (did you mean "APP_NAME"?)`},
		{env: []string{"APP_LOG_COLOUR=x"}, want: `APP_LOG_COLOUR: no such setting (see app help)`},
		{env: []string{"APP_ZONES_A=1"}, want: `APP_ZONES_A: a variable can't set it (their keys are names: set it in the file)`},
		{text: "name: https://u:hunter2@x\nnmae: https://u:hunter2@x\nlog: 'https://u:hunter2@x'", want: `app.yaml:2:1: nmae: unknown key (did you mean "name"?)` + "\n" +
			`app.yaml:3:6: log: is one value and must have keys (write {file: https://***@x})`},
	} {
		_, problems := decode(tt.text, tt.env...)
		if got := strings.Join(problems, "\n"); got != tt.want {
			t.Errorf("%s %q\n got %s\nwant %s", tt.text, tt.env, got, tt.want)
		}
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	c := defaults()
	c.Hosts, c.Zones, c.Labels = []host{{URL: "a"}, {URL: "b", Port: 2}}, zones{{"z", 1}}, labels{"true": ""}
	c.Debug = &logging{}
	got, err := schema.Print(c, []strictyaml.Override{{Variable: "APP_WAIT", Path: "wait"}})
	want := `name: app # a change needs a restart
on: false
workers: 1
wait: 1s # from APP_WAIT
level: low
color: '#fff'
debug: {}
hosts: [a, {url: b, port: 2}]
zones:
  z:
    count: 1
labels:
  'true': ''
`
	if diff := cmp.Diff(want, string(got)); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
}

func TestVisit(t *testing.T) {
	t.Parallel()
	c := defaults()
	c.Hosts, c.Zones, c.Log.File = []host{{URL: "a", Port: 1}}, zones{{"z", 1}}, "x"
	var got []string
	schema.Visit(c, func(s strictyaml.Setting) {
		if s.Value.Kind() != reflect.Slice {
			got = append(got, fmt.Sprint(s.Path, "=", strictyaml.Text(s.Value), s.Field.Path))
		}
	})
	want := []string{
		"name=app", "on=false", "workers=1", "wait=1s", "level=low", "color=#fff", "log.file=xfile", "log.format=", "hosts[0].url=a",
		"hosts[0].port=1", "zones.z.count=1",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// FuzzDecode checks that no text makes Decode fail other than with problems that have a place, and that the printed form of
// what it accepts reads back as the same values.
func FuzzDecode(f *testing.F) {
	for _, text := range []string{
		"name: x\non: true\nlog: {file: y}\n", "hosts: [a, {url: b, port: 2}]\n", "zones: {a: {count: 2}, b: }\nlabels: {a: b, c: '#'}\n",
		"a: &a [*a]\n", "? [a]\n: b\n", "<<: {name: x}\n", "name: !!binary aGk=\n", "name: |\n  a\n  b\n", "zones: {'a.b[0]': {x: 1}}\n",
		"\xef\xbb\xbfname: y", "a: \x00", "{]", "color: '#123'\n---\n", "wait: 1h\nlevel: high\ndebug: {format: '%'}\n",
	} {
		f.Add(text, "APP_NAME=x\nAPP_WAIT=1\nAPP_ZONES=\nAPP_X=1")
	}
	f.Fuzz(func(t *testing.T, text, variables string) {
		c := defaults()
		doc := schema.Decode("app.yaml", []byte(text), strings.Split(variables, "\n"), c)
		if err := doc.Err(); err != nil {
			invalid, _ := errors.AsType[*strictyaml.Invalid](err)
			for _, p := range invalid.Problems {
				inFile := p.Variable == "" && p.Line > 0 && p.Column > 0
				inEnv := p.Variable != "" && p.Line == 0 && strings.Contains(variables, p.Variable+"=")
				if !inFile && !inEnv || p.Message == "" {
					t.Errorf("a problem without a place: %+v", p)
				}
			}
			return
		}
		out, err := schema.Print(c, doc.Overrides)
		if err != nil {
			t.Fatal(err)
		}
		again := defaults()
		if err := schema.Decode("app.yaml", out, nil, again).Err(); err != nil {
			t.Fatalf("the printed form is refused: %v\n%s", err, out)
		}
		if diff := cmp.Diff(c, again, cmp.AllowUnexported(zone{}), cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s\n%s", diff, out)
		}
	})
}
