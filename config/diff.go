package config

import (
	"reflect"
	"strings"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// tlsSwitches are the settings that switch TLS on or off, which needs a restart, by the certificate's. A running mirror
// takes up another certificate.
var tlsSwitches = map[string]string{"tls.cert": "tls", "admin.tls.cert": "admin.tls"}

// Diff returns the paths of the settings that differ between what runs and what is wanted and that take effect only
// when the mirror is started again, in the order of the file. A running mirror takes up the others.
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
	return changed(reflect.ValueOf(was).Elem(), reflect.ValueOf(now).Elem(), "")
}

func changed(was, now reflect.Value, at string) (paths []string) {
	for _, f := range strictyaml.Fields(was.Type()) {
		a, b, here := was.Field(f.Index), now.Field(f.Index), strictyaml.Join(at, f.Key)
		switch {
		case reflect.DeepEqual(a.Interface(), b.Interface()):
		case a.Type() == reflect.TypeFor[Upstreams]():
			paths = append(paths, changedUpstreams(a.Interface().(Upstreams), b.Interface().(Upstreams))...)
		case a.Kind() == reflect.Struct && !strictyaml.IsText(a):
			paths = append(paths, changed(a, b, here)...)
		default:
			paths = append(paths, here)
		}
	}
	return paths
}

func changedUpstreams(was, now Upstreams) (paths []string) {
	for _, u := range now {
		if old, there := was.Get(u.Name); !there || !reflect.DeepEqual(old, u) {
			paths = append(paths, u.path())
		}
	}
	for _, u := range was {
		if _, there := now.Get(u.Name); !there {
			paths = append(paths, u.path())
		}
	}
	return paths
}

// RestartPaths are the settings that take effect only when the mirror is started again. "tls" and "admin.tls" stand for
// switching it on or off.
func RestartPaths() []string {
	var all []string
	schema.Visit(&Config{}, func(s strictyaml.Setting) {
		switch {
		case tlsSwitches[s.Path] != "":
			all = append(all, tlsSwitches[s.Path])
		case s.Restart:
			all = append(all, s.Path)
		}
	})
	return all
}

func restartValues(c *Config) map[string]string {
	values := map[string]string{}
	schema.Visit(c, func(s strictyaml.Setting) {
		if !s.Restart {
			return
		}
		if list, ok := reflect.TypeAssert[[]string](s.Value); ok {
			values[s.Path] = strings.Join(list, " ")
			return
		}
		values[s.Path] = strictyaml.Text(s.Value)
	})
	if c.TLS.Enabled() {
		values["tls"] = "on"
	}
	if c.Admin.TLS.Enabled() {
		values["admin.tls"] = "on"
	}
	return values
}
