package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// queueScenes have one client take all turns of an endpoint.
func queueScenes() []scene {
	list := []scene{
		{line: 9, name: "small-blob-beside-slow-readers", timed: true, limit: 3 * time.Minute, play: playTurns},
		{line: 9, name: "one-turn-one-attacker", short: true, play: playOneTurn},
	}
	for _, l := range []listener{plain, tls11, http2} {
		list = append(list, scene{
			line: 9, name: "fairness-over-" + string(l), timed: true, limit: 6 * time.Minute,
			play: func(ctx context.Context, s *stage) error { return playFairness(ctx, s, l) },
		})
	}
	return list
}

const (
	largeOnes = 300
	largeSize = 8 << 20
	largeRate = 250_000 // bytes a second of each at the upstream
	sipRate   = 1_000   // bytes a second that the attacker takes of each
)

// hogs has one client keep three hundred downloads of as many repositories under way, each taken slowly; what is refused
// is asked for again. stop ends it.
func hogs(ctx context.Context, g *registry, m *mirror) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	c := m.attacker()
	var group sync.WaitGroup
	for i := range largeOnes {
		b := made(uint64(i)+1, largeSize)
		b.rate = largeRate
		repo := fmt.Sprint("attacker/large", i)
		d := g.repo(repo).add(b)
		group.Go(func() {
			for ctx.Err() == nil {
				resp, err := c.open(ctx, http.MethodGet, blobPath("docker.io/"+repo, d.Digest))
				if err == nil {
					if resp.StatusCode == http.StatusOK {
						_ = sip(ctx, resp.Body, sipRate)
					}
					_ = resp.Body.Close()
				}
				pause(ctx, 100*time.Millisecond)
			}
		})
	}
	stop = func() {
		cancel()
		group.Wait()
		c.close()
	}
	err = waitFor(ctx, 20*time.Second, func() error {
		if n := g.hits(func(h hit) bool { return h.kind == "blobs" && h.method == http.MethodGet }); n < 4 {
			return fmt.Errorf("the attacker has %d downloads, want 4 at least", n)
		}
		return nil
	})
	pause(ctx, 2*time.Second) // for as many as it can have
	if err != nil {
		stop()
	}
	return stop, err
}

// coldBlob asks for a blob of a victim that no client has asked for.
func (s *stage) coldBlob(ctx context.Context, g *registry, m *mirror, size int64, rate int) func(i int) answer {
	c := m.victim()
	s.ends = append(s.ends, c.close)
	r := g.repo("victim/app")
	return func(i int) answer {
		b := made(uint64(1<<40)+uint64(i), size)
		b.rate = rate
		var d descriptor
		g.change(func() { d = r.add(b) })
		a := c.get(ctx, blobPath("docker.io/victim/app", d.Digest))
		if a.code == http.StatusOK && sum(a.body) != d.Digest {
			a.err = errors.New("wrong bytes")
		}
		return a
	}
}

// playTurns measures a victim's cold blob of a few bytes.
func playTurns(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	stop, err := hogs(ctx, g, m)
	if err != nil {
		return err
	}
	defer stop()
	ask := s.coldBlob(ctx, g, m, 9, 0)
	var list []answer
	for i := range 20 {
		if list = append(list, ask(i)); list[i].took > 20*time.Second {
			break
		}
		pause(ctx, 100*time.Millisecond)
	}
	s.verdict("a victim's cold blob of 9 bytes beside 300 slow readers", list, 2*time.Second)
	return nil
}

