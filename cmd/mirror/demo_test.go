package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// The demo shows what it says, names and not addresses, in the time it promises, and leaves nothing.
func TestDemo(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	began := time.Now()
	code, out, errs := commandLine(t, "demo")
	if code != 0 || errs != "" || time.Since(began) > 10*time.Second {
		t.Fatalf("%d after %s %s\n%s", code, time.Since(began), errs, out)
	}
	text := strings.Join(strings.Fields(out), " ")
	for _, want := range []string{
		"without failed to pull and unpack image \"shop.example/acme/app:v1\": failed to resolve image: failed to authorize",
		"403 Forbidden (mirror: shop.example rejects credential shop-pull: incorrect username or password; renew credential shop-pull of shop.example [",
		"manifests/v1: 429 Too Many Requests",
		"503 Service Unavailable (mirror: hub.example limits anonymous pulls",
		"(text/html) from remote: not found",
		"502 Bad Gateway (mirror: lab.example sent a web page \"Sign in to the guest network\"",
		"connection refused with pulled 3.0 MiB, all of it from the mirror's cache",
		"credentials-rejected shop.example/acme/app:v1", "rate-limited hub.example/acme/app:v1", "not-a-registry lab.example/acme/app:v1",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if rest := strings.ReplaceAll(out, "127.0.0.1:5000", ""); strings.Contains(rest, "127.0.0.1:") || strings.Contains(out, "team.example/acme/app:v1  1") {
		t.Errorf("addresses, or a failure that was none:\n%s", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("it leaves %v %v", left, err)
	}
}

// With --stay other commands can be tried on it.
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
