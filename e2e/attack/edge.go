package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// edgeScenes come by the operator's side.
func edgeScenes() []scene {
	return []scene{
		{line: 16, name: "admin-from-a-web-page", short: true, play: playAdmin},
		{line: 16, name: "profiles-without-end", limit: 3 * time.Minute, play: playProfiles},
		{line: 16, name: "admin-token-in-clear", short: true, play: playClear},
		{line: 17, name: "half-a-configuration", short: true, limit: 4 * time.Minute, play: playHalf},
		{line: 17, name: "missing-and-garbage-files", short: true, play: playFilesOfConfig},
		{line: 19, name: "doctor-and-rules", short: true, play: playDoctor},
	}
}

// adminRoutes are what a page might want to read or do.
var adminRoutes = []struct{ method, path string }{
	{http.MethodGet, "/api/v1/cache"},
	{http.MethodGet, "/api/v1/failures"},
	{http.MethodGet, "/api/v1/failures/summary"},
	{http.MethodGet, "/api/v1/pulls"},
	{http.MethodGet, "/api/v1/upstreams"},
	{http.MethodGet, "/api/v1/openapi.yaml"},
	{http.MethodGet, "/metrics"},
	{http.MethodGet, "/debug/pprof/"},
	{http.MethodGet, "/debug/pprof/goroutine?debug=1"},
	{http.MethodGet, "/debug/pprof/cmdline"},
	{http.MethodPost, "/api/v1/explain"},
	{http.MethodPost, "/api/v1/doctor"},
	{http.MethodPost, "/api/v1/reload"},
	{http.MethodPost, "/api/v1/upstreams/reset"},
}

// playAdmin asks all routes as a page in the operator's browser can, and as the operator does.
func playAdmin(ctx context.Context, s *stage) error {
	_, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	c := newClient(m.Admin, "", nil, false)
	defer c.close()
	where, err := url.Parse(m.Admin)
	if err != nil {
		return err
	}
	const jsonType = "application/json"
	for _, x := range []struct {
		name   string
		header []string
	}{
		{"DNS rebinding: another Host", []string{"Host", "evil.example:" + where.Port(), "Content-Type", jsonType}},
		{"DNS rebinding with its Origin", []string{"Host", "evil.example:" + where.Port(), "Origin", "http://evil.example:" + where.Port(), "Content-Type", jsonType}},
		{"another Origin", []string{"Origin", "http://evil.example", "Content-Type", jsonType}},
		{"the Origin null", []string{"Origin", "null", "Content-Type", jsonType}},
		{"a cross-site request", []string{"Sec-Fetch-Site", "cross-site", "Content-Type", jsonType}},
		{"a same-site request", []string{"Sec-Fetch-Site", "same-site", "Content-Type", jsonType}},
	} {
		var open []string
		for _, r := range adminRoutes {
			if a := c.do(ctx, r.method, r.path, x.header...); a.code < 400 {
				open = append(open, r.method+" "+r.path)
			}
		}
		s.add(figure{What: x.name + ": routes that answer, of " + fmt.Sprint(len(adminRoutes)), Got: fmt.Sprint(len(open), " ", open), Bound: "0", OK: len(open) == 0})
	}
	var open []string
	for _, r := range adminRoutes {
		for _, form := range []string{"text/plain", "application/x-www-form-urlencoded", "multipart/form-data"} {
			if r.path == "/api/v1/explain" && form == "text/plain" { // it reads text; what a page sends has an Origin, see above
				continue
			}
			if a := c.do(ctx, r.method, r.path, "Content-Type", form); r.method == http.MethodPost && a.code < 400 {
				open = append(open, r.path+" "+form)
			}
		}
	}
	s.add(figure{What: "POST as a form: routes that answer", Got: fmt.Sprint(len(open), " ", open), Bound: "0", OK: len(open) == 0})
	for _, host := range []string{where.Host, "localhost:" + where.Port(), "localhost", "[::1]:" + where.Port()} {
		s.equal("the operator with Host "+strings.Replace(host, where.Port(), "PORT", 1)+": status", c.get(ctx, "/api/v1/cache", "Host", host).code, http.StatusOK)
	}
	return nil
}

