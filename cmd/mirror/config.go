package main

import (
	"cmp"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
)

func newConfigCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:        "config",
		SuggestFor: []string{"check", "validate", "init", "print", "settings", "configure"},
		Short:      "Check, print or describe the configuration",
		Long: `Check, print or describe the configuration.

The configuration comes from the file of --config and from environment variables. No
default file is searched for. A variable wins over the file: MIRROR_CACHE_MIN_FREE sets
cache.minFree. Upstreams, rules and clients can be set in the file only.`,
		Args: subcommand,
		RunE: help,
	}
	cmd.PersistentFlags().StringVar(&file, "config", os.Getenv("MIRROR_CONFIG"), "configuration `file` (YAML); variable MIRROR_CONFIG")
	if err := cmd.MarkPersistentFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err) // the flag does not exist: a mistake of ours
	}
	cmd.AddCommand(newConfigCheckCmd(&file), newConfigPrintCmd(&file), newConfigSchemaCmd(), newConfigInitCmd())
	return cmd
}

func newConfigCheckCmd(file *string) *cobra.Command {
	var noFiles bool
	cmd := &cobra.Command{
		Use:   "check [FILE|-]",
		Short: "Explain a configuration, or list every mistake in it",
		Long: `Explain a configuration, or list every mistake in it with line and column. Nothing is
started and no host is contacted. The command also checks the certificates, keys,
passwords and tokens that the configuration names, and the disk of the cache. --no-files
skips these checks, for a machine that does not have the files. - is the standard input;
relative paths in it are relative to the working folder.

Exit codes: 0 valid; 1 invalid, or a file can't be read; 2 wrong usage.`,
		Example: `  mirror config check config.yaml
  mirror config check --config /etc/mirror/config.yaml
  mirror config check --no-files config.yaml
  envsubst <config.yaml | mirror config check --no-files -`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := configFileOf(cmd, *file, args)
			if err != nil {
				return err
			}
			read := config.Read
			if file == "-" {
				file = "standard input"
				read = func(string) (config.Text, error) {
					return awaited(cmd.Context(), func() (config.Text, error) { return config.ReadFrom(cmd.InOrStdin()) })
				}
			}
			c, text, err := parseConfig(cmd.ErrOrStderr(), file, read, "check again")
			if err != nil {
				return err
			}
			warnings := c.Warnings()
			if !noFiles {
				wrong, more := checkFiles(c.Named())
				if err := printFiles(cmd.ErrOrStderr(), file, text, wrong, "check again (--no-files skips the files)"); err != nil {
					return err
				}
				warnings = slices.Concat(warnings, diskWarnings(c), more, strangers(c))
			}
			return explainConfig(cmd.OutOrStdout(), file, c, warnings)
		},
	}
	cmd.Flags().BoolVar(&noFiles, "no-files", false, "do not check the files that the configuration names: certificates, passwords, tokens")
	return cmd
}

// printFiles prints the problems of files that a configuration names in the form of mistakes in the configuration. The error
// is nil where there are none.
func printFiles(stderr io.Writer, file string, text config.Text, wrong []config.Mistake, next string) error {
	invalid := text.Refuse(file, os.Environ(), wrong)
	if invalid == nil {
		return nil
	}
	fmt.Fprintf(stderr, "%v with files that it names; correct %s, then %s\n", invalid, choose(len(wrong) > 1, "them", "it"), next)
	return &exitError{exitFailed, nil}
}

func newConfigPrintCmd(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "print [FILE]",
		Short: "Print the configuration in effect, defaults filled in",
		Long: `Print the configuration in effect as YAML: the file with defaults filled in, with what is
known of each registry, and with environment variables applied. Secrets are in files of
their own and are not shown.

Exit codes: 0 printed; 1 the configuration is invalid, or can't be read; 2 wrong usage.`,
		Example: `  mirror config print
  MIRROR_CACHE_SIZE=1TiB mirror config print --config config.yaml`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := configFileOf(cmd, *file, args)
			if err != nil {
				return err
			}
			c, _, err := loadConfig(cmd.ErrOrStderr(), file, "print again")
			if err != nil {
				return err
			}
			text, err := c.YAML()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), string(text))
		},
	}
}

func newConfigSchemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration, for editors",
		Long: `Print the JSON schema of the configuration, with which editors complete and check it. Save
the schema, and name it in the first line of the configuration:

  # yaml-language-server: $schema=./mirror.schema.json

Exit codes: 0 printed; 2 wrong usage.`,
		Example: `  mirror config schema > mirror.schema.json`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return write(cmd.OutOrStdout(), string(config.Schema()))
		},
	}
}

// startingConfig is what config init writes.
//
//go:embed init.yaml
var startingConfig []byte

func newConfigInitCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "init [FILE|-]",
		Short: "Write a configuration to start with",
		Long: `Write a configuration to start with: a few registries and the settings that most mirrors
change, with comments. FILE is config.yaml by default; - is standard output. An existing
file is not overwritten.

Exit codes: 0 written; 1 the file exists already, or can't be written; 2 wrong usage.`,
		Example: `  mirror config init
  mirror config init /etc/mirror/config.yaml
  mirror config init - | less`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := "config.yaml"
			if len(args) > 0 {
				file = args[0]
			}
			if file == "-" {
				return write(cmd.OutOrStdout(), string(startingConfig))
			}
			if err := createFile(file, startingConfig); err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), fmt.Sprintf("%s was written. Change it, then:\n\n  mirror config check %s\n  mirror serve --config %s\n",
				file, file, file))
		},
	}
}

// createFile writes a file that must not exist yet.
func createFile(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644) // it holds no secret: the service's user reads it
	switch {
	case errors.Is(err, fs.ErrExist):
		return fmt.Errorf("%s exists already and was not changed; name another file, or remove it", path)
	case err != nil:
		return fmt.Errorf("write the configuration: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the configuration: %w", errors.Join(err, os.Remove(path)))
	}
	return nil
}

// loadConfig loads the configuration, or prints its mistakes: one a line, so that editors find the place, and in the last
// line how many there are and what to do next.
func loadConfig(stderr io.Writer, file, next string) (*config.Config, config.Text, error) {
	return parseConfig(stderr, file, config.Read, next)
}

// parseConfig is loadConfig for a text that comes by read.
func parseConfig(stderr io.Writer, file string, read func(string) (config.Text, error), next string) (*config.Config, config.Text, error) {
	text, err := read(file)
	if err != nil {
		return nil, text, &exitError{exitFailed, err}
	}
	c, err := text.Parse(file, os.Environ())
	if invalid, ok := errors.AsType[*config.Invalid](err); ok {
		fmt.Fprintf(stderr, "%v; correct %s, then %s\n", invalid, choose(len(invalid.Problems) > 1, "them", "it"), next)
		return nil, text, &exitError{exitFailed, nil}
	}
	if err != nil {
		return nil, text, &exitError{exitFailed, err}
	}
	return c, text, nil
}

