package config

import (
	_ "embed"
	"regexp"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// schema is Config as YAML and environment variables set it.
var schema = strictyaml.New(Config{}, strictyaml.Options{
	Hints:       hints,
	Synonyms:    synonyms,
	MappingHint: mappingHint,
	SameKey:     "hosts have no case",
	EnvPrefix:   "MIRROR_",
	EnvReserved: commandVariables,
	EnvForeign:  serviceLinks,
	EnvHint:     "mirror config print shows the settings there are",
})

// Problem is one mistake, with its place and what to do.
type Problem = strictyaml.Problem

// Invalid is a configuration with mistakes: all of them.
type Invalid = strictyaml.Invalid

// Mistake is a mistake without its place.
type Mistake = strictyaml.Mistake

// Override is an environment variable that set something.
type Override = strictyaml.Override

// commandVariables are read by the command line: the file to load, and how to reach a running mirror.
var commandVariables = []string{"MIRROR_CONFIG", "MIRROR_ADMIN", "MIRROR_ADMIN_TOKEN_FILE", "MIRROR_ADMIN_CA", "MIRROR_ADMIN_CERT", "MIRROR_ADMIN_KEY"}

// serviceLinks are the variables that a kubelet sets for every Service of the namespace. One called mirror, or mirror-admin,
// gives MIRROR_PORT_5000_TCP_ADDR and a dozen more.
var serviceLinks = regexp.MustCompile(
	`^MIRROR_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// synonyms are words that other programs use for some of the settings.
var synonyms = map[string]string{
	"port": "listen", "p": "listen", "bind": "listen", "addr": "listen", "address": "listen", "listenaddress": "listen", "listenaddr": "listen",
	"verbose": "log.level", "debug": "log.level", "loglevel": "log.level", "logformat": "log.format",
	"d": "cache.dir", "data": "cache.dir", "datadir": "cache.dir", "storage": "cache.dir", "cachedir": "cache.dir", "root": "cache.dir",
	"adminport": "admin.listen", "adminaddr": "admin.listen", "metricsport": "metrics.listen", "metricsaddr": "metrics.listen",
	"cert": "tls.cert", "tlscert": "tls.cert", "key": "tls.key", "tlskey": "tls.key", "maxsize": "cache.size", "cachesize": "cache.size",
}

// SettingOf is the setting that a word is meant to be, and the variable that sets it: listen, cache-dir and cacheDir are
// words for settings, as is the last part of a path where no other setting's path ends so.
func SettingOf(word string) (path, variable string, ok bool) { return schema.SettingOf(word) }

// Nearest returns the one of the words that word is probably a misspelling of, or "".
func Nearest(word string, words []string) string { return strictyaml.Nearest(word, words) }

// YAML is the configuration as a file that says everything: defaults and what is known of each upstream filled in,
// environment applied. Parse reads the same configuration from it. It holds no secret, since the configuration holds none.
func (c *Config) YAML() ([]byte, error) { return schema.Print(c, c.Overrides) }

// jsonSchema is made from the struct and its comments by TestSchemaIsCurrent, which also compares them.
//
//go:embed schema.json
var jsonSchema []byte

// Schema is the JSON schema (draft 2020-12) of the file, for editors. It knows what can be checked in one value at a time;
// Parse knows more.
func Schema() []byte { return append([]byte(nil), jsonSchema...) }
