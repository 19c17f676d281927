package catalog_test

import (
	"testing"

	"github.com/registrymirror/mirror/catalog"
	"github.com/registrymirror/mirror/oci"
)

func TestFloating(t *testing.T) {
	t.Parallel()
	for tag, want := range map[string]bool{
		"latest": true, "main": true, "stable": true, "1": true, "1.27": true, "v1": true, "v1.30": true, "1.27-alpine": true, "3.20": true,
		"nightly": true, "edge": true, "bookworm": true, "pr-12": true, "22.04": true, "lts-jammy": true,
		"1.27.3": false, "v1.27.3": false, "1.27.3-alpine3.20": false, "1.2.3-rc.1": false, "app-1.2.3": false, "2.0.0_build7": false,
		"sha-1a2b3c4": false, "main-1a2b3c4d": false, "8d3f30fecb15": false, "20261130": false, "main-20261130": false,
		"2026.11.30": false, "20261130.1": false,
	} {
		if got := catalog.Floating(catalog.Tag{Ref: oci.Ref{Tag: tag}, History: make([]catalog.Seen, 1)}); got != want {
			t.Errorf("%s: floating %t, want %t", tag, got, want)
		}
	}
	if !catalog.Floating(catalog.Tag{Ref: oci.Ref{Tag: "1.2.3"}, History: make([]catalog.Seen, 2)}) {
		t.Error("a version tag that has moved is not floating")
	}
}