// playFairness compares a victim's cold blobs of 1 MiB beside the attacker with those of a mirror that is not attacked,
// one of each in turn.
func playFairness(ctx context.Context, s *stage, l listener) error {
	const samples = 100
	busy, attacked, err := s.open(ctx, setup{listener: l})
	if err != nil {
		return err
	}
	calm, alone, err := s.open(ctx, setup{listener: l})
	if err != nil {
		return err
	}
	stop, err := hogs(ctx, busy, attacked)
	if err != nil {
		return err
	}
	defer stop()
	const rate = 4 << 20
	without, with := s.coldBlob(ctx, calm, alone, 1<<20, rate), s.coldBlob(ctx, busy, attacked, 1<<20, rate)
	var a, b []time.Duration
	var failed tally
	begun := time.Now()
	for i := range samples {
		if time.Since(begun) > 4*time.Minute {
			break
		}
		a = append(a, without(i).took)
		x := with(i)
		b = append(b, x.took)
		if x.code != http.StatusOK || x.err != nil {
			failed.add(x)
		}
	}
	s.equal(fmt.Sprint("failed of ", len(b)), failed.String(), "map[]")
	what := fmt.Sprintf("99th percentile beside 300 downloads, without %.0f ms", quantile(a, 0.99).Seconds()*1000)
	s.atMost(what, quantile(b, 0.99).Seconds()*1000, 2*quantile(a, 0.99).Seconds()*1000, "ms")
	what = fmt.Sprintf("median, without %.0f ms", quantile(a, 0.5).Seconds()*1000)
	s.atMost(what, quantile(b, 0.5).Seconds()*1000, 2*quantile(a, 0.5).Seconds()*1000, "ms")
	return nil
}

// playOneTurn has an endpoint with one turn: the attacker waits with five repositories, a victim comes after them.
func playOneTurn(ctx context.Context, s *stage) error {
	g, err := s.newRegistry(ctx)
	if err != nil {
		return err
	}
	m, err := s.start(ctx, setup{Options: mirrord.Options{
		Upstreams: "docker.io: {endpoints: [" + g.url() + "], maxTransfers: 1}",
	}})
	if err != nil {
		return err
	}
	const size = 4 << 20
	leaving, leave := context.WithCancel(ctx)
	defer leave()
	c := m.attacker()
	defer c.close()
	var group sync.WaitGroup
	attack := func(i int, gate chan struct{}) {
		b := made(uint64(i)+1, size)
		b.gate = gate
		repo := fmt.Sprint("attacker/large", i)
		d := g.repo(repo).add(b)
		group.Go(func() { _ = c.get(leaving, blobPath("docker.io/"+repo, d.Digest)) })
	}
	downloads := func() (repos []string) {
		g.hits(func(h hit) bool {
			if h.kind == "blobs" && h.method == http.MethodGet {
				repos = append(repos, h.repo)
			}
			return false
		})
		return repos
	}
	begun := func(repo string) error {
		return waitFor(ctx, time.Minute, func() error {
			if list := downloads(); !slices.Contains(list, repo) {
				return fmt.Errorf("the download of %s has not begun, but %v", repo, list)
			}
			return nil
		})
	}
	first := make(chan struct{})
	attack(0, first)
	if err := begun("attacker/large0"); err != nil { // it has the only turn
		return err
	}
	for i := range 5 {
		attack(1+i, nil)
	}
	if err := m.waiting(ctx, 5); err != nil {
		return err
	}
	answered := make(chan answer, 1)
	group.Go(func() { answered <- s.coldBlob(ctx, g, m, 3<<20, 0)(1) })
	if err := m.waiting(ctx, 6); err != nil {
		return err
	}
	close(first)
	s.equal("a victim's blob of 3 MiB behind one client's five", <-answered, http.StatusOK)
	place := slices.Index(downloads(), "victim/app")
	s.atMost("downloads before it, of the attacker's six", float64(place), 2, "") // one has the turn, one is the next at most

	second := make(chan struct{})
	attack(6, second)
	if err := begun("attacker/large6"); err != nil {
		return err
	}
	a := s.coldBlob(ctx, g, m, 100<<10, 0)(2)
	s.equal("a victim's blob of 100 KiB, beside a large one that keeps the turn", a, http.StatusOK)
	close(second)
	group.Wait()
	return nil
}

// waiting returns when so many downloads wait for a turn.
func (m *mirror) waiting(ctx context.Context, want float64) error {
	return waitFor(ctx, time.Minute, func() error {
		n, err := m.sum(ctx, "mirror_upstream_transfers_waiting")
		if err == nil && n != want {
			err = fmt.Errorf("%v downloads wait for a turn, want %v", n, want)
		}
		return err
	})
}
