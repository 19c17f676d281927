package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// clockScenes take the ground from under the process: its time, its disk, its folder.
func clockScenes() []scene {
	return []scene{
		{line: 18, name: "clock-jumps-by-hours", short: true, limit: 3 * time.Minute, play: playClock},
		{line: 18, name: "stopped-for-3-seconds", short: true, play: func(ctx context.Context, s *stage) error { return playStopped(ctx, s, 3*time.Second) }},
		{line: 18, name: "stopped-for-a-minute", limit: 4 * time.Minute, play: func(ctx context.Context, s *stage) error { return playStopped(ctx, s, time.Minute) }},
		{line: 18, name: "cache-folder-vanishes", short: true, play: playVanished},
		{line: 18, name: "disk-is-full", short: true, play: func(ctx context.Context, s *stage) error { return playFull(ctx, s, "5%", "full", "bytes free") }},
		{line: 18, name: "disk-is-full-without-a-floor", play: func(ctx context.Context, s *stage) error { return playFull(ctx, s, "0", "0 bytes", "free") }},
	}
}

// running is a download of 6 MiB in three seconds or so, with its outcome.
func running(ctx context.Context, g *registry, m *mirror, seed uint64) (outcome func() answer, err error) {
	b := made(seed, 6<<20)
	b.rate = 2 << 20
	var d descriptor
	r := g.repo("library/running")
	g.change(func() { d = r.add(b) })
	c := m.victim()
	var a answer
	var group sync.WaitGroup
	group.Go(func() {
		defer c.close()
		if a = c.get(ctx, blobPath("docker.io/library/running", d.Digest)); sum(a.body) != d.Digest {
			a.err = errors.Join(a.err, errors.New("wrong bytes"))
		}
	})
	err = waitFor(ctx, time.Minute, func() error {
		if g.hits(func(h hit) bool { return h.ref == d.Digest && h.method == http.MethodGet }) == 0 {
			return errors.New("the download has not begun")
		}
		return nil
	})
	return func() answer { group.Wait(); return a }, err
}

// playClock moves the clock by hours, forward and back, with a download under way.
func playClock(ctx context.Context, s *stage) error {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	r := g.repo("library/app")
	layer := r.add(text("layer"))
	r.put("v1", manifestOf("first", r.config("app"), layer))
	m, err := s.start(ctx, setup{Options: mirrord.Options{Upstreams: "docker.io: {endpoints: [" + g.url() + "], tags: {maxAge: 1s}}"}})
	if err != nil {
		return err
	}
	k, err := clockOf(m.Pid())
	if err != nil {
		return err
	}
	c := m.victim()
	defer c.close()
	var total time.Duration
	for i, hours := range []int{6, -12, 30, -24} {
		what := fmt.Sprintf("%+d hours: ", hours)
		outcome, err := running(ctx, g, m, uint64(i)+1)
		if err != nil {
			return err
		}
		pause(ctx, time.Second)
		if err := k.jump(time.Duration(hours)*time.Hour, 0); err != nil {
			return err
		}
		a := c.get(ctx, blobPath("docker.io/library/app", layer.Digest))
		total += time.Duration(hours) * time.Hour
		s.holds(what+"the process's clock is elsewhere", m.drift(ctx, total) < time.Minute, m.drift(ctx, total).Round(time.Second))
		s.equal(what+"a cold or cached blob at once, status", a.code, http.StatusOK)
		s.within(what+"time", a.took, 2*time.Second)
		a = outcome()
		s.holds(what+"the download under way ends right", a.code == http.StatusOK && a.err == nil, a)
		var next document
		g.change(func() { next = r.put("v1", manifestOf(what, r.config("app"), layer)) })
		pause(ctx, 1500*time.Millisecond)
		a = c.get(ctx, manifestPath("docker.io/library/app", "v1"))
		s.holds(what+"a tag that moved is noticed after maxAge", a.code == http.StatusOK && sum(a.body) == next.digest, a)
		g.behave(func(w http.ResponseWriter, _ *http.Request, _ question) bool {
			refuse(w, http.StatusServiceUnavailable, "UNAVAILABLE")
			return true
		})
		pause(ctx, 1500*time.Millisecond)
		a = c.get(ctx, manifestPath("docker.io/library/app", "v1"))
		s.equal(what+"with the registry failing, the tag's copy: status", a.code, http.StatusOK)
		g.behave(nil)
		pause(ctx, 3*time.Second)
	}
	code := m.ask(ctx, "/healthz").code
	s.equal("/healthz", code, http.StatusOK)
	return nil
}

// drift is how far the process's own time is from where it should be.
func (m *mirror) drift(ctx context.Context, total time.Duration) time.Duration {
	at, err := http.ParseTime(m.ask(ctx, "/healthz").header.Get("Date"))
	if err != nil {
		return 1000 * time.Hour
	}
	return time.Since(at.Add(-total)).Abs()
}

