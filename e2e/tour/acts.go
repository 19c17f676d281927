package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/registrymirror/mirror/internal/origin"

	"github.com/registrymirror/mirror/e2e/internal/trouble"
)

// act is one of the ten failures.
type act struct {
	number int
	title  string
	story  string
	scene  trouble.Scene
	play   func(context.Context, *stage, *trouble.Place) error
	place  *trouble.Place
}

// fails plays a pull that fails either way.
func fails(ctx context.Context, s *stage, p *trouble.Place) error {
	if p.First != "" {
		if _, err := s.with.pull(ctx, p.First); err != nil {
			return err
		}
	}
	if err := s.both(ctx, p.Ref()); err != nil {
		return err
	}
	if p.Unsaid && !s.runtime {
		s.page.part("recorded", blue, "nothing: what is concluded from what a node does not ask for is concluded for runtimes "+
			"alone, and this is a library")
		return nil
	}
	return s.recorded(ctx, p.Ref(), p.Reason)
}

func acts() []*act {
	return []*act{
		{
			number: 11, title: "ImagePullBackOff: a symptom without a cause", scene: trouble.By("portal"), play: fails,
			story: "The network wants a login, and answers for the registry with a page of its own.",
		},
		{
			number: 12, title: "ErrImagePull: the network", scene: trouble.By("cdn"), play: fails,
			story: "The firewall lets the registry through, and not the host where it keeps its blobs.",
		},
		{
			number: 13, title: "The :latest trap", scene: trouble.Healthy("latest", "", 4<<10), play: moving,
			story: "Two nodes pull app:v1, and a push moves the tag in between.",
		},
		{
			number: 14, title: "imagePullSecrets are missing", scene: trouble.By("private"), play: fails,
			story: "No side has a login. The registry does not tell a private image from one that isn't there.",
		},
		{
			number: 15, title: "The credential has expired", scene: trouble.By("expired"), play: fails,
			story: "The mirror holds the credential for all nodes; without it each node needs one, and has none here.",
		},
		{
			number: 16, title: "The wrong architecture", scene: trouble.By("arm"), play: fails,
			story: "The image is for arm64 alone, and the node is amd64.",
		},
		{
			number: 17, title: "The 10 GB monster", scene: trouble.Healthy("monster", "", 24<<20), play: monster,
			story: "A large layer, over a path that resets each connection after 8 MiB. Here it has 24 MiB.",
		},
		{
			number: 18, title: "The insecure registry: a clash of protocols", scene: trouble.By("corp"), play: fails,
			story: "A proxy in the office opens TLS, and signs with a CA of its own.",
		},
		{
			number: 19, title: "The rate limit", scene: trouble.Healthy("hub", "", 4<<10), play: limit,
			story: "One node has pulled app:v1. Then the registry's limit is used up.",
		},
		{
			number: 20, title: "The zombie image", scene: trouble.Healthy("zombie", "tags: {maxAge: 0s}", 4<<10), play: zombie,
			story: "A push moves app:v1; then the registry is down.",
		},
	}
}

// moving has two nodes pull by each way, with a push in between.
func moving(ctx context.Context, s *stage, p *trouble.Place) error {
	ways := []struct {
		name string
		c    client
		got  []string
	}{{name: "without", c: s.without}, {name: "with", c: s.with}}
	for node := range 2 {
		for i := range ways {
			sum, err := ways[i].c.pull(ctx, p.Ref())
			if err != nil {
				return err
			}
			ways[i].got = append(ways[i].got, s.clean(sum))
		}
		if node == 0 {
			p.Registry.AddImage("acme/app", "v1", origin.Image{Seed: 77})
		}
	}
	for _, w := range ways {
		s.page.part(w.name, green, "node 1 pulled "+w.got[0]+", node 2 "+w.got[1])
	}
	if err := s.pulls(ctx, p.Ref()); err != nil {
		return err
	}
	s.page.part("", "0", "Within maxAge (1 minute, unless set) all nodes get the same. A history of digests by client, and "+
		"pins, are not built yet.")
	return nil
}

func monster(ctx context.Context, s *stage, p *trouble.Place) error {
	p.Registry.Script(origin.Rule{Kind: origin.KindBlob, Do: origin.Fault{Cut: &origin.Cut{At: 8 << 20, How: origin.CutReset}}})
	if _, err := s.pull(ctx, "without", s.without, p.Ref()); err == nil {
		return fmt.Errorf("it was pulled without the mirror")
	}
	before := p.Registry.Sent()
	if _, err := s.pull(ctx, "with", s.with, p.Ref()); err != nil {
		return err
	}
	s.page.part("", "0", fmt.Sprintf("It went on where each connection broke: the registry sent %.1f MiB for it.",
		float64(p.Registry.Sent()-before)/(1<<20)))
	return s.pulls(ctx, p.Ref())
}

func limit(ctx context.Context, s *stage, p *trouble.Place) error {
	if _, err := s.with.pull(ctx, p.Ref()); err != nil {
		return err
	}
	p.Registry.AddImage("acme/app", "v2", origin.Image{Seed: 78})
	p.Registry.Script(origin.Rule{Kind: origin.KindManifest, Do: origin.Fault{
		Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"3600"}},
		Body: origin.ErrorBody("TOOMANYREQUESTS", "You have reached your pull rate limit."),
	}})
	if _, err := s.pull(ctx, "without", s.without, p.Ref()); err == nil {
		return fmt.Errorf("it was pulled without the mirror")
	}
	if _, err := s.pull(ctx, "with", s.with, p.Ref()); err != nil {
		return err
	}
	other := p.Host + "/acme/app:v2"
	s.page.part("", "0", "An image that is not cached has to wait:")
	if _, err := s.pull(ctx, "with", s.with, other); err == nil {
		return fmt.Errorf("%s was pulled", other)
	}
	return s.recorded(ctx, other, "rate-limited")
}

func zombie(ctx context.Context, s *stage, p *trouble.Place) error {
	if _, err := s.with.pull(ctx, p.Ref()); err != nil {
		return err
	}
	moved := p.Registry.AddImage("acme/app", "v1", origin.Image{Seed: 79})
	s.page.part("", "0", s.clean("After the push it is "+moved.Root.Digest.String()+"."))
	sum, err := s.pull(ctx, "with", s.with, p.Ref())
	if err != nil || sum != moved.Root.Digest.String() {
		return fmt.Errorf("it got %s, %w", sum, err)
	}
	p.Registry.Down()
	s.page.part("", "0", "The registry is down:")
	if _, err := s.pull(ctx, "without", s.without, p.Ref()); err == nil {
		return fmt.Errorf("it was pulled without the mirror")
	}
	if _, err := s.pull(ctx, "with", s.with, p.Ref()); err != nil {
		return err
	}
	if err := s.pulls(ctx, p.Ref()); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodHead, s.URL()+"/v2/"+p.Host+"/acme/app/manifests/v1", nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	_ = resp.Body.Close()
	s.page.part("", "0", "Warning: "+s.clean(resp.Header.Get("Warning")))
	return nil
}
