package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
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
// another client.
func playFiles(ctx context.Context, s *stage, l listener) error {
	const limit, connections = 512, 700
	g, m, err := s.open(ctx, setup{listener: l, files: limit})
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards open
	var open []net.Conn
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	each(ctx, connections, 50, func(int) {
		if c := idle(ctx, m, l); c != nil {
			mu.Lock()
			defer mu.Unlock()
			open = append(open, c)
		}
	})
	pause(ctx, time.Second)
	ask := s.coldManifest(ctx, g, m)
	var list, health []answer
	for i := range 5 {
		brief, stop := context.WithTimeout(ctx, ends)
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
		if text := fmt.Sprint(line["msg"], line["error"]); line["level"] == "WARN" &&
			(strings.Contains(text, "connection") || strings.Contains(text, "descriptor") || strings.Contains(text, "files")) {
			said++
		}
	}
	s.atLeast("warnings in the log", float64(said), 1, "")
	s.atMost("warnings in the log", float64(said), 10, "")
	return nil
}

// idle opens a connection that has asked once, and so may stay open for minutes. nil: it was refused.
func idle(ctx context.Context, m *mirror, l listener) net.Conn {
	dialer := &net.Dialer{Timeout: 2 * time.Second, LocalAddr: &net.TCPAddr{IP: net.ParseIP(attackerAddress)}}
	c, err := dialer.DialContext(ctx, "tcp", m.Host)
	if err != nil {
		return nil
	}
	_ = c.SetDeadline(time.Now().Add(2 * time.Second)) // those that are not accepted wait in vain
	ask := "GET /v2/ HTTP/1.1\r\nHost: m\r\n\r\n"
	protocols := []string{"http/1.1"}
	if l == http2 {
		ask = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // and empty SETTINGS
		protocols = []string{"h2"}
	}
	conn := c
	if l != plain {
		conn = tls.Client(c, &tls.Config{RootCAs: m.pool, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS12, NextProtos: protocols})
	}
	_, _ = io.WriteString(conn, ask)
	_, _ = conn.Read(make([]byte, 1))
	_ = c.SetDeadline(time.Time{})
	return c
}
