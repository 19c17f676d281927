package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

// With --stay the mirror keeps running for other commands.
func TestDemoStays(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	said := make(chan string, 64)
	done := make(chan int, 1)
	go func() { done <- run(ctx, writes(said), writes(nil), "demo", "--stay") }()
	where := ""
	for where == "" {
		select {
		case text := <-said:
			if _, rest, ok := strings.Cut(text, "MIRROR_ADMIN="); ok {
				where, _, _ = strings.Cut(rest, "\n")
			}
		case code := <-done:
			t.Fatalf("it ended with %d", code)
		}
	}
	if code, out, errs := commandLine(t, "status", "--admin", where); code != 0 || !strings.Contains(out, "shop.example shop-pull is rejected") {
		t.Errorf("%d %s\n%s", code, errs, out)
	}
	cancel()
	if code := <-done; code != exitOK {
		t.Errorf("after Ctrl-C: %d", code)
	}
}

// writes gives what is written to a channel.
type writes chan string

func (w writes) Write(p []byte) (int, error) {
	if w != nil {
		w <- string(bytes.Clone(p))
	}
	return len(p), nil
}
