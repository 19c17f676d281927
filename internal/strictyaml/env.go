package strictyaml

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"unicode"
)

// Variable is the variable that sets the setting at a path: APP_CACHE_MIN_FREE for cache.minFree. The spelling without
// underscores inside a key, APP_CACHE_MINFREE, works as well, and is the only one where the first is reserved.
func (s *Schema) Variable(path string) string {
	var b strings.Builder
	for _, r := range path {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	name := s.o.EnvPrefix + strings.ReplaceAll(b.String(), ".", "_")
	if slices.Contains(s.o.EnvReserved, name) {
		return s.plainVariable(path)
	}
	return name
}

func (s *Schema) plainVariable(path string) string {
	return s.o.EnvPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// listVariables returns the paths that a variable can name, by variable.
func (s *Schema) listVariables() map[string]string {
	names := map[string]string{}
	for _, p := range s.paths() {
		if !strings.Contains(p.pattern, "*") {
			names[s.Variable(p.pattern)] = p.pattern
			names[s.plainVariable(p.pattern)] = p.pattern
		}
	}
	return names
}

// SettingOf is the setting that a word is meant to be, and the variable that sets it: cache-dir and cacheDir mean cache.dir,
// and so does dir where no other setting's path ends so.
func (s *Schema) SettingOf(word string) (path, variable string, ok bool) {
	if path := s.o.Synonyms[bare(word)]; path != "" {
		return path, s.Variable(path), true
	}
	var ends []string
	for _, p := range s.paths() {
		if !s.canSet(p) {
			continue
		}
		if bare(p.pattern) == bare(word) {
			return p.pattern, s.Variable(p.pattern), true
		}
		if i := strings.LastIndexByte(p.pattern, '.'); bare(p.pattern[i+1:]) == bare(word) {
			ends = append(ends, p.pattern)
		}
	}
	if len(ends) != 1 {
		return "", "", false
	}
	return ends[0], s.Variable(ends[0]), true
}

// bare is a word without case and what separates its parts.
func bare(word string) string {
	return strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "").Replace(word))
}

// canSet reports whether a variable can set a path.
func (s *Schema) canSet(p listedPath) bool {
	return p.single && !strings.Contains(p.pattern, "*")
}

// find returns the value of v at a path without *, and its field.
func find(v reflect.Value, path string) (_ reflect.Value, f Field) {
	for key := range strings.SplitSeq(path, ".") {
		if v.Kind() == reflect.Pointer {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		fields := Fields(v.Type())
		f = fields[slices.IndexFunc(fields, func(f Field) bool { return f.Key == key })]
		v = v.Field(f.Index)
	}
	return v, f
}

// overlay sets in v what the variables say.
func (d *decoder) overlay(env []string, v reflect.Value) {
	o := d.schema.o
	values := map[string]string{}
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok && o.EnvPrefix != "" && strings.HasPrefix(name, o.EnvPrefix) {
			values[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if slices.Contains(o.EnvReserved, name) || o.EnvForeign != nil && o.EnvForeign.MatchString(name) {
			continue
		}
		path, ok := d.schema.variables()[name]
		if !ok {
			d.unknownVariable(name)
			continue
		}
		if at := d.places[path]; at.variable != "" && values[at.variable] != values[name] {
			d.variable(name, path, "set twice", at.variable+" sets it as well: remove one")
			continue
		}
		if d.setVariable(name, path, values[name], v) {
			d.places[path] = place{variable: name}
			d.Overrides = append(d.Overrides, Override{Variable: name, Path: path})
		}
	}
}

// setVariable sets path to text and reports whether that worked.
func (d *decoder) setVariable(name, path, text string, root reflect.Value) bool {
	v, f := find(root, path)
	got := reflect.New(v.Type()).Elem()
	if !IsText(got) {
		hint := "set it in the file"
		if got.Kind() == reflect.Struct {
			hint = "set its keys one by one, or set it in the file"
		}
		d.variable(name, path, "a variable can't set it", hint)
		return false
	}
	err := setText(got, text)
	if err == nil {
		err = d.schema.checkWord(f, got, path)
	}
	if err != nil {
		message, hint := explain(err)
		d.variable(name, path, message, hint)
		return false
	}
	v.Set(got)
	return true
}

// unknownVariable reports a variable that looks like one of a setting. Others with the prefix belong to other programs.
func (d *decoder) unknownVariable(name string) {
	s := d.schema
	rest := strings.TrimPrefix(name, s.o.EnvPrefix)
	var known []string
	for _, p := range s.paths() {
		if s.canSet(p) {
			known = append(known, s.Variable(p.pattern)[len(s.o.EnvPrefix):], s.plainVariable(p.pattern)[len(s.o.EnvPrefix):])
		}
	}
	slices.Sort(known)
	near := Nearest(rest, known)
	if i := slices.IndexFunc(known, func(n string) bool { return strings.HasPrefix(n, rest) }); near == "" && i >= 0 {
		near = known[i]
	}
	word, _, _ := strings.Cut(rest, "_")
	section := slices.IndexFunc(Fields(s.root), func(f Field) bool { return strings.EqualFold(f.Key, word) })
	switch {
	case section >= 0 && hasNames(s.root.Field(Fields(s.root)[section].Index).Type):
		d.variable(name, "", "a variable can't set it", "their keys are names: set it in the file")
	case near != "":
		d.variable(name, "", "no such setting", DidYouMean(s.o.EnvPrefix+near))
	case section >= 0:
		d.variable(name, "", "no such setting", s.o.EnvHint)
	}
}

// hasNames reports whether the keys below a setting of a type are names that the operator chooses.
func hasNames(t reflect.Type) bool { return isKeyed(t) || t.Kind() == reflect.Map }

func (d *decoder) variable(name, path, message, hint string) {
	d.addProblem(Problem{Variable: name, Path: path, Message: message, Hint: hint})
}
