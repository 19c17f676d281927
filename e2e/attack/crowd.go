package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/registrymirror/mirror/e2e/internal/mirrord"
)

// crowdScenes have thousands of connections that are idle or slow, while clients pull.
func crowdScenes() []scene {
	return []scene{
		{line: 21, name: "ten-thousand-idle-five-thousand-slow", timed: true, limit: 10 * time.Minute, play: func(ctx context.Context, s *stage) error {
			return playCrowd(ctx, s, crowd{idle: 10_000, headers: 2_500, reads: 2_500, clients: 20, rounds: 31})
		}},
		{line: 21, name: "idle-and-slow", short: true, play: func(ctx context.Context, s *stage) error {
			return playCrowd(ctx, s, crowd{idle: 200, headers: 50, reads: 50, clients: 5, rounds: 3})
		}},
	}
}

// crowd is how many connections of each kind are held, how many clients pull beside them, and how often.
type crowd struct{ idle, headers, reads, clients, rounds int }

// ranks are connections of one kind.
type ranks struct {
	name   string
	net    int // 127.net.0.0/24 has their addresses
	want   int
	open   atomic.Int64 // now
	opened atomic.Int64 // in all: those that were closed are opened again
}

// hold keeps so many connections of a kind open until the context ends. Those that the mirror closes are opened again after a pause. Each comes from
// one of a hundred addresses.
func (k *ranks) hold(ctx context.Context, group *sync.WaitGroup, host string, turn chan struct{}, use func(ctx context.Context, c net.Conn, held func())) {
	for i := range k.want {
		from := fmt.Sprintf("127.%d.0.%d", k.net, 1+i%100)
		group.Go(func() {
			for ctx.Err() == nil {
				k.one(ctx, host, from, turn, use)
				pause(ctx, 5*time.Second)
			}
		})
	}
}

// one opens a connection and uses it until either side closes it.
func (k *ranks) one(ctx context.Context, host, from string, turn chan struct{}, use func(ctx context.Context, c net.Conn, held func())) {
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return
	}
	c, err := slowConnection(ctx, host, from)
	<-turn
	if err != nil {
		return
	}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() })
	defer stop()
	defer c.Close()
	held := false
	use(ctx, c, func() {
		held = true
		k.open.Add(1)
		k.opened.Add(1)
	})
	if held {
		k.open.Add(-1)
	}
}

// idleAfterRequest makes one request and then says nothing.
func idleAfterRequest(_ context.Context, c net.Conn, held func()) {
	if _, err := io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
		return
	}
	r := bufio.NewReaderSize(c, 512)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	held()
	_, _ = r.ReadByte() // until the mirror closes it
}

// slowHeader sends a byte of a header every two seconds.
func slowHeader(ctx context.Context, c net.Conn, held func()) {
	if _, err := io.WriteString(c, "GET /v2/ HTTP/1.1\r\nHost: m\r\nX-Slow: "); err != nil {
		return
	}
	held()
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = c.Read(make([]byte, 1)) // until the mirror closes it
	}()
	for {
		select {
		case <-gone:
			return
		case <-time.After(2 * time.Second):
		}
		if _, err := io.WriteString(c, "x"); err != nil || ctx.Err() != nil {
			_ = c.Close()
			<-gone
			return
		}
	}
}

// slowRead asks for a blob, and reads half a kilobyte of it every two seconds.
func slowRead(path string) func(ctx context.Context, c net.Conn, held func()) {
	return func(ctx context.Context, c net.Conn, held func()) {
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: m\r\n\r\n"); err != nil {
			return
		}
		if b := make([]byte, 12); !read(c, b) || string(b) != "HTTP/1.1 200" {
			return
		}
		held()
		b := make([]byte, 512)
		for read(c, b) && ctx.Err() == nil {
			pause(ctx, 2*time.Second)
		}
	}
}

func read(c net.Conn, b []byte) bool {
	_, err := io.ReadFull(c, b)
	return err == nil
}

