package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"strings"
	"time"
)

// fileScenes use up file descriptors.
func fileScenes() []scene {
	var list []scene
	for _, l := range []listener{plain, tls11, http2} {
		list = append(list, scene{
			line: 13, name: "connections-at-512-files-over-" + string(l), short: l == plain, limit: 3 * time.Minute,
			play: func(ctx context.Context, s *stage) error { return playFiles(ctx, s, l) },
		})
	}
	return list
}

// playFiles opens more idle connections than the process may have files, and then pulls and asks the admin listener as
// somebody else.
func playFiles(ctx context.Context, s *stage, l listener) error {
	const limit, connections = 512, 700
	g, m, err := s.open(ctx, setup{listener: l, files: limit})
	if err != nil {
		return err
	}
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	dialer := &net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(attackerAddress)}}
	for i := range connections {
		c, err := dialer.DialContext(ctx, "tcp", m.Host)
		if err != nil {
			break
		}
		open = append(open, c)
		switch {
		case l != plain && i%2 == 0: // half of them are silent before the handshake
			_ = c.SetDeadline(time.Now().Add(500 * time.Millisecond))
			_ = tls.Client(c, &tls.Config{RootCAs: m.pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12}).HandshakeContext(ctx)
			_ = c.SetDeadline(time.Time{})
		case l == plain && i%2 == 0: // half of them have asked before, and may stay
			_, _ = fmt.Fprintf(c, "GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n")
		}
	}
	pause(ctx, time.Second)
	ask := s.coldManifest(ctx, g, m)
	var list, health []answer
	for i := range 5 {
		brief, stop := context.WithTimeout(ctx, 10*time.Second)
		list = append(list, ask(i))
		health = append(health, m.ask(brief, "/healthz"))
		stop()
		if list[i].took > 5*time.Second {
			break
		}
		pause(ctx, 200*time.Millisecond)
	}
	s.verdict(fmt.Sprintf("a victim's pull beside %d idle connections of one client", len(open)), list, 5*time.Second)
	s.verdict("the admin listener's /healthz", health, 2*time.Second)
	said := 0
	for _, line := range m.Log() {
		if text := fmt.Sprint(line["msg"], line["err"]); line["level"] == "WARN" &&
			(strings.Contains(text, "connection") || strings.Contains(text, "descriptor") || strings.Contains(text, "files")) {
			said++
		}
	}
	s.atLeast("warnings in the log", float64(said), 1, "")
	s.atMost("warnings in the log", float64(said), 10, "")
	return nil
}