// playStopped stops the process for a time, with a download under way, and lets it go on.
func playStopped(ctx context.Context, s *stage, d time.Duration) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	r := g.repo("library/app")
	r.put("v1", manifestOf("app", r.config("app")))
	c := m.victim()
	defer c.close()
	if a := c.get(ctx, manifestPath("docker.io/library/app", "v1")); a.code != http.StatusOK {
		return fmt.Errorf("before: %s", a)
	}
	outcome, err := running(ctx, g, m, 1)
	if err != nil {
		return err
	}
	pause(ctx, time.Second)
	if err := m.signal(syscall.SIGSTOP); err != nil {
		return err
	}
	pause(ctx, d)
	if err := m.signal(syscall.SIGCONT); err != nil {
		return err
	}
	a := c.get(ctx, manifestPath("docker.io/library/app", "v1"))
	s.holds("the tag's manifest after it goes on", a.code == http.StatusOK && a.err == nil, a)
	s.within("time", a.took, 3*time.Second)
	a = outcome()
	s.holds("the download under way ends right", a.code == http.StatusOK && a.err == nil, a)
	a = s.coldBlob(ctx, g, m, 1<<20, 0)(1)
	s.holds("a cold blob", a.code == http.StatusOK && a.err == nil, a)
	s.within("time", a.took, 3*time.Second)
	a = m.ask(ctx, "/readyz")
	s.equal("/readyz", a.code, http.StatusOK)
	return nil
}

// playVanished removes the folder of the cached content.
func playVanished(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	ask := s.coldBlob(ctx, g, m, 2<<20, 0)
	if a := ask(1); a.code != http.StatusOK {
		return fmt.Errorf("before: %s", a)
	}
	if err := os.RemoveAll(m.Data); err != nil {
		return err
	}
	for i, what := range []string{"what was cached", "what is new", "what is new, too"} {
		a := ask(i + 1)
		s.holds("the folder is gone: "+what, a.code == http.StatusOK && a.err == nil, a)
		s.within("time", a.took, 5*time.Second)
	}
	s.told(ctx, m, m.Data)
	return nil
}

// told holds the mirror to saying that its disk fails: in the log, in the API, in the metric and in `cache stats`.
func (s *stage) told(ctx context.Context, m *mirror, words ...string) {
	err := waitFor(ctx, time.Minute, func() error { // it looks every few seconds
		c, err := m.cache(ctx)
		if err == nil && !c.Degraded {
			err = errors.New("it does not")
		}
		return err
	})
	s.holds("the API says degraded", err == nil, err)
	v, err := m.metric(ctx, "mirror_cache_degraded")
	s.holds("the metric is 1", err == nil && v == 1, v)
	line := ""
	for _, l := range m.Log() {
		text := fmt.Sprint(l["msg"], " ", l["error"], " ", l["cache_dir"])
		if l["level"] != "WARN" && l["level"] != "ERROR" {
			continue
		}
		has := true
		for _, w := range words {
			has = has && strings.Contains(text, w)
		}
		if has {
			line = text
			break
		}
	}
	if line == "" {
		line = fmt.Sprint("no; warnings: ", m.warnings())
	}
	s.add(figure{What: "one line of the log has " + strings.Join(words, ", "), Got: line, Bound: "is there", OK: !strings.HasPrefix(line, "no; ")})
	out, err := s.command(ctx, "cache", "stats", "--admin", m.Admin)
	s.add(figure{
		What: "cache stats says it", Got: oneLine(errors.New(strings.ReplaceAll(out.Text(), "\t", " "))), Bound: "names the disk's state",
		OK: err == nil && out.Code == 0 && (strings.Contains(out.Text(), "full") || strings.Contains(out.Text(), "gone") ||
			strings.Contains(out.Text(), "degraded") || strings.Contains(out.Text(), "disk")),
	})
}

// warnings are the messages of the log at WARN and ERROR.
func (m *mirror) warnings() (list []string) {
	for _, l := range m.Log() {
		if l["level"] == "WARN" || l["level"] == "ERROR" {
			list = append(list, fmt.Sprint(l["msg"], ": ", l["error"]))
		}
	}
	return list
}

// playFull fills the disk to its last byte.
func playFull(ctx context.Context, s *stage, floor string, words ...string) error {
	dir, err := s.folder()
	if err != nil {
		return err
	}
	data := filepath.Join(dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		return err
	}
	if err := unix.Mount("none", data, "tmpfs", 0, "size=16m"); err != nil {
		return err
	}
	s.ends = append(s.ends, func() { _ = unix.Unmount(data, 0) })
	g, m, err := s.open(ctx, setup{Options: mirrord.Options{Dir: dir, Cache: "minFree: " + floor}})
	if err != nil {
		return err
	}
	if a := s.coldBlob(ctx, g, m, 2<<20, 0)(1); a.code != http.StatusOK {
		return fmt.Errorf("before: %s", a)
	}
	ask := s.coldBlob(ctx, g, m, 9<<20, 0) // there is no room for one, whatever is evicted
	junk := filepath.Join(data, "junk")
	if err := stuff(junk); err != nil {
		return err
	}
	for i := range 3 {
		a := ask(i + 2)
		s.holds("the disk is full: a cold blob", a.code == http.StatusOK && a.err == nil, a)
		s.within("time", a.took, 5*time.Second)
	}
	// What is evicted to have the floor free makes room, and the disk is not full then. So it is filled until nothing is left
	// to evict.
	err = waitFor(ctx, time.Minute, func() error {
		c, err := m.cache(ctx)
		if err = errors.Join(err, stuff(junk)); err == nil && floor != "0" && c.Objects > 0 {
			err = fmt.Errorf("%d objects are still cached", c.Objects)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("filling the disk: %w", err)
	}
	s.told(ctx, m, words...)
	return nil
}

// stuff lets a file grow until the disk is full.
func stuff(file string) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if e := f.Close(); !errors.Is(err, syscall.ENOSPC) {
		return errors.Join(err, e)
	}
	return nil
}
