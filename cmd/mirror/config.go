package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/cache/disk"
	"github.com/registrymirror/mirror/config"
	"github.com/registrymirror/mirror/internal/app"
)

func newConfigCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:        "config",
		SuggestFor: []string{"check", "validate", "init", "print", "settings", "configure"},
		Short:      "Check, print or describe the configuration",
		Long: `Check, print or describe the configuration.

It is read from the file of --config alone, no file is searched for, and from
variables: MIRROR_CACHE_MIN_FREE sets cache.minFree and wins over the file. The names
of registries are keys, so upstreams are set in the file.`,
		Args: subcommand,
		RunE: help,
	}
	cmd.PersistentFlags().StringVar(&file, "config", os.Getenv("MIRROR_CONFIG"), "configuration `file` (YAML); variable MIRROR_CONFIG")
	if err := cmd.MarkPersistentFlagFilename("config", "yaml", "yml"); err != nil {
		panic(err) // there is no such flag: a mistake of ours
	}
	cmd.AddCommand(newConfigCheckCmd(&file), newConfigPrintCmd(&file), newConfigSchemaCmd(), newConfigInitCmd())
	return cmd
}

func newConfigCheckCmd(file *string) *cobra.Command {
	var noFiles bool
	cmd := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Say what a configuration means, or all that is wrong with it",
		Long: `Say what a configuration means, or all that is wrong with it, with line and column.
Nothing is started and no host is asked. Certificates, keys, passwords and tokens that it
names are read, too, and all that is wrong with them is told, and the disk of the cache is
looked at: with --no-files they are not, for a machine that does not have them.

Exit codes: 0 valid; 1 invalid, or a file can't be read; 2 usage.`,
		Example: `  mirror config check config.yaml
  mirror config check --config /etc/mirror/config.yaml
  mirror config check --no-files config.yaml`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := configFileOf(cmd, *file, args)
			if err != nil {
				return err
			}
			c, text, err := loadText(cmd.ErrOrStderr(), file, "check again")
			if err != nil {
				return err
			}
			warnings := c.Warnings()
			if !noFiles {
				wrong, more := wrongFiles(c)
				if err := printFiles(cmd.ErrOrStderr(), file, text, wrong, "check again (--no-files leaves files out)"); err != nil {
					return err
				}
				warnings = slices.Concat(warnings, diskWarnings(c), more)
			}
			return explainConfig(cmd.OutOrStdout(), file, c, warnings)
		},
	}
	cmd.Flags().BoolVar(&noFiles, "no-files", false, "do not read the files that it names: certificates, passwords, tokens")
	return cmd
}

// wrongFiles are the files that a configuration names and the mirror can't use, and what is to be warned of.
func wrongFiles(c *config.Config) (wrong []app.FileProblem, warnings []string) {
	for _, p := range app.CheckFiles(c) {
		if p.Warning {
			warnings = append(warnings, fmt.Sprintf("%s: %s; %s", p.Setting, p.Message, p.Hint))
		} else {
			wrong = append(wrong, p)
		}
	}
	return wrong, warnings
}

// printFiles prints what is wrong with files that a configuration names, as mistakes in it are printed. The error is nil where
// nothing is.
func printFiles(stderr io.Writer, file string, text config.Text, wrong []app.FileProblem, next string) error {
	if len(wrong) == 0 {
		return nil
	}
	place := config.Places(file, text.Data, os.Environ())
	invalid := &config.Invalid{File: file}
	for _, p := range wrong {
		invalid.Problems = append(invalid.Problems, place(p.Setting, p.Message, p.Hint))
	}
	slices.SortStableFunc(invalid.Problems, func(a, b config.Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	fmt.Fprintf(stderr, "%v with files that it names; correct %s, then %s\n", invalid, choose(len(wrong) > 1, "them", "it"), next)
	return &exitError{exitFailed, nil}
}

func newConfigPrintCmd(file *string) *cobra.Command {
	return &cobra.Command{
		Use:   "print [FILE]",
		Short: "Print the configuration in effect, defaults filled in",
		Long: `Print the configuration in effect as YAML: the file, defaults filled in, what is known of
each upstream added, variables applied. Secrets are in files of their own and not shown.`,
		Example: `  mirror config print
  MIRROR_CACHE_SIZE=1TiB mirror config print --config config.yaml`,
		Args: mostOneArg("one file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file, err := configFileOf(cmd, *file, args)
			if err != nil {
				return err
			}
			c, err := loadConfig(cmd.ErrOrStderr(), file, "print again")
			if err != nil {
				return err
			}
			text, err := c.YAML()
			if err != nil {
				return &exitError{exitFailed, err}
			}
			return write(cmd.OutOrStdout(), text)
		},
	}
}

func newConfigSchemaCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON schema of the configuration, for editors",
		Long: `Print the JSON schema of the configuration. Editors complete and check with it: save it
and name it in the first line of the file, as in

  # yaml-language-server: $schema=./mirror.schema.json`,
		Example: `  mirror config schema > mirror.schema.json`,
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return write(cmd.OutOrStdout(), config.Schema())
		},
	}
}

