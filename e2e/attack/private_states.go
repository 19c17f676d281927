package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// state is a row of the table: how private content is there when the attack comes.
type state struct {
	name    string
	cache   string // more keys of cache
	running bool   // the download goes on during the attack
	reach   func(ctx context.Context, w *world) error
}

var states = []state{
	{name: "cached", reach: reachCached},
	{name: "on-its-way", running: true, reach: reachRunning},
	{name: "on-its-way-when-rules-became-public", running: true, reach: reachRunningPublic},
	{name: "unfinished-over-a-restart", reach: reachUnfinished},
	{name: "evicted", cache: "size: 4MiB, minFree: 0", reach: reachEvicted},
	{name: "after-a-restart", reach: reachRestarted},
	{name: "after-rules-became-public", reach: reachPublic},
	{name: "after-public-became-rules", reach: reachRules},
	{name: "after-damage-of-state", reach: reachDamaged},
}

func reachCached(ctx context.Context, w *world) error {
	c := w.m.victim()
	defer c.close()
	return w.p.pull(ctx, c, "corp.example/"+secretRepo)
}

// reachRunning returns when the private registry has been asked for each part and holds it back.
func reachRunning(ctx context.Context, w *world) error {
	w.closed.behave(func(_ http.ResponseWriter, r *http.Request, q question) bool {
		if q.repo == secretRepo && q.kind == "manifests" && r.Method == http.MethodGet && q.login {
			select {
			case <-w.gate:
			case <-r.Context().Done():
			}
		}
		return false
	})
	repo := w.closed.repo(secretRepo)
	w.closed.change(func() {
		for d, b := range repo.blobs {
			b.gate = w.gate
			repo.blobs[d] = b
		}
	})
	parts := map[string]string{
		w.p.index.digest: "manifests", w.p.manifest.digest: "manifests", w.p.config.Digest: "blobs", w.p.layer.Digest: "blobs",
	}
	c := w.m.victim()
	w.ends = append(w.ends, c.close)
	for digest, kind := range parts {
		go func() { _ = c.get(ctx, "/v2/corp.example/"+secretRepo+"/"+kind+"/"+digest) }()
	}
	return waitFor(ctx, time.Minute, func() error {
		for digest := range parts {
			if w.closed.hits(func(h hit) bool { return h.ref == digest && h.method == http.MethodGet && h.login }) == 0 {
				return fmt.Errorf("the mirror has not asked for %s yet", digest)
			}
		}
		return nil
	})
}

// reachRunningPublic takes the right away while the image is on its way.
func reachRunningPublic(ctx context.Context, w *world) error {
	if err := reachRunning(ctx, w); err != nil {
		return err
	}
	return w.m.reload(ctx, w.free)
}

// reachUnfinished stops the mirror in the middle of the download, and starts it without the right: what it has is kept
// for clients that come back.
func reachUnfinished(ctx context.Context, w *world) (err error) {
	if err := reachRunning(ctx, w); err != nil {
		return err
	}
	w.m, err = w.restart(ctx, w.m, w.free)
	w.release()
	return err
}

// reachEvicted has other content take the private one's place. The restart ends the leases that serving has given.
func reachEvicted(ctx context.Context, w *world) (err error) {
	if err := reachRestarted(ctx, w); err != nil {
		return err
	}
	r := w.open.repo("filler/app")
	c := w.m.victim()
	defer c.close()
	for i := range 40 {
		b := made(uint64(i)+1, 600<<10)
		w.open.change(func() { r.add(b) })
		if a := c.get(ctx, blobPath("docker.io/filler/app", digestOf(b))); a.code != http.StatusOK {
			return fmt.Errorf("other content: %s", a)
		}
		if w.evicted() {
			return nil
		}
	}
	return waitFor(ctx, time.Minute, func() error {
		if !w.evicted() {
			return errors.New("the private content is still cached after 24 MB of other content in a cache of 4 MiB")
		}
		return nil
	})
}

