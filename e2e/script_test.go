package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/registrymirror/mirror/internal/demo"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

// TestScripts runs testdata/script: sessions of a person at a terminal, with the real binary. PATH has the mirror, ROOT is
// the repository. Besides the commands of testscript there are:
//
//	exits CODE COMMAND...    runs a command, and expects its exit code
//	waitfor RE COMMAND...    runs a command again and again until its output matches
//	capture NAME RE          sets a variable to the first group of RE in the output before
//	registry NAME KIND       starts a registry (healthy, private, limiting or portal) with the image acme/app:v1; NAME is
//	                         then its HOST:PORT
//	down NAME                ends a registry
//	expand FROM TO           writes a file with its variables replaced, by rename
//	serve FILE [NAME=VALUE]  starts the mirror with a configuration, in which variables are replaced, and waits until it is
//	                         ready. MIRROR is where clients pull, MIRROR_ADMIN its admin listener
//	log RE                   waits for a line in the mirror's log
//	shutdown                 ends the mirror, and expects exit code 0
//	pull HOST                pulls HOST/acme/app:v1 from the mirror as containerd does; its error goes to stderr
//	damage DIR               changes a byte of the largest blob in a cache folder
func TestScripts(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Values[sessionKey{}] = &session{registries: make(map[string]*demo.Registry)}
			env.Vars = append(env.Vars, "ROOT="+root)
			for _, v := range proc.Env() {
				if strings.HasPrefix(strings.ToUpper(v), "HTTP") || strings.HasPrefix(strings.ToUpper(v), "NO_PROXY") {
					env.Vars = append(env.Vars, v)
				}
			}
			env.Setenv("PATH", filepath.Dir(mirrord.Binary)+":"+env.Getenv("PATH"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "waitfor": waitFor, "capture": capture, "registry": startRegistry, "down": stopRegistry,
			"expand": expand, "serve": serve, "log": waitForLog, "shutdown": shutdown, "pull": pullByScript,
			"damage": damageByScript,
		},
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
	})
}

// session is the state of one script.
type session struct {
	registries map[string]*demo.Registry
	mirror     *proc.Process
}

type sessionKey struct{}

func sessionOf(ts *testscript.TestScript) *session { return ts.Value(sessionKey{}).(*session) }

// patience is how long a script waits for an output or a log line.
const patience = 2 * time.Minute

func usage(ts *testscript.TestScript, wrong bool, text string) {
	if wrong {
		ts.Fatalf("usage: %s", text)
	}
}

// exits leaves the output for stdout and stderr.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "exits CODE COMMAND...")
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func waitFor(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 2, "waitfor RE COMMAND...")
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	ts.Check(wait.Until(context.Background(), patience, func() error {
		if err := ts.Exec(args[1], args[2:]...); err != nil {
			return err
		}
		if !re.MatchString(ts.ReadFile("stdout")) {
			return fmt.Errorf("the output does not match %s", re)
		}
		return nil
	}))
}

func capture(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "capture NAME RE")
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	m := re.FindStringSubmatch(ts.ReadFile("stdout") + ts.ReadFile("stderr"))
	if len(m) < 2 {
		ts.Fatalf("no match for the group of %s", re)
	}
	ts.Setenv(args[0], m[1])
}

var registryKinds = map[string]demo.Kind{
	"healthy": demo.Healthy, "private": demo.Private, "limiting": demo.Limiting, "portal": demo.Portal,
}

func startRegistry(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "registry NAME KIND")
	kind, ok := registryKinds[args[1]]
	usage(ts, !ok, "registry NAME healthy|private|limiting|portal")
	r, err := demo.Start(context.Background(), kind)
	ts.Check(err)
	ts.Defer(func() { _ = r.Close() })
	sessionOf(ts).registries[args[0]] = r
	ts.Setenv(args[0], r.Addr())
}

func stopRegistry(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "down NAME")
	r := sessionOf(ts).registries[args[0]]
	if r == nil {
		ts.Fatalf("registry %s does not run", args[0])
	}
	ts.Check(r.Close())
}

func expand(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 2, "expand FROM TO")
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	to := ts.MkAbs(args[1])
	ts.Check(os.WriteFile(to+"~", []byte(text), 0o600))
	ts.Check(os.Rename(to+"~", to))
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) < 1, "serve FILE [NAME=VALUE]...")
	s := sessionOf(ts)
	if s.mirror != nil {
		ts.Fatalf("the mirror runs already")
	}
	expand(ts, false, []string{args[0], args[0]})
	p, err := proc.Launch(proc.Options{
		Name: "mirror", Dir: ts.Getenv("WORK"), Env: args[1:], Again: 300 * time.Millisecond, Grace: 90 * time.Second,
	}, mirrord.Binary, "serve", "--config", ts.MkAbs(args[0]))
	ts.Check(err)
	s.mirror = p
	ts.Defer(func() {
		ts.Logf("the mirror's log:\n%s", p.Output())
		p.End()
	})
	m := readLog(ts, `"msg":"mirror is ready","listen":"([^"]+)","admin":"([^"]+)"`)
	ts.Setenv("MIRROR", m[1])
	ts.Setenv("MIRROR_ADMIN", "http://"+m[2])
}

// readLog waits for a line in the mirror's log, and returns its submatches.
func readLog(ts *testscript.TestScript, pattern string) (m []string) {
	re, err := regexp.Compile(pattern)
	ts.Check(err)
	p := sessionOf(ts).mirror
	if p == nil {
		ts.Fatalf("the mirror does not run")
	}
	ts.Check(wait.Until(context.Background(), patience, func() error {
		if m = re.FindStringSubmatch(p.Output()); m != nil {
			return nil
		}
		return cmp.Or(p.Exited(), fmt.Errorf("no line matches %s", re))
	}))
	return m
}

func waitForLog(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "log RE")
	readLog(ts, args[0])
}

func shutdown(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) > 0, "shutdown")
	s := sessionOf(ts)
	if s.mirror == nil || !s.mirror.End() {
		ts.Fatalf("the mirror did not stop cleanly")
	}
	s.mirror = nil
}

func pullByScript(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, len(args) != 1, "pull HOST")
	got, err := demo.Pull(context.Background(), "http://"+ts.Getenv("MIRROR"), args[0], args[0])
	if err != nil {
		fmt.Fprintln(ts.Stderr(), err)
	} else {
		fmt.Fprintf(ts.Stdout(), "pulled %d bytes, stale %t\n", got.Bytes, got.Stale)
	}
	if (err != nil) != neg {
		ts.Fatalf("pull %s: %v", args[0], err)
	}
}

func damageByScript(ts *testscript.TestScript, neg bool, args []string) {
	usage(ts, neg || len(args) != 1, "damage DIR")
	var largest string
	var size int64
	ts.Check(filepath.WalkDir(filepath.Join(ts.MkAbs(args[0]), "blobs"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	}))
	b, err := os.ReadFile(largest)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(largest, b, 0o600)) //nolint:gosec // a path of the test's own
}
