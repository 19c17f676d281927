package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// journalScenes have others' failures forgotten.
func journalScenes() []scene {
	return []scene{
		{line: 12, name: "journal-under-pressure", timed: true, limit: 4 * time.Minute, play: playJournal},
		{line: 12, name: "one-clients-failures", timed: true, limit: 3 * time.Minute, play: playRecord},
	}
}

// playJournal opens 12,000 pulls of one client, then repeats one failure as fast as it goes, while forty other clients
// each fail once.
func playJournal(ctx context.Context, s *stage) error {
	g, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	r := g.repo("attacker/many")
	doc := manifestOf("many", r.config("many"))
	g.change(func() {
		for i := range 12_000 {
			r.put(fmt.Sprint("t", i), doc)
		}
	})
	c := m.attacker()
	defer c.close()
	each(ctx, 12_000, 32, func(i int) { _ = c.get(ctx, manifestPath("docker.io/attacker/many", fmt.Sprint("t", i))) })
	stop := flood(ctx, m, 32, manifestPath("docker.io/attacker/many", "missing"))
	s.othersFail(ctx, m)
	answers := stop()
	pause(ctx, 3*time.Second)
	s.recorded(ctx, m, "of 40 failures of others beside 12,000 open pulls")
	s.equal(fmt.Sprint("requests that the journal lost, of ", answers), m.lost(), 0)
	return nil
}

// flood repeats one request as fast as it goes, on connections that don't wait for answers before they ask again, until
// stop is called, which returns how many answers came.
func flood(ctx context.Context, m *mirror, connections int, path string) (stop func() int) {
	ctx, cancel := context.WithCancel(ctx)
	const batch = 50
	asks := strings.Repeat("GET "+path+" HTTP/1.1\r\nHost: m\r\n\r\n", batch)
	var answered atomic.Int64
	var group sync.WaitGroup
	for range connections {
		group.Go(func() {
			for ctx.Err() == nil {
				conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(attackerAddress)}}).DialContext(ctx, "tcp", m.Host)
				if err != nil {
					return
				}
				go func() { // ends with the connection
					lines := bufio.NewScanner(conn)
					for lines.Scan() {
						if bytes.Contains(lines.Bytes(), []byte("HTTP/1.1 ")) {
							answered.Add(1)
						}
					}
				}()
				for ctx.Err() == nil {
					_ = conn.SetWriteDeadline(time.Now().Add(5 * time.Second))
					if _, err := io.WriteString(conn, asks); err != nil {
						break
					}
				}
				_ = conn.Close()
			}
		})
	}
	return func() int {
		cancel()
		group.Wait()
		return int(answered.Load())
	}
}

// othersFail has forty clients pull forty images that are missing, over some seconds.
func (s *stage) othersFail(ctx context.Context, m *mirror) {
	for i := range 40 {
		c := newClient(m.base, fmt.Sprint("127.0.1.", i+1), m.pool, m.http2)
		_ = c.get(ctx, manifestPath(fmt.Sprint("docker.io/victim/missing", i), "v1"))
		c.close()
		pause(ctx, 250*time.Millisecond)
	}
}

// recorded counts which of them the record has.
func (s *stage) recorded(ctx context.Context, m *mirror, what string) {
	var body struct {
		Failures []struct{ Image string }
		Continue string
	}
	seen := make(map[string]bool)
	next := ""
	for range 10 {
		a := m.ask(ctx, "/api/v1/failures?limit=1000"+next)
		body.Continue, body.Failures = "", nil
		if a.code != http.StatusOK || json.Unmarshal(a.body, &body) != nil {
			break
		}
		for _, f := range body.Failures {
			if strings.Contains(f.Image, "victim/missing") {
				seen[f.Image] = true
			}
		}
		if body.Continue == "" {
			break
		}
		next = "&continue=" + body.Continue
	}
	s.equal(what+", recorded", len(seen), 40)
}

// lost is how many requests the journal says it has lost.
func (m *mirror) lost() int {
	n := 0.0
	for _, line := range m.Log() {
		v, ok := line["lost"].(float64) // of an earlier version
		if line["msg"] == "journal is overloaded; some requests are not recorded" {
			v, ok = line["count"].(float64)
		}
		if ok {
			n += v
		}
	}
	return int(n)
}

// playRecord has one client fail with three thousand tags after others have failed.
func playRecord(ctx context.Context, s *stage) error {
	_, m, err := s.open(ctx, setup{})
	if err != nil {
		return err
	}
	s.othersFail(ctx, m)
	c := m.attacker()
	defer c.close()
	each(ctx, 3000, 16, func(i int) {
		_ = c.get(ctx, manifestPath(fmt.Sprint("docker.io/attacker/bad", i%7), fmt.Sprint("t", i)))
	})
	pause(ctx, 3*time.Second)
	s.recorded(ctx, m, "of 40 failures of others before 3,000 of one client")
	return nil
}