// evicted reports whether no part of the private image is stored.
func (w *world) evicted() bool {
	for _, d := range []string{w.p.index.digest, w.p.manifest.digest, w.p.config.Digest, w.p.layer.Digest} {
		hex := strings.TrimPrefix(d, "sha256:")
		if _, err := os.Stat(filepath.Join(w.m.Data, "blobs", "sha256", hex[:2], hex)); err == nil {
			return false
		}
	}
	return true
}

func reachRestarted(ctx context.Context, w *world) (err error) {
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	w.m, err = w.restart(ctx, w.m, w.rules)
	return err
}

// reachPublic takes the rule and the login away while the mirror runs.
func reachPublic(ctx context.Context, w *world) error {
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	if err := w.m.reload(ctx, w.free); err != nil {
		return err
	}
	c := w.m.attacker()
	defer c.close()
	a := c.get(ctx, blobPath("corp.example/"+secretRepo, w.p.layer.Digest))
	w.equal("the private layer by its own name, after rules became public", a.code, http.StatusForbidden)
	return nil
}

// reachRules begins with a repository that is public, closes it, gives the mirror a login and a rule, and has an image
// pulled that came since.
func reachRules(ctx context.Context, w *world) error {
	repo := w.closed.repo(secretRepo)
	w.closed.change(func() { repo.closed = false })
	if err := w.m.reload(ctx, w.free); err != nil {
		return err
	}
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	w.p = newPrivate(w.closed, "PRIVATE-TWO") // closes it
	if err := w.m.reload(ctx, w.rules); err != nil {
		return err
	}
	c := w.m.victim()
	defer c.close()
	for _, path := range []string{
		manifestPath("corp.example/"+secretRepo, w.p.index.digest), manifestPath("corp.example/"+secretRepo, w.p.manifest.digest),
		blobPath("corp.example/"+secretRepo, w.p.config.Digest), blobPath("corp.example/"+secretRepo, w.p.layer.Digest),
	} {
		if a := c.get(ctx, path); a.code != http.StatusOK {
			return fmt.Errorf("the image that came since, %s: %s", path, a)
		}
	}
	return nil
}

// reachDamaged loses state.db and its copy.
func reachDamaged(ctx context.Context, w *world) (err error) {
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	if err := w.m.stop(ctx); err != nil {
		return err
	}
	junk := []byte(strings.Repeat("no database ", 4000))
	if err := os.WriteFile(filepath.Join(w.m.Data, "state.db"), junk, 0o600); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(w.m.Data, "state.db.good")); err != nil {
		return err
	}
	again := w.rules
	again.Dir = w.m.Dir
	w.m, err = w.start(ctx, again)
	return err
}

// passwordFile holds the login's password.
func (s *stage) passwordFile() (string, error) {
	file := filepath.Join(s.dir, "password")
	return file, os.WriteFile(file, []byte(password+"\n"), 0o600)
}

// playShown is the other side of the table: what may be served is served, and costs little.
func playShown(ctx context.Context, s *stage) error {
	w, err := newWorld(ctx, s, "")
	if err != nil {
		return err
	}
	defer w.release()
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	c := w.m.attacker()
	defer c.close()
	// A repository whose own registry has the same content.
	r := w.open.repo("honest/app")
	w.open.change(func() {
		r.blobs[w.p.layer.Digest] = w.closed.repos[secretRepo].blobs[w.p.layer.Digest]
		r.blobs[w.p.config.Digest] = w.closed.repos[secretRepo].blobs[w.p.config.Digest]
		r.put("v1", w.p.manifest)
	})
	before := w.closed.hits(func(hit) bool { return true })
	for _, x := range []struct{ what, path, ref string }{
		{"manifest", manifestPath("docker.io/honest/app", w.p.manifest.digest), w.p.manifest.digest},
		{"config", blobPath("docker.io/honest/app", w.p.config.Digest), w.p.config.Digest},
		{"layer", blobPath("docker.io/honest/app", w.p.layer.Digest), w.p.layer.Digest},
	} {
		a := c.get(ctx, x.path)
		s.equal("its own registry shows the "+x.what+": status", a.code, http.StatusOK)
		s.atMost("its own registry shows the "+x.what+": requests there", float64(w.open.asked("honest/app", x.ref)), 2, "")
		s.atLeast("its own registry was asked for the "+x.what, float64(w.open.asked("honest/app", x.ref)), 1, "")
		a = c.get(ctx, x.path)
		s.equal("again: status", a.code, http.StatusOK)
		s.atMost("again: requests there in all", float64(w.open.asked("honest/app", x.ref)), 2, "")
	}
	s.equal("requests at the private registry", w.closed.hits(func(hit) bool { return true })-before, 0)
	return shared(ctx, w, c)
}

