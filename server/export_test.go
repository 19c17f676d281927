package server

import (
	"net"
	"time"

	"github.com/registrymirror/mirror/diagnose"
)

// Span is a range as parsed: its first byte and its length.
type Span struct{ Off, N int64 }

// ParseRange is parseRange, with the kind as a word.
func ParseRange(header string, size int64) ([]Span, string) {
	spans, kind := parseRange(header, size)
	var out []Span
	for _, s := range spans {
		out = append(out, Span{s.off, s.n})
	}
	return out, map[rangeKind]string{
		rangeNone: "whole", rangeParts: "parts", rangeUnsatisfiable: "unsatisfiable", rangeTooMuch: "too much",
	}[kind]
}

// Phrase is phrase.
func Phrase(status int, f diagnose.Finding, id string) string { return phrase(status, f, id) }

// Warning is warning.
func Warning(text string) string { return warning(text) }

// Sentence is sentence.
func Sentence(f diagnose.Finding, limit int) string { return sentence(f, limit) }

// ListenStall is Listen with another limit for a client that stalls.
func ListenStall(l net.Listener, limit int, stall time.Duration) net.Listener {
	return listen(l, ListenOptions{Limit: limit}, stall)
}

// ListenWith is Listen with another limit for a client that stalls.
func ListenWith(l net.Listener, o ListenOptions, stall time.Duration) net.Listener {
	return listen(l, o, stall)
}

// SetStall sets for how long a stream of HTTP/2 may stall.
func (s *Server) SetStall(d time.Duration) { s.stall = d }

// Pace is pace.
type Pace struct{ p pace }

// Progresses is pace.progresses.
func (p *Pace) Progresses(n int64, queued int) bool { return p.p.progresses(n, queued) }

// WriteDeadline has the deadlines of a connection, at given times.
type WriteDeadline struct{ c conn }

// NewWriteDeadline is that of a connection that may stall for so long.
func NewWriteDeadline(stall time.Duration) *WriteDeadline {
	return &WriteDeadline{conn{l: &listener{stall: stall}}}
}

// SetUntil is setUntil.
func (w *WriteDeadline) SetUntil(t time.Time) { w.c.setUntil(t) }

// At is deadline.
func (w *WriteDeadline) At(now time.Time) (time.Time, bool) { return w.c.deadline(now) }

// UnderWay is the number of tracked pulls.
func (s *Server) UnderWay() (n int) {
	for i := range s.pulls.shards {
		n += len(s.pulls.shards[i].open)
	}
	return n
}

// SuspectsNow ends the wait for clients that spoke the wrong protocol.
func (s *Server) SuspectsNow() {
	s.suspects.mu.Lock()
	defer s.suspects.mu.Unlock()
	for _, t := range s.suspects.known {
		t.Reset(0)
	}
}
