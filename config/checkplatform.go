package config

import (
	"cmp"
	"regexp"
	"slices"
	"strings"

	"github.com/registrymirror/mirror/internal/strictyaml"
)

// Platforms are named as Go and image indexes name them.
var (
	systems       = []string{"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1"}
	architectures = []string{
		"amd64", "arm64", "arm", "386", "ppc64le", "ppc64", "s390x", "riscv64", "loong64", "mips64le", "mips64", "mipsle", "mips", "wasm",
	}
	// otherNames are names of architectures that uname and people use.
	otherNames = map[string]string{
		"x86_64": "amd64", "x86-64": "amd64", "x64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "armhf": "arm/v7",
		"i386": "386", "i686": "386", "x86": "386",
	}
	variant = regexp.MustCompile(`^v[0-9]{1,2}(\.[0-9])?$`)
)

// checkPlatforms checks the platforms of the nodes, and puts them in lower case.
func (c *Config) checkPlatforms(found *mistakes) {
	const hint = "write OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64"
	list := c.Platforms
	for i, text := range list {
		at := strictyaml.Index("platforms", i)
		list[i] = strings.ToLower(text)
		parts := strings.Split(list[i], "/")
		if len(parts) < 2 || len(parts) > 3 {
			found.add(at, quoted(text)+" is not a platform", hint)
			continue
		}
		system, architecture := parts[0], parts[1]
		switch other := otherNames[architecture]; {
		case !slices.Contains(systems, system):
			found.add(at, quoted(text)+" is not a platform: there is no system "+quoted(system), cmp.Or(strictyaml.DidYouMean(strictyaml.Nearest(system, systems)), hint))
		case other != "":
			found.add(at, quoted(text)+" is not a platform: images call it "+other, "write "+system+"/"+other)
		case !slices.Contains(architectures, architecture):
			found.add(at, quoted(text)+" is not a platform: there is no architecture "+quoted(architecture),
				cmp.Or(strictyaml.DidYouMean(strictyaml.Nearest(architecture, architectures)), hint))
		case len(parts) == 3 && !variant.MatchString(parts[2]):
			found.add(at, quoted(text)+" is not a platform: "+quoted(parts[2])+" is not a variant", "as in linux/arm/v7")
		case slices.Contains(list[:i], list[i]):
			found.add(at, quoted(text)+" is there already", "remove one")
		}
	}
}
