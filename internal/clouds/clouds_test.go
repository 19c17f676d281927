package clouds_test

import (
	"strings"
	"testing"

	"github.com/registrymirror/mirror/internal/clouds"
)

func TestIs(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"public.ecr.aws":     "ecr",
		"ecr-public.aws.com": "ecr",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":      "ecr",
		"123456789012.dkr-ecr.eu-west-1.on.aws":             "ecr",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com": "ecr",
		"123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn":  "ecr",
		"gcr.io":                      "gar",
		"eu.gcr.io":                   "gar",
		"europe-west1-docker.pkg.dev": "gar",
		"acme.azurecr.io":             "acr",
		"acme-x1.azurecr.cn":          "acr",

		"123456789012.dkr.ecr.eu-west-1.amazonaws.com:443":          "",
		"12345678901.dkr.ecr.eu-west-1.amazonaws.com":               "",
		"evil.dkr.ecr.eu-west-1.amazonaws.com":                      "",
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com.evil.example": "",
		"123456789012.dkr.ecr.eu-west-1.evil.amazonaws.com":         "",
		"bucket.s3.eu-west-1.amazonaws.com":                         "",
		"public.ecr.aws.evil.example":                               "",
		"publicxecr.aws":                                            "",
		"evilgcr.io":                                                "",
		"a.b.gcr.io":                                                "",
		"europe-python.pkg.dev":                                     "",
		"-docker.pkg.dev":                                           "",
		"azurecr.io":                                                "",
		"a.b.azurecr.io":                                            "",
		"acme.azurecr.io.evil.example":                              "",
		"acme_.azurecr.io":                                          "",
		"Acme.azurecr.io":                                           "",
		"acme.azurecr.io\n":                                         "",
		"":                                                          "",
	} {
		got := ""
		for _, c := range clouds.All {
			if c.Is(host) {
				got += c.Key
			}
		}
		if got != want {
			t.Errorf("%q is a registry of %q, want %q", host, got, want)
		}
	}
}

func TestPrivateECR(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"123456789012.dkr.ecr.eu-west-1.amazonaws.com":                " eu-west-1 amazonaws.com true",
		"123456789012.dkr.ecr-fips.us-east-1.amazonaws.com":           "-fips us-east-1 amazonaws.com true",
		"123456789012.dkr-ecr.cn-north-1.on.amazonwebservices.com.cn": " cn-north-1 on.amazonwebservices.com.cn true",
		"public.ecr.aws": "   false",
		"gcr.io":         "   false",
	} {
		fips, region, domain, ok := clouds.PrivateECR(host)
		got := strings.Join([]string{fips, region, domain, map[bool]string{true: "true", false: "false"}[ok]}, " ")
		if got != want {
			t.Errorf("%s: %q, want %q", host, got, want)
		}
	}
}

// What is a registry of a cloud lies below a domain of that cloud, or is one.
func FuzzIs(f *testing.F) {
	f.Add("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
	f.Add("acme.azurecr.io")
	f.Fuzz(func(t *testing.T, host string) {
		for _, c := range clouds.All {
			if c.Is(host) && !c.Owns(host) && !clouds.PublicECR(host) {
				t.Errorf("%q is a registry of %s's", host, c.Owner)
			}
		}
	})
}
