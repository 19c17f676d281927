// Command tour shows the ten failures that the mirror exists for, on this machine and offline: what a client prints
// without the mirror, what it prints with it, and what the mirror has recorded.
//
// Registries that fail in each way, and a DNS server, run on loopback; pulls go through the real binary. The client is
// containerd, as the kubelet asks it, where it is installed and this is root; else go-containerregistry's.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/trouble"
)

func main() {
	binary := flag.String("mirror", "../bin/mirror", "the binary")
	who := flag.String("client", "", "containerd or library; empty: containerd where it can be run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *binary, *who)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "tour:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, binary, who string) (err error) {
	begun := time.Now()
	if binary, err = filepath.Abs(binary); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "tour-") // short: sockets are in it
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	world, err := trouble.NewWorld(dir)
	if err != nil {
		return err
	}
	defer world.Close()
	acts := acts()
	var places []*trouble.Place
	for _, a := range acts {
		if a.place, err = world.Set(a.scene); err != nil {
			return err
		}
		places = append(places, a.place)
	}
	m, err := world.Mirror(ctx, places, mirrord.Options{Program: binary, Dir: dir})
	if err != nil {
		return err
	}
	s := &stage{Mirror: m, page: newPage(os.Stdout), names: namesOf(places, m)}
	if s.with, s.without, s.client, err = clients(ctx, who, dir, m, places); err != nil {
		return err
	}
	s.runtime = s.client != library
	defer s.with.close()
	defer s.without.close()

	s.page.intro(fmt.Sprintf("Ten reasons why images don't pull. The client is %s, once without the mirror and once with it. "+
		"Everything runs on this machine.", s.client))
	for _, a := range acts {
		s.page.title(a.number, a.title)
		s.page.text(a.story)
		if err := a.play(ctx, s, a.place); err != nil {
			return fmt.Errorf("%d, %s: %w", a.number, a.title, err)
		}
	}
	s.page.outro(summary(ctx, s), fmt.Sprintf("%d s", int(time.Since(begun).Seconds())))
	return nil
}