// playProfiles asks for several profiles, and for one of an hour.
func playProfiles(ctx context.Context, s *stage) error {
	_, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	for _, path := range []string{"/debug/pprof/profile", "/debug/pprof/trace"} {
		var t tally
		var group sync.WaitGroup
		for range 5 {
			group.Go(func() { t.add(m.ask(ctx, path+"?seconds=2")) })
		}
		group.Wait()
		s.add(figure{What: "five at once of " + path + " that run", Got: fmt.Sprint(t.of(200), " ", t.String()), Bound: "at most 1", OK: t.of(200) <= 1})
		brief, stop := context.WithTimeout(ctx, 70*time.Second)
		a := m.ask(brief, path+"?seconds=3600")
		stop()
		s.within(path+" of an hour: ends", a.took, 65*time.Second)
	}
	return nil
}

// playClear has the admin listener off loopback with a token and without TLS.
func playClear(ctx context.Context, s *stage) error {
	dir, err := s.folder()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("a-long-secret-token\n"), 0o600); err != nil {
		return err
	}
	file := filepath.Join(dir, "mirror.yaml")
	if err := os.WriteFile(file, []byte("admin: {listen: 0.0.0.0:5001, tokenFile: token}\nupstreams: {ghcr.io: {}}\n"), 0o600); err != nil {
		return err
	}
	r, err := s.command(ctx, "config", "check", "--config", file)
	text := strings.ToLower(r.Text())
	s.add(figure{
		What: "config check of a token in clear", Got: oneLine(errors.New(r.Text())), Bound: "warns, or refuses",
		OK: err == nil && (strings.Contains(text, "in clear") || strings.Contains(text, "admin.tls")),
	})
	return nil
}

// playHalf cuts the configuration of a running mirror at many places, as an editor that truncates and then writes does.
func playHalf(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{Options: mirrord.Options{
		Upstreams: "ghcr.io:\n  access: public\n  maxTransfers: 8\n  tags:\n    maxAge: 2m\n    wait: 3s\nregistry.example: {}",
		More:      "clientsFallBack: true\nplatforms: [linux/amd64]",
	}})
	if err != nil {
		return err
	}
	r := g.repo("library/app")
	r.put("v1", manifestOf("app", r.config("app")))
	whole, err := os.ReadFile(m.File)
	if err != nil {
		return err
	}
	c := m.victim()
	defer c.close()
	taken := make(map[int]string)
	cuts := 0
	for at := 0; at < len(whole); at = next(whole, at) {
		cuts++
		if err := os.WriteFile(m.File, whole[:at], 0o600); err != nil {
			return err
		}
		if cuts%2 == 0 {
			if err := m.signal(syscall.SIGHUP); err != nil {
				return err
			}
		}
		pause(ctx, 600*time.Millisecond)
		if a := c.get(ctx, manifestPath("docker.io/library/app", "v1")); a.code != http.StatusOK {
			taken[at] = a.String()
		}
		// One of the well-known registries that are open where the list is gone.
		if a := c.get(ctx, manifestPath("quay.io/some/app", "v1")); !strings.Contains(a.header.Get("Mirror-Reason"), "unknown-upstream") {
			taken[at] = "quay.io: " + a.String()
		}
	}
	s.add(figure{What: fmt.Sprintf("cut files that became the configuration, of %d", cuts), Got: fmt.Sprint(len(taken), " ", taken), Bound: "0", OK: len(taken) == 0})
	s.equal("reloads that the log tells of", m.count("the configuration was reloaded"), 0)
	more := strings.Replace(string(whole), "registry.example: {}", "quay.io: {}", 1)
	if err := os.WriteFile(m.File, []byte(more), 0o600); err != nil {
		return err
	}
	err = waitFor(ctx, time.Minute, func() error {
		if a := c.get(ctx, manifestPath("quay.io/some/app", "v1")); strings.Contains(a.header.Get("Mirror-Reason"), "unknown-upstream") {
			return fmt.Errorf("quay.io: %s", a)
		}
		return nil
	})
	s.holds("a whole file is taken", err == nil, err)
	return nil
}

