// Package proc runs programs for tests: servers that live until the test ends, and commands that are waited for.
//
// Promise: nothing outlives its test. A process is ended by its own id and that of its group, first by a request, then
// by force; and by the kernel where the test's own process dies.
//
// Nothing leaves the machine: unless asked otherwise, the programs get a proxy for every address but loopback, and
// nothing listens there. Linux only.
package proc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Options of a process.
type Options struct {
	Name  string   // in messages; empty: the program
	Dir   string   // empty: the test's
	Env   []string // added to the environment
	Stdin []byte
	// Again is how long after the first signal a second one follows, for a server that then stops without waiting; 0: none.
	Again time.Duration
	// Stop is sent first to end a server, SIGTERM where it is zero; Grace is how long it may take, 30 seconds where
	// it is zero.
	Stop  syscall.Signal
	Grace time.Duration
}

// offline sends everything but loopback to a port where nothing listens.
var offline = []string{
	"HTTP_PROXY=http://127.0.0.1:9", "HTTPS_PROXY=http://127.0.0.1:9", "ALL_PROXY=http://127.0.0.1:9",
	"http_proxy=http://127.0.0.1:9", "https_proxy=http://127.0.0.1:9",
	"NO_PROXY=127.0.0.1,localhost,::1", "no_proxy=127.0.0.1,localhost,::1",
}

// Env is the environment that programs get, with more added. What the caller has set for a mirror is left out.
func Env(more ...string) []string {
	own := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "MIRROR_") })
	return slices.Concat(own, offline, more)
}

// Process is a running or ended server.
type Process struct {
	Name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{}
	o    Options
}

// Start runs a server until the test ends. Its output is shown where the test fails.
func Start(t testing.TB, o Options, program string, args ...string) *Process {
	t.Helper()
	p, err := Launch(o, program, args...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		p.End()
		if t.Failed() {
			t.Log(p.Tail())
		}
	})
	return p
}

// Launch runs a server until End.
func Launch(o Options, program string, args ...string) (*Process, error) {
	if o.Name == "" {
		o.Name = program
	}
	if o.Stop == 0 {
		o.Stop = syscall.SIGTERM
	}
	if o.Grace == 0 {
		o.Grace = 30 * time.Second
	}
	p := &Process{Name: o.Name, out: &output{}, done: make(chan struct{}), o: o}
	p.cmd = exec.Command(program, args...) //nolint:noctx // End stops it, in order
	p.cmd.Dir, p.cmd.Env = o.Dir, Env(o.Env...)
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	p.cmd.WaitDelay = time.Second // a grandchild that holds our pipe
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", o.Name, err)
	}
	go func() {
		_ = p.cmd.Wait() // ProcessState tells
		close(p.done)
	}()
	return p, nil
}

// Pid is its process id.
func (p *Process) Pid() int { return p.cmd.Process.Pid }

// Output is everything that it has written to stdout and stderr so far.
func (p *Process) Output() string { return p.out.String() }

// Tail is its last lines, under a title, for the reader of a failed test.
func (p *Process) Tail() string {
	return fmt.Sprintf("--- %s said last:\n%s", p.Name, tail(p.Output(), 25))
}

// Lines are the whole lines of Output.
func (p *Process) Lines() []string {
	text := p.Output()
	text = text[:strings.LastIndexByte(text, '\n')+1]
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

// Done is closed when it has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Exited is an error that tells how it ended, or nil while it runs.
func (p *Process) Exited() error {
	select {
	case <-p.done:
		return fmt.Errorf("%s has ended: %v\n%s", p.Name, p.cmd.ProcessState, tail(p.Output(), 20))
	default:
		return nil
	}
}

// Signal sends one to the process alone.
func (p *Process) Signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		t.Fatalf("send %v to %s: %v", sig, p.Name, err)
	}
}

// WaitExit waits for its end and returns the exit code, -1 where a signal ended it.
func (p *Process) WaitExit(t testing.TB, limit time.Duration) int {
	t.Helper()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	case <-timer.C:
		t.Fatalf("%s still runs after %s", p.Name, limit)
		return 0
	}
}

// Stop ends it, in order if it can.
func (p *Process) Stop(t testing.TB) {
	t.Helper()
	if !p.End() {
		t.Errorf("%s did not end within %s of %v and was killed", p.Name, p.o.Grace, p.o.Stop)
	}
}

// End ends it, and reports whether it went without force.
func (p *Process) End() bool {
	// What the group still has is killed in any case: a child that outlived its parent.
	defer func() { _ = syscall.Kill(-p.Pid(), syscall.SIGKILL) }()
	select {
	case <-p.done:
		return true
	default:
	}
	_ = p.cmd.Process.Signal(p.o.Stop)
	timer := time.NewTimer(p.o.Grace)
	defer timer.Stop()
	var again <-chan time.Time
	if p.o.Again > 0 {
		again = time.After(p.o.Again)
	}
	for {
		select {
		case <-p.done:
			return true
		case <-again:
			_ = p.cmd.Process.Signal(p.o.Stop)
			continue
		case <-timer.C:
		}
		break
	}
	_ = syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
	return false
}

// Result is what a command said.
type Result struct {
	Code           int // -1 where a signal or the time limit ended it
	Stdout, Stderr string
	Took           time.Duration
}

// Text is both outputs.
func (r Result) Text() string { return r.Stdout + r.Stderr }

// Run runs a command, at most for five minutes: on a busy machine that is a build, or a pull.
func Run(t testing.TB, o Options, program string, args ...string) Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	r, err := Exec(ctx, o, program, args...)
	if err != nil {
		t.Fatalf("run %s %s: %v", program, strings.Join(args, " "), err)
	}
	return r
}

// Exec runs a command until the context ends. An exit code other than 0 is not an error.
func Exec(ctx context.Context, o Options, program string, args ...string) (Result, error) {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir, cmd.Env = o.Dir, Env(o.Env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Stdin = &stdout, &stderr, bytes.NewReader(o.Stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	start := time.Now()
	err := cmd.Run()
	r := Result{Stdout: stdout.String(), Stderr: stderr.String(), Took: time.Since(start)}
	if cmd.ProcessState == nil {
		return r, err
	}
	r.Code = cmd.ProcessState.ExitCode()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		return r, err
	}
	if ctx.Err() != nil {
		return r, fmt.Errorf("%w; it said:\n%s", ctx.Err(), r.Text())
	}
	return r, nil
}

// Must runs a command that has to succeed and returns its stdout.
func Must(t testing.TB, o Options, program string, args ...string) string {
	t.Helper()
	r := Run(t, o, program, args...)
	if r.Code != 0 {
		t.Fatalf("%s %s: exit code %d after %s\n%s", program, strings.Join(args, " "), r.Code, r.Took, r.Text())
	}
	return r.Stdout
}

// output is a buffer that one goroutine fills and others read.
type output struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	all = all[max(0, len(all)-lines):]
	for i, line := range all {
		if len(line) > 400 {
			all[i] = line[:400] + "..."
		}
	}
	return strings.Join(all, "\n")
}
