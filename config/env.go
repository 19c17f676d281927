package config

import (
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"unicode"
)

const envPrefix = "MIRROR_"

// notSettings are variables of ours that the command line reads: the file to load, and how to reach a running mirror.
var notSettings = []string{"MIRROR_CONFIG", "MIRROR_ADMIN", "MIRROR_ADMIN_TOKEN_FILE", "MIRROR_ADMIN_CA"}

// serviceLinks are what a kubelet sets for every Service of the namespace; one called mirror, or mirror-admin, gives
// MIRROR_PORT_5000_TCP_ADDR and a dozen more.
var serviceLinks = regexp.MustCompile(
	`^MIRROR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// EnvName is the variable that sets the path: MIRROR_CACHE_MIN_FREE for cache.minFree. The spelling without an
// underscore inside a key, MIRROR_CACHE_MINFREE, works as well. It is the only one of admin.tokenFile, since
// MIRROR_ADMIN_TOKEN_FILE is the command line's.
func EnvName(path string) string {
	var b strings.Builder
	b.WriteString(envPrefix)
	for _, r := range path {
		if unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToUpper(r))
	}
	name := strings.ReplaceAll(b.String(), ".", "_")
	if slices.Contains(notSettings, name) {
		return plainEnvName(path)
	}
	return name
}

func plainEnvName(path string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(path, ".", "_"))
}

// envSettings are the paths that a variable can set, by variable.
var envSettings = sync.OnceValue(func() map[string]string {
	names := map[string]string{}
	for _, path := range paths() {
		if !strings.Contains(path, "*") {
			names[EnvName(path)] = path
			names[plainEnvName(path)] = path
		}
	}
	return names
})

// settingWords are what other programs call some of the settings.
var settingWords = map[string]string{
	"port": "listen", "p": "listen", "bind": "listen", "addr": "listen", "address": "listen", "listenaddress": "listen", "listenaddr": "listen",
	"verbose": "log.level", "debug": "log.level", "loglevel": "log.level", "logformat": "log.format",
	"d": "cache.dir", "data": "cache.dir", "datadir": "cache.dir", "storage": "cache.dir", "cachedir": "cache.dir", "root": "cache.dir",
	"adminport": "admin.listen", "adminaddr": "admin.listen", "metricsport": "metrics.listen", "metricsaddr": "metrics.listen",
	"cert": "tls.cert", "tlscert": "tls.cert", "key": "tls.key", "tlskey": "tls.key", "maxsize": "cache.size", "cachesize": "cache.size",
}

// SettingOf is the setting that a word is meant to be, and the variable that sets it: listen, cache-dir and cacheDir are
// words for settings, as is the last part of a path where no other setting ends so.
func SettingOf(word string) (path, variable string, ok bool) {
	bare := func(s string) string {
		return strings.ToLower(strings.NewReplacer("-", "", "_", "", ".", "").Replace(s))
	}
	if path := settingWords[bare(word)]; path != "" {
		return path, EnvName(path), true
	}
	var ends []string
	for _, p := range slices.Compact(slices.Sorted(maps.Values(envSettings()))) {
		if v, _, _, missing := find(reflect.ValueOf(&Config{}).Elem(), p); missing || !isText(v) {
			continue
		}
		if bare(p) == bare(word) {
			return p, EnvName(p), true
		}
		if i := strings.LastIndexByte(p, '.'); bare(p[i+1:]) == bare(word) {
			ends = append(ends, p)
		}
	}
	if len(ends) != 1 {
		return "", "", false
	}
	return ends[0], EnvName(ends[0]), true
}

// overlay sets in c what the variables say. Relative paths in them stay relative to the working folder.
func (d *decoder) overlay(env []string, c *Config) {
	values := map[string]string{}
	for _, pair := range env {
		if name, value, ok := strings.Cut(pair, "="); ok && strings.HasPrefix(name, envPrefix) {
			values[name] = value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if slices.Contains(notSettings, name) || serviceLinks.MatchString(name) {
			continue
		}
		path, ok := envSettings()[name]
		if !ok {
			d.unknownVariable(name)
			continue
		}
		if at := d.places[path]; at.variable != "" && values[at.variable] != values[name] {
			d.variable(name, path, "set twice", at.variable+" sets it as well: remove one")
			continue
		}
		if d.setVariable(name, path, values[name], c) {
			d.places[path] = place{variable: name}
			c.Overrides = append(c.Overrides, Override{Variable: name, Path: path})
		}
	}
}

// setVariable sets path to text and reports whether that worked.
func (d *decoder) setVariable(name, path, text string, c *Config) bool {
	v, f, r, missing := find(reflect.ValueOf(c).Elem(), path)
	if missing && r.today == "" {
		d.variable(name, path, notYet, "unset the variable")
		return false
	}
	got := reflect.New(v.Type()).Elem()
	switch {
	case isText(got):
		err := setText(got, text)
		if err == nil {
			err = checkWord(f, got, path)
		}
		if err != nil {
			message, hint := explain(err)
			d.variable(name, path, message, hint)
			return false
		}
	case got.Kind() == reflect.Struct:
		d.variable(name, path, "a variable can't set it", "set its keys one by one, or set it in the file")
		return false
	default:
		d.variable(name, path, "a variable can't set it", "set it in the file")
		return false
	}
	if missing {
		if !isToday(got, r.today) {
			d.variable(name, path, notYet, "unset the variable")
		}
		return false
	}
	v.Set(got)
	return true
}

// find returns the value at a path without wildcards, its field, and the row that says it isn't built, if there is one.
func find(v reflect.Value, path string) (reflect.Value, field, row, bool) {
	var at string
	var f field
	for key := range strings.SplitSeq(path, ".") {
		fields := fieldsOf(v.Type())
		f = fields[slices.IndexFunc(fields, func(f field) bool { return f.key == key })]
		v, at = v.Field(f.index), join(at, key)
		if r, ok := unavailable[at]; ok {
			return v, f, r, true
		}
	}
	return v, f, row{}, false
}

// unknownVariable reports a variable that looks like one of ours. Others that begin with MIRROR_ are somebody else's.
func (d *decoder) unknownVariable(name string) {
	rest := strings.TrimPrefix(name, envPrefix)
	section, _, _ := strings.Cut(rest, "_")
	var known []string
	for n, path := range envSettings() {
		if v, _, _, _ := find(reflect.ValueOf(&Config{}).Elem(), path); isText(v) {
			known = append(known, strings.TrimPrefix(n, envPrefix))
		}
	}
	slices.Sort(known)
	near := Nearest(rest, known)
	if i := slices.IndexFunc(known, func(n string) bool { return strings.HasPrefix(n, rest) }); near == "" && i >= 0 {
		near = known[i]
	}
	if near != "" {
		near = envPrefix + near
	}
	switch {
	case section == "UPSTREAMS" || section == "WEBHOOKS":
		d.variable(name, "", "a variable can't set it", "their keys are names: set it in the file")
	case near != "":
		d.variable(name, "", "no such setting", didYouMean(near))
	case slices.ContainsFunc(fieldsOf(reflect.TypeFor[Config]()), func(f field) bool {
		return strings.EqualFold(f.key, section)
	}):
		d.variable(name, "", "no such setting", "mirror config print shows the settings there are")
	}
}

func (d *decoder) variable(name, path, message, hint string) {
	d.wrong[path] = true
	d.problems = append(d.problems, Problem{Variable: name, Path: path, Message: message, Hint: hint})
}
