package main

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/registrymirror/mirror/config"
)

// flagValueError is a wrong value of a flag. It is the whole message: cobra's own would name the flag twice.
type flagValueError struct{ text string }

func (e *flagValueError) Error() string { return e.text }

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

// completes registers the words that complete the value of a flag.
func completes(cmd *cobra.Command, flag string, words ...string) {
	complete := cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)
	if err := cmd.RegisterFlagCompletionFunc(flag, complete); err != nil {
		panic(err) // the flag does not exist: a mistake of ours
	}
}

// completesFiles registers that the value of a flag is a file with one of these endings.
func completesFiles(cmd *cobra.Command, flag string, endings ...string) {
	if err := cmd.MarkFlagFilename(flag, endings...); err != nil {
		panic(err) // the flag does not exist: a mistake of ours
	}
}