// explainConfig prints the meaning of a valid configuration.
func explainConfig(out io.Writer, file string, c *config.Config, warnings []string) error {
	var t table
	t.field("listen", "%s, %s", c.Listen, choose(c.TLS.Enabled(), "TLS by "+c.TLS.Cert, "plain HTTP"))
	t.field("admin", "%s, %s%s", c.Admin.Listen, choose(c.Admin.TLS.Enabled(), "TLS by "+c.Admin.TLS.Cert+", ", ""), adminKeys(c.Admin))
	for _, r := range c.Admin.Operators.Rights {
		t.field("", "%s may %s %s", choose(slices.Contains(r.Who, "*"), "each operator", strings.Join(r.Who, ", ")), r.May,
			choose(len(r.Images) > 0, strings.Join(r.Images, " "), "everything"))
	}
	t.field("metrics", "%s", choose(c.Metrics.Listen != "", c.Metrics.Listen+", no token", "on the admin listener"))
	t.field("cache", "%s, up to %s%s, %s of the disk stays free, %s", c.Cache.Dir, c.Cache.Size,
		choose(c.Cache.Size.Percent > 0, " of the disk", ""), c.Cache.MinFree,
		c.Cache.Durability)
	t.field("default", "%s", choose(c.DefaultUpstream != "", c.DefaultUpstream, "none: requests must name a registry, so Docker's registry-mirrors does not work"))
	t.field("upstreams", "%d, all others are refused", len(c.Upstreams))
	for _, u := range c.Upstreams {
		ruled := choose(u.Access == "rules", "; the rules say which images may be pulled", "") +
			choose(u.Access == "client", "; public images, and those that the client's own login may read", "")
		if u.IsPattern() {
			t.field("  "+u.Name, "each host that matches, at https://HOST%s", ruled)
		} else {
			t.field("  "+u.Name, "%s%s%s", u.Endpoints[0].URL,
				choose(len(u.Aliases) > 0, ", also called "+strings.Join(u.Aliases, " and "), ""), ruled)
		}
		scope := "only public images, for the higher rate limit; private ones need access: rules"
		if u.Access == "rules" {
			scope = "the images that the rules allow"
		}
		for _, e := range u.Endpoints {
			if e.ClientCert != "" {
				t.field("", "by %s at %s: %s", e.ClientCert, e.URL, choose(u.Access == "rules", scope, "everything that it may read, to each client"))
			}
		}
		for _, c := range u.Credentials {
			t.field("", "as %s (%s) for %s: %s", c.Name, c.Sources()[0],
				choose(len(c.Repositories) > 0, strings.Join(c.Repositories, " "), "all"), scope)
		}
	}
	for _, r := range c.Rules {
		t.field("rule", "%s may pull %s", ruledClients(r), strings.Join(r.Pull, " "))
	}
	if ways := clientsWays(c.Clients); ways != "" {
		t.field("clients", "by %s", ways)
	}
	if limits := clientsLimits(c.Clients.Limits); limits != "" {
		t.field("limits", "%s", limits)
	}
	for _, o := range c.Overrides {
		t.field(o.Path, "from %s", o.Variable)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s: valid\n\n%s\nA running mirror reads this file again when it changes; mirror config print marks the settings that "+
		"need a restart.\n", cmp.Or(file, "no file, built-in defaults"), &t)
	for _, text := range warnings {
		fmt.Fprintf(&b, "\nwarning: %s\n", text)
	}
	return write(out, b.String())
}

// adminKeys are the ways in which callers of the admin listener show which operator they are.
func adminKeys(a config.Admin) string {
	return cmp.Or(waysOf([]way{
		{"token in ", a.TokenFile}, {"tokens of operators in ", a.Operators.Tokens}, {"certificates of operators by ", a.Operators.CA},
	}), "no token")
}

// clientsWays are the ways in which clients identify themselves; empty: there are none.
func clientsWays(c config.Clients) string {
	return waysOf([]way{
		{"passwords in ", c.Htpasswd},
		{"tokens in ", c.Tokens},
		{"certificates of nodes by ", c.CA},
		{"tokens of service accounts for the audience ", c.Kubernetes.Audience},
	})
}

// way is one in which callers identify themselves, with its setting; empty: it is not in use.
type way struct{ what, setting string }

// waysOf lists those that are in use.
func waysOf(ways []way) string {
	var list []string
	for _, w := range ways {
		if w.setting != "" {
			list = append(list, w.what+w.setting)
		}
	}
	return strings.Join(list, ", ")
}

// clientsLimits are the limits of clients; empty: there are none.
func clientsLimits(l config.ClientsLimits) string {
	var list []string
	if l.MaxRequests > 0 {
		list = append(list, fmt.Sprintf("%d requests at once of each client", l.MaxRequests))
	}
	for _, b := range []struct {
		size config.Size
		of   string
	}{{l.Bandwidth, "for each client"}, {l.TotalBandwidth, "for all"}} {
		if b.size > 0 {
			list = append(list, fmt.Sprintf("%s a second %s", b.size, b.of))
		}
	}
	if l.ByAddress {
		list = append(list, "clients without an identity by their address")
	}
	return strings.Join(list, ", ")
}

// ruledClients are the clients of a rule.
func ruledClients(r config.Rule) string {
	if r.ForAll() {
		return "each client that can connect to the mirror"
	}
	return strings.Join(r.Who, ", ")
}

// diskWarnings are warnings about settings that the disk of the cache does not allow, where it is a disk of this machine.
func diskWarnings(c *config.Config) []string {
	sp, err := disk.SpaceAt(c.Cache.Dir)
	if err != nil {
		return nil // the configuration may be for another machine
	}
	if size := c.Cache.Size.Of(sp.Total); size > sp.Total {
		return []string{fmt.Sprintf("cache.size is %s, and the disk of %s has %s: the disk is full before the cache is; set a smaller size, or a percentage, "+
			"as in 80%%", amount(size), c.Cache.Dir, amount(sp.Total))}
	}
	return nil
}
