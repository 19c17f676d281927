// Package app joins configuration to components: it builds them, runs them, reloads what can be reloaded, and ends them
// in order. Only this package, internal/registries and cmd/mirror know the configuration.
//
//	New     take the data folder, open state and index, make the components, listen
//	Run     serve until the context ends; then: readiness goes, running pulls finish within drain and no other begins, the
//	        main listener closes, background work flushes, the other listeners close, files close
//	Reload  a new configuration becomes a new Setup of the puller; registries that did not change keep their tokens
//
// Whatever New has opened is closed by Run, or by New itself if it fails half-way.
package app
