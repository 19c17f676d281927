package main

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// publicScenes make the mirror believe that a closed repository is public.
func publicScenes() []scene {
	var list []scene
	for _, x := range pretences {
		list = append(list, scene{
			line: 2, name: "public-by-" + x.name, short: true,
			play: func(ctx context.Context, s *stage) error { return playPretence(ctx, s, x) },
		})
	}
	return append(list,
		scene{line: 2, name: "portal-shows-no-blob", short: true, play: playPortalBlob},
		scene{line: 3, name: "revoked-by-401", short: true, play: playClosed},
		scene{line: 3, name: "revoked-by-404", short: true, play: playDeleted},
	)
}

// pretence is what the registry, or what stands before it, answers to a request without the login for a closed
// repository.
type pretence struct {
	name   string
	answer func(w http.ResponseWriter, r *http.Request, q question, f facts) bool
	first  []string // paths below the repository that the attacker asks for first
	brief  bool     // a portal: it answers everything, the login's requests too, and goes away after the first paths
}

// facts are what an answer may use.
type facts struct {
	private
	elsewhere string // URL of another registry, which has the manifest "other"
}

const loginPage = "<!DOCTYPE html><html><body><form action=/login>Sign in</form></body></html>"

func page(w http.ResponseWriter, mediaType, body string) bool {
	w.Header().Set("Content-Type", mediaType)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write([]byte(body))
	return true
}

// other is a manifest that is not the private one.
var other = manifestOf("other", descriptor{MediaType: configType, Digest: sum([]byte("{}")), Size: 2})

var pretences = []pretence{
	{name: "nothing-at-all", answer: func(http.ResponseWriter, *http.Request, question, facts) bool { return false }},
	{name: "redirect-to-a-login-page", answer: func(w http.ResponseWriter, r *http.Request, _ question, _ facts) bool {
		if r.URL.Path == "/login" {
			return page(w, "text/html", loginPage)
		}
		http.Redirect(w, r, "/login", http.StatusFound)
		return true
	}},
	{name: "login-page", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, "text/html; charset=utf-8", loginPage)
	}},
	{name: "login-page-labelled-as-JSON", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, "application/json", loginPage)
	}},
	{name: "login-page-labelled-as-manifest", answer: func(w http.ResponseWriter, _ *http.Request, _ question, f facts) bool {
		w.Header().Set("Docker-Content-Digest", f.index.digest)
		return page(w, manifestType, loginPage)
	}},
	{name: "JSON-that-is-not-a-manifest", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, "application/json", `{"login":"https://sso.example/"}`)
	}},
	{name: "JSON-labelled-as-manifest", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, manifestType, `{"login":"https://sso.example/"}`)
	}},
	{name: "JSON-with-a-version-labelled-as-manifest", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, manifestType, `{"login":"https://sso.example/","schemaVersion":2}`)
	}},
	{name: "JSON-with-its-own-digest-labelled-as-manifest", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		const body = `{"login":"https://sso.example/","schemaVersion":2}`
		w.Header().Set("Docker-Content-Digest", sum([]byte(body)))
		return page(w, manifestType, body)
	}},
	{name: "empty-200", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, "application/json", "")
	}},
	{name: "204", answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		w.WriteHeader(http.StatusNoContent)
		return true
	}},
	{name: "portal-for-a-moment", brief: true, answer: func(w http.ResponseWriter, _ *http.Request, _ question, _ facts) bool {
		return page(w, "text/html", loginPage)
	}},
	{name: "open-tags-list", first: []string{"/tags/list"}, answer: func(w http.ResponseWriter, _ *http.Request, q question, _ facts) bool {
		return q.kind == "tags" && page(w, "application/json", `{"name":"`+q.repo+`","tags":["v1"]}`)
	}},
	{name: "open-referrers", first: []string{"/referrers/" + sum(nil)}, answer: func(w http.ResponseWriter, _ *http.Request, q question, _ facts) bool {
		return q.kind == "referrers" && page(w, indexType, `{"schemaVersion":2,"mediaType":"`+indexType+`","manifests":[]}`)
	}},
	{name: "wrong-bytes", answer: func(w http.ResponseWriter, _ *http.Request, q question, f facts) bool {
		if q.kind != "manifests" {
			return false
		}
		w.Header().Set("Docker-Content-Digest", f.index.digest)
		return page(w, manifestType, string(other.bytes))
	}},
	{name: "HEAD-alone", answer: func(w http.ResponseWriter, r *http.Request, q question, f facts) bool {
		if q.kind != "manifests" || r.Method != http.MethodHead {
			return false
		}
		sendDocument(w, f.index)
		return true
	}},
	{name: "HEAD-of-another-digest", answer: func(w http.ResponseWriter, r *http.Request, q question, _ facts) bool {
		if q.kind != "manifests" || r.Method != http.MethodHead {
			return false
		}
		sendDocument(w, other)
		return true
	}},
	{name: "open-blobs-HEAD", answer: func(w http.ResponseWriter, r *http.Request, q question, f facts) bool {
		if q.kind != "blobs" || r.Method != http.MethodHead {
			return false
		}
		w.Header().Set("Content-Length", strconv.FormatInt(f.layer.Size, 10))
		w.Header().Set("Docker-Content-Digest", q.ref)
		w.Header().Set("Content-Type", "application/octet-stream")
		w.WriteHeader(http.StatusOK)
		return true
	}},
	{name: "redirect-to-a-manifest-elsewhere", answer: func(w http.ResponseWriter, r *http.Request, q question, f facts) bool {
		if q.kind == "manifests" {
			http.Redirect(w, r, f.elsewhere+manifestPath("other/app", other.digest), http.StatusTemporaryRedirect)
		}
		return q.kind == "manifests"
	}},
}

