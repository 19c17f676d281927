package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/registrymirror/mirror/internal/kube"
)

// The files of an agent that was killed are taken back, those of others stay, and a second time there is nothing to do.
func TestNodeClean(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	theirs := filepath.Join(dir, "quay.io", "hosts.toml")
	if err := errors.Join(os.Mkdir(filepath.Dir(theirs), 0o755), os.WriteFile(theirs, []byte("server = \"https://quay.io\"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := commandLine(t, "setup", "containerd", "--mirror", "http://10.0.0.7:5000", "--registry", "ghcr.io", "--registry", "quay.io",
		"--install="+dir); code != exitOK {
		t.Fatal(errs)
	}
	code, out, errs := commandLine(t, "node", "clean", "--dir", dir)
	if code != exitOK || !strings.Contains(out, "removed") || !strings.Contains(out, "restored") {
		t.Errorf("exit code %d, %s%s", code, out, errs)
	}
	if b, err := os.ReadFile(theirs); err != nil || string(b) != "server = \"https://quay.io\"\n" {
		t.Errorf("the file of another program has become %q, %v", b, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "ghcr.io")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the folder of ghcr.io: %v", err)
	}
	if code, out, errs := commandLine(t, "node", "clean", "--dir", dir); code != exitOK || !strings.Contains(out, "nothing of ours") {
		t.Errorf("again: exit code %d, %s%s", code, out, errs)
	}
}

// With --stay the command ends when it is stopped.
func TestNodeCleanStays(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	out := make(printed, 1)
	done := make(chan int)
	go func() { done <- run(ctx, out, out, "node", "clean", "--dir", t.TempDir(), "--stay") }()
	<-out
	select {
	case code := <-done:
		t.Fatalf("it has ended, with %d", code)
	default:
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

type printed chan string

func (p printed) Write(b []byte) (int, error) {
	p <- string(b)
	return len(b), nil
}

// The wait ends when all nodes are done, and otherwise when its time is over, whatever the API server answers.
func TestNodeCleaned(t *testing.T) {
	t.Parallel()
	refused := errors.New("get daemonset: API server answered 403 Forbidden")
	for _, tt := range []struct {
		name    string
		answers []any // the last one stays
		after   time.Duration
		says    string
	}{
		{"done at once", []any{kube.Daemons{Seen: true, Wanted: 3, Ready: 3}}, 0, "nothing of the agent is left on 3 nodes\n"},
		{
			"done later",
			[]any{kube.Daemons{}, errors.New("no route"), kube.Daemons{Seen: true, Wanted: 3, Ready: 1}, kube.Daemons{Seen: true, Wanted: 3, Ready: 3}},
			3 * time.Second, "nothing of the agent is left on 3 nodes\n",
		},
		{
			"a node is gone",
			[]any{kube.Daemons{Seen: true, Wanted: 3, Ready: 2, Unready: []string{"node-7"}}},
			time.Minute,
			"2 nodes are clean; 1 did not answer in time: node-7; where it comes back with files of the agent, run there: mirror node clean\n",
		},
		{"no controller", []any{kube.Daemons{}}, time.Minute, "has made no pod for the nodes"},
		{"refused", []any{refused}, time.Minute, "the API server does not say whether the nodes are clean: " + refused.Error()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				began, n := time.Now(), 0
				d, err := cleaned(ctx, func(context.Context) (kube.Daemons, error) {
					a := tt.answers[min(n, len(tt.answers)-1)]
					n++
					if err, ok := a.(error); ok {
						return kube.Daemons{}, err
					}
					return a.(kube.Daemons), nil
				})
				if took := time.Since(began); took != tt.after {
					t.Errorf("it took %v, want %v", took, tt.after)
				}
				if got := cleanedText(d, err); !strings.Contains(got, tt.says) {
					t.Errorf("it says %q", got)
				}
			})
		})
	}
	if code, _, errs := commandLine(t, "node", "cleaned"); code != exitUsage || !strings.Contains(errs, "needs --namespace") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}
