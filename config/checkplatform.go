package config

import (
	"cmp"
	"regexp"
	"slices"
	"strings"
)

// Platforms are named as Go and image indexes name them.
var (
	systems       = []string{"linux", "windows", "darwin", "freebsd", "netbsd", "openbsd", "solaris", "aix", "wasip1"}
	architectures = []string{
		"amd64", "arm64", "arm", "386", "ppc64le", "ppc64", "s390x", "riscv64", "loong64", "mips64le", "mips64", "mipsle", "mips", "wasm",
	}
	// otherNames are what the same is called by uname, and by people.
	otherNames = map[string]string{
		"x86_64": "amd64", "x86-64": "amd64", "x64": "amd64", "aarch64": "arm64", "armv7l": "arm/v7", "armv6l": "arm/v6", "armhf": "arm/v7",
		"i386": "386", "i686": "386", "x86": "386",
	}
	variant = regexp.MustCompile(`^v[0-9]{1,2}(\.[0-9])?$`)
)

// checkPlatforms checks what the nodes are, and puts it in lower case.
func (d *decoder) checkPlatforms(list []string) {
	const hint = "write OS/ARCH or OS/ARCH/VARIANT, as in linux/amd64"
	for i, text := range list {
		at := spot{path: "platforms"}.index(i).path
		list[i] = strings.ToLower(text)
		parts := strings.Split(list[i], "/")
		if len(parts) < 2 || len(parts) > 3 {
			d.bad(at, quoted(text)+" is not a platform", hint)
			continue
		}
		system, architecture := parts[0], parts[1]
		switch other := otherNames[architecture]; {
		case !slices.Contains(systems, system):
			d.bad(at, quoted(text)+" is not a platform: there is no system "+quoted(system), cmp.Or(didYouMean(Nearest(system, systems)), hint))
		case other != "":
			d.bad(at, quoted(text)+" is not a platform: images call it "+other, "write "+system+"/"+other)
		case !slices.Contains(architectures, architecture):
			d.bad(at, quoted(text)+" is not a platform: there is no architecture "+quoted(architecture),
				cmp.Or(didYouMean(Nearest(architecture, architectures)), hint))
		case len(parts) == 3 && !variant.MatchString(parts[2]):
			d.bad(at, quoted(text)+" is not a platform: "+quoted(parts[2])+" is not a variant", "as in linux/arm/v7")
		case slices.Contains(list[:i], list[i]):
			d.bad(at, quoted(text)+" is there already", "remove one")
		}
	}
}
