package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/cert"
	"github.com/registrymirror/mirror/e2e/internal/mirrord"
	"github.com/registrymirror/mirror/e2e/internal/proc"
	"github.com/registrymirror/mirror/e2e/internal/wait"
)

type playFunc func(ctx context.Context, s *stage) error

// stage is what a scene plays on. It owns what the scene starts.
type stage struct {
	options
	title   string
	dir     string
	figures []figure
	mirrors []*mirror
	ends    []func() // last first
	folders int
}

func newStage(o options, x scene) (*stage, error) {
	dir, err := os.MkdirTemp("", "attack-")
	if err != nil {
		return nil, err
	}
	return &stage{options: o, title: x.title(), dir: dir}, nil
}

// close ends what the scene has started.
func (s *stage) close() (err error) {
	for _, m := range s.mirrors {
		if ended := m.Exited(); ended != nil && !m.stopped {
			err = errors.Join(err, fmt.Errorf("by itself: %w", ended))
		}
		if !m.End() {
			err = errors.Join(err, errors.New("the mirror did not end when it was asked to"))
		}
		if strings.Contains(m.Output(), "DATA RACE") {
			err = errors.Join(err, fmt.Errorf("the race detector reports:\n%s", m.Tail()))
		}
	}
	for _, end := range slices.Backward(s.ends) {
		end()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// tails is the end of each mirror's log, for scenes that could not be played.
func (s *stage) tails() string {
	var text strings.Builder
	for _, m := range s.mirrors {
		text.WriteString("\n" + m.Tail())
	}
	return text.String()
}

// folder is a new one.
func (s *stage) folder() (string, error) {
	s.folders++
	dir := filepath.Join(s.dir, strconv.Itoa(s.folders))
	return dir, os.Mkdir(dir, 0o700)
}

// listener is what the clients speak to the mirror.
type listener string

const (
	plain listener = "HTTP/1.1"
	tls11 listener = "TLS"
	http2 listener = "HTTP/2"
)

// setup says how a mirror is started.
type setup struct {
	mirrord.Options
	listener listener // empty: plain
	files    int      // the limit of its file descriptors, soft and hard; 0: ours
}

// mirror is a running one.
type mirror struct {
	*mirrord.Mirror
	setup   setup // as it was started
	base    string
	stopped bool // by the scene
	pool    *x509.CertPool
	http2   bool
}

// start runs a mirror until the scene ends, or until it is stopped.
func (s *stage) start(ctx context.Context, o setup) (*mirror, error) {
	m := &mirror{setup: o, http2: o.listener == http2}
	scheme := "http://"
	var err error
	if o.Dir == "" {
		if o.Dir, err = s.folder(); err != nil {
			return nil, err
		}
	}
	if o.Program == "" {
		o.Program = s.mirror
	}
	if o.Level == "" {
		o.Level = "info"
	}
	if o.listener == tls11 || o.listener == http2 {
		files, err := cert.Write(o.Dir)
		if err != nil {
			return nil, err
		}
		o.More += fmt.Sprintf("\ntls: {cert: %q, key: %q, http2: %v}", files.Cert, files.Key, m.http2)
		scheme, m.pool = "https://", files.Pool
	}
	if o.files > 0 {
		if o.Program, err = limited(o.Dir, o.Program, o.files); err != nil {
			return nil, err
		}
	}
	o.More += "\ndrain: 1s"
	if m.Mirror, err = mirrord.Launch(ctx, o.Options); err != nil {
		return nil, err
	}
	m.base = scheme + m.Host
	s.mirrors = append(s.mirrors, m)
	return m, nil
}

// limited is a script that runs the program with so many file descriptors, as the same process.
func limited(dir, program string, files int) (string, error) {
	script := filepath.Join(dir, "limited")
	text := fmt.Sprintf("#!/bin/sh\nulimit -n %d && exec %q \"$@\"\n", files, program)
	return script, os.WriteFile(script, []byte(text), 0o700)
}

// restart ends a mirror in order and starts it again on its folder.
func (s *stage) restart(ctx context.Context, m *mirror, o setup) (*mirror, error) {
	if err := m.stop(ctx); err != nil {
		return nil, err
	}
	o.Dir = m.Dir
	return s.start(ctx, o)
}

// stop ends it in order. Its folder stays.
func (m *mirror) stop(context.Context) error {
	m.stopped = true
	if !m.End() {
		return errors.New("the mirror did not end when it was asked to")
	}
	return nil
}

// signal sends one to the process alone.
func (m *mirror) signal(sig syscall.Signal) error { return syscall.Kill(m.Pid(), sig) }

// reload puts another configuration in place of the running one, and returns when it is in use.
func (m *mirror) reload(ctx context.Context, o setup) error {
	const event = "the configuration was reloaded"
	before := m.count(event)
	o.Dir = m.Dir
	if o.Level == "" {
		o.Level = "info"
	}
	o.More += "\ndrain: 1s"
	// The line at its end says that all of it is there, where it has less than the running one.
	if err := replace(m.File, mirrord.Config(o.Dir, o.Options)+"...\n"); err != nil {
		return err
	}
	if err := m.signal(syscall.SIGHUP); err != nil {
		return err
	}
	return wait.Until(ctx, time.Minute, func() error {
		if m.count(event) == before {
			return errors.New("the configuration is not in use")
		}
		return nil
	})
}

// replace puts a file in place of another one, as editors do.
func replace(file, text string) error {
	if err := os.WriteFile(file+".new", []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

// count is how many lines of the log have that message.
func (m *mirror) count(event string) int {
	n := 0
	for _, line := range m.Log() {
		if line["msg"] == event {
			n++
		}
	}
	return n
}

// ask gets a page of the operator's side.
func (m *mirror) ask(ctx context.Context, path string) answer {
	c := newClient(m.Admin, "", nil, false)
	defer c.close()
	return c.get(ctx, path)
}

// cacheStats is what the scenes read of GET /api/v1/cache.
type cacheStats struct {
	Bytes, Size, Objects, Evicted, EvictedBytes, Uncached, UpstreamBytes int64
	Degraded                                                             bool
}

func (m *mirror) cache(ctx context.Context) (c cacheStats, err error) {
	a := m.ask(ctx, "/api/v1/cache")
	if a.code != http.StatusOK {
		return c, fmt.Errorf("the cache's figures: %s", a)
	}
	return c, json.Unmarshal(a.body, &c)
}

// resident are the current and the largest resident memory of the process, in MiB.
func (m *mirror) resident() (now, most float64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", m.Pid()))
	if err != nil {
		return 0, 0, err
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseFloat(f[1], 64)
		switch f[0] {
		case "VmRSS:":
			now = kib / 1024
		case "VmHWM:":
			most = kib / 1024
		}
	}
	return now, most, nil
}

// command runs the binary as a command of an operator.
func (s *stage) command(ctx context.Context, args ...string) (proc.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return proc.Exec(ctx, proc.Options{Dir: s.dir}, s.mirror, args...)
}
