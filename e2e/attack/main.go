// Command attack plays a hostile registry, a hostile publisher and a hostile client against the real binary, on
// loopback, and holds the result to bounds.
//
// Each scene attacks one line of the list in docs/reliability.md and gives figures: what came out, and what may come
// out. The mirror runs in a process of its own; the scene's registries are handlers of this one. Everything that is
// started is stopped by its process id, and each flood has a number of requests and a time.
//
//	attack -mirror FILE              every scene, floods in full: half an hour
//	attack -mirror FILE -short       the scenes that take seconds
//	attack -mirror FILE -run REGEXP  some of them
//
// The exit code is 1 where a figure misses its bound or a scene can't be played.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
)

// options are the command line.
type options struct {
	mirror, earlier string
	run             *regexp.Regexp
	short, list     bool
	asJSON          bool
	raced           bool
}

func main() {
	o, err := parse(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	misses, err := run(ctx, o, os.Stdout)
	stop()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, "attack:", err)
		os.Exit(1)
	case misses > 0:
		fmt.Fprintf(os.Stderr, "attack: %d figures miss their bound\n", misses)
		os.Exit(1)
	}
}

func parse(args []string) (o options, err error) {
	set := flag.NewFlagSet("attack", flag.ContinueOnError)
	set.StringVar(&o.mirror, "mirror", "../bin/mirror", "the binary")
	set.StringVar(&o.earlier, "earlier", "", "a binary of an earlier version, for state.db; empty: those scenes are left out")
	names := set.String("run", "", "a regular expression of the scenes to play; empty: all")
	set.BoolVar(&o.short, "short", false, "only the scenes that take seconds")
	set.BoolVar(&o.list, "list", false, "print the names of the scenes")
	set.BoolVar(&o.asJSON, "json", false, "one JSON document a line for each figure, instead of a table")
	set.BoolVar(&o.raced, "raced", false, "the binary has the race detector, so memory and times say nothing")
	if err := set.Parse(args); err != nil {
		return o, err
	}
	if o.run, err = regexp.Compile(*names); err != nil {
		return o, fmt.Errorf("-run: %w", err)
	}
	for _, file := range []*string{&o.mirror, &o.earlier} {
		if *file != "" {
			if *file, err = filepath.Abs(*file); err != nil {
				return o, err
			}
		}
	}
	return o, nil
}

// together is how many scenes are played at once, where their figures are not memory or time.
const together = 16

// run plays the scenes and returns how many figures miss their bound.
func run(ctx context.Context, o options, out io.Writer) (misses int, err error) {
	show := table(out)
	if o.asJSON {
		show = lines(out)
	}
	var group errgroup.Group
	group.SetLimit(together)
	var mu sync.Mutex // guards out and misses
	for _, timed := range []bool{false, true} {
		for _, x := range scenes() {
			if x.timed != timed || !x.wanted(o) {
				continue
			}
			if o.list {
				fmt.Fprintln(out, x.title())
				continue
			}
			play := func() error {
				figures, err := perform(ctx, o, x)
				if err != nil {
					figures = append(figures, figure{Scene: x.title(), What: "the scene", Got: oneLine(err), Bound: "can be played"})
				}
				mu.Lock()
				defer mu.Unlock()
				for _, f := range figures {
					if !f.OK {
						misses++
					}
				}
				show(figures)
				return nil
			}
			if !timed {
				group.Go(play)
			} else if ctx.Err() == nil {
				_ = play()
			}
		}
		_ = group.Wait() // figures tell
	}
	return misses, ctx.Err()
}

// wanted reports whether the command line asks for the scene.
func (x scene) wanted(o options) bool {
	return o.run.MatchString(x.title()) && (x.short || !o.short) && (!x.earlier || o.earlier != "") && (!x.timed || !o.raced)
}

// perform plays one scene on a stage of its own.
func perform(ctx context.Context, o options, x scene) (figures []figure, err error) {
	limit := x.limit
	if limit == 0 {
		limit = 4 * time.Minute
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	s, err := newStage(o, x)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	if err := x.play(ctx, s); err != nil {
		return s.figures, fmt.Errorf("%w%s", err, s.tails())
	}
	return s.figures, nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// lines prints figures for programs.
func lines(out io.Writer) func([]figure) {
	encoder := json.NewEncoder(out)
	return func(list []figure) {
		for _, f := range list {
			_ = encoder.Encode(f)
		}
	}
}

// table prints figures for people, scene by scene.
func table(out io.Writer) func([]figure) {
	return func(list []figure) {
		w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
		title := ""
		for _, f := range list {
			if f.Scene != title {
				title = f.Scene
				fmt.Fprintln(w, title)
			}
			verdict := "ok"
			if !f.OK {
				verdict = "MISS"
			}
			fmt.Fprintf(w, "  %s\t%s\t%s\t%s\n", verdict, f.What, f.Got, f.Bound)
		}
		_ = w.Flush()
	}
}
