package config_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestProxies(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"10.0.0.5":          `"10.0.0.5" is not a network in CIDR notation (write 10.0.0.5/32 for one address)`,
		"fd00::1":           `"fd00::1" is not a network in CIDR notation (write fd00::1/128 for one address)`,
		"10.0.0.0/33":       `"10.0.0.0/33" is not a network in CIDR notation (as in 10.0.0.0/8 or fd00::/8)`,
		"::ffff:10.0.0.0/8": `"::ffff:10.0.0.0/8" is not a network in CIDR notation (as in 10.0.0.0/8 or fd00::/8)`,
		"ingress.svc":       `"ingress.svc" is not a network in CIDR notation (as in 10.0.0.0/8 or fd00::/8)`,
		"":                  `"" is not a network in CIDR notation (as in 10.0.0.0/8 or fd00::/8)`,
	} {
		want := []string{"config.yaml:1:18: trustedProxies[0]: " + want}
		if diff := cmp.Diff(want, problems(t, "trustedProxies: ['"+text+"']")); diff != "" {
			t.Error(diff)
		}
	}
}
