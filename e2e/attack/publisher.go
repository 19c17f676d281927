package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// publisherScenes have a publisher's words held against others.
func publisherScenes() []scene {
	return []scene{
		{line: 15, name: "wrong-sizes-open-no-breaker", short: true, play: playSizes},
		{line: 15, name: "manifest-first-asked-for-as-a-blob", short: true, play: playType},
	}
}

// playSizes gets layers whose size the manifest has wrong, smaller and larger than it says.
func playSizes(ctx context.Context, s *stage) error {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	second, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	second.repos = g.repos // the same content
	m, err := s.start(ctx, setup{Options: mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.url() + ", " + second.url() + "]}",
	}})
	if err != nil {
		return err
	}
	c := m.attacker()
	defer c.close()
	r := g.repo("attacker/sizes")
	for i := range 6 {
		b := made(uint64(i)+1, 100_000)
		var doc document
		g.change(func() {
			d := r.add(b)
			if d.Size = 777; i%2 == 1 {
				d.Size = 1 << 20
			}
			doc = r.put(fmt.Sprint("v", i), manifestOf("sizes", r.config("sizes"), d))
			_ = doc
		})
		_ = c.get(ctx, manifestPath("docker.io/attacker/sizes", fmt.Sprint("v", i)))
		_ = c.get(ctx, blobPath("docker.io/attacker/sizes", digestOf(b)))
	}
	var body struct {
		Upstreams []struct {
			Endpoints []struct{ URL, State, LastError string }
		}
	}
	a := m.ask(ctx, "/api/v1/upstreams")
	if err := json.Unmarshal(a.body, &body); err != nil {
		return fmt.Errorf("upstreams: %s: %w", a, err)
	}
	down := 0
	var states []string
	for _, u := range body.Upstreams {
		for _, e := range u.Endpoints {
			states = append(states, e.State)
			if e.State != "up" && e.State != "unknown" {
				down++
			}
		}
	}
	s.add(figure{What: "endpoints that are down after six wrong sizes", Got: fmt.Sprint(down, " ", states), Bound: "0", OK: down == 0})
	warned := 0
	for _, line := range m.Log() {
		if line["level"] == "WARN" && strings.Contains(fmt.Sprint(line["msg"]), "endpoint is down") {
			warned++
		}
	}
	s.equal("warnings of endpoints", warned, 0)
	return nil
}

// playType asks for a manifest under /blobs/ first, of a registry that has one store for both.
func playType(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	r := g.repo("library/app")
	r.docsAsBlobs = true
	layer := r.add(text("layer"))
	doc := documentOf(manifestType, map[string]any{"schemaVersion": 2, "config": r.config("app"), "layers": []descriptor{layer}})
	r.put("v1", doc)
	attacker, victim := m.attacker(), m.victim()
	defer attacker.close()
	defer victim.close()
	_ = attacker.head(ctx, blobPath("docker.io/library/app", doc.digest))
	_ = attacker.get(ctx, blobPath("docker.io/library/app", doc.digest))
	for _, ref := range []string{"v1", doc.digest} {
		a := victim.get(ctx, manifestPath("docker.io/library/app", ref))
		s.equal("media type of the manifest by "+ref[:min(len(ref), 6)], a.header.Get("Content-Type"), manifestType)
		s.holds("its bytes", sum(a.body) == doc.digest, a)
	}
	if a := victim.get(ctx, blobPath("docker.io/library/app", layer.Digest)); a.code != http.StatusOK {
		return fmt.Errorf("the layer: %s", a)
	}
	_ = g.srv.Close()
	pause(ctx, 500*time.Millisecond)
	a := victim.get(ctx, blobPath("docker.io/library/app", layer.Digest))
	s.equal("its layer with the registry down, status", a.code, http.StatusOK)
	return nil
}