// playCrowd compares pulls from three mirrors with the same content, in turn: one beside the crowd, and two that have no crowd, whose difference
// is that of measuring. The first also has to serve every pull, with right bytes, and to stay within its memory.
func playCrowd(ctx context.Context, s *stage, w crowd) error {
	names := [3]string{"quiet", "crowded", "quiet again"}
	var mirrors [3]*mirror
	var image [3][]string // paths of an image
	var large string
	for i := range mirrors {
		// As docs/sizing.md says for a limit of 400 MiB.
		g, m, err := s.open(ctx, setup{Options: mirrord.Options{Env: []string{"GOMEMLIMIT=360MiB"}}})
		if err != nil {
			return err
		}
		mirrors[i] = m
		r := g.repo("library/app")
		var layers []descriptor
		for n := range 3 {
			layers = append(layers, r.add(made(uint64(n)+1, 2<<20)))
		}
		config := r.config("app")
		r.put("v1", manifestOf("app", config, layers...))
		large = blobPath("docker.io/library/app", r.add(made(99, 16<<20)).Digest)
		image[i] = []string{manifestPath("docker.io/library/app", "v1"), blobPath("docker.io/library/app", config.Digest)}
		for _, l := range layers {
			image[i] = append(image[i], blobPath("docker.io/library/app", l.Digest))
		}
		c := m.victim()
		for _, path := range append([]string{large}, image[i]...) {
			if a := c.get(ctx, path); a.code != http.StatusOK {
				return fmt.Errorf("%s: %s", path, a)
			}
		}
		c.close()
	}
	var failed tally
	pull := func(i, client int) (time.Duration, error) {
		c := newClient(mirrors[i].base, fmt.Sprintf("127.0.1.%d", 1+client), nil, false) // a connection of its own, as a new pull has
		defer c.close()
		begun := time.Now()
		for _, path := range image[i] {
			a := c.get(ctx, path)
			if _, digest, ok := strings.Cut(path, "/blobs/"); ok && a.err == nil && sum(a.body) != digest {
				a.err = errors.New("wrong bytes")
			}
			if a.code != http.StatusOK || a.err != nil {
				failed.add(a)
				return 0, fmt.Errorf("%s of %s: %s", path, names[i], a)
			}
		}
		return time.Since(begun), nil
	}
	crowdCtx, stop := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer stop()
	kinds := []*ranks{{name: "idle", net: 5, want: w.idle}, {name: "headers", net: 6, want: w.headers}, {name: "slow reads", net: 7, want: w.reads}}
	turn := make(chan struct{}, 64)
	for i, use := range []func(context.Context, net.Conn, func()){idleAfterRequest, slowHeader, slowRead(large)} {
		kinds[i].hold(crowdCtx, &group, mirrors[1].Host, turn, use)
	}
	if err := waitFor(ctx, 2*time.Minute, func() error {
		for _, k := range kinds {
			if k.opened.Load() < int64(k.want) {
				return fmt.Errorf("%s: %d of %d", k.name, k.opened.Load(), k.want)
			}
		}
		return nil
	}); err != nil {
		return err
	}
	var took [3][]time.Duration // of pulls
	for round := range w.rounds {
		for turn := range 3 {
			i := (round + turn) % 3
			times, bad := make([]time.Duration, w.clients), make([]error, w.clients)
			each(ctx, w.clients, w.clients, func(client int) { times[client], bad[client] = pull(i, client) })
			if errors.Join(bad...) == nil {
				took[i] = append(took[i], times...)
			}
		}
	}
	var held []string
	for _, k := range kinds {
		held = append(held, fmt.Sprintf("%s %d (opened %d times)", k.name, k.open.Load(), k.opened.Load()))
	}
	s.holds("connections held at the end, of "+strconv.Itoa(w.idle+w.headers+w.reads), kinds[2].open.Load() > int64(w.reads/2), strings.Join(held, ", "))
	s.equal(fmt.Sprintf("pulls that failed, of %d by %d clients", 3*w.rounds*w.clients, w.clients), failed.String(), "map[]")
	a := mirrors[1].ask(ctx, "/metrics")
	s.holds("slow headers are counted", !strings.Contains(string(a.body), `mirror_connections_ended_total{cause="slow-header"} 0`+"\n") || w.idle < 1000,
		linesWith(string(a.body), "mirror_connections_ended_total{"))
	if w.idle < 1000 {
		return nil // times and memory of so few say nothing
	}
	median := func(i int) float64 { return quantile(took[i], 0.5).Seconds() * 1000 }
	for i, name := range names {
		s.holds("median of a pull, "+name, true, fmt.Sprintf("%.1f ms; 95th percentile %.1f ms", median(i), quantile(took[i], 0.95).Seconds()*1000))
	}
	noChange := max(median(0), median(2)) / min(median(0), median(2))
	s.atMost(fmt.Sprintf("median beside the crowd, of that of the quiet ones; no change is %.2f", noChange), 2*median(1)/(median(0)+median(2)), max(1.25, noChange*1.1), "x")
	now, most, err := mirrors[1].resident()
	if err != nil {
		return err
	}
	s.atMost(fmt.Sprintf("resident at most, %.0f MiB at the end", now), most, mostMemory, "MiB")
	return nil
}

// linesWith are the lines of a text that begin so.
func linesWith(text, prefix string) string {
	var list []string
	for line := range strings.Lines(text) {
		if rest, ok := strings.CutPrefix(line, prefix); ok {
			list = append(list, strings.TrimSpace(rest))
		}
	}
	return strings.Join(list, ", ")
}
