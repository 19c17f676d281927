package oci_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/oci"
)

func TestRuns(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		node string
		runs []string // of all below
	}{
		{"linux/amd64", []string{"linux/amd64", "linux/amd64/v1", "linux/amd64/v3"}},
		{"linux/amd64/v2", []string{"linux/amd64", "linux/amd64/v1"}},
		{"linux/arm", []string{"linux/arm", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7"}},
		{"linux/arm/v6", []string{"linux/arm/v5", "linux/arm/v6"}},
		{"linux/arm/v7", []string{"linux/arm", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7"}},
		{"linux/arm64", []string{"linux/arm64", "linux/arm64/v8", "linux/arm64/v9.2"}},
		{"linux/arm64/v8", []string{"linux/arm64", "linux/arm64/v8"}},
		{"windows/amd64", []string{"windows/amd64"}},
		{"linux/s390x", nil},
	} {
		var got []string
		for _, p := range []string{
			"linux/amd64", "linux/amd64/v1", "linux/amd64/v3", "linux/arm", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7", "linux/arm64",
			"linux/arm64/v8", "linux/arm64/v9.2", "windows/amd64",
		} {
			if oci.PlatformText(oci.ParsePlatform(p)) != p {
				t.Errorf("%s is %v", p, oci.ParsePlatform(p))
			}
			if oci.Runs(oci.ParsePlatform(tt.node), oci.ParsePlatform(p)) {
				got = append(got, p)
			}
		}
		if diff := cmp.Diff(tt.runs, got); diff != "" {
			t.Errorf("%s runs (-want +got):\n%s", tt.node, diff)
		}
	}
	got := oci.Lacking([]string{"linux/amd64", "linux/arm64", "linux/arm/v6"}, []oci.Platform{
		oci.ParsePlatform("linux/arm64/v8"), oci.ParsePlatform("linux/arm/v7"), oci.ParsePlatform("unknown/unknown"),
	})
	if !slices.Equal(got, []string{"linux/amd64", "linux/arm/v6"}) {
		t.Errorf("lacking: %s", got)
	}
}
