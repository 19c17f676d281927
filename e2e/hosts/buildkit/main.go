// Command buildkit prints, as JSON, the hosts that BuildKit makes of a buildkitd.toml: for each argument FILE=REGISTRY those that are asked
// for an image of that registry, in their order. v2 is the same of containerd.
package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/moby/buildkit/cmd/buildkitd/config"
	"github.com/moby/buildkit/util/resolver"
)

type host struct {
	URL                 string // scheme, host and path
	Pull, Resolve, Push bool
	CA                  bool // the file of the first argument has its certificates
}

func main() {
	all := make(map[string][]host)
	for _, arg := range os.Args[2:] {
		file, registry, _ := strings.Cut(arg, "=")
		c, err := config.LoadFile(file)
		check(err)
		list, err := resolver.NewRegistryConfig(c.Registries)(registry)
		check(err)
		for _, h := range list {
			all[arg] = append(all[arg], host{
				URL:     h.Scheme + "://" + h.Host + h.Path,
				Pull:    h.Capabilities.Has(docker.HostCapabilityPull),
				Resolve: h.Capabilities.Has(docker.HostCapabilityResolve),
				Push:    h.Capabilities.Has(docker.HostCapabilityPush),
				CA:      slices.Contains(c.Registries[h.Host].RootCAs, os.Args[1]),
			})
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(all))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
