package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/registrymirror/mirror/admin"
	"github.com/registrymirror/mirror/config"
)

// serving runs "mirror serve" over a file, and returns where its admin listener is.
func serving(t *testing.T, file string) (where string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan int, 1)
	go func() {
		done <- run(ctx, io.Discard, w, "serve", "--config", file)
		_ = w.Close()
	}()
	t.Cleanup(func() {
		cancel()
		if code := <-done; code != exitOK {
			t.Errorf("serve ended with %d", code)
		}
	})
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), `"admin":"`); ok {
			where, _, _ = strings.Cut(rest, `"`)
			break
		}
	}
	go func() { _, _ = io.Copy(io.Discard, r) }()
	if where == "" {
		t.Fatal("the mirror did not start")
	}
	return where
}

// reload, status and pulls ask a mirror that runs.
func TestAskARunningMirror(t *testing.T) {
	t.Parallel()
	text := "listen: 127.0.0.1:0\nadmin: {listen: '127.0.0.1:0'}\ncache: {dir: data}\nlog: {format: json}\nupstreams: {ghcr.io: {credentials: " +
		"[{name: none, username: u, passwordFile: none}]}}\n"
	file := configFile(t, text)
	where := serving(t, file)
	put := func(text string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(file+"~", []byte(text), 0o600), os.Rename(file+"~", file)); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(want int, says string, args ...string) string {
		t.Helper()
		code, out, errs := commandLine(t, append(args, "--admin", where)...)
		if code != want || !strings.Contains(out+errs, says) {
			t.Errorf("%q: %d, want %d and %q:\n%s%s", args, code, want, says, out, errs)
		}
		return out + errs
	}
	ask(exitOK, "no setting has changed", "reload")
	status := ask(exitOK, "config       "+file+", read", "status")
	if !strings.Contains(status, "credentials  1 is not well:\n             ghcr.io none is failing for ") ||
		!strings.Contains(status, filepath.Join(filepath.Dir(file), "none")+" does not exist; create it") {
		t.Errorf("status:\n%s", status)
	}
	ask(exitOK, "No pull is running", "pulls")
	ask(exitOK, "No pull is finished yet", "pulls", "--over")

	put(text + "drain: 2m\n")
	ask(exitOK, "These changes need a restart: drain.", "reload")
	ask(exitOK, "needs a restart: drain", "status")
	put(text + "drian: 2m\nlisten: x\n")
	refused := ask(exitFailed, "the configuration was not reloaded, the old one stays in use", "reload")
	if !strings.Contains(refused, file+":6:1: drian: unknown key") || !strings.Contains(refused, file+":7:1: ") {
		t.Errorf("not each problem:\n%s", refused)
	}
	ask(exitOK, "the last reload was refused: "+file+":6:1", "status")
	// What a file lost at its end may be what an editor has not written yet, also where a reload is asked for.
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	refused = ask(exitFailed, "the configuration was not reloaded, the old one stays in use", "reload")
	if !strings.Contains(refused, file+" ends at line 5") {
		t.Errorf("half a file:\n%s", refused)
	}
	ask(exitOK, "the last reload was refused: "+file+" ends at line 5", "status")
	ask(exitOK, "needs a restart: drain", "status")
	put(text) // renamed into place, it is whole
	ask(exitOK, "", "reload")
	if s := ask(exitOK, "ready", "status"); strings.Contains(s, "restart") || strings.Contains(s, "refused") {
		t.Errorf("mended:\n%s", s)
	}
}

// The answer to a request for a reload says how it went.
func TestAnswerOfAReload(t *testing.T) {
	t.Parallel()
	_, invalid := config.Parse("c.yaml", []byte("a: 1\nb: 2\n"), nil)
	for _, tt := range []struct {
		how  reloaded
		want admin.Reloaded
		err  error
	}{
		{reloaded{changed: []string{"log.level"}, restart: []string{"listen"}}, admin.Reloaded{Changed: []string{"log.level"}, Restart: []string{"listen"}}, nil},
		{reloaded{err: errors.New("x")}, admin.Reloaded{}, &admin.NotReloaded{Problems: []string{"x"}}},
		{reloaded{err: invalid}, admin.Reloaded{}, &admin.NotReloaded{Problems: []string{"c.yaml:1:1: a: unknown key", "c.yaml:2:1: b: unknown key"}}},
	} {
		requests := make(chan chan<- reloaded)
		go func() { (<-requests) <- tt.how }()
		got, err := requester(requests)(t.Context())
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Error(diff)
		}
		refused, _ := errors.AsType[*admin.NotReloaded](err)
		want, _ := errors.AsType[*admin.NotReloaded](tt.err)
		if (refused == nil) != (want == nil) || refused != nil && len(refused.Problems) != len(want.Problems) ||
			refused != nil && !strings.HasPrefix(refused.Problems[0], want.Problems[0]) {
			t.Errorf("%v, want %v", err, tt.err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := requester(make(chan chan<- reloaded))(ctx); err == nil {
		t.Error("a mirror that does not answer")
	}
}
