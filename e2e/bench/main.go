// Command bench holds the mirror against what people would use instead, side by side in one run: straight from the
// upstream, distribution's registry as a proxy, nginx with proxy_cache and its lock, and nginx with files, which is the
// ceiling for hits.
//
// The upstream, each server and the clients are processes of their own, on loopback. What is compared runs one after
// the other within each run, the runs are repeated, and the medians count. It prints every figure, then the gates, and
// ends with 1 where one is missed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/cert"
)

func main() {
	var err error
	switch arg(1) {
	case "upstream":
		err = serveUpstream(os.Args[2:])
	case "handler":
		err = serveHandler(os.Args[2:])
	default:
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		if arg(1) == "profile" {
			err = profile(ctx, os.Args[2:])
		} else {
			err = run(ctx, os.Args[1:])
		}
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func arg(i int) string {
	if len(os.Args) <= i {
		return ""
	}
	return os.Args[i]
}

func run(ctx context.Context, args []string) (err error) {
	flags := flag.NewFlagSet("bench", flag.ExitOnError)
	runs := flags.Int("runs", 3, "how often everything is measured")
	binary := flags.String("mirror", "../bin/mirror", "the binary")
	write := flags.String("write", "", "Markdown file whose table is replaced")
	only := flags.String("only", "", "regular expression of measurements: herd cold cpu rate thousand slow known cut warm giant idle")
	if err := flags.Parse(args); err != nil {
		return err
	}
	filter, err := regexp.Compile(*only)
	if err != nil {
		return err
	}
	l, x, err := newLab(*binary)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.close()) }()
	r := &results{runs: make(map[string]map[string][]float64), log: func(format string, args ...any) {
		fmt.Printf(format+"\n", args...)
	}}
	start := time.Now()
	for i := range *runs {
		for _, m := range measurements {
			if !filter.MatchString(m.name) || m.once && i > 0 {
				continue
			}
			fmt.Printf("run %d of %d: %s\n", i+1, *runs, m.name)
			if err := m.run(ctx, l, x, r); err != nil {
				return fmt.Errorf("%s: %w", m.name, err)
			}
		}
	}
	if *only != "" && *write != "" {
		return errors.New("-write wants every measurement, without -only")
	}
	return report(r, *runs, time.Since(start), *write)
}

// newLab makes a folder of its own with the images, for that binary.
func newLab(binary string) (l *lab, x images, err error) {
	l = &lab{}
	if l.binary, err = filepath.Abs(binary); err != nil {
		return nil, x, err
	}
	if l.self, err = os.Executable(); err != nil {
		return nil, x, err
	}
	if l.dir, err = os.MkdirTemp("", "bench-"); err != nil {
		return nil, x, err
	}
	l.files = filepath.Join(l.dir, "files")
	if l.tls, err = cert.Write(l.dir); err == nil {
		x, err = makeImages(l.files)
	}
	if err != nil {
		err = errors.Join(err, l.close())
	}
	return l, x, err
}

func (l *lab) close() error { return os.RemoveAll(l.dir) }

func makeImages(dir string) (x images, err error) {
	if x.big, err = newImage(dir, "bench/big", layer{size: 100 * mb}); err != nil {
		return x, err
	}
	if x.next, err = newImage(dir, "bench/next", layer{size: 100 * mb}); err != nil {
		return x, err
	}
	if x.huge, err = newImage(dir, "bench/huge", layer{size: 512 << 20}); err != nil {
		return x, err
	}
	x.small, err = newImage(dir, "bench/small", layer{size: 256 << 10}, layer{size: 1 << 20}, layer{size: 3 << 20})
	return x, err
}

// report prints the gates, writes the tables, and fails where a gate is missed.
func report(r *results, runs int, took time.Duration, file string) error {
	fmt.Println()
	missed := 0
	for _, g := range r.gates() {
		if math.IsNaN(g.figure) { // left out by -only
			continue
		}
		verdict := strings.Trim(g.verdict(), "*")
		if !g.passed() {
			missed++
		}
		fmt.Printf("%-12s %-10s %-18s %s (%s)\n", verdict, fmt.Sprintf(g.unit, g.figure), g.bound(), g.name, g.how)
	}
	if file != "" {
		intro := fmt.Sprintf("Medians of %d runs on %s: %d CPUs (%s), Linux %s, %s, loopback.\n\n",
			runs, time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), cpuModel(), kernel(), runtime.Version())
		if err := replace(file, intro+r.markdown()); err != nil {
			return err
		}
	}
	fmt.Printf("\n%d runs in %s\n", runs, took.Round(time.Second))
	if missed > 0 {
		return fmt.Errorf("%d gates missed", missed)
	}
	return nil
}

const (
	begin = "<!-- bench: begin -->\n"
	end   = "<!-- bench: end -->"
)

// replace puts text between the two marks of a file.
func replace(file, text string) error {
	b, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	before, rest, ok := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s lacks the lines %q and %q", file, strings.TrimSpace(begin), end)
	}
	return os.WriteFile(file, []byte(before+begin+text+end+after), 0o644)
}

func cpuModel() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if name, ok := strings.CutPrefix(line, "model name"); ok {
			return strings.TrimSpace(strings.TrimLeft(name, "\t :"))
		}
	}
	return runtime.GOARCH
}

func kernel() string {
	b, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	return strings.TrimSpace(string(b))
}
