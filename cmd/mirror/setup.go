package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/regular"
	"github.com/registrymirror/mirror/internal/text"
	"github.com/registrymirror/mirror/node"
)

// setupTarget is a client that mirror setup writes the configuration of.
type setupTarget struct {
	name, short string
	aliases     []string
	write       func(node.Options) (node.Output, error)
}

var setupTargets = []setupTarget{
	{"crio", "CRI-O: a file of registries.conf.d", nil, node.Podman},
	{"podman", "Podman, Buildah and skopeo: a file of registries.conf.d", []string{"skopeo", "buildah"}, node.Podman},
	{"docker", "dockerd, with its containerd image store too", []string{"dockerd"}, node.Docker},
	{"buildkit", "BuildKit: buildkitd.toml, and its forms in GitHub workflows and in the cluster", []string{"buildx", "buildkitd"}, node.BuildKit},
	{"kaniko", "kaniko: its flags", nil, node.Kaniko},
	{"kind", "kind: a cluster's configuration, and the files of its nodes", nil, node.Kind},
	{"k3s", "k3s: registries.yaml", nil, node.K3s},
	{"rke2", "RKE2: registries.yaml", nil, node.RKE2},
	{"talos", "Talos 1.12 and later: documents of the machine configuration", nil, node.Talos},
	{"openshift", "OpenShift: ImageDigestMirrorSet and ImageTagMirrorSet", []string{"okd"}, node.OpenShift},
	{"microk8s", "MicroK8s: hosts.toml in its own folder", nil, node.MicroK8s},
	{"eks", "EKS: user data for nodes of Amazon Linux 2023", nil, node.EKS},
	{"bottlerocket", "Bottlerocket: its settings", nil, node.Bottlerocket},
	{"gke", "GKE: the containerd configuration of a node pool", nil, node.GKE},
	{"soci", "the SOCI snapshotter, which fetches layers by itself", nil, node.SOCI},
	{"stargz", "the stargz snapshotter, which fetches layers by itself", nil, node.Stargz},
}

func newSetupCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:        "setup TARGET",
		SuggestFor: []string{"configure", "install", "node", "hosts", "init-node"},
		Short:      "Print the configuration with which a node pulls through the mirror",
		Long: `Print the configuration with which a node, a builder or a cluster pulls through the mirror:
each file with its path, and what to do beside that. Nothing is written, but with
setup containerd --install, and by setup tls.

The registries are those of the mirror's configuration (--config), or those of
--registry; without both, the well-known ones.`,
		Example: `  mirror setup containerd --mirror http://10.0.0.7:5000
  mirror setup k3s --mirror http://10.0.0.7:5000 --config config.yaml
  mirror setup openshift --mirror https://mirror.example --registry docker.io --registry quay.io`,
		Args: subcommand,
		RunE: help,
		// A flag of a target comes behind its name. Where that is mistyped, the error is about the name.
		FParseErrWhitelist: cobra.FParseErrWhitelist{UnknownFlags: true},
	}
	cmd.AddCommand(newSetupContainerdCmd(), newSetupTLSCmd())
	for _, t := range setupTargets {
		cmd.AddCommand(newSetupTargetCmd(t))
	}
	return cmd
}

// maxHeader bounds the file with the value of a header, in bytes: servers refuse longer ones.
const maxHeader = 64 << 10

// setupFlags are the flags of all targets.
type setupFlags struct {
	options           node.Options
	registries        []string
	config            string
	authorizationFile string
	inPods            bool // the client is a builder, which may run in a pod and then resolves the cluster's names
	output            output
}

func (f *setupFlags) add(cmd *cobra.Command) {
	f.addOptions(cmd)
	f.output.add(cmd, false)
}

// addOptions adds the flags that say how nodes reach the mirror, and for what.
func (f *setupFlags) addOptions(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.options.Mirror, "mirror", "", "`URL` by which nodes reach the mirror, as in http://10.0.0.7:5000")
	flags.StringArrayVar(&f.registries, "registry", nil, "a registry, `NAME` or NAME=URL of the registry itself; may be repeated")
	addConfig(cmd, &f.config, "of the mirror, for the registries it has")
	flags.BoolVar(&f.options.Default, "default", false, "every other registry too, where the client has a setting for that")
	flags.BoolVar(&f.options.NoFallback, "no-fallback", false, "no way around the mirror: nodes do not go on to the registry itself")
	flags.StringVar(&f.options.Node, "node", "", "`name` that the node gives itself in the mirror's records")
	flags.StringVar(&f.options.CA, "ca", "", "`path` on the node of the certificates that sign the mirror's")
	flags.StringVar(&f.options.ClientCert, "client-cert", "", "`path` on the node of the certificate, PEM, by which it identifies itself to the mirror")
	flags.StringVar(&f.options.ClientKey, "client-key", "", "`path` on the node of the key of --client-cert")
	flags.StringVar(&f.authorizationFile, "authorization-file", "", "`file` with the value of the header Authorization for the mirror: Bearer TOKEN")
	flags.DurationVar(&f.options.DialTimeout, "dial-timeout", 0, "how long a node waits for a connection to the mirror; 0: 200ms, and 1s with --no-fallback")
}

