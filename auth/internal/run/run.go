// Package run runs the programs that yield credentials: docker credential helpers and kubelet credential providers.
//
// Promise: a program ends with its context, and what it has started goes with it. Its output is bounded. An error
// says which program, how it ended and what it had to say, without the secrets that it was given.
//
// It does not read what a program prints: that is a protocol's.
package run

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/internal/text"
)

const (
	maxOutput  = 1 << 20 // bytes of standard output; credentials have some thousands
	maxMessage = 4 << 10 // bytes of standard error that are looked at
)

// MaxSaid is how many bytes of a program's message are shown.
const MaxSaid = 240

// Program is a program with its input.
type Program struct {
	Path    string            // a name is looked up in PATH
	Args    []string          //
	Env     map[string]string // on top of our own environment
	Secrets []string          // texts of the input that must not be in an error
}

// Error is how a program failed.
type Error struct {
	Program string // its base name
	Err     error  // an *exec.ExitError where it ran and said that it failed
	Said    string // the first line of standard error, cleaned
	// Output is what it printed before it failed: some protocols put the reason there. It may hold anything.
	Output []byte
}

func (e *Error) Error() string {
	s := fmt.Sprintf("%s: %v", e.Program, e.Err)
	if e.Said != "" {
		s += ": " + e.Said
	}
	return s
}

func (e *Error) Unwrap() error { return e.Err }

// errTooMuch is the end of a program that prints without end.
var errTooMuch = fmt.Errorf("printed more than %d bytes", maxOutput)

// Output runs a program with input on its standard input and gives what it printed. Its error is an *Error.
func Output(ctx context.Context, p Program, input []byte) ([]byte, error) {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)

	cmd := exec.CommandContext(ctx, p.Path, p.Args...)
	cmd.Env = os.Environ()
	for name, value := range p.Env {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	cmd.Stdin = bytes.NewReader(input)
	out := &bounded{most: maxOutput, over: func() { stop(errTooMuch) }}
	said := &bounded{most: maxMessage}
	cmd.Stdout, cmd.Stderr = out, said
	// A helper is often a script: what it has started must not outlive it, nor keep its pipes open.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second

	err := cmd.Run()
	if cmd.Process != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // what it left behind
	}
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if err == nil {
		return out.b.Bytes(), nil
	}
	if inner, ok := errors.AsType[*exec.Error](err); ok { // its text would name the program a second time
		err = inner.Err
	}
	return nil, &Error{
		Program: filepath.Base(p.Path), Err: err, Said: text.FirstLine(said.b.String(), MaxSaid, append(secretsOf(cmd.Env), p.Secrets...)...), Output: out.b.Bytes(),
	}
}

// secretsOf are the values of variables that are secret by their name. A program may print its environment when it fails.
func secretsOf(env []string) (list []string) {
	for _, variable := range env {
		name, value, _ := strings.Cut(variable, "=")
		secret := func(word string) bool { return strings.Contains(strings.ToUpper(name), word) }
		if slices.ContainsFunc([]string{"SECRET", "TOKEN", "PASS", "KEY", "CREDENTIAL", "AUTH"}, secret) {
			list = append(list, value)
		}
	}
	return list
}

// bounded is a buffer that takes so much and no more.
type bounded struct {
	b    bytes.Buffer // not embedded: its ReadFrom would take everything
	most int
	over func() // nil: what is too much is dropped
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.most - b.b.Len(); len(p) > room {
		b.b.Write(p[:max(room, 0)])
		if b.over != nil {
			b.over()
		}
		return len(p), nil
	}
	return b.b.Write(p)
}
