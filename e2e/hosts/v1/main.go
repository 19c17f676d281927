// Command v1 prints, as JSON, the hosts that containerd 1.7 makes of hosts.toml files: for each argument FOLDER=REGISTRY those that are
// asked for an image of that registry, in their order. The first argument is a file with the certificate of a CA. v2 is the same of
// 2.x.
package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"os"
	"strings"

	"github.com/containerd/containerd/remotes/docker"
	"github.com/containerd/containerd/remotes/docker/config"
)

type host struct {
	URL                 string // scheme, host and path
	Pull, Resolve, Push bool
	Header              http.Header
	CA                  bool // the CA is trusted there
	Pair                bool // a client certificate is shown
	Fallback            bool // another scheme than that of the URL is tried too
}

func main() {
	b, err := os.ReadFile(os.Args[1])
	check(err)
	block, _ := pem.Decode(b)
	ca, err := x509.ParseCertificate(block.Bytes)
	check(err)
	all := make(map[string][]host)
	for _, arg := range os.Args[2:] {
		dir, registry, _ := strings.Cut(arg, "=")
		list, err := config.ConfigureHosts(context.Background(), config.HostOptions{HostDir: config.HostDirFromRoot(dir)})(registry)
		check(err)
		for _, h := range list {
			parsed := host{
				URL: h.Scheme + "://" + h.Host + h.Path, Header: h.Header,
				Pull:    h.Capabilities.Has(docker.HostCapabilityPull),
				Resolve: h.Capabilities.Has(docker.HostCapabilityResolve),
				Push:    h.Capabilities.Has(docker.HostCapabilityPush),
			}
			t, plain := h.Client.Transport.(*http.Transport)
			parsed.Fallback = !plain
			parsed.Pair = plain && len(t.TLSClientConfig.Certificates) == 1
			if plain && t.TLSClientConfig.RootCAs != nil {
				_, err := ca.Verify(x509.VerifyOptions{Roots: t.TLSClientConfig.RootCAs, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
				parsed.CA = err == nil
			}
			all[arg] = append(all[arg], parsed)
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(all))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