// read is the options that the flags give. Warnings go to stderr.
func (f *setupFlags) read(stderr io.Writer) (node.Options, error) {
	o := f.options
	if o.Mirror == "" {
		return o, errors.New("this needs --mirror URL: the address by which nodes reach the mirror, as in http://10.0.0.7:5000")
	}
	if cause, remedy := node.Unreachable(o.Mirror); cause != "" && !f.inPods {
		fmt.Fprintf(stderr, "warning: --mirror %s: %s; %s\n", o.Mirror, cause, remedy)
	}
	var err error
	if o.Authorization, err = f.authorization(); err != nil {
		return o, &exitError{exitFailed, err}
	}
	for _, registry := range f.registries {
		name, server, _ := strings.Cut(registry, "=")
		o.Registries = append(o.Registries, node.Registry{Name: strings.ToLower(name), Server: server})
	}
	if len(o.Registries) > 0 {
		return o, nil
	}
	c, _, err := loadConfig(stderr, f.config, "run it again")
	if err != nil {
		return o, err
	}
	for _, u := range c.Upstreams {
		if u.IsPattern() {
			fmt.Fprintf(stderr, "left out: %s, since no client has a folder for a pattern; name its hosts by --registry, or use --default\n", u.Name)
			continue
		}
		o.Registries = append(o.Registries, registryOf(u))
	}
	return o, nil
}

// authorization is the value of the header in --authorization-file; empty: there is no such flag.
func (f *setupFlags) authorization() (string, error) {
	if f.authorizationFile == "" {
		return "", nil
	}
	b, err := regular.Read(f.authorizationFile, maxHeader)
	if err != nil {
		return "", fmt.Errorf("read the value of Authorization: %w", err)
	}
	value := strings.TrimSpace(string(b))
	if value == "" {
		return "", fmt.Errorf("%s is empty: write Bearer and the token to it", f.authorizationFile)
	}
	return value, nil
}

// registryOf is a registry as nodes go on to it: at its first endpoint, if that is the registry itself.
func registryOf(u config.Upstream) node.Registry {
	r := node.Registry{Name: u.Name}
	if i := slices.IndexFunc(u.Endpoints, u.Itself); i >= 0 && strings.HasPrefix(u.Endpoints[i].URL, "http://") {
		r.Server = strings.TrimSuffix(u.Endpoints[i].URL, "/")
	}
	return r
}

func newSetupTargetCmd(t setupTarget) *cobra.Command {
	flags := setupFlags{inPods: t.name == "buildkit" || t.name == "kaniko"}
	cmd := &cobra.Command{
		Use: t.name, Aliases: t.aliases, Short: "Configuration of " + t.short,
		Long: `Print the configuration of ` + t.short + `.

Exit codes: 0 printed; 1 the configuration of the mirror can't be read; 2 wrong usage, or a flag
for which this client has no setting.`,
		Example: "  mirror setup " + t.name + " --mirror http://10.0.0.7:5000 --registry docker.io --registry ghcr.io",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.read(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			out, err := t.write(o)
			if err != nil {
				return err
			}
			return printSetup(cmd.OutOrStdout(), flags.output, out)
		},
	}
	flags.add(cmd)
	return cmd
}

func newSetupContainerdCmd() *cobra.Command {
	var (
		flags     setupFlags
		install   string
		uninstall string
		config    string
	)
	cmd := &cobra.Command{
		Use:   "containerd",
		Short: "Configuration of containerd 1.6 and later: hosts.toml of each registry",
		Long: `Print the configuration of containerd 1.6 and later: a hosts.toml for each registry, and the
setting that makes containerd read them. --install writes the hosts.toml files, each at once
or not at all. A file that is there is kept beside it and comes back with --uninstall; other
files stay as they are, config.toml too, and containerd is not restarted. It reads hosts.toml
at each pull.

--install also reads the configuration of this node's containerd, and asks it for its version.
Where config_path is not set it prints the exact change for that version. Where registry.mirrors
is set it writes nothing: beside config_path that keeps the CRI plugin from loading.

Exit codes: 0 printed, or written; 1 a file can't be read or written, or registry.mirrors is set;
2 wrong usage.`,
		Example: `  mirror setup containerd --mirror http://10.0.0.7:5000 --node "$(hostname)" --install
  mirror setup containerd --uninstall`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if uninstall != "" {
				changes, err := node.Uninstall(uninstall)
				return printChanges(cmd.OutOrStdout(), flags.output, uninstall, changes, node.Output{}, err)
			}
			if config != "" && install == "" {
				return errors.New("--containerd-config is for --install: it is the file in which config_path has to stand")
			}
			o, err := flags.read(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			out, err := node.Containerd(o, install)
			if err != nil {
				return err
			}
			if install == "" {
				return printSetup(cmd.OutOrStdout(), flags.output, out)
			}
			todo, err := configPath(cmd.Context(), install, config)
			if err != nil {
				return &exitError{exitFailed, err}
			}
			changes, err := node.Install(install, out.Files)
			return printChanges(cmd.OutOrStdout(), flags.output, install, changes, todo, err)
		},
	}
	flags.add(cmd)
	cmd.Flags().StringVar(&install, "install", "", "write the hosts.toml files below this `folder` of containerd")
	cmd.Flags().StringVar(&uninstall, "uninstall", "", "remove what --install wrote below this `folder`, and put back what was there")
	cmd.Flags().StringVar(&config, "containerd-config", "", "main configuration `file` of this node's containerd; empty: the usual places are tried")
	for _, flag := range []string{"install", "uninstall"} {
		cmd.Flag(flag).NoOptDefVal = node.CertsDir
	}
	cmd.MarkFlagsMutuallyExclusive("install", "uninstall")
	return cmd
}