// playPretence shows the pretence to a mirror with a login under access: public, and then reads what is closed.
func playPretence(ctx context.Context, s *stage, x pretence) error {
	g, m, p, err := s.behindLogin(ctx)
	if err != nil {
		return err
	}
	elsewhere, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	elsewhere.repo("other/app").put("v1", other)
	var gone atomic.Bool
	g.behave(func(w http.ResponseWriter, r *http.Request, q question) bool {
		if gone.Load() || q.login && !x.brief || q.repo != secretRepo && q.kind != "other" && !x.brief {
			return false
		}
		return x.answer(w, r, q, facts{p, elsewhere.url()})
	})
	c := m.attacker()
	defer c.close()
	const repo = "docker.io/" + secretRepo
	// A refusal elsewhere shows the mirror how this registry lets people in.
	g.change(func() { g.repos["corp/refused"] = &repository{closed: true} })
	if !x.brief {
		_ = c.get(ctx, manifestPath("docker.io/corp/refused", "v1"))
	}
	first := x.first
	if x.brief {
		first = []string{"/manifests/v1", "/tags/list"}
	}
	for _, path := range first {
		_ = c.get(ctx, "/v2/"+repo+path)
	}
	_ = c.head(ctx, manifestPath(repo, "v1"))
	gone.Store(x.brief)
	s.closedRead(ctx, c, g, p, repo)
	return nil
}

// closedRead asks for all of a closed image, slowly at first, so that neither a remembered refusal nor a breaker hides
// what the mirror believes.
func (s *stage) closedRead(ctx context.Context, c *client, g *registry, p private, repo string) {
	all := []string{
		manifestPath(repo, "v1"), manifestPath(repo, p.index.digest), manifestPath(repo, p.manifest.digest),
		blobPath(repo, p.config.Digest), blobPath(repo, p.layer.Digest),
	}
	leaks := 0
	said := make(map[string]int)
	for _, x := range []struct {
		after time.Duration
		paths []string
	}{{2500 * time.Millisecond, all[:1]}, {2500 * time.Millisecond, all[4:]}, {11 * time.Second, all}, {2500 * time.Millisecond, all}} {
		pause(ctx, x.after)
		for _, path := range x.paths {
			a := c.get(ctx, path)
			said[a.String()[:min(len(a.String()), 24)]]++
			if strings.Contains(string(a.body), p.marker) {
				leaks++
			}
		}
	}
	s.add(figure{What: "private documents and blobs that strangers got", Got: fmt.Sprint(leaks, " ", said), Bound: "0", OK: leaks == 0})
	s.equal("requests for closed content with the operator's login", g.hits(func(h hit) bool {
		return h.repo == secretRepo && h.login && (h.kind == "manifests" || h.kind == "blobs")
	}), 0)
}

// behindLogin starts a registry with a closed image as docker.io, and a mirror with its login under access: public.
func (s *stage) behindLogin(ctx context.Context) (*registry, *mirror, private, error) {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return nil, nil, private{}, err
	}
	p := newPrivate(g, "PRIVATE-ONE")
	file, err := s.passwordFile()
	if err != nil {
		return nil, nil, p, err
	}
	m, err := s.start(ctx, setup{Options: mirrord.Options{Upstreams: fmt.Sprintf(
		"docker.io: {endpoints: [%s], credentials: [{name: hub, username: %s, passwordFile: %q}]}", g.url(), user, file)}})
	return g, m, p, err
}

