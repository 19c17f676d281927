// Package config turns a YAML file and the environment into one validated Config.
//
// Promise: what Load returns without an error is complete and consistent: defaults filled in, every name, address, URL,
// duration and size parsed and checked, every setting one that works. Whatever is wrong is reported at once, each
// mistake with its line and column, or with the environment variable it came from, and with the way out.
//
// Guarantees: strict (an unknown key, a key set twice and a value of the wrong type are mistakes, never ignored);
// pure apart from reading the one file, so that Parse can be fuzzed.
//
// It knows no component: it neither opens the files that settings name nor resolves hosts, and it holds no secret, only
// the names of files that do.
package config
