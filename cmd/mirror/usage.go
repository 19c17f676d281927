package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
)

// misused prints what is wrong with a command line, and where its help is. cmd is the command that was found.
func misused(stderr io.Writer, cmd *cobra.Command, err error) {
	fmt.Fprintf(stderr, "mirror: %s\n", printable(err.Error()))
	if example, _, _ := strings.Cut(strings.TrimSpace(cmd.Example), "\n"); example != "" {
		fmt.Fprintf(stderr, "For example: %s\n", example)
	}
	fmt.Fprintf(stderr, "Run '%s --help' for the %s.\n", cmd.CommandPath(),
		choose(cmd.HasAvailableSubCommands(), "commands and flags", "flags and examples"))
}

// printable is a text of several lines for a terminal, which names of files can't control.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return -1
	}, s)
}

// awaited returns what read does, or an error as soon as the command is interrupted: input may never come.
func awaited[T any](ctx context.Context, read func() (T, error)) (T, error) {
	type outcome struct {
		value T
		err   error
	}
	ended := make(chan outcome, 1)
	go func() {
		v, err := read()
		ended <- outcome{v, err}
	}()
	select {
	case o := <-ended:
		return o.value, o.err
	case <-ctx.Done():
		return *new(T), errors.New("interrupted while it read its input")
	}
}

// called is the name of a command without that of the program, which stands before each message.
func called(cmd *cobra.Command) string { return strings.TrimPrefix(cmd.CommandPath(), "mirror ") }

// noArgs is the Args of a command that takes none. A file is most likely the configuration.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	err := fmt.Errorf("%s takes no argument, but got %q", called(cmd), args[0])
	if ext := filepath.Ext(args[0]); cmd.Flag("config") != nil && (ext == ".yaml" || ext == ".yml" || ext == ".json") {
		err = fmt.Errorf("%w; write --config %s", err, args[0])
	}
	if strings.Contains(args[0], "://") {
		for _, flag := range []string{"mirror", "admin"} {
			if cmd.Flag(flag) != nil {
				return fmt.Errorf("%w; write --%s %s", err, flag, args[0])
			}
		}
	}
	return err
}

// oneArg is the Args of a command that takes exactly one, which noun describes.
func oneArg(noun string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch len(args) {
		case 0:
			return fmt.Errorf("%s needs %s", called(cmd), noun)
		case 1:
			return nil
		}
		return fmt.Errorf("%s takes %s, but got %d arguments: %s", called(cmd), noun, len(args), strings.Join(args, " "))
	}
}

// mostOneArg is the Args of a command that takes at most one, which noun describes.
func mostOneArg(noun string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < 2 {
			return nil
		}
		return oneArg(noun)(cmd, args)
	}
}

// configFileOf is the file that --config or the one argument of a command names.
func configFileOf(cmd *cobra.Command, file string, args []string) (string, error) {
	switch {
	case len(args) == 0:
		return file, nil
	case cmd.Flags().Changed("config") && file != args[0]:
		return "", fmt.Errorf("%s and --config %s are two files; give only one", args[0], file)
	}
	return args[0], nil
}

// synonyms are flags of other programs, and letters of flags that have none here.
var synonyms = map[string]string{
	"c": "config", "f": "config", "file": "config", "conf": "config", "cfg": "config", "config-file": "config", "configuration": "config",
	"a": "admin", "url": "admin", "host": "admin", "server": "admin", "address": "admin", "addr": "admin", "endpoint": "admin", "H": "admin",
	"token": "admin-token-file", "token-file": "admin-token-file", "t": "admin-token-file",
	"w": "watch", "follow": "watch", "n": "limit", "tail": "limit", "count": "limit", "format": "output", "json": "output", "yaml": "output",
	"arch": "platform", "os": "platform", "all": "declined", "group-by": "by",
}

// flagError explains a flag that a command does not have: which one is meant, or that it is a setting.
func flagError(cmd *cobra.Command, err error) error {
	if wrong, ok := errors.AsType[*flagValueError](err); ok {
		return wrong
	}
	unknown, ok := errors.AsType[interface {
		error
		GetSpecifiedName() string
	}](err)
	if !ok {
		return err
	}
	name := unknown.GetSpecifiedName()
	if cmd.Flag(name) != nil || len(name) == 1 && cmd.Flags().ShorthandLookup(name) != nil {
		return err // the flag exists; its value is missing
	}
	if known := synonyms[name]; known != "" && cmd.Flag(known) != nil {
		return fmt.Errorf("%w; did you mean --%s?", err, known)
	}
	if path, variable, ok := config.SettingOf(name); ok {
		return fmt.Errorf("unknown flag: %s%s; it is the setting %s: set %s, or %s in the file of --config",
			choose(len(name) == 1, "-", "--"), name, path, variable, path)
	}
	var names []string
	for line := range strings.Lines(cmd.Flags().FlagUsages()) { // cobra has added the inherited ones
		if _, flag, ok := strings.Cut(line, "--"); ok {
			names = append(names, strings.FieldsFunc(flag, func(r rune) bool { return r == ' ' || r == '=' || r == '\n' })[0])
		}
	}
	if near := config.Nearest(name, names); near != "" {
		return fmt.Errorf("%w; did you mean --%s?", err, near)
	}
	return err
}