// loadConfig loads the configuration, or prints what is wrong: one problem a line, so that editors find the place, and
// in the last line how many there are and what to do next.
func loadConfig(stderr io.Writer, file, next string) (*config.Config, error) {
	c, _, err := loadText(stderr, file, next)
	return c, err
}

// loadText is loadConfig, with the text of the file.
func loadText(stderr io.Writer, file, next string) (*config.Config, config.Text, error) {
	text, err := config.Read(file)
	if err != nil {
		return nil, text, &exitError{exitFailed, err}
	}
	c, err := text.Parse(file, os.Environ())
	if invalid, ok := errors.AsType[*config.Invalid](err); ok {
		them := "it"
		if len(invalid.Problems) > 1 {
			them = "them"
		}
		fmt.Fprintf(stderr, "%v; correct %s, then %s\n", invalid, them, next)
		return nil, text, &exitError{exitFailed, nil}
	}
	if err != nil {
		return nil, text, &exitError{exitFailed, err}
	}
	return c, text, nil
}

func write(w io.Writer, text []byte) error {
	if _, err := w.Write(text); err != nil {
		return &exitError{exitFailed, fmt.Errorf("write the output: %w", err)}
	}
	return nil
}

// explainConfig says what a valid configuration means.
func explainConfig(out io.Writer, file string, c *config.Config, warnings []string) error {
	var b strings.Builder
	if file == "" {
		file = "no file, built-in defaults"
	}
	fmt.Fprintf(&b, "%s: valid\n\n", file)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(w, "%s\t%s\n", name, fmt.Sprintf(format, args...)) }

	row("listen", "%s, %s", c.Listen, choose(c.TLS.Enabled(), "TLS by "+c.TLS.Cert, "plain HTTP"))
	row("admin", "%s, %s%s", c.Admin.Listen, choose(c.Admin.TLS.Enabled(), "TLS by "+c.Admin.TLS.Cert+", ", ""), choose(c.Admin.TokenFile != "", "token in "+c.Admin.TokenFile, "no token"))
	row("metrics", "%s", choose(c.Metrics.Listen != "", c.Metrics.Listen+", no token", "on the admin listener"))
	row("cache", "%s, up to %s%s, %s of the disk stays free, %s", c.Cache.Dir, c.Cache.Size,
		choose(c.Cache.Size.Percent > 0, " of the disk", ""), c.Cache.MinFree,
		c.Cache.Durability)
	row("default", "%s", choose(c.DefaultUpstream != "", c.DefaultUpstream, "none: requests must name a registry, so Docker's registry-mirrors does not work"))
	row("upstreams", "%d, all others are refused", len(c.Upstreams))
	for _, u := range c.Upstreams {
		ruled := choose(u.Access == "rules", "; the rules say what may be pulled", "")
		if u.IsPattern() {
			row("  "+u.Name, "each host that fits, at https://HOST%s", ruled)
		} else {
			row("  "+u.Name, "%s%s%s", u.Endpoints[0].URL,
				choose(len(u.Aliases) > 0, ", also called "+strings.Join(u.Aliases, " and "), ""), ruled)
		}
		what := "public images alone, for the sake of its limits; private ones need access: rules"
		if u.Access == "rules" {
			what = "what the rules let clients pull"
		}
		for _, e := range u.Endpoints {
			if e.ClientCert != "" {
				row("", "by %s at %s: %s", e.ClientCert, e.URL, choose(u.Access == "rules", what, "all that it may read, to each client"))
			}
		}
		for _, c := range u.Credentials {
			row("", "as %s (%s) for %s: %s", c.Name, c.Sources()[0],
				choose(len(c.Repositories) > 0, strings.Join(c.Repositories, " "), "all"), what)
		}
	}
	for _, r := range c.Rules {
		row("rule", "each client that can connect to the mirror may pull %s", strings.Join(r.Pull, " "))
	}
	for _, o := range c.Overrides {
		row(o.Path, "from %s", o.Variable)
	}
	if err := w.Flush(); err != nil {
		return &exitError{exitFailed, fmt.Errorf("write the output: %w", err)}
	}

	b.WriteString("\nA running mirror takes up changes of this file; mirror config print marks the settings that need a restart.\n")
	for _, text := range warnings {
		fmt.Fprintf(&b, "\nwarning: %s\n", text)
	}
	return write(out, []byte(b.String()))
}

// diskWarnings are what the disk of the cache has to say of its settings, where it is a disk of this machine.
func diskWarnings(c *config.Config) []string {
	sp, err := disk.SpaceAt(c.Cache.Dir)
	if err != nil {
		return nil // the configuration may be for another machine
	}
	if size := c.Cache.Size.Of(sp.Total); size > sp.Total {
		return []string{fmt.Sprintf("cache.size is %s, and the disk of %s has %s: it is full long before; write less, or a percentage, "+
			"as in 80%%", amount(size), c.Cache.Dir, amount(sp.Total))}
	}
	return nil
}

func choose(yes bool, this, that string) string {
	if yes {
		return this
	}
	return that
}
