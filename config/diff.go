package config

import (
	"fmt"
	"reflect"
	"strconv"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// tlsSwitches are the settings that switch TLS on or off, which needs a restart, by the certificate's. A running mirror
// takes up another certificate.
var tlsSwitches = map[string]string{"tls.cert": "tls", "admin.tls.cert": "admin.tls"}

// Diff returns the paths of the settings that differ between what runs and what is wanted and that take effect only
// when the mirror is started again, in the order of the file. A running mirror takes up the others.
func Diff(running, wanted *Config) (restart []string) {
	was := restartValues(running)
	for i, now := range restartValues(wanted) {
		if now != was[i] {
			restart = append(restart, now.path)
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
	return append(paths, removedUpstreams(was, now)...)
}

// Removed returns the upstreams that a configuration had, and the next one has not: as Changed, which names them too.
func Removed(was, now *Config) []string { return removedUpstreams(was.Upstreams, now.Upstreams) }

func removedUpstreams(was, now Upstreams) (paths []string) {
	for _, u := range was {
		if _, there := now.Get(u.Name); !there {
			paths = append(paths, u.path())
		}
	}
	return paths
}

// restartValue is a setting that takes effect only when the mirror is started again, as text.
type restartValue struct{ path, value string }

// restartValues are all of them, in the order of the file. "tls" and "admin.tls" stand for switching it on or off.
func restartValues(c *Config) (list []restartValue) {
	schema.Visit(c, func(s strictyaml.Setting) {
		if name := tlsSwitches[s.Path]; name != "" {
			list = append(list, restartValue{name, strconv.FormatBool(s.Value.String() != "")})
		} else if s.Restart {
			list = append(list, restartValue{s.Path, fmt.Sprint(s.Value)})
		}
	})
	return list
}
