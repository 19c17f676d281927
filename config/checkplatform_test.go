package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestPlatforms(t *testing.T) {
	t.Parallel()
	const hint = " (write OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64)"
	for _, tt := range []struct{ name, text, want string }{
		{"no system", "amd64", `"amd64" is not a platform` + hint},
		{"too much", "linux/arm/v7/x", `"linux/arm/v7/x" is not a platform` + hint},
		{"empty", "''", `"" is not a platform` + hint},
		{"a typo in the system", "linx/amd64", `"linx/amd64" is not a platform: there is no system "linx" (did you mean "linux"?)`},
		{"a typo in the architecture", "linux/adm64", `"linux/adm64" is not a platform: there is no architecture "adm64" (did you mean "amd64"?)`},
		{"as uname has it", "linux/x86_64", `"linux/x86_64" is not a platform: images call it amd64 (write linux/amd64)`},
		{"with its variant", "linux/armv7l", `"linux/armv7l" is not a platform: images call it arm/v7 (write linux/arm/v7)`},
		{"no variant", "linux/arm/7", `"linux/arm/7" is not a platform: "7" is not a variant (as in linux/arm/v7)`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			want := []string{"config.yaml:1:13: platforms[0]: " + tt.want}
			if diff := cmp.Diff(want, problems(t, "platforms: ["+tt.text+"]")); diff != "" {
				t.Error(diff)
			}
		})
	}
	want := []string{`config.yaml:1:26: platforms[1]: "Linux/AMD64" is there already (remove one)`}
	if diff := cmp.Diff(want, problems(t, "platforms: [linux/amd64, Linux/AMD64]")); diff != "" {
		t.Error(diff)
	}
	c := parse(t, "platforms: [linux/amd64, Linux/ARM/v7, windows/amd64, linux/amd64/v3]")
	if diff := cmp.Diff([]string{"linux/amd64", "linux/arm/v7", "windows/amd64", "linux/amd64/v3"}, c.Platforms); diff != "" {
		t.Error(diff)
	}
}
