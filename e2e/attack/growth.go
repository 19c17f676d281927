package main

import (
	"bufio"
	"context"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// growthScenes make the mirror remember as much as they can.
func growthScenes() []scene {
	return []scene{
		{line: 8, name: "refused-names", timed: true, limit: 5 * time.Minute, play: playNames},
		{line: 8, name: "series-of-made-up-hosts", short: true, play: playSeries},
		{line: 8, name: "log-lines", timed: true, play: playLog},
	}
}

// playNames asks for names that a token service refuses.
func playNames(ctx context.Context, s *stage) error {
	const first, all = 25_000, 65_000 // the first ones fill every memory that has a bound
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	g.behave(func(w http.ResponseWriter, r *http.Request, q question) bool {
		if r.URL.Path == "/token" {
			refuse(w, http.StatusForbidden, "DENIED")
			return true
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="registry",scope="repository:%s:pull"`, g.url(), q.repo))
		refuse(w, http.StatusUnauthorized, "UNAUTHORIZED")
		return true
	})
	c := m.attacker()
	defer c.close()
	ask := func(from, to int) {
		each(ctx, to-from, 32, func(i int) {
			_ = c.get(ctx, manifestPath(fmt.Sprint("docker.io/acme/name", from+i), "v1"))
		})
	}
	ask(0, first)
	before, err := m.live(ctx)
	if err != nil {
		return err
	}
	ask(first, all)
	after, err := m.live(ctx)
	if err != nil {
		return err
	}
	_, most, err := m.resident()
	if err != nil {
		return err
	}
	s.atMost(fmt.Sprint("resident at most, after ", all, " names"), most, 300, "MiB")
	s.atMost("bytes kept for each of the last 40,000 names", (after-before)/(all-first), 150, "B")
	return nil
}

// live is how many bytes of the heap are in use after a collection.
func (m *mirror) live(ctx context.Context) (float64, error) {
	pause(ctx, 2*time.Second)
	if a := m.ask(ctx, "/debug/pprof/heap?gc=1"); a.code != http.StatusOK {
		return 0, fmt.Errorf("collect: %s", a)
	}
	return m.metric(ctx, "go_memstats_heap_alloc_bytes")
}

// metric reads one that has no labels.
func (m *mirror) metric(ctx context.Context, name string) (float64, error) {
	a := m.ask(ctx, "/metrics")
	lines := bufio.NewScanner(strings.NewReader(string(a.body)))
	for lines.Scan() {
		if v, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, fmt.Errorf("there is no metric %s: %s", name, a)
}

// sum adds up the series of one that has labels.
func (m *mirror) sum(ctx context.Context, name string) (sum float64, err error) {
	a := m.ask(ctx, "/metrics")
	found := false
	for line := range strings.Lines(string(a.body)) {
		if rest, ok := strings.CutPrefix(line, name+"{"); ok {
			_, value, _ := strings.Cut(rest, "} ")
			v, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", line, err)
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		return 0, fmt.Errorf("there is no metric %s: %s", name, a)
	}
	return sum, nil
}

// series counts the lines of /metrics.
func (m *mirror) series(ctx context.Context) int {
	n := 0
	for line := range strings.Lines(string(m.ask(ctx, "/metrics").body)) {
		if !strings.HasPrefix(line, "#") {
			n++
		}
	}
	return n
}

// playSeries asks for three hundred made-up hosts of a pattern.
func playSeries(ctx context.Context, s *stage) error {
	_, m, err := s.open(ctx, setup{Options: mirrord.Options{Upstreams: `"*.azurecr.io": {}`}})
	if err != nil {
		return err
	}
	c := m.attacker()
	defer c.close()
	_ = c.get(ctx, manifestPath("first.azurecr.io/app", "v1"))
	before := m.series(ctx)
	most := 0
	for i := range 300 {
		_ = c.get(ctx, manifestPath(fmt.Sprintf("h%d.azurecr.io/app", i), "v1"))
		if i%100 == 99 {
			most = max(most, m.series(ctx))
		}
	}
	s.atMost("series of metrics that 300 made-up hosts added", float64(most-before), 20, "")
	return nil
}

// playLog pulls one cached tag under the names of thousands of nodes.
func playLog(ctx context.Context, s *stage) error {
	const pulls = 20_000
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	r := g.repo("library/app")
	r.put("v1", manifestOf("app", r.config("app")))
	c := m.attacker()
	defer c.close()
	before, begun := len(m.Lines()), time.Now()
	each(ctx, pulls, 16, func(i int) {
		_ = c.get(ctx, manifestPath("docker.io/library/app", "v1"), "Mirror-Node", fmt.Sprint("n", i))
	})
	pause(ctx, 2*time.Second)
	lines, took := len(m.Lines())-before, time.Since(begun)
	s.atMost(fmt.Sprintf("lines of the log for %d pulls under made-up names in %.0f s", pulls, took.Seconds()), float64(lines), 2200*(1+math.Ceil(took.Minutes())), "")
	return nil
}