// shared is a public base layer in two public repositories.
func shared(ctx context.Context, w *world, c *client) error {
	base := made(1, 300<<10)
	for _, name := range []string{"team/a", "team/b"} {
		r := w.open.repo(name)
		w.open.change(func() { r.put("v1", manifestOf(name, r.config(name), r.add(base))) })
	}
	layer := digestOf(base)
	for _, name := range []string{"team/a", "team/b"} {
		for _, path := range []string{manifestPath("docker.io/"+name, "v1"), blobPath("docker.io/"+name, layer)} {
			a := c.get(ctx, path)
			w.equal("a base layer of two public repositories, "+path[len("/v2/docker.io/"):len("/v2/docker.io/")+len(name)]+": status", a.code, http.StatusOK)
		}
	}
	count := func(repo, method string) int {
		return w.open.hits(func(h hit) bool { return h.repo == repo && h.ref == layer && h.method == method })
	}
	w.equal("downloads of the base layer", count("team/a", http.MethodGet)+count("team/b", http.MethodGet), 1)
	w.atMost("HEAD requests for it by the second repository", float64(count("team/b", http.MethodHead)), 1, "")
	return nil
}

// playOneWord has a third registry, which says yes to every HEAD, claim the private content for a repository of its own.
// That must not open it for a repository of a registry that says no.
func playOneWord(ctx context.Context, s *stage) error {
	third, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	w, err := newWorld(ctx, s, "")
	if err != nil {
		return err
	}
	defer w.release()
	more := w.rules
	more.Upstreams += "\nthird.example: {endpoints: [" + third.url() + "]}"
	if err := w.m.reload(ctx, more); err != nil {
		return err
	}
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	third.behave(func(out http.ResponseWriter, r *http.Request, q question) bool {
		if r.Method != http.MethodHead {
			return false
		}
		out.Header().Set("Docker-Content-Digest", q.ref)
		switch q.ref {
		case w.p.layer.Digest:
			out.Header().Set("Content-Type", "application/octet-stream")
			out.Header().Set("Content-Length", fmt.Sprint(w.p.layer.Size))
		case w.p.manifest.digest:
			sendDocument(out, w.p.manifest)
		}
		return true
	})
	c := w.m.attacker()
	defer c.close()
	for _, path := range []string{manifestPath("", w.p.manifest.digest), blobPath("", w.p.layer.Digest)} {
		rest := strings.TrimPrefix(path, "/v2/")
		for range 2 {
			_ = c.head(ctx, "/v2/third.example/any/app"+rest)
			_ = c.get(ctx, "/v2/third.example/any/app"+rest)
		}
	}
	r := w.open.repo("attacker/evil")
	w.open.change(func() {
		r.put("v1", manifestOf("attacker", w.p.config, w.p.layer))
		r.put("ix", indexOf("attacker", w.p.manifest.descriptor()))
	})
	for _, ref := range []string{"v1", "ix"} {
		_ = c.get(ctx, manifestPath("docker.io/attacker/evil", ref))
	}
	leaks := 0
	for _, path := range w.p.parts("docker.io/attacker/evil") {
		if w.p.leaks(c.get(ctx, path)) {
			leaks++
		}
	}
	s.equal("private parts served for a registry that says no, after another has said yes", leaks, 0)
	return nil
}