// configPath is what this node's containerd needs so that it reads the hosts.toml files of a folder.
func configPath(ctx context.Context, dir, config string) (node.Output, error) {
	root, err := os.OpenRoot("/")
	if err != nil {
		return node.Output{}, fmt.Errorf("open the node's root: %w", err)
	}
	defer func() { _ = root.Close() }()
	if dir, err = filepath.Abs(dir); err == nil && config != "" {
		config, err = filepath.Abs(config)
	}
	if err != nil {
		return node.Output{}, fmt.Errorf("find the folder of this process: %w", err)
	}
	r, err := node.OpenRuntime(regular.Below(root), config)
	if err != nil {
		return node.Output{}, err
	}
	return r.ConfigPath(dir, node.FindRelease(ctx, r.Socket()))
}

// setupFile is a file as -o json prints it.
type setupFile struct {
	Path    string `json:"path"`
	Merge   bool   `json:"merge"`
	Line    int    `json:"line,omitempty"` // that the content replaces; -1: it goes to the end
	Content string `json:"content"`
}

// printSetup prints what is to be done on a node.
func printSetup(w io.Writer, form output, out node.Output) error {
	if form.encoded() {
		doc := struct {
			Files []setupFile `json:"files"`
			Notes []string    `json:"notes"`
		}{setupFiles(out), out.Notes}
		return printEncoded(w, form, doc)
	}
	return write(w, setupText(out))
}

func setupFiles(out node.Output) []setupFile {
	list := []setupFile{}
	for _, f := range out.Files {
		list = append(list, setupFile{f.Path, f.Part, f.Line, f.Content})
	}
	return list
}

func printEncoded(w io.Writer, form output, doc any) error {
	b, err := json.MarshalIndent(doc, "", "  ")
	if err != nil {
		return &exitError{exitFailed, fmt.Errorf("write the files as JSON: %w", err)}
	}
	return form.print(w, append(b, '\n'))
}

func setupText(out node.Output) string {
	var b strings.Builder
	for _, f := range out.Files {
		place := ""
		switch {
		case f.Part && f.Line == node.AtEnd:
			place = " (add this at its end)"
		case f.Part && f.Line > 0:
			place = fmt.Sprintf(" (in the place of line %d)", f.Line)
		case f.Part:
			place = " (merge this into it)"
		}
		fmt.Fprintf(&b, "# ---- %s%s\n%s\n", f.Path, place, f.Content)
	}
	for _, n := range out.Notes {
		fmt.Fprintf(&b, "# - %s\n", n)
	}
	return b.String()
}

// printChanges prints what was done to the files of a folder, and what is left to do.
func printChanges(w io.Writer, form output, dir string, changes []node.Change, todo node.Output, err error) error {
	if err != nil {
		err = &exitError{exitFailed, err}
	}
	if form.encoded() {
		type change struct {
			Path string `json:"path"`
			Done string `json:"done"`
		}
		doc := struct {
			Changes []change    `json:"changes"`
			Files   []setupFile `json:"files"` // to be written by hand
			Notes   []string    `json:"notes"`
		}{[]change{}, setupFiles(todo), slices.Concat([]string{}, todo.Notes)}
		for _, c := range changes {
			doc.Changes = append(doc.Changes, change{filepath.Join(dir, c.Path), c.Done})
		}
		return cmp.Or(err, printEncoded(w, form, doc))
	}
	var b strings.Builder
	for _, c := range changes {
		fmt.Fprintf(&b, "%-9s %s/%s\n", c.Done, dir, text.Line(c.Path, 300)) // other programs name folders
	}
	if len(changes) == 0 && err == nil {
		fmt.Fprintf(&b, "nothing of ours is in %s\n", dir)
	}
	if left := setupText(todo); left != "" && err == nil {
		b.WriteString("\n" + left)
	}
	return cmp.Or(err, write(w, b.String()))
}
