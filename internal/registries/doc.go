// Package registries has the upstreams of a configuration in use: it builds each of its settings and files, and keeps those
// that a reload does not change, with their tokens and connections.
//
//	Setup    builds what a configuration needs; nothing changes yet
//	UseNext  puts it into use: new background work starts, that of removed registries ends
//	Run      owns the background work
//
// The hosts of a pattern are built when a client first names one, and are bounded, since clients choose them. In metrics they
// count as one: see series.go.
package registries