// setHelpCmd has cobra's help command return an error for an unknown topic.
func setHelpCmd(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	cmd, _, _ := root.Find([]string{"help"})
	cmd.Use, cmd.Long = "help [COMMAND]", `Show the help of a command, as COMMAND --help does.`
	cmd.Short = "Show the help of a command"
	cmd.Run = nil
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		at, rest, err := root.Find(args)
		if err != nil || len(rest) > 0 {
			if at == nil || len(rest) == 0 {
				at, rest = root, args
			}
			return subcommand(at, rest)
		}
		at.InitDefaultHelpFlag()
		return at.Help()
	}
}

// flagValueError is a wrong value of a flag. It is the whole message: cobra's own would name the flag twice.
type flagValueError struct{ text string }

func (e *flagValueError) Error() string { return e.text }

// lengthFlag is a flag whose value is a length of time, which may have days.
type lengthFlag struct {
	flag   string // as it is typed, with its dashes
	length *time.Duration
}

// Set takes a value.
func (f lengthFlag) Set(v string) error {
	d, err := admin.Duration(v)
	if err != nil {
		return &flagValueError{fmt.Sprintf("%s %s: %s", f.flag, v, err)}
	}
	*f.length = d
	return nil
}

func (f lengthFlag) String() string {
	switch {
	case f.length == nil || *f.length == 0:
		return ""
	case *f.length%(24*time.Hour) == 0:
		return fmt.Sprintf("%dd", *f.length/(24*time.Hour))
	}
	return f.length.String()
}

// Type is what the help calls the value.
func (f lengthFlag) Type() string { return "duration" }

// choice is a flag whose value is one of a closed list of words.
type choice struct {
	flag  string // as it is typed, with its dashes
	value *string
	words []string
}

// addChoice adds a flag that takes one of the words, and completes them. letter is its short name; empty: it has none.
func addChoice(cmd *cobra.Command, value *string, name, letter string, words []string, usage string) {
	c := &choice{flag: choose(letter != "", "-"+letter, "--"+name), value: value, words: words}
	cmd.Flags().VarP(c, name, letter, usage)
	completes(cmd, name, words...)
}

// Set takes a value. Empty: the flag is not given.
func (c *choice) Set(v string) error {
	if v != "" && !slices.Contains(c.words, v) {
		near := config.Nearest(v, c.words)
		return &flagValueError{fmt.Sprintf("%s %s: must be %s%s", c.flag, v, list(c.words, "or"),
			choose(near != "", fmt.Sprintf("; did you mean %q?", near), ""))}
	}
	*c.value = v
	return nil
}

func (c *choice) String() string { return *c.value }

// Type is what the help calls the value.
func (c *choice) Type() string { return "string" }

// limit is the flag --limit: how many elements of a list are shown.
type limit int

const maxLimit = 1000 // the API's page

// addLimit adds the flag --limit.
func addLimit(cmd *cobra.Command, l *limit, usage string) {
	*l = 50
	cmd.Flags().Var(l, "limit", usage)
}

// Set takes a value.
func (l *limit) Set(v string) error {
	n, err := strconv.Atoi(v)
	if err != nil || n < 1 || n > maxLimit {
		return &flagValueError{fmt.Sprintf("--limit %s: must be a number from 1 to %d", v, maxLimit)}
	}
	*l = limit(n)
	return nil
}

func (l *limit) String() string { return strconv.Itoa(int(*l)) }

// Type is what the help calls the value.
func (l *limit) Type() string { return "int" }

// moreText is the line below a list that has a further page. next is the parameter for it; empty: the list is whole.
func moreText(next string) string {
	return choose(next != "", fmt.Sprintf("\nThere are more; --limit shows up to %d.\n", maxLimit), "")
}

// completes registers the words that complete the value of a flag.
func completes(cmd *cobra.Command, flag string, words ...string) {
	complete := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag does not exist: a mistake of ours
	}
}

// addConfig adds the flag --config. what says which file it is.
func addConfig(cmd *cobra.Command, file *string, what string) {
	cmd.Flags().StringVar(file, "config", os.Getenv("MIRROR_CONFIG"), "configuration `file` "+what+"; variable MIRROR_CONFIG")
	completesFiles(cmd, "config", "yaml", "yml")
}

// completesFiles registers that the value of a flag is a file with one of these endings.
func completesFiles(cmd *cobra.Command, flag string, endings ...string) {
	if err := cmd.MarkFlagFilename(flag, endings...); err != nil {
		panic(err) // the flag does not exist: a mistake of ours
	}
}
