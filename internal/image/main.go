// Command image makes the container image of the mirror, as an OCI layout, out of binaries that are built already. It needs no
// container engine and no network: the image stands on nothing. "make image" runs it.
//
// The same binaries make the same bytes. Beside the layout there is an SBOM (SPDX) for each platform.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/registrymirror/mirror/internal/sbom"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "image:", err)
		os.Exit(1)
	}
}

// release is what is the same for all platforms.
type release struct {
	version, revision string
	created           time.Time
}

func run(args []string) error {
	flags := flag.NewFlagSet("image", flag.ContinueOnError)
	var r release
	flags.StringVar(&r.version, "version", "dev", "of the mirror, which is the image's tag")
	flags.StringVar(&r.revision, "revision", "", "commit that it is built from")
	out := flags.String("o", "bin/image", "folder of the layout, which must not be there")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() == 0 {
		return errors.New("no binary: write OS/ARCH=FILE for each platform")
	}
	if text := os.Getenv("SOURCE_DATE_EPOCH"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: %w", err)
		}
		r.created = time.Unix(n, 0).UTC()
	}
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	index = mutate.Annotations(index, r.annotations()).(v1.ImageIndex)
	if _, err := os.Stat(*out); err == nil {
		return fmt.Errorf("%s is there already", *out)
	}
	for _, arg := range flags.Args() {
		platform, file, _ := strings.Cut(arg, "=")
		p, err := v1.ParsePlatform(platform)
		if err != nil {
			return fmt.Errorf("%s: %w", arg, err)
		}
		binary, err := os.ReadFile(file)
		if err != nil {
			return fmt.Errorf("read the binary of %s: %w", platform, err)
		}
		img, err := r.image(*p, binary)
		if err != nil {
			return fmt.Errorf("make the image of %s: %w", platform, err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: p}})
		d, err := img.Digest()
		if err != nil {
			return err
		}
		b, err := sbom.Of(binary, sbom.Options{Version: r.version, Created: r.created, Digest: d.String()})
		if err != nil {
			return fmt.Errorf("make the SBOM of %s: %w", platform, err)
		}
		if err := os.WriteFile(bomFile(*out, *p), b, 0o644); err != nil { //nolint:gosec // it is for everyone
			return fmt.Errorf("write the SBOM of %s: %w", platform, err)
		}
	}
	top := mutate.AppendManifests(mutate.IndexMediaType(empty.Index, types.OCIImageIndex), mutate.IndexAddendum{
		Add: index, Descriptor: v1.Descriptor{Annotations: map[string]string{"org.opencontainers.image.ref.name": r.version}},
	})
	if _, err := layout.Write(*out, top); err != nil {
		return fmt.Errorf("write the layout: %w", err)
	}
	d, err := index.Digest()
	if err != nil {
		return err
	}
	fmt.Println(d)
	return nil
}

// bomFile is the file with the SBOM of a platform.
func bomFile(layout string, p v1.Platform) string {
	return layout + "." + p.OS + "-" + p.Architecture + ".spdx.json"
}

// annotations are those of the image specification.
func (r release) annotations() map[string]string {
	a := map[string]string{
		"org.opencontainers.image.title":       "mirror",
		"org.opencontainers.image.description": "A pull-through caching mirror for container registries",
		"org.opencontainers.image.licenses":    "Apache-2.0",
		"org.opencontainers.image.version":     r.version,
	}
	if r.revision != "" {
		a["org.opencontainers.image.revision"] = r.revision
	}
	return a
}
