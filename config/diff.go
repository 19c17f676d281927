package config

import (
	"reflect"
	"strings"
)

// restartTLS is what is named where TLS is switched on or off, by the setting that does. A running mirror does take another
// certificate.
var restartTLS = map[string]string{"tls.cert": "tls", "admin.tls.cert": "admin.tls"}

// Diff returns the paths of the settings that differ between what runs and what is wanted and that take effect only
// when the mirror is started again, in the order of the file. The others a running mirror takes up.
func Diff(running, wanted *Config) (restart []string) {
	was := restartValues(running)
	values := restartValues(wanted)
	for _, path := range RestartPaths() {
		if was[path] != values[path] {
			restart = append(restart, path)
		}
	}
	return restart
}

// Changed returns the settings that differ between two configurations, in the order of the file: each upstream is one, as
// upstreams.ghcr.io, and so is each other list.
func Changed(was, now *Config) []string {
	return changed(reflect.ValueOf(was).Elem(), reflect.ValueOf(now).Elem(), spot{})
}

func changed(was, now reflect.Value, at spot) (paths []string) {
	for _, f := range fieldsOf(was.Type()) {
		a, b, here := was.Field(f.index), now.Field(f.index), at.key(f.key)
		switch {
		case reflect.DeepEqual(a.Interface(), b.Interface()):
		case a.Type() == reflect.TypeFor[Upstreams]():
			paths = append(paths, changedUpstreams(a.Interface().(Upstreams), b.Interface().(Upstreams), here)...)
		case a.Kind() == reflect.Struct && !isText(a):
			paths = append(paths, changed(a, b, here)...)
		default:
			paths = append(paths, here.path)
		}
	}
	return paths
}

func changedUpstreams(was, now Upstreams, at spot) (paths []string) {
	for _, u := range now {
		if old, there := was.Get(u.Name); !there || !reflect.DeepEqual(old, u) {
			paths = append(paths, at.chosen(u.Name).path)
		}
	}
	for _, u := range was {
		if _, there := now.Get(u.Name); !there {
			paths = append(paths, at.chosen(u.Name).path)
		}
	}
	return paths
}

// RestartPaths are the settings that take effect only when the mirror is started again. "tls" and "admin.tls" stand for
// switching it on or off.
func RestartPaths() []string {
	var all []string
	visit(reflect.ValueOf(&Config{}).Elem(), spot{}, func(s spot, f field, _ reflect.Value) {
		switch {
		case restartTLS[s.path] != "":
			all = append(all, restartTLS[s.path])
		case f.restart:
			all = append(all, s.path)
		}
	})
	return all
}

func restartValues(c *Config) map[string]string {
	values := map[string]string{}
	visit(reflect.ValueOf(c).Elem(), spot{}, func(s spot, f field, v reflect.Value) {
		if !f.restart {
			return
		}
		if list, ok := reflect.TypeAssert[[]string](v); ok {
			values[s.path] = strings.Join(list, " ")
			return
		}
		values[s.path] = getText(v)
	})
	if c.TLS.Enabled() {
		values["tls"] = "on"
	}
	if c.Admin.TLS.Enabled() {
		values["admin.tls"] = "on"
	}
	return values
}
