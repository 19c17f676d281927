package config

import (
	"encoding"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// field is what the tags of a struct's field say.
type field struct {
	index   int
	key     string
	short   bool // a plain value in place of the mapping sets it
	enum    []string
	path    string // "file", "dir", or "own" where the value names one
	restart bool
}

var fieldCache sync.Map // reflect.Type to []field

// fieldsOf returns the fields of a struct that have a key, in order.
func fieldsOf(t reflect.Type) []field {
	if fs, ok := fieldCache.Load(t); ok {
		return fs.([]field)
	}
	var fs []field
	for i := range t.NumField() {
		tag := t.Field(i).Tag
		key, short := strings.CutSuffix(tag.Get("yaml"), ",short")
		if key == "-" {
			continue
		}
		f := field{index: i, key: key, short: short, path: tag.Get("path"), restart: tag.Get("reload") == "restart"}
		if words := tag.Get("enum"); words != "" {
			f.enum = strings.Split(words, ",")
		}
		fs = append(fs, f)
	}
	fieldCache.Store(t, fs)
	return fs
}

// spot is the place of a value in the tree: its path as people see it, and as the table of unavailable settings has it,
// with * for every key and index that the operator chose.
type spot struct{ path, pattern string }

func (s spot) key(key string) spot    { return spot{join(s.path, key), join(s.pattern, key)} }
func (s spot) chosen(key string) spot { return spot{join(s.path, key), join(s.pattern, "*")} }

func (s spot) index(i int) spot {
	return spot{s.path + "[" + strconv.Itoa(i) + "]", join(s.pattern, "*")}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// parent is the path one level up, or "".
func parent(path string) string { return path[:max(strings.LastIndexAny(path, ".["), 0)] }

// isText reports whether v, which is addressable, is read from one plain value.
func isText(v reflect.Value) bool {
	if _, ok := reflect.TypeAssert[encoding.TextUnmarshaler](v.Addr()); ok {
		return true
	}
	switch v.Addr().Interface().(type) {
	case *string, *bool, *int, *time.Duration:
		return true
	}
	return false
}

// setText parses text into v. Its errors are *valueError.
func setText(v reflect.Value, text string) (err error) {
	switch p := v.Addr().Interface().(type) {
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	case *string:
		*p = text
	case *bool:
		*p, err = parseBool(text)
	case *int:
		*p, err = parseCount(text)
	case *time.Duration:
		*p, err = parseDuration(text)
	default:
		panic("config: no text for " + v.Type().String())
	}
	return err
}

// getText is the text from which setText makes v.
func getText(v reflect.Value) string {
	switch p := v.Addr().Interface().(type) {
	case *string:
		return *p
	case *bool:
		return strconv.FormatBool(*p)
	case *int:
		return strconv.Itoa(*p)
	case *time.Duration:
		return formatDuration(*p)
	case interface{ String() string }:
		return p.String()
	}
	panic("config: no text for " + v.Type().String())
}

// visit calls fn for each field below v, a struct, that holds a text or a list of strings. It leaves out what isn't
// available yet.
func visit(v reflect.Value, s spot, fn func(s spot, f field, v reflect.Value)) {
	for _, f := range fieldsOf(v.Type()) {
		child, at := v.Field(f.index), s.key(f.key)
		if !isAvailable(at.pattern) {
			continue
		}
		if child.Kind() == reflect.Pointer {
			if child.IsNil() {
				continue
			}
			child = child.Elem()
		}
		switch {
		case isText(child), child.Type() == reflect.TypeFor[[]string]():
			fn(at, f, child)
		case child.Kind() == reflect.Struct:
			visit(child, at, fn)
		case child.Type() == reflect.TypeFor[Upstreams]():
			for i := range child.Len() {
				visit(child.Index(i), at.chosen(child.Index(i).FieldByName("Name").String()), fn)
			}
		case child.Kind() == reflect.Slice:
			for i := range child.Len() {
				visit(child.Index(i), at.index(i), fn)
			}
		}
	}
}

// paths are those of every key there is, with * where the operator chooses.
var paths = sync.OnceValue(func() []string {
	var all []string
	var walk func(t reflect.Type, s spot)
	walk = func(t reflect.Type, s spot) {
		switch t.Kind() {
		case reflect.Pointer:
			walk(t.Elem(), s)
		case reflect.Slice, reflect.Map:
			walk(t.Elem(), s.chosen("*"))
		case reflect.Struct:
			if isText(reflect.New(t).Elem()) {
				return
			}
			for _, f := range fieldsOf(t) {
				at := s.key(f.key)
				all = append(all, at.pattern)
				walk(t.Field(f.index).Type, at)
			}
		}
	}
	walk(reflect.TypeFor[Config](), spot{})
	return all
})

// suggest says what may have been meant by a key that the mapping at a place, which has these fields, doesn't have. It
// names nothing that isn't available.
func suggest(key string, fs []field, s spot) string {
	if hint := meant(key, s.pattern); hint != "" {
		return hint
	}
	var keys []string
	for _, f := range fs {
		if of := s.key(f.key).pattern; available(of) && anyAvailable(of) {
			keys = append(keys, f.key)
		}
	}
	if near := Nearest(key, keys); near != "" {
		return didYouMean(near)
	}
	// Below the mapping first: what is one level too high is nearer than a setting of the same name elsewhere.
	for _, within := range []string{s.pattern, ""} {
		for _, p := range paths() {
			rest, inside := strings.CutPrefix(p, within)
			if inside && (p == key || strings.HasSuffix(rest, "."+key)) && available(p) {
				return "it belongs at " + strings.NewReplacer("upstreams.*", "upstreams.NAME", ".*", "[]").Replace(strings.TrimPrefix(rest, "."))
			}
		}
	}
	if path, _, ok := SettingOf(key); ok && s.path == "" && path != key {
		return "it belongs at " + path
	}
	slices.Sort(keys)
	if len(keys) == 0 {
		return "nothing can be set here"
	}
	return "there are " + strings.Join(keys, ", ")
}
