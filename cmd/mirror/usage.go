package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
)

// misused says what is wrong with a command line, and where the help for it is. cmd is the command that it came to.
func misused(stderr io.Writer, cmd *cobra.Command, err error) {
	fmt.Fprintf(stderr, "mirror: %v\n", err)
	if example, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n"); example != "" {
		fmt.Fprintf(stderr, "For example: %s\n", example)
	}
	fmt.Fprintf(stderr, "Run '%s --help' for the %s.\n", cmd.CommandPath(),
		choose(cmd.HasAvailableSubCommands(), "commands and flags there are", "flags there are, and examples"))
}

// called is a command without the name of the program, which stands before each message.
func called(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "mirror ") }

// noArgs is the Args of a command that takes none. A file is most often the configuration.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%s takes no argument, and was given %q", called(cmd), args[0])
	if ext := filepath.Ext(args[0]); cmd.Flag("config") != nil && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
		err = fmt.Errorf("%w; write --config %s", err, args[0])
	}
	return err
}

// oneArg is the Args of a command that takes exactly one, which is called what.
func oneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s needs %s", called(cmd), what)
		case 1:
			return nil
		}
		return fmt.Errorf("%s takes %s, and was given %d arguments: %s", called(cmd), what, len(args), strings.Join(args, " "))
	}
}

// mostOneArg is the Args of a command that takes at most one, which is called what.
func mostOneArg(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return nil
		}
		return oneArg(what)(cmd, args)
	}
}

// configFileOf is the file that --config or the one argument of a command names.
func configFileOf(cmd *cobra.Command, file string, args []string) (string, error) {
	switch {
	case len(args) == 0:
		return file, nil
	case cmd.Flags().Changed("config") && file != args[0]:
		return "", fmt.Errorf("%s and --config %s are two files; write one", args[0], file)
	}
	return args[0], nil
}

// synonyms are flags of other programs, and letters for flags that have none here.
var synonyms = map[string]string{
	"c": "config", "f": "config", "file": "config", "conf": "config", "cfg": "config", "config-file": "config", "configuration": "config",
	"a": "admin", "url": "admin", "host": "admin", "server": "admin", "address": "admin", "addr": "admin", "endpoint": "admin", "H": "admin",
	"token": "admin-token-file", "token-file": "admin-token-file", "t": "admin-token-file",
	"w": "watch", "follow": "watch", "n": "limit", "tail": "limit", "count": "limit", "format": "output", "json": "output", "yaml": "output",
	"arch": "platform", "os": "platform", "all": "declined", "group-by": "by",
}

// flagError says more of a flag that a command does not have: which one is meant, or that it is a setting.
func flagError(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[interface {
		error
		GetSpecifiedName() string
	}](err)
	if !ok {
		return err
	}
	name := unknown.GetSpecifiedName()
	if cmd.Flag(name) != nil || len(name) == 1 && cmd.Flags().ShorthandLookup(name) != nil {
		return err // it is there, and lacks its value
	}
	if known := synonyms[name]; known != "" && cmd.Flag(known) != nil {
		return fmt.Errorf("%w; did you mean --%s?", err, known)
	}
	if path, variable, ok := config.SettingOf(name); ok {
		return fmt.Errorf("there is no flag %s%s: it is the setting %s; set %s, or %s in the file of --config",
			choose(len(name) == 1, "-", "--"), name, path, variable, path)
	}
	var names []string
	for _, set := range []interface{ FlagUsages() string }{cmd.Flags(), cmd.InheritedFlags()} {
		for line := range strings.Lines(set.FlagUsages()) {
			if _, flag, ok := strings.Cut(line, "--"); ok {
				names = append(names, strings.FieldsFunc(flag, func(r rune) bool { return r == ' ' || r == '=' || r == '\n' })[0])
			}
		}
	}
	if near := config.Nearest(name, names); near != "" {
		return fmt.Errorf("%w; did you mean --%s?", err, near)
	}
	return err
}

// newHelpCmd is cobra's help, but an unknown topic is an error.
func newHelpCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Show the help of a command",
		Long:  `Show the help of a command, as COMMAND --help does.`,
		Args:  cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				if at == nil || len(rest) == 0 {
					at, rest = cmd.Root(), args
				}
				return subcommand(at, rest)
			}
			at.InitDefaultHelpFlag()
			return at.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
			at, _, err := cmd.Root().Find(args)
			if err != nil {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			var names []string
			for _, sub := range at.Commands() {
				if sub.IsAvailableCommand() {
					names = append(names, sub.Name()+"\t"+sub.Short)
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// values completes a flag with the words it may have.
func values(words ...string) cobra.CompletionFunc {
	return cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
}

// completes registers what completes the value of a flag.
func completes(cmd *cobra.Command, flag string, words ...string) {
	if err := cmd.RegisterFlagCompletionFunc(flag, values(words...)); err != nil {
		panic(err) // there is no such flag: a mistake of ours
	}
}

// completesFiles registers that the value of a flag is a file with one of these endings.
func completesFiles(cmd *cobra.Command, flag string, endings ...string) {
	if err := cmd.MarkFlagFilename(flag, endings...); err != nil {
		panic(err) // there is no such flag: a mistake of ours
	}
}

// oneOf checks the value of a flag that has a closed list of them. Empty is not given.
func oneOf(flag, value string, words []string) error {
	if value == "" || slices.Contains(words, value) {
		return nil
	}
	if near := config.Nearest(value, words); near != "" {
		return fmt.Errorf("--%s %s: there is none; did you mean %q? There are %s", flag, value, near, list(words))
	}
	return fmt.Errorf("--%s %s: there is none; there are %s", flag, value, list(words))
}

// list is words as a sentence has them.
func list(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
