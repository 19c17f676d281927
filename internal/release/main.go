// Command release packs a release out of binaries that are built already: for each platform an archive and an SBOM, for each platform
// of Linux also a deb and an rpm, and SHA256SUMS of all of them. "make release" runs it, in the root of the repository.
//
// The same binaries and the same SOURCE_DATE_EPOCH make the same bytes. A dependency without the text of its license is an error, and
// so is a unit of systemd that is not the one that packages know how to change.
package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/internal/sbom"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1) //nolint:gocritic // stop only ends the notification
	}
}

// release is what is the same for all platforms.
type release struct {
	version string
	created time.Time
	out     string
	conf    string // the configuration that packages install
	docs    []file // in all archives and packages: texts, licenses, completions
}

// file is one of an archive, or of the folder that packages are made from.
type file struct {
	name    string
	mode    os.FileMode
	content []byte
}

// platform is one that a binary was built for.
type platform struct{ system, arch, binary string }

func (p platform) String() string { return p.system + "-" + p.arch }

func run(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("release", flag.ContinueOnError)
	var r release
	flags.StringVar(&r.version, "version", "", "of the mirror, as v1.2.3")
	flags.StringVar(&r.out, "o", "bin/release", "folder for what is made")
	flags.StringVar(&r.conf, "conf", "deploy/systemd/config.yaml", "the configuration that packages install")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if !strings.HasPrefix(r.version, "v") {
		return errors.New("write -version v1.2.3")
	}
	seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64)
	if err != nil {
		return fmt.Errorf("SOURCE_DATE_EPOCH is not a number of seconds, as git log -1 --format=%%ct prints it: %w", err)
	}
	r.created = time.Unix(seconds, 0).UTC()
	platforms, err := parse(flags.Args())
	if err != nil {
		return err
	}
	if r.docs, err = documents(ctx, platforms); err != nil {
		return err
	}
	if err := os.MkdirAll(r.out, 0o755); err != nil { //nolint:gosec // it is for everyone
		return err
	}
	var made []string
	for _, p := range platforms {
		names, err := r.pack(ctx, p)
		if err != nil {
			return fmt.Errorf("pack %s: %w", p, err)
		}
		made = append(made, names...)
	}
	return r.sums(made)
}

// parse reads OS/ARCH=FILE.
func parse(args []string) (list []platform, _ error) {
	for _, arg := range args {
		name, binary, ok := strings.Cut(arg, "=")
		system, arch, ok2 := strings.Cut(name, "/")
		if !ok || !ok2 {
			return nil, fmt.Errorf("%s: write OS/ARCH=FILE", arg)
		}
		list = append(list, platform{system, arch, binary})
	}
	if len(list) == 0 {
		return nil, errors.New("no binary: write OS/ARCH=FILE for each platform")
	}
	return list, nil
}

// documents are the files that all archives and packages have. Some are printed by the binary of this machine.
func documents(ctx context.Context, platforms []platform) (docs []file, _ error) {
	for _, name := range []string{"LICENSE", "NOTICE", "README.md", "config.example.yaml"} {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		docs = append(docs, file{name, 0o644, text})
	}
	here := slices.IndexFunc(platforms, func(p platform) bool { return p.system == runtime.GOOS && p.arch == runtime.GOARCH })
	if here < 0 {
		return nil, fmt.Errorf("no binary of %s/%s, which is to print the completions and the manual page", runtime.GOOS, runtime.GOARCH)
	}
	made, err := printed(ctx, platforms[here].binary)
	if err != nil {
		return nil, err
	}
	texts, err := licenses(ctx, platforms)
	if err != nil {
		return nil, err
	}
	return slices.Concat(docs, made, texts), nil
}

// pack makes what there is for one platform, and returns the names.
func (r release) pack(ctx context.Context, p platform) (made []string, _ error) {
	binary, err := os.ReadFile(p.binary)
	if err != nil {
		return nil, err
	}
	name := "mirror-" + r.version + "-" + p.String()
	sum := fmt.Sprintf("sha256:%x", sha256.Sum256(binary))
	bom, err := sbom.Of(binary, sbom.Options{Version: r.version, Created: r.created, Digest: sum})
	if err != nil {
		return nil, err
	}
	files := append([]file{{"mirror", 0o755, binary}}, r.docs...)
	if p.system == "linux" {
		if files, err = r.service(files); err != nil {
			return nil, err
		}
	}
	archive, err := r.archive(name, files)
	if err != nil {
		return nil, err
	}
	for name, content := range map[string][]byte{name + ".tar.gz": archive, name + ".spdx.json": bom} {
		if err := os.WriteFile(filepath.Join(r.out, name), content, 0o644); err != nil { //nolint:gosec // it is for everyone
			return nil, err
		}
		made = append(made, name)
	}
	if p.system != "linux" {
		return made, nil
	}
	packages, err := r.packages(ctx, p, files)
	return append(made, packages...), err
}

// sums writes SHA256SUMS, as sha256sum --check reads it.
func (r release) sums(names []string) error {
	slices.Sort(names)
	var b strings.Builder
	for _, name := range names {
		content, err := os.ReadFile(filepath.Join(r.out, name))
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(content), name)
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(b.String()), 0o644) //nolint:gosec // it is for everyone
}