// next is the place of the next cut: the middle and the end of each line.
func next(b []byte, at int) int {
	end := strings.IndexByte(string(b[at:]), '\n') + 1
	if end <= 0 {
		return len(b)
	}
	if end > 20 && (at == 0 || b[at-1] == '\n') {
		return at + end/2
	}
	return at + end
}

// playFilesOfConfig names files that are missing, or have garbage in them.
func playFilesOfConfig(ctx context.Context, s *stage) error {
	dir, err := s.folder()
	if err != nil {
		return err
	}
	for _, name := range []string{"ca.crt", "tls.crt", "tls.key", "client.crt", "client.key"} {
		if err := os.WriteFile(filepath.Join(dir, "garbage-"+name), []byte("garbage"), 0o600); err != nil {
			return err
		}
	}
	for _, kind := range []string{"missing", "garbage"} {
		files := []string{kind + "-ca.crt", kind + "-tls.crt", kind + "-client.crt"}
		text := fmt.Sprintf("tls: {cert: %[1]s-tls.crt, key: %[1]s-tls.key}\nupstreams:\n  registry.example:\n    endpoints: [{url: https://registry.example, ca: "+
			"%[1]s-ca.crt, clientCert: %[1]s-client.crt, clientKey: %[1]s-client.key}]\n", kind)
		if kind == "missing" {
			files = append(files, "missing-password", "missing-token")
			text += "    credentials: [{name: robot, username: robot, passwordFile: missing-password}]\nadmin: {tokenFile: missing-token}\n"
		}
		file := filepath.Join(dir, kind+".yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			return err
		}
		r, err := s.command(ctx, "config", "check", "--config", file)
		if err != nil {
			return err
		}
		s.equal("config check with "+kind+" files: exit code", r.Code, 1)
		for _, name := range files {
			s.add(figure{What: "it names " + name, Got: oneLine(errors.New(r.Text())), Bound: "is named", OK: strings.Contains(r.Text(), name)})
		}
	}
	return nil
}

// playDoctor asks the doctor for an image that the rules refuse, and for one that they let.
func playDoctor(ctx context.Context, s *stage) error {
	w, err := newWorld(ctx, s, "")
	if err != nil {
		return err
	}
	defer w.release()
	r := w.closed.repo("other/app")
	w.closed.change(func() {
		r.closed = true
		r.put("v1", manifestOf("app", r.config("app"), r.add(text("layer"))))
	})
	for what, args := range map[string][]string{
		"through the mirror": {"--admin", w.m.Admin}, "straight": {"--straight", "--config", w.m.File},
	} {
		out, err := s.command(ctx, append([]string{"doctor", "image", "corp.example/other/app:v1"}, args...)...)
		if err != nil {
			return err
		}
		s.equal(what+", an image that no rule names: exit code", out.Code, 1)
		s.holds(what+": it does not say that it can be pulled", !strings.Contains(out.Text(), "can be pulled"), oneLine(errors.New(out.Text())))
		s.holds(what+": it names the rules", strings.Contains(out.Text(), "client-forbidden") || strings.Contains(out.Text(), "rules"), oneLine(errors.New(out.Text())))
		out, err = s.command(ctx, append([]string{"doctor", "image", "--platform", "linux/amd64", "corp.example/" + secretRepo + ":v1"}, args...)...)
		if err != nil {
			return err
		}
		s.equal(what+", an image that a rule names: exit code", out.Code, 0)
	}
	return nil
}