// playPortalBlob lets a portal answer the HEAD of a private digest for a public repository.
func playPortalBlob(ctx context.Context, s *stage) error {
	w, err := newWorld(ctx, s, "")
	if err != nil {
		return err
	}
	defer w.release()
	if err := reachCached(ctx, w); err != nil {
		return err
	}
	for i, body := range []string{loginPage, strings.Repeat("x", int(w.p.layer.Size))} {
		w.open.behave(func(out http.ResponseWriter, _ *http.Request, q question) bool {
			return q.kind == "blobs" && page(out, "text/html", body)
		})
		c := w.m.attacker()
		defer c.close()
		repo := fmt.Sprint("docker.io/attacker/portal", i)
		a := c.get(ctx, blobPath(repo, w.p.layer.Digest))
		w.open.behave(nil)
		pause(ctx, 2500*time.Millisecond)
		b := c.get(ctx, blobPath(repo, w.p.layer.Digest))
		what := []string{"a page of another length", "a page of the same length"}[i]
		s.holds("a portal's answer to HEAD shows no blob, "+what, !w.p.leaks(a) && !w.p.leaks(b), a.String()+", then "+b.String())
	}
	return nil
}

// revocable starts a mirror before a public image, pulls it, and returns when the image is cached.
func (s *stage) revocable(ctx context.Context, tags string) (*registry, *mirror, private, error) {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return nil, nil, private{}, err
	}
	p := newPrivate(g, "ONCE-PUBLIC")
	r := g.repo(secretRepo)
	g.change(func() { r.closed = false })
	m, err := s.start(ctx, setup{Options: mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.url() + "], tags: {" + tags + "}}",
	}})
	if err != nil {
		return nil, nil, p, err
	}
	c := m.victim()
	defer c.close()
	return g, m, p, p.pull(ctx, c, "docker.io/"+secretRepo)
}

// parts are the paths of the image by digest.
func (p private) parts(repo string) []string {
	return []string{
		manifestPath(repo, p.index.digest), manifestPath(repo, p.manifest.digest), blobPath(repo, p.config.Digest),
		blobPath(repo, p.layer.Digest),
	}
}

// playClosed closes a public repository: within tags.staleIfError the mirror must have noticed, for tags and digests.
func playClosed(ctx context.Context, s *stage) error {
	const stale = 4 * time.Second
	g, m, p, err := s.revocable(ctx, "maxAge: 1s, wait: 2s, staleIfError: 4s")
	if err != nil {
		return err
	}
	r := g.repo(secretRepo)
	g.change(func() { r.closed = true })
	c := m.attacker()
	defer c.close()
	const repo = "docker.io/" + secretRepo
	paths := append([]string{manifestPath(repo, "v1")}, p.parts(repo)...)
	begun := time.Now()
	last := make(map[string]time.Duration) // when each path was asked for last and served
	for time.Since(begun) < 3*stale && ctx.Err() == nil {
		for _, path := range paths {
			asked := time.Since(begun) // an answer that takes long was allowed when it was asked for
			if a := c.get(ctx, path); p.leaks(a) {
				last[path] = asked
			}
		}
		pause(ctx, 500*time.Millisecond)
	}
	for i, path := range paths {
		what := []string{"tag", "index", "manifest", "config", "layer"}[i]
		s.atMost("served after the registry has closed the repository: "+what, last[path].Seconds(), (stale + 2*time.Second).Seconds(), "s")
	}
	return nil
}

// playDeleted has an image deleted at the registry, with deleted: drop.
func playDeleted(ctx context.Context, s *stage) error {
	g, m, p, err := s.revocable(ctx, "maxAge: 1s, deleted: drop")
	if err != nil {
		return err
	}
	r := g.repo(secretRepo)
	g.change(func() { clear(r.docs); clear(r.blobs) })
	pause(ctx, 1500*time.Millisecond)
	c := m.attacker()
	defer c.close()
	a := c.get(ctx, manifestPath("docker.io/"+secretRepo, "v1"))
	s.equal("the tag after maxAge, the registry says 404", a.code, http.StatusNotFound)
	s.holds("no byte of the deleted image by its tag", !p.leaks(a), a)
	return nil
}
