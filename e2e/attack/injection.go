package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// injectionScenes send what would be lines of a log, labels of a metric, or commands of a terminal.
func injectionScenes() []scene {
	return []scene{{line: 22, name: "log-and-labels", short: true, play: playInjection}}
}

// playInjection sends such texts in each place where a client may send text: path, query, host, headers, methods.
func playInjection(ctx context.Context, s *stage) error {
	o := setup{}
	o.Level = "debug"
	g, m, err := s.open(ctx, o)
	if err != nil {
		return err
	}
	r := g.repo("library/app")
	r.put("v1", manifestOf("app", r.config("app")))
	before := len(m.Lines())
	sent, forged, raw := 0, 0, 0
	var series [2]int
	for i, word := range []string{"forged7f3a", "forged9b1c"} { // the second round finds all series of reasons there
		n, err := s.inject(ctx, m, word)
		if err != nil {
			return err
		}
		sent += n
		pause(ctx, 2*time.Second) // for the lines of pulls
		for _, line := range m.Lines()[before:] {
			var fields map[string]any
			if err := json.Unmarshal([]byte(line), &fields); err != nil || fields["msg"] == word || fields["level"] == "ERROR" {
				forged++
			}
			if strings.ContainsFunc(line, func(c rune) bool { return c < ' ' || c == 0x7f || c == 0x202e || c == 0x2028 }) {
				raw++
			}
		}
		metrics := string(m.ask(ctx, "/metrics").body)
		s.holds("no label is a client's", !strings.Contains(metrics, word), linesWith(metrics, "mirror_failures_total"))
		series[i] = m.series(ctx)
	}
	s.equal(fmt.Sprintf("lines of the log, after %d requests, that are not the mirror's", sent), forged, 0)
	s.equal("lines with a control character as it is", raw, 0)
	s.atMost("series of metrics that the same requests with other words added", float64(series[1]-series[0]), 5, "")
	return nil
}

// inject sends the word in each place, as a line, as a label, and for a terminal.
func (s *stage) inject(ctx context.Context, m *mirror, word string) (sent int, err error) {
	texts := []string{
		`"} {"level":"ERROR","msg":"` + word + `"`, word + "\x1b[2J\x1b]0;x\a", word + "\t\v\f\x7f", word + "\u202e\u2028", word + strings.Repeat("x", 8<<10),
		word + `"} 1` + `\n` + word, "%0d%0a" + word, "%0a{%22msg%22:%22" + word + "%22}", "%1b[31m" + word, word + "%00", word + " level=ERROR msg=x",
	}
	for _, t := range texts {
		inURL := strings.NewReplacer(" ", "%20", `"`, "%22", "\x1b", "%1b", "\t", "%09").Replace(t)
		for _, request := range []string{
			"GET /v2/library/" + inURL + "/manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n",
			"GET /v2/library/app/manifests/" + inURL + " HTTP/1.1\r\nHost: m\r\n\r\n",
			"GET /v2/library/app/manifests/v1?ns=" + inURL + " HTTP/1.1\r\nHost: m\r\n\r\n",
			"GET /v2/library/app/tags/list?last=" + inURL + " HTTP/1.1\r\nHost: m\r\n\r\n",
			"GET /v2/library/app/manifests/v1 HTTP/1.1\r\nHost: " + t + "\r\n\r\n",
			"GET /v2/library/app/manifests/v2 HTTP/1.1\r\nHost: m\r\nMirror-Node: " + t + "\r\n\r\n",
			"GET /v2/library/app/manifests/v3 HTTP/1.1\r\nHost: m\r\nUser-Agent: " + t + "\r\n\r\n",
			"GET /v2/library/app/manifests/v3 HTTP/1.1\r\nHost: m\r\nX-Forwarded-For: " + t + "\r\nVia: 1.1 " + t + "\r\nAuthorization: Basic " + t + "\r\n\r\n",
			"GET /v2/library/app/blobs/" + sum([]byte("x")) + " HTTP/1.1\r\nHost: m\r\nRange: bytes=" + t + "\r\n\r\n",
			t + " /v2/library/app/manifests/v1 HTTP/1.1\r\nHost: m\r\n\r\n",
		} {
			head, err := exchange(ctx, m.Host, request)
			if err != nil {
				return sent, err
			}
			sent++
			if lines := strings.Count(head, word+"\r\n"); lines > 0 {
				s.add(figure{What: "a header of the answer", Got: head, Bound: "none of the client's"})
			}
		}
	}
	return sent, nil
}

// exchange sends a request as it is, and returns the head of the answer; empty: there was none.
func exchange(ctx context.Context, host, request string) (string, error) {
	c, err := slowConnection(ctx, host, attackerAddress)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(c, request); err != nil {
		return "", nil // it was refused already
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", nil // closed without an answer: also a refusal
	}
	defer resp.Body.Close()
	var b strings.Builder
	_ = resp.Header.Write(&b)
	return b.String(), nil
}
